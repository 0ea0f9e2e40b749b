"""`advise largest`: how many billions of parameters fit."""

from __future__ import annotations

from typing import Any

from advisor.cli.output import Answer
from advisor.cli.questions import answered, question_command


def largest(**values: Any) -> Answer:
    """How many billions of parameters fit on the card, to run and to train.

    Such as: advise largest --gpu a100-40

    A row for each task and number format; --method, --precision, --quantization or an --engine that has one task only narrow that.
    --estimator checklist puts the memory guide's claims beside it.
    """
    return answered("largest", values)


command = question_command(
    "largest", largest, "The largest model for a card.", without=("train", "infer", "observed", "observed_with")
)
