"""Sizes as polynomials in the batch and the sequence, so that a layer is worked out once for all shapes.

An extent holds six whole numbers, the bytes per
    nothing · token · token × length · position · position² · sequence
where tokens are sequences × length and positions are one sequence's (tables and masks that the batch shares).
"""

from __future__ import annotations

from collections.abc import Iterable

Extent = tuple[int, int, int, int, int, int]

NOTHING: Extent = (0, 0, 0, 0, 0, 0)


def add(a: Extent, b: Extent) -> Extent:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5])


def times(a: Extent, k: int) -> Extent:
    return (a[0] * k, a[1] * k, a[2] * k, a[3] * k, a[4] * k, a[5] * k)


def less(a: Extent, b: Extent) -> Extent:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4], a[5] - b[5])


def total(extents: Iterable[Extent]) -> Extent:
    result = NOTHING
    for extent in extents:
        result = add(result, extent)
    return result


def size(extent: Extent, batch: int, seq: int) -> int:
    """The extent in bytes for ``batch`` sequences of ``seq`` tokens."""
    tokens = batch * seq
    return (
        extent[0] + extent[1] * tokens + extent[2] * tokens * seq + extent[3] * seq + extent[4] * seq * seq + extent[5] * batch
    )


def covers(a: Extent, b: Extent) -> bool:
    """Whether ``a`` is at least ``b`` for every batch and sequence, term by term."""
    return a[0] >= b[0] and a[1] >= b[1] and a[2] >= b[2] and a[3] >= b[3] and a[4] >= b[4] and a[5] >= b[5]
