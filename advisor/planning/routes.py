"""Other ways to make a job fit, beside the walk: the cheapest, on the same hardware, without loss of quality, the fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from advisor.planning.prices import Price, together
from advisor.planning.search import Order, Search
from advisor.planning.snippets import how
from advisor.planning.space import Space, Way
from advisor.planning.steps import State, host_bytes, step_of
from advisor.results import Final, Route, Step


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


def find_routes(search: Search, names: Iterable[str] = WISHES) -> list[tuple[Route, Price]]:
    """The routes from a job that does not fit as asked, each with its price; of equal ones the first."""
    space = search.space
    found: dict[Way, str] = {}
    cheapest = None
    for name in names:
        wish = WISHES[name]
        if cheapest and _is_what_is_wished(cheapest, name, space):
            continue
        way = search.cheapest(wish.order, wish.allowed)
        if name == "cheapest":
            cheapest = way
        if way is not None:
            found.setdefault(way, name)
    prices = {way: space.price(way)._replace(host=host_bytes(space.state(way).estimate)) for way in found}
    best = [way for way in found if not any(prices[way].is_dominated_by(other) for other in prices.values())]
    return [(_route(found[way], way, space), prices[way]) for way in best]


def _is_what_is_wished(cheapest: Way, name: str, space: Space) -> bool:
    """Whether the cheapest is what a search with this wish would come to: it costs no time; or it is allowed and nothing else is
    learned, so the global batch has not grown and the order is the same."""
    price = space.price(cheapest)
    if name == "fastest":
        return price.slow == 0
    return not price.learned and all(map(WISHES[name].allowed, space.prices(cheapest)))


def _route(name: str, way: Way, space: Space) -> Route:
    end = space.state(way)
    steps = tuple(_steps(way, end, space))
    cost = together((each.cost for each in steps), source="the product of the steps")
    cost = cost._replace(changes_result=space.price(way).learned)  # what one did to the global batch another may have undone
    return Route(name, steps, Final(end.workload.to_dict(), end.estimate), cost)


def _steps(way: Way, end: State, space: Space) -> list[Step]:
    steps: list[Step] = []
    taken = space.taken(way)
    assert taken is not None
    state = space.state(())
    for place, rung in taken.rungs:
        after = space.state(way[: place + 1])
        rule = space.rules[place]
        told = {key: getattr(end.workload.asked, key) for key in rung.changes}  # a later rule may have the last word
        steps.append(step_of(rule, rung.changes, rung.cost, state, after, partial(how, rule, told, end.workload), []))
        state = after
    return steps
