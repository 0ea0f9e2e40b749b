"""The cheapest way that fits: a uniform-cost search over the ways, in which every way that fails rules others out.

A way that does not fit is taken as much further as it still does not fit; no way below that one can fit, as far as ``least``
finds none there. What is left has to go beyond it somewhere. So a search makes some seven estimates for each way that
fails, where there are millions of ways, and all searches for one job share what has failed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from operator import le
from typing import Any

from advisor.planning.least import Least
from advisor.planning.prices import Price, both
from advisor.planning.space import Rung, Space, Way
from advisor.planning.steps import State

Order = Callable[[Price], tuple[Any, ...]]
MOST_WAYS = 3000  # popped in one search
MOST_ESTIMATES = 600  # of one job: a bound for the time, ten times what the benchmark's jobs need


class Search:
    """The searches over one space."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.top, self._prices, self._repairing = self._survey()
        self._failed: list[Way] = []
        self._fitting: list[Way] = []
        self._cheaper = [
            [rung for rung in range(1, len(prices)) if not all(map(le, prices[rung - 1], prices[rung]))]
            for prices in self._prices
        ]
        self._least_memory = Least(space)

    def _survey(self) -> tuple[Way, list[list[Price]], list[int]]:
        """How far each rule goes, at least what each rung costs, and the rules that change how the global batch is made up."""
        w = self.space.w
        batch = min(
            [w.batch, *(rung.changes.get("batch", w.batch) for seen in self.space.seen for rungs in seen for rung in rungs)]
        )

        def least(rung: Rung) -> Price:  # a batch that small on so many GPUs is more than the global batch was
            grows = w.task == "train" and batch * (w.gpus + rung.price.gpus) // (w.tp * w.pp * w.cp) > w.global_batch
            return rung.price._replace(learned=rung.price.learned or (grows and rung.price.gpus > 0))

        prices: list[list[Price]] = []
        repairing = []
        for place, seen in enumerate(self.space.seen):
            alike = [[rungs[number] for rungs in seen if number < len(rungs)] for number in range(max(map(len, seen)))]
            prices.append([Price(), *(_least(map(least, rungs)) for rungs in alike)])
            if any({"batch", "accumulation"} & rung.changes.keys() for rungs in alike for rung in rungs):
                repairing.append(place)
        return tuple(len(each) - 1 for each in prices), prices, repairing

    def nearest(self) -> State:
        """Where the way that needs least memory leads."""
        return self.space.state(self._least_memory.of(self.top))

    def any_fits(self) -> bool:
        """Whether any way at all fits."""
        return self._fits(self._least_memory.of(self.top))

    def can_fit(self, most: Way) -> bool:
        """Whether any way up to ``most`` fits."""
        if any(_is_below(most, failed) for failed in self._failed):
            return False
        if any(_is_below(fitting, most) for fitting in self._fitting):
            return True
        return self._fits(self.space.highest(most))

    def _fits(self, way: Way) -> bool:
        if not self.space.fits(way):
            return False
        self._fitting.append(way)
        return True

    def _taken_further(self, way: Way, order: Order) -> Way:
        """A way that fails, taken as far as it still fails, by the cheaper rungs first."""
        rungs = [(place, rung) for place, top in enumerate(self.top) for rung in range(way[place] + 1, top + 1)]
        rungs.sort(key=lambda each: (order(self._prices[each[0]][each[1]]), each))
        while True:
            further = self._extended(way, rungs)
            if further == way or not self._fits(self._least_memory.of(further)):
                return further

    def _extended(self, way: Way, rungs: list[tuple[int, int]]) -> Way:
        """By as many of the rungs, from the first on, as it still fails with."""
        least, most = 0, len(rungs)  # it fails with so many, it may fit with more
        while least < most:
            some = (least + most + 1) // 2
            if self.can_fit(_all_with(way, rungs[:some])):
                most = some - 1
            else:
                least = some
        return _all_with(way, rungs[:least])

    def cheapest(self, order: Order, allowed: Callable[[Price], bool] = lambda _: True) -> Way | None:
        """The first way in this order that fits, made of rungs that are allowed; None where there is none."""
        top = tuple(
            _reach([each._replace(learned=rule.cost.changes_result) for each in prices[1:]], allowed)
            for rule, prices in zip(self.space.rules, self._prices, strict=True)
        )
        if not self.can_fit(top) and not self._fits(self._least_memory.of(top)):
            self._failed.append(top)
            return None
        start: Way = (0,) * len(top)
        heap: list[tuple[tuple[Any, ...], bool, Way, Price]] = [(order(Price()), False, start, Price())]
        seen = {start}
        for _ in range(MOST_WAYS):
            if not heap or self.space.estimated > MOST_ESTIMATES:
                return None
            first, certain, way, least = heapq.heappop(heap)
            further: Iterable[tuple[int, int]]  # places, each with the rung that is next there
            failed = next((failed for failed in self._failed if _is_below(way, failed)), None)
            if failed is not None:
                further = enumerate(rung + 1 for rung in failed)
            elif self.space.taken(way) is None:  # a rule that applies only after others, or not beside them
                further = enumerate(rung + 1 for rung in way[: self.space.reached(way)])
            elif not certain and (true := order(self.space.price(way))) != first:
                heapq.heappush(heap, (true, True, way, least))
                further = [(place, way[place] + 1) for place in self._repairing]
            elif self._fits(way):
                if all(map(allowed, self.space.prices(way))):
                    return way
                further = enumerate(rung + 1 for rung in way)  # here a rung costs more than elsewhere
            else:
                if not self.can_fit(way):
                    self._failed.append(self._taken_further(way, order))
                    heapq.heappush(heap, (first, certain, way, least))
                    continue
                further = enumerate(rung + 1 for rung in way)
            for place, rung in self._with_cheaper(further):
                if rung <= top[place] and (other := _with(way, place, rung)) not in seen:
                    seen.add(other)
                    costs = self._least(other) if way[place] else both(least, self._prices[place][rung])
                    heapq.heappush(heap, (order(costs), False, other, costs))
        return None

    def _with_cheaper(self, further: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The rungs, and those beyond them that cost less in something: they would not be come to by way of dearer ones."""
        for place, rung in further:
            yield place, rung
            for cheaper in self._cheaper[place]:
                if cheaper > rung:
                    yield place, cheaper

    def _least(self, way: Way) -> Price:
        """At least what the way costs."""
        return reduce(both, (prices[rung] for prices, rung in zip(self._prices, way, strict=True) if rung), Price())


def _least(prices: Iterable[Price]) -> Price:
    return Price._make(map(min, zip(*prices, strict=True)))


def _all_with(way: Way, rungs: list[tuple[int, int]]) -> Way:
    further = list(way)
    for place, rung in rungs:
        further[place] = max(rung, further[place])
    return tuple(further)


def _with(way: Way, place: int, rung: int) -> Way:
    return (*way[:place], rung, *way[place + 1 :])


def _is_below(way: Way, other: Way) -> bool:
    return all(map(le, way, other))


def _reach(prices: list[Price], allowed: Callable[[Price], bool]) -> int:
    """How many rungs there are before the first that is not allowed."""
    return next((rung for rung, price in enumerate(prices) if not allowed(price)), len(prices))
