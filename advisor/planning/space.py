"""The ways that the rules leave open: how far each of them may be taken, one after the other in the order of the walk.

A way is a tuple with a number for each rule: 0 leaves it out, 2 takes it to its second rung (two halvings, 16K instead
of 32K, four GPUs instead of two). A search asks for hundreds of them, so what a rule does is worked out once where nothing
that other rules change has a part in it, and a job is decided at the end of its way only.
"""

from __future__ import annotations

from itertools import chain
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.errors import RequestError
from advisor.planning.describe import budget
from advisor.planning.facts import facts
from advisor.planning.prices import Price, cost, in_all, together
from advisor.planning.remedies import REMEDIES, NotApplicable
from advisor.planning.steps import changed
from advisor.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from advisor.job import Job
    from advisor.planning.rulebook import Rule
    from advisor.results import Cost, Estimate

Way = tuple[int, ...]
MOST_RUNGS = 20  # a remedy halves or doubles, so this is as far as any goes
NOT_TOLD_APART = {"asked", "gpu", "model", "engine", "notes", "observed", "observed_with"}  # the same on all ways
job_key = itemgetter(*(place for place, name in enumerate(Workload._fields) if name not in NOT_TOLD_APART))


class Rung(NamedTuple):
    """One rule taken so far: what changed, and what it costs."""

    changes: dict[str, Any]
    cost: Cost


