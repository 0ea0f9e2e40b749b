"""At least what every rung of every rule costs, whatever was taken before it: the bounds by which a search finds its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import le

from advisor.planning.prices import Price, both
from advisor.planning.space import Rung, Space, Way


class Tariff:
    """The bounds of one space. ``top`` is how far each rule goes."""

    def __init__(self, space: Space) -> None:
        w = space.w
        alike = [_by_number(seen) for seen in space.seen]  # by rule: what its first, second and further rungs were seen to be
        batch = min([w.batch, *(rung.changes.get("batch", w.batch) for rungs in alike for same in rungs for rung in same)])

        def least(rung: Rung) -> Price:  # a batch as small as it can become, on so many GPUs, is more than the global batch was
            grows = w.task == "train" and batch * (w.gpus + rung.price.gpus) // (w.tp * w.pp * w.cp) > w.global_batch
            return rung.price._replace(learned=rung.price.learned or (grows and rung.price.gpus > 0))

        self.prices = [[Price(), *(_least(list(map(least, same))) for same in rungs)] for rungs in alike]
        self.top: Way = tuple(map(len, alike))
        self._changes_result = [rule.cost.changes_result for rule in space.rules]
        self._cheaper = [[n for n in range(1, len(each)) if not all(map(le, each[n - 1], each[n]))] for each in self.prices]
        self.repairing = {  # the rules that change how the global batch is made up
            place for place, rungs in enumerate(alike) for same in rungs for rung in same
            if not {"batch", "accumulation"}.isdisjoint(rung.changes)
        }  # fmt: skip

    def of(self, way: Way) -> Price:
        """At least what the way costs."""
        return reduce(both, (prices[rung] for prices, rung in zip(self.prices, way, strict=True) if rung), Price())

    def reach(self, allowed: Callable[[Price], bool]) -> Way:
        """How far each rule goes by rungs that are allowed."""
        return tuple(
            next((rung for rung, each in enumerate(prices[1:]) if not allowed(each._replace(learned=learned))), len(prices) - 1)
            for prices, learned in zip(self.prices, self._changes_result, strict=True)
        )

    def after(self, way: Way) -> Iterator[tuple[int, int]]:
        """The next rung of each place, and those beyond it that cost less in something: no dearer one is on the way to them."""
        for place, rung in enumerate(way):
            if rung < self.top[place]:
                yield place, rung + 1
                yield from ((place, cheaper) for cheaper in self._cheaper[place] if cheaper > rung + 1)


def _by_number(seen: list[list[Rung]]) -> list[list[Rung]]:
    return [[rungs[number] for rungs in seen if number < len(rungs)] for number in range(max(map(len, seen)))]


def _least(prices: list[Price]) -> Price:
    return Price._make(map(min, zip(*prices, strict=True)))
