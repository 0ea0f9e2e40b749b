"""Which of a log's messages is the cause: the first of those that say the most, and not what a program got over."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.triage.grammar import compiled
from advisor.triage.reader import Spot, squeezed_lines

NEAR = 4096  # bytes after a message in which its program says that it got over it


def root(spots: Sequence[Spot]) -> tuple[Spot, bool] | None:
    """The cause, and whether it stopped anything.

    What a failure leaves behind (a wrapper's class name, a killed process) stands after it, or says less.
    """
    fatal = [spot for spot in spots if spot.message.tier and not got_over(spot)]
    if fatal:
        return max(fatal, key=lambda spot: (spot.message.tier, -spot.offset)), True
    if not spots:
        return None
    return max(spots, key=lambda spot: (spot.message.tier, -spot.offset)), False


def got_over(spot: Spot) -> bool:
    if not spot.message.unless:
        return False
    following = squeezed_lines(spot.after[:NEAR])
    texts = (following, following.replace("\n", ""))
    return any(compiled(one).search(text) for one in spot.message.unless for text in texts)
