"""Answers remembered for the workload that was asked about last."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from advisor.workload import Workload

Answer = TypeVar("Answer")


def latest(answer: Callable[[Workload], Answer]) -> Callable[[Workload], Answer]:
    """An estimate asks the same of one workload several times. Hashing it would take as long as the answer, so it is known by
    identity."""
    last: tuple[Workload, Answer] | None = None

    @wraps(answer)
    def remembered(w: Workload) -> Answer:
        nonlocal last
        known = last  # read once: another thread may set it meanwhile
        if known is None or known[0] is not w:
            known = last = w, answer(w)
        return known[1]

    return remembered
