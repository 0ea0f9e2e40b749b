"""The edge of what fits."""

from __future__ import annotations

from collections.abc import Callable


def edge(fits: Callable[[int], bool], least: int, most: int, step: int = 1) -> int | None:
    """A value that fits while the next one does not, or ``most``; None where not even ``least`` fits.

    From ``step`` on steps are doubled, then halved. What is known of the two ends never changes (the lower fits, the upper does not), so that this
    holds even where ``fits`` is not monotone. Which values are tried depends on the answers alone: if every answer of one card is
    also that of a larger one, or better, the larger one's edge is not below.

    >>> edge(lambda value: value <= 1000, 1, 10**6), edge(lambda value: value <= 1000, 1, 500), edge(lambda value: False, 1, 500)
    (1000, 500, None)
    """
    if not fits(least):
        return None
    lower = least
    while lower < most:
        upper = min(lower + step, most)
        if not fits(upper):
            break
        lower, step = upper, 2 * step
    else:
        return most
    while upper - lower > 1:
        middle = (lower + upper) // 2
        if fits(middle):
            lower = middle
        else:
            upper = middle
    return lower
