"""The whole answer: the walk, and the better ways beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advisor.errors import RequestError
from advisor.planning.steps import Estimator, Resolver, changes_of, decided_once, host_bytes
from advisor.planning.walk import book_of, walk

if TYPE_CHECKING:
    from advisor.job import Job
    from advisor.planning.engine import Engine
    from advisor.planning.prices import Price
    from advisor.planning.search import Search
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

    search = search_of(w, resolve, known)
    found = find_routes(search)
    if walked.final is None:
        return _rescued(walked, found) if found else walked._replace(missing=_missing(search, resolve, known))
    own = _price(walked, w, resolve)._replace(host=host_bytes(walked.final.estimate))
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


def search_of(w: Workload, resolve: Resolver, estimate: Estimator) -> Search:
    """The searches over the ways that the rules of the job's policy leave open."""
    from advisor.planning.search import Search
    from advisor.planning.space import Space

    return Search(Space(w, book_of(w).rule, resolve, estimate))


def _missing(search: Search, resolve: Resolver, estimate: Estimator) -> dict[str, Any]:
    from advisor.planning.missing import missing

    def has_a_plan(job: Job) -> bool:
        try:
            return search_of(resolve(job), resolve, estimate).any_fits()
        except RequestError:
            return False

    return missing(search, has_a_plan)


def _price(walked: Plan, w: Workload, resolve: Resolver) -> Price:
    """What the walk's needed steps cost together."""
    from advisor.planning.prices import growth, in_all, price, together

    needed = [step for step in walked.steps if step.needed]
    end = resolve(w.asked.with_changes(**changes_of(needed)))
    by_rule: dict[str, list[Cost]] = {}
    for step in needed:
        by_rule.setdefault(step.rule, []).append(step.cost)
    rules = {rule.id: rule for rule in book_of(w).rule}
    taken = (price(together(costs), len(costs), rules[name].cost.changes_result) for name, costs in by_rule.items())
    return in_all(taken, end.gpus - w.gpus, growth(w, end))


def _rescued(walked: Plan, found: list[Any]) -> Plan:
    """The plan of a job that the walk could not make fit and the first route can."""
    first, rest = found[0][0], tuple(route for route, _ in found[1:])
    return walked._replace(
        verdict="fits-after-changes",
        steps=first.steps,
        skipped=(),  # the walk's reasons are not of this way: it takes some of what the walk passed over
        final=first.final,
        alternatives=rest,
        notes=(
            *walked.notes,
            f"The walk in the order of the policy ends without a fit; these steps are the {first.name} route.",
        ),
    )
