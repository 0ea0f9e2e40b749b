"""What a log tells of the job: model, lengths, card."""

from __future__ import annotations

from typing import Any

from advisor.triage.extract import Passage
from advisor.triage.facts import Situation
from advisor.triage.reader import Log


def settings(log: Log, text: Passage, of: Situation) -> dict[str, Any]:
    return {}
