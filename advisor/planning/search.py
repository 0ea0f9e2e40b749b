"""The cheapest way that fits: a uniform-cost search over the ways, in which every way that fails rules others out.

A way that does not fit is taken as much further as it still does not fit; no way below that one can fit, because a remedy
taken further does not need more memory (where one does, such as ZeRO on two GPUs in an engine that adds fp32 masters, the
rung below it counts in its place). What is left has to go beyond it somewhere. So a search makes some ten estimates for
each way that fails, where there are thousands of ways, and all searches for one job share what has failed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from operator import le
from typing import Any

from advisor.planning.prices import Price, price, total
from advisor.planning.space import Space, Way

Order = Callable[[Price], tuple[Any, ...]]
MOST_WAYS = 3000  # popped in one search
WARY = 4  # ways that fail, of one job, after which the rules that can need more memory are known
MOST_ESTIMATES = 600  # of one job: a bound for the time, ten times what the benchmark's jobs need


class Search:
    """The searches over one space."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.top, self._prices, self._repairing = self._survey()
        self._failed: list[Way] = []
        self._fitting: list[Way] = []
        self._raising: set[int] = set()  # places of rules that were seen to need more memory

    def _survey(self) -> tuple[Way, list[list[Price]], list[int]]:
        """How far each rule goes, at least what each rung costs, and the rules that change how the global batch is made up."""
        prices: list[list[Price]] = []
        repairing = []
        for place, (rule, seen) in enumerate(zip(self._space.rules, self._space.extremes, strict=True)):
            shorter, longer = sorted(
                (
                    [price(rung.cost, number, rule.cost.changes_result) for number, rung in enumerate(rungs, start=1)]
                    for rungs in seen
                ),
                key=len,
            )
            least = [_least(*pair) for pair in zip(shorter, longer, strict=False)]
            prices.append([Price(), *least, *longer[len(least) :]])
            if any({"batch", "accumulation"} & rung.changes.keys() for rungs in seen for rung in rungs):
                repairing.append(place)
        return tuple(len(each) - 1 for each in prices), prices, repairing

    def can_fit(self, most: Way) -> bool:
        """Whether any way up to ``most`` fits."""
        if any(_is_below(most, failed) for failed in self._failed):
            return False
        if any(_is_below(fitting, most) for fitting in self._fitting):
            return True
        return self._fits(self._lowest(most, self._raising))

    def _fits(self, way: Way) -> bool:
        if not self._space.fits(way):
            return False
        self._fitting.append(way)
        return True

    def _lowest(self, most: Way, places: Iterable[int]) -> Way:
        """The way up to ``most`` that needs least memory: at these places, a rung that needs more than the one below is not taken.

        Two GPUs may need more than one, which has no buffers, and four less than two: the lowest rung is tried as well.
        """
        space = self._space
        way = space.highest(most)
        for place in sorted(places):
            for rung in sorted({max(0, way[place] - 1), 0} - {way[place]}):
                if space.fits(way):
                    return way
                lower = space.highest((*way[:place], rung, *most[place + 1 :]))
                if space.need(lower) < space.need(way):
                    self._raising.add(place)
                    way = lower
        return way

    def _taken_further(self, way: Way, order: Order) -> Way:
        """A way that fails, taken as far as it still fails, by the cheaper rungs first."""
        rungs = [(place, rung) for place, top in enumerate(self.top) for rung in range(way[place] + 1, top + 1)]
        rungs.sort(key=lambda each: (order(self._prices[each[0]][each[1]]), each))
        while True:
            further = self._extended(way, rungs)
            # With an eye on every rule while it is not known which of them can need more.
            places = range(len(further)) if len(self._failed) < WARY else self._raising
            if further == way or not self._fits(self._lowest(further, places)):
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
        top = tuple(_reach(prices, allowed) for prices in self._prices)
        if not self.can_fit(top) and not self._fits(self._lowest(top, range(len(top)))):
            self._failed.append(top)
            return None
        start: Way = (0,) * len(top)
        heap: list[tuple[tuple[Any, ...], bool, Way]] = [(order(Price()), False, start)]
        seen = {start}
        for _ in range(MOST_WAYS):
            if not heap or self._space.estimated > MOST_ESTIMATES:
                return None
            least, certain, way = heapq.heappop(heap)
            further: Iterable[tuple[int, int]]  # places, each with the rung that is next there
            failed = next((failed for failed in self._failed if _is_below(way, failed)), None)
            if failed is not None:
                further = enumerate(rung + 1 for rung in failed)
            elif self._space.job(way) is None:  # a rule that applies only after others, or not beside them
                further = enumerate(rung + 1 for rung in way[: self._space.reached(way)])
            elif not certain and (true := order(self._space.price(way))) != least:
                heapq.heappush(heap, (true, True, way))
                further = [(place, way[place] + 1) for place in self._repairing]
            elif self._fits(way):
                return way
            else:
                if not self.can_fit(way):
                    self._failed.append(self._taken_further(way, order))
                    heapq.heappush(heap, (least, certain, way))
                    continue
                further = enumerate(rung + 1 for rung in way)
            for place, rung in further:
                if rung <= top[place] and (other := _with(way, place, rung)) not in seen:
                    seen.add(other)
                    heapq.heappush(heap, (order(self._least(other)), False, other))
        return None

    def _least(self, way: Way) -> Price:
        """At least what the way costs."""
        return total([prices[rung] for prices, rung in zip(self._prices, way, strict=True) if rung])


def _least(one: Price, other: Price) -> Price:
    return Price._make(map(min, one, other))


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
    """The last rung before the first that is not allowed."""
    return next((rung for rung, price in enumerate(prices) if not allowed(price)), len(prices)) - 1
