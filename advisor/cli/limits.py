"""`advise limits`: the largest batch, the longest sequence, and what lies between them."""

from __future__ import annotations

from typing import Any

from advisor.cli.output import Answer
from advisor.cli.questions import answered, question_command


def limits(**values: Any) -> Answer:
    """How far the batch and the sequences can go on the card.

    Such as: advise limits --gpu rtx-4090 --infer qwen3-8b

    The largest batch at --seq, the longest sequence at --batch, each exact: the next one does not fit. --keep batch or --keep seq
    leaves that one alone.
    """
    return answered("limits", values)


command = question_command("limits", limits, "The largest batch and the longest sequence.")
