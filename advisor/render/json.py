"""The plan for other programs. The fields are a promise; they stand in the order in which they are made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.results import Plan


def render(plan: Plan, *, explain: bool = False, width: int = 80, colour: bool = False) -> str:
    """Everything that there is to say, explained or not."""
    return dumps(plan.to_dict())


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
