"""The cheapest way that fits: a uniform-cost search over the ways, in which every way that fails rules others out.

A way that does not fit is taken as much further as it still does not fit; no way below that one can fit, as far as ``least``
finds none there. What is left has to go beyond it somewhere. So a search makes some seven estimates for each way that
fails, where there are millions of ways, and all searches for one job share what has failed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from operator import le
from typing import Any

from advisor.planning.least import Least
from advisor.planning.prices import Price, both
from advisor.planning.space import Space, Way
from advisor.planning.steps import State
from advisor.planning.tariff import Tariff

Order = Callable[[Price], tuple[Any, ...]]
Places = Iterable[tuple[int, int]]  # each with a rung
MOST_WAYS = 12_000  # popped in one search: one in thousands of searches needs more than 3,000
MOST_ESTIMATES = 1500  # of one job: a bound for the time, twenty times what the benchmark's jobs need


class Search:
    """The searches over one space."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._tariff = Tariff(space)
        self._least = Least(space)
        self._failed: list[Way] = []
        self._fitting: list[Way] = []

    def nearest(self) -> State:
        """Where the way that needs least memory leads."""
        return self.space.state(self._least.of(self._tariff.top))

    def any_fits(self) -> bool:
        """Whether any way at all fits."""
        return self._fits(self._least.of(self._tariff.top))

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
        rungs = [(place, rung) for place, top in enumerate(self._tariff.top) for rung in range(way[place] + 1, top + 1)]
        rungs.sort(key=lambda each: (order(self._tariff.prices[each[0]][each[1]]), each))
        while True:
            further = self._extended(way, rungs)
            if further == way or not self._fits(self._least.of(further)):
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
        top = self._tariff.reach(allowed)
        if not self.can_fit(top) and not self._fits(self._least.of(top)):
            self._failed.append(top)
            return None
        start: Way = (0,) * len(top)
        heap: list[tuple[tuple[Any, ...], bool, Way, Price]] = [(order(Price()), False, start, Price())]
        seen = {start}
        beyond: dict[Way, Places] = {}  # of what failed: the rungs that are next after it
        for _ in range(MOST_WAYS):
            if not heap or self.space.estimated > MOST_ESTIMATES:
                break
            first, certain, way, least = heapq.heappop(heap)
            further: Places
            failed = next((failed for failed in self._failed if _is_below(way, failed)), None)
            if failed is not None:
                if failed not in beyond:
                    beyond[failed] = [(place, rung) for place, rung in self._tariff.after(failed) if rung <= top[place]]
                further = beyond[failed]
            elif self.space.taken(way) is None:  # a rule that applies only after others, or not beside them
                further = self._tariff.after(way[: self.space.reached(way)])
            elif not certain and (true := order(self.space.price(way))) != first:
                heapq.heappush(heap, (true, True, way, least))
                further = [(place, rung) for place, rung in self._tariff.after(way) if place in self._tariff.repairing]
            elif self._fits(way):
                if all(map(allowed, self.space.prices(way))):
                    return way
                further = self._tariff.after(way)  # here a rung costs more than elsewhere
            else:
                if not self.can_fit(way):
                    self._failed.append(self._taken_further(way, order))
                    heapq.heappush(heap, (first, certain, way, least))
                    continue
                further = self._tariff.after(way)
            for place, rung in further:
                if rung <= top[place] and (other := _with(way, place, rung)) not in seen:
                    seen.add(other)
                    costs = self._tariff.of(other) if way[place] else both(least, self._tariff.prices[place][rung])
                    heapq.heappush(heap, (order(costs), False, other, costs))
        return self._cheapest_known(order, allowed)

    def _cheapest_known(self, order: Order, allowed: Callable[[Price], bool]) -> Way | None:
        """Where a search ends before it has found the cheapest: the one that has come up, without what it fits without."""
        known = [way for way in self._fitting if all(map(allowed, self.space.prices(way)))]
        if not known:
            return None
        return self._without_needless(min(known, key=lambda way: (order(self.space.price(way)), way)), order, allowed)

    def _without_needless(self, way: Way, order: Order, allowed: Callable[[Price], bool]) -> Way:
        """The way without the rungs that it fits without and is no dearer: the later ones first."""
        for place in reversed(range(len(way))):
            dearest = order(self.space.price(way))
            fitting = filter(self.space.fits, filter(self.can_fit, (_with(way, place, rung) for rung in range(way[place]))))
            fair = (less for less in fitting if all(map(allowed, self.space.prices(less))))
            way = next((less for less in fair if order(self.space.price(less)) <= dearest), way)
        return way


def _all_with(way: Way, rungs: list[tuple[int, int]]) -> Way:
    further = list(way)
    for place, rung in rungs:
        further[place] = max(rung, further[place])
    return tuple(further)


def _with(way: Way, place: int, rung: int) -> Way:
    return (*way[:place], rung, *way[place + 1 :])


def _is_below(way: Way, other: Way) -> bool:
    return all(map(le, way, other))
