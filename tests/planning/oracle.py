"""Every combination of rules, one after the other, by nothing of the search: what a search is held against."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.planning.engine import holds
from advisor.planning.facts import facts
from advisor.planning.pairs import broken_pairs
from advisor.planning.prices import cost, growth, in_all, price, together
from advisor.planning.remedies import REMEDIES, NotApplicable
from advisor.planning.routes import WISHES
from advisor.planning.rulebook import Rule
from advisor.planning.search import Search
from advisor.planning.space import Space
from advisor.planning.walk import book_of
from advisor.results import Cost
from advisor.workload import Workload, resolve

End = tuple[Workload, list[tuple[Rule, Cost, int]]]  # a job, and the rules that led to it, each with its cost and rung
Prices = dict[str, Any]  # by wish, in its own order; None where nothing fits


def rungs(rule: Rule, w: Workload) -> list[tuple[Workload, Cost, int]]:
    """The jobs that a rule leads to, each with the firing's cost, the setting and how many rungs down it is."""
    found, spent, number = [], [], 0
    while all(holds(clause.condition, facts(w, fits=False, past=0)) for clause in rule.clauses):
        options = REMEDIES[rule.remedy](w)
        last = None
        for setting in [] if isinstance(options, NotApplicable) else options:
            if set(setting) & set(w.keep):
                continue
            try:
                new = resolve(w.asked.with_changes(**setting))
            except RequestError:
                continue
            if new[1:] == w[1:] or broken_pairs(w, new):  # all but ``asked``
                continue
            number += 1
            last = new, cost(rule, setting, w, new)
            found.append((new, together([*spent, last[1]]), number))
        if last is None:
            break
        w, spent = last[0], [*spent, last[1]]
    return found


def combinations(w: Workload, rules: Iterable[Rule], most: int) -> list[End] | None:
    """Every job that the rules can make of one, with what it took; None where there are more than so many."""
    ends: list[End] = [(w, [])]
    for rule in rules:
        ends += [(new, [*taken, (rule, of, number)]) for before, taken in ends for new, of, number in rungs(rule, before)]
        if len(ends) > most:
            return None
    return ends


def by_all(ends: list[End], w: Workload) -> Prices:
    """The least that any of the ends that fit costs."""
    fitting = [end for end in ends if _fits(end[0])]
    return {name: _least(fitting, name, w) for name in WISHES}


def _least(ends: list[End], name: str, w: Workload) -> Any:
    wish = WISHES[name]
    return min(
        (
            wish.order(in_all(prices, end.gpus - w.gpus, growth(w, end)))
            for end, taken in ends
            if all(map(wish.allowed, prices := [price(of, number, rule.cost.changes_result) for rule, of, number in taken]))
        ),
        default=None,
    )


def _fits(w: Workload) -> bool:
    try:
        return estimate_workload(w).fits
    except RequestError:
        return False


def by_search(w: Workload, rules: list[Rule]) -> Prices:
    """What the ways cost that the search finds."""
    space = Space(w, rules, resolve, estimate_workload)
    search = Search(space)
    ways = {name: search.cheapest(wish.order, wish.allowed) for name, wish in WISHES.items()}
    return {name: way and WISHES[name].order(space.price(way)) for name, way in ways.items()}


def some_rules(w: Workload, seed: int, many: int) -> list[Rule]:
    """So many of the rules of a job, in their order."""
    rules = book_of(w).rule
    places = random.Random(seed).sample(range(len(rules)), min(many, len(rules)))
    return [rules[place] for place in sorted(places)]