class Space:
    """The ways from one job, each decided and estimated once."""

    def __init__(
        self, w: Workload, rules: list[Rule], resolve: Callable[[Job], Workload], estimate: Callable[[Workload], Estimate]
    ) -> None:
        self.w, self.rules = w, rules
        self._resolve, self._estimate = resolve, estimate
        self._usable = budget(w)[1]
        self._changes: dict[Way, dict[str, Any] | None] = {(): {}}
        self._jobs: dict[Way, Workload | None] = {(): w}
        self._climbs: dict[Any, list[Rung]] = {}
        self._estimates: dict[tuple[Any, ...], Estimate | None] = {}
        self._read: list[tuple[str, ...]] | None = None  # by rule, the keys that its rungs depend on; None: all
        self.extremes = self._survey()

    def _survey(self) -> list[tuple[list[Rung], list[Rung]]]:
        """The rungs of each rule where none of the others is taken, and where all before it are taken as far as they go."""
        start: Way = (0,) * len(self.rules)
        end = self.highest((MOST_RUNGS,) * len(self.rules))
        seen = [(self.rungs(start[:place]), self.rungs(end[:place])) for place in range(len(self.rules))]
        touched = [{key for rungs in pair for rung in rungs for key in rung.changes} for pair in seen]
        alike = [
            [one.changes for one in first] == [one.changes for one in last]
            and not touched[place] & set().union(*touched[:place])
            for place, (first, last) in enumerate(seen)
        ]
        shared = {key for keys, same in zip(touched, alike, strict=True) if not same for key in keys}
        self._read = [
            () if same else tuple(sorted(shared | _asked(rule))) for rule, same in zip(self.rules, alike, strict=True)
        ]
        ways = [way[:place] for place in range(len(self.rules)) for way in (start, end)]
        self._climbs = {self._key(way): rungs for way, rungs in zip(ways, chain(*seen), strict=True)}
        return seen

    def rungs(self, before: Way) -> list[Rung]:
        """How far the next rule can be taken after these."""
        key = self._key(before)
        if key not in self._climbs:
            w = self.job(before)
            self._climbs[key] = [] if w is None else self._climb(self.rules[len(before)], w)
        return self._climbs[key]

    def _key(self, before: Way) -> Any:
        """What decides how far the next rule can be taken."""
        if self._read is None:
            return before
        place = len(before)
        read = self._read[place]
        return (place, *map((self.changes(before) or {}).get, read)) if read else place  # None: as the user has it

    def _climb(self, rule: Rule, w: Workload) -> list[Rung]:
        rungs: list[Rung] = []
        so_far: dict[str, Any] = {}
        spent: list[Cost] = []
        while len(rungs) < MOST_RUNGS and self._applies(rule, w):
            settings = REMEDIES[rule.remedy](w)
            last = None
            for changes in [] if isinstance(settings, NotApplicable) else settings:
                new = changed(w, changes, self._resolve)
                if not isinstance(new, str):
                    last = new, cost(rule, changes, w, new)
                    rungs.append(Rung({**so_far, **changes}, together([*spent, last[1]])))
            if last is None:
                break
            w, so_far, spent = last[0], rungs[-1].changes, [*spent, last[1]]
        return rungs

    def _applies(self, rule: Rule, w: Workload) -> bool:
        host = 0
        if w.host_ram is not None and any(clause.condition.fact.startswith("host_") for clause in rule.clauses):
            estimate = self._estimated(w)
            host = estimate.host.bytes if estimate and estimate.host else 0
        return rule.applies(facts(w, fits=False, past=0, host_bytes=host))

    def changes(self, way: Way) -> dict[str, Any] | None:
        """What the way changes; None where a rule cannot be taken so far."""
        if way not in self._changes:
            before, rung = way[:-1], way[-1]
            found = self.changes(before)
            if found is not None and rung:
                rungs = self.rungs(before)
                found = {**found, **rungs[rung - 1].changes} if rung <= len(rungs) else None
            self._changes[way] = found
        return self._changes[way]

    def job(self, way: Way) -> Workload | None:
        """Where the way leads; None where a rule cannot be taken so far, or not beside the others."""
        if way not in self._jobs:
            changes = self.changes(way)
            if changes == {}:
                self._jobs[way] = self.w
            else:
                new = "" if changes is None else changed(self.w, changes, self._resolve)
                self._jobs[way] = None if isinstance(new, str) else new
        return self._jobs[way]

    def reached(self, way: Way) -> int:
        """How many of its rules can be taken as far as the way says."""
        return next((place for place in range(len(way)) if self.changes(way[: place + 1]) is None), len(way))

    def taken(self, way: Way) -> list[tuple[int, Rung]]:
        """The rules of a way that leads somewhere, each with its rung."""
        return [(place, self.rungs(way[:place])[rung - 1]) for place, rung in enumerate(way) if rung]

    def price(self, way: Way) -> Price:
        """What the way costs in truth: its rungs, and whether all of them together change what is learned."""
        w = self.job(way)
        assert w is not None
        return in_all(((self.rules[place], rung.cost, way[place]) for place, rung in self.taken(way)), self.w, w)

    def estimate(self, way: Way) -> Estimate | None:
        """None for a way that leads nowhere, or to a job that cannot be estimated."""
        w = self.job(way)
        return None if w is None else self._estimated(w)

    def _estimated(self, w: Workload) -> Estimate | None:
        key = job_key(w)
        if key not in self._estimates:
            try:
                self._estimates[key] = self._estimate(w)
            except RequestError:
                self._estimates[key] = None
        return self._estimates[key]

    def fits(self, way: Way) -> bool:
        """Whether the way leads to a job that fits."""
        estimate = self.estimate(way)
        return estimate is not None and estimate.fits

    def need(self, way: Way) -> tuple[float, float]:
        """What the card and the host lack together, then what the card has to hold: less is nearer to a fit."""
        estimate = self.estimate(way)
        if estimate is None:
            return inf, inf
        host = estimate.host.bytes if estimate.host and self.w.host_ram is not None else 0
        lacks = max(0, estimate.high_bytes - self._usable) + max(0, host - (self.w.host_ram or 0))
        return lacks, estimate.high_bytes

    @property
    def estimated(self) -> int:
        """How many jobs were estimated."""
        return len(self._estimates)

    def highest(self, most: Way) -> Way:
        """Every rule as far as it can be taken up to ``most``, one after the other."""
        way: Way = ()
        for limit in most:
            way = (*way, min(limit, len(self.rungs(way))) if limit else 0)
        return way


def _asked(rule: Rule) -> set[str]:
    """The keys of the job that the rule's conditions ask about."""
    return {clause.condition.fact for clause in rule.clauses} & set(Workload._fields)
