"""The whole answer: the walk, and the better ways beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advisor.planning.steps import Estimator, Resolver, decided_once
from advisor.planning.walk import book_of, walk

if TYPE_CHECKING:
    from advisor.planning.engine import Engine
    from advisor.planning.prices import Price
    from advisor.results import Cost, Estimate, Plan
    from advisor.workload import Workload


def plan(
    w: Workload,
    estimate: Estimator,
    resolve: Resolver | None = None,
    engine: Engine | None = None,
    first: Sequence[str] = (),
) -> Plan:
    """The walk, with the routes that are better than it in something; ``first`` as ``walk`` takes it."""
    resolve = decided_once(resolve)
    known = _remembered(estimate)
    walked = walk(w, known, resolve, engine, first)
    if walked.verdict == "fits":
        return walked
    from advisor.planning.routes import find_routes
    from advisor.planning.space import Space

    found = find_routes(Space(w, book_of(w).rule, resolve, known))
    if walked.final is None:
        return _rescued(walked, found) if found else walked
    own = _price(walked, w, resolve)
    better = [
        route
        for route, price in found
        if price != own and not price.is_dominated_by(own) and route.final.job != walked.final.job
    ]
    return walked._replace(alternatives=tuple(better))


def _remembered(estimate: Estimator) -> Estimator:
    """Every job estimated once: the walk and the searches come to the same ones."""
    from advisor.planning.space import job_key

    answers: dict[Any, Estimate] = {}

    def remembered(w: Workload) -> Estimate:
        key = job_key(w)
        if key not in answers:
            answers[key] = estimate(w)
        return answers[key]

    return remembered


def _price(walked: Plan, w: Workload, resolve: Resolver) -> Price:
    """What the walk's needed steps cost together."""
    from advisor.planning.prices import in_all, together

    needed = [step for step in walked.steps if step.needed]
    end = resolve(w.asked.with_changes(**{key: new for step in needed for key, (_, new) in step.change.items()}))
    by_rule: dict[str, list[Cost]] = {}
    for step in needed:
        by_rule.setdefault(step.rule, []).append(step.cost)
    rules = {rule.id: rule for rule in book_of(w).rule}
    return in_all(((rules[name], together(costs), len(costs)) for name, costs in by_rule.items()), w, end)


def _rescued(walked: Plan, found: list[Any]) -> Plan:
    """The plan of a job that the walk could not make fit and the first route can."""
    first, rest = found[0][0], tuple(route for route, _ in found[1:])
    return walked._replace(
        verdict="fits-after-changes",
        steps=first.steps,
        final=first.final,
        alternatives=rest,
        missing=None,
        notes=(
            *walked.notes,
            f"The walk in the order of the policy ends without a fit; these steps are the {first.name} route.",
        ),
    )
