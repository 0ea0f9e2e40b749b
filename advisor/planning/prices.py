"""What a remedy costs, and how the costs of two ways are compared.

The order is: is something else learned, GPUs added, quality (the worst kind of loss, then how often), time, number of
changes. Time is compared by the geometric middle of the published range; a remedy that saves time counts as one that takes
none, because a plan is made to fit and a change that the fit does not need is no part of it.
"""

from __future__ import annotations

from functools import reduce
from math import log2
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.planning.snippets import speed
from advisor.results import Cost

if TYPE_CHECKING:
    from collections.abc import Iterable

    from advisor.planning.rulebook import Rule
    from advisor.workload import Workload

QUALITIES = ("none", "small", "real")


class Price(NamedTuple):
    """What one way costs, in the order in which the cheapest is looked for."""

    learned: bool = False  # training ends with other weights
    gpus: int = 0
    quality: int = 0  # place in QUALITIES
    losses: int = 0  # how many rungs down all that costs quality was taken: 16K tokens instead of 64K are two
    slow: int = 0  # doublings of the time, in millionths, never below 0: whole numbers add up to the same in any order
    changes: int = 0
    growth: float = 1.0  # of the global batch
    host: int = 0  # bytes of a machine's own memory, where two ways that are found are compared

    def is_dominated_by(self, other: Price) -> bool:
        """Whether the other is nowhere worse and somewhere better."""
        return self != other and all(theirs <= own for own, theirs in zip(self, other, strict=True))


def both(one: Price, other: Price) -> Price:
    """One after the other."""
    learned, gpus, quality, losses, slow, changes, growth, host = one
    learns, more, worst, lost, slower, many, times, beside = other
    worse = worst if worst > quality else quality
    return Price(
        learned or learns, gpus + more, worse, losses + lost, slow + slower, changes + many, growth * times, host + beside
    )


def cost(rule: Rule, changes: dict[str, Any], old: Workload, new: Workload) -> Cost:
    """The published cost of one firing. What more GPUs cost is told of twice as many, so four times as many cost it twice; layers
    that wait beside others that do already take at most as much longer as they are more."""
    gpus, time = new.gpus - old.gpus, speed(rule, changes, new)
    doublings = log2(new.gpus / old.gpus) if gpus > 0 else 1
    low, high = (_plain(factor**doublings) for factor in (time.low, time.high))
    if old.offload_layers and new.offload_layers:
        high = min(high, _plain(max(new.offload_layers / old.offload_layers, low)))
    learns = rule.cost.changes_result or new.global_batch != old.global_batch
    return Cost(low, high, time.source, rule.cost.quality, gpus, changes_result=learns and new.task == "train")


def _plain(factor: float) -> float:
    """Six digits: the last bits of a power are another on another machine."""
    return float(f"{factor:.6g}")


def together(costs: Iterable[Cost], source: str = "") -> Cost:
    """The cost of several firings: times multiply, the worst quality counts, hardware adds up."""
    low = high = 1.0
    quality, gpus, host, learns = 0, 0, 0, False
    for one in costs:
        low, high = low * one.speed_low, high * one.speed_high
        quality = max(quality, QUALITIES.index(one.quality))
        gpus, host = gpus + one.gpus, host + one.host_bytes
        source, learns = source or one.speed_source, learns or one.changes_result
    return Cost(_plain(low), _plain(high), source, QUALITIES[quality], gpus, host, learns)  # type: ignore[arg-type]


def price(of: Cost, rung: int, learned: bool) -> Price:
    """The cost of one remedy taken so many rungs, as it is compared."""
    quality, slow = QUALITIES.index(of.quality), max(0, round(1e6 * log2(of.speed_low * of.speed_high) / 2))
    losses = 1 if of.gpus else rung  # more GPUs lose no more than the first of them
    return Price(learned, of.gpus, quality, losses if quality else 0, slow, changes=1)


def in_all(remedies: Iterable[Price], gpus: int, growth: float) -> Price:
    """The price of remedies that together added so many GPUs and made the global batch so many times what it was.

    What one of them did to the global batch another may have undone.
    """
    spent = reduce(both, remedies, Price())
    return spent._replace(learned=spent.learned or growth != 1, gpus=gpus, growth=growth)


def growth(old: Workload, new: Workload) -> float:
    """How many times the global batch of one job the other's is; a batch of requests is none."""
    return new.global_batch / old.global_batch if new.task == "train" else 1.0
