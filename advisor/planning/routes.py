"""Other ways to make a job fit, beside the walk: the cheapest, on the same hardware, without loss of quality, the fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from advisor.planning.prices import Price, together
from advisor.planning.search import Order, Search
from advisor.planning.snippets import how
from advisor.planning.space import Space, Way
from advisor.planning.steps import State, step_of
from advisor.results import Estimate, Final, Route, Step


class Wish(NamedTuple):
    """What a route looks for: the order in which ways are compared, and which rungs it may take."""

    order: Order
    allowed: Callable[[Price], bool] = lambda _: True


def _as_it_stands(price: Price) -> Price:
    return price


WISHES = {
    "cheapest": Wish(_as_it_stands),
    "same-hardware": Wish(_as_it_stands, lambda price: price.gpus == 0),
    # The global batch stays; where it cannot be divided over more GPUs it grows by as little as can be.
    "no-quality-loss": Wish(
        lambda price: (price.learned, price.growth, *price[1:]), lambda price: not price.learned and price.quality == 0
    ),
    "fastest": Wish(lambda price: (price.slow, *price)),
}


def find_routes(space: Space) -> list[tuple[Route, Price]]:
    """The routes from a job that does not fit as asked, each with its price; of equal ones the first."""
    search = Search(space)
    found: dict[Way, str] = {}
    for name, wish in WISHES.items():
        way = search.cheapest(wish.order, wish.allowed)
        if way is not None:
            found.setdefault(way, name)
    prices = {way: space.price(way) for way in found}
    best = [way for way in found if not any(prices[way].is_dominated_by(other) for other in prices.values())]
    return [(_route(found[way], way, space), prices[way]) for way in best]


def _route(name: str, way: Way, space: Space) -> Route:
    end = _state(way, space)
    steps = tuple(_steps(way, end, space))
    cost = together((each.cost for each in steps), source="the product of the steps")
    cost = cost._replace(changes_result=space.price(way).learned)  # what one did to the global batch another may have undone
    return Route(name, steps, Final(end.workload.to_dict(), end.estimate), cost)


def _steps(way: Way, end: State, space: Space) -> list[Step]:
    steps = []
    state = _state((), space)
    for place, rung in space.taken(way):
        after = _state(way[: place + 1], space)
        rule = space.rules[place]
        told = {key: getattr(end.workload, key) for key in rung.changes}  # a later rule may have the last word
        steps.append(step_of(rule, rung.changes, rung.cost, state, after, how(rule, told, end.workload), []))
        state = after
    return steps


def _state(way: Way, space: Space) -> State:
    w, estimate = space.job(way), space.estimate(way)
    assert w is not None
    return State(w, estimate or Estimate(0, 0, 0, 0, 0, False, None, {}, ()))
