"""The ways that the rules leave open: how far each of them may be taken, one after the other in the order of the walk.

A way is a tuple with a number for each rule: 0 leaves it out, 2 takes it to its second rung (two halvings, 16K instead
of 32K, four GPUs instead of two). A search asks for hundreds of them, so what a rule does is worked out once where nothing
that other rules change has a part in it, and a job is decided at the end of its way only.
"""

from __future__ import annotations

from functools import cache
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.errors import RequestError
from advisor.planning.describe import budget
from advisor.planning.dividing import Changes
from advisor.planning.facts import OF_THE_HOST, facts, keys_of
from advisor.planning.pairs import pairs_of
from advisor.planning.prices import Price, cost, in_all, price, together
from advisor.planning.remedies import KEYS_OF, offers
from advisor.planning.steps import State, changed
from advisor.results import Estimate
from advisor.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from advisor.job import Job
    from advisor.planning.rulebook import Rule
    from advisor.results import Cost

Way = tuple[int, ...]
MOST_RUNGS = 20  # a remedy halves or doubles, so this is as far as any goes
NOT_TOLD_APART = {"asked", "gpu", "model", "engine", "notes", "observed", "observed_with"}  # the same on all ways
CHANGED = tuple(sorted(set().union(*KEYS_OF.values())))
job_key = itemgetter(*(place for place, name in enumerate(Workload._fields) if name not in NOT_TOLD_APART))


class Rung(NamedTuple):
    """One rule taken so far: what changed, and what it costs."""

    changes: Changes
    cost: Cost
    price: Price


class Taken(NamedTuple):
    """The rules of one way, each with its place and its rung, and what they change together: the last one has the last word."""

    rungs: list[tuple[int, Rung]]
    changes: Changes


class Space:
    """The ways from one job, each decided and estimated once."""

    def __init__(
        self, w: Workload, rules: list[Rule], resolve: Callable[[Job], Workload], estimate: Callable[[Workload], Estimate]
    ) -> None:
        self.w, self.rules = w, rules
        self._resolve, self._estimate = resolve, estimate
        self._usable = budget(w)[1]
        self._read = [_read(rule, w) for rule in rules]
        self._climbs: dict[Any, list[Rung]] = {}
        self._ways: dict[Way, Taken | None] = {}
        self._jobs: dict[frozenset[tuple[str, Any]], Workload | None] = {}
        self._by_way: dict[Way, Estimate | None] = {}
        self._estimates: dict[tuple[Any, ...], Estimate | None] = {}
        self.seen = self._survey()

    def _survey(self) -> list[list[list[Rung]]]:
        """The rungs of each rule after none of those before it, after one of them, and after all as far as they go."""
        end = self.highest((MOST_RUNGS,) * len(self.rules))
        seen: list[list[list[Rung]]] = []
        for place, read in enumerate(self._read):
            none = (0,) * place
            alone = [
                (*none[:one], len(rungs), *none[one + 1 :])
                for one, (rungs, *_) in enumerate(seen)
                if rungs and not rungs[-1].changes.keys().isdisjoint(read)
            ]
            seen.append([self.rungs(before) for before in dict.fromkeys([none, *alone, end[:place]])])
        return seen

    def rungs(self, before: Way) -> list[Rung]:
        """How far the next rule can be taken after these."""
        taken = self.taken(before)
        return [] if taken is None else self._rungs(len(before), taken.changes)

    def _rungs(self, place: int, changes: Changes) -> list[Rung]:
        """How far a rule can be taken after these changes; for most keys it does not matter how they are."""
        key = (place, *map(changes.get, self._read[place]))  # None: as the user has it
        rungs = self._climbs.get(key)
        if rungs is None:
            w = self._job(changes)
            rungs = self._climbs[key] = [] if w is None else self._climb(self.rules[place], w)
        return rungs

    def _climb(self, rule: Rule, w: Workload) -> list[Rung]:
        rungs: list[Rung] = []
        so_far: Changes = {}
        spent: list[Cost] = []
        while len(rungs) < MOST_RUNGS and self._applies(rule, w):
            last = None
            for changes in offers(rule.remedy, w):
                new = changed(w, changes, self._resolve)
                if not isinstance(new, str):
                    last = new, cost(rule, changes, w, new)
                    spent_so_far = together([*spent, last[1]])
                    worth = price(spent_so_far, len(rungs) + 1, rule.cost.changes_result)
                    rungs.append(Rung({**so_far, **changes}, spent_so_far, worth))
            if last is None:
                break
            w, so_far, spent = last[0], rungs[-1].changes, [*spent, last[1]]
        return rungs

    def _applies(self, rule: Rule, w: Workload) -> bool:
        host = 0
        if w.host_ram is not None and not OF_THE_HOST.isdisjoint(clause.condition.fact for clause in rule.clauses):
            estimate = self._estimated(w)
            host = estimate.host.bytes if estimate and estimate.host else 0
        return rule.applies(facts(w, fits=False, past=0, host_bytes=host))

    def taken(self, way: Way) -> Taken | None:
        """What the way does; None where a rule cannot be taken so far."""
        if way not in self._ways:
            rungs: list[tuple[int, Rung]] = []
            changes: Changes = {}
            for place, number in enumerate(way):
                if number:
                    there = self._rungs(place, changes)
                    if number > len(there):
                        self._ways[way] = None
                        return None
                    rungs.append((place, there[number - 1]))
                    changes = {**changes, **there[number - 1].changes}
            self._ways[way] = Taken(rungs, changes)
        return self._ways[way]

    def highest(self, most: Way) -> Way:
        """Every rule as far as it can be taken up to ``most``, one after the other."""
        way = list(most)
        rungs: list[tuple[int, Rung]] = []
        changes: Changes = {}
        for place, limit in enumerate(most):
            if limit:
                there = self._rungs(place, changes)
                way[place] = number = min(limit, len(there))
                if number:
                    rungs.append((place, there[number - 1]))
                    changes = {**changes, **there[number - 1].changes}
        highest = tuple(way)
        self._ways.setdefault(highest, Taken(rungs, changes))
        return highest

    def reached(self, way: Way) -> int:
        """How many of its rules can be taken as far as the way says."""
        return next((place for place in range(len(way)) if self.taken(way[: place + 1]) is None), len(way))

    def job(self, way: Way) -> Workload | None:
        """Where the way leads; None where a rule cannot be taken so far, or not beside the others."""
        taken = self.taken(way)
        return None if taken is None else self._job(taken.changes)

    def _job(self, changes: Changes) -> Workload | None:
        if not changes:
            return self.w
        key = frozenset(changes.items())
        if key not in self._jobs:
            new = changed(self.w, changes, self._resolve)
            self._jobs[key] = None if isinstance(new, str) else new
        return self._jobs[key]

    def price(self, way: Way) -> Price:
        """What a way that can be taken costs in truth: its rungs, and whether all of them together change what is learned."""
        taken, w = self.taken(way), self.w
        assert taken is not None
        gpus, batch, accumulation = (taken.changes.get(key, getattr(w, key)) for key in ("gpus", "batch", "accumulation"))
        ranks = gpus // (w.tp * w.pp * w.cp)  # as for Workload.global_batch, without deciding the rest of the job
        growth = batch * accumulation * ranks / w.global_batch if w.task == "train" else 1.0
        return in_all((rung.price for _, rung in taken.rungs), gpus - w.gpus, growth)

    def prices(self, way: Way) -> list[Price]:
        """What each rule of a way that can be taken costs."""
        taken = self.taken(way)
        assert taken is not None
        return [rung.price for _, rung in taken.rungs]

    def estimate(self, way: Way) -> Estimate | None:
        """None for a way that leads nowhere, or to a job that cannot be estimated."""
        if way not in self._by_way:
            w = self.job(way)
            self._by_way[way] = None if w is None else self._estimated(w)
        return self._by_way[way]

    def state(self, way: Way) -> State:
        """Where a way leads that leads somewhere, with its estimate; an empty one where there is none."""
        w, estimate = self.job(way), self.estimate(way)
        assert w is not None
        return State(w, estimate or Estimate(0, 0, 0, 0, 0, False, None, {}, ()))

    def _estimated(self, w: Workload) -> Estimate | None:
        key = job_key(w)
        if key not in self._estimates:
            try:
                self._estimates[key] = self._estimate(w)
            except RequestError:
                self._estimates[key] = None
        return self._estimates[key]

    @property
    def estimated(self) -> int:
        """How many jobs were estimated."""
        return len(self._estimates)

    def fits(self, way: Way) -> bool:
        """Whether the way leads to a job that fits."""
        estimate = self.estimate(way)
        return estimate is not None and estimate.fits

    def need(self, way: Way) -> tuple[float, float]:
        """What the card and the host lack together, then what the card has to hold: less is nearer to a fit."""
        estimate = self.estimate(way)
        if estimate is None:
            return inf, inf
        host = estimate.host.bytes if self.w.host_ram is not None and estimate.host else 0
        lacks = max(0, estimate.high_bytes - self._usable) + max(0, host - (self.w.host_ram or 0))
        return lacks, estimate.high_bytes


@cache
def _of_remedy(remedy: str, engine: str, ggml: bool) -> frozenset[str]:
    """The keys that decide what a remedy offers and what the engine takes of it."""
    own = set(KEYS_OF[remedy])
    asked = [{key for one in pair.when for key in keys_of(one.fact)} for pair in pairs_of(engine, ggml)]
    return frozenset(own.union(*(keys for keys in asked if keys & own)))


def _read(rule: Rule, w: Workload) -> tuple[str, ...]:
    """The keys that decide how far a rule can be taken, among those that another changes."""
    facts = [clause.condition.fact for clause in rule.clauses]
    if w.host_ram is not None and not OF_THE_HOST.isdisjoint(facts):
        return CHANGED  # what a machine holds depends on all of them
    read = _of_remedy(rule.remedy, w.engine.name, w.engine.ggml).union(*map(keys_of, facts))
    return tuple(key for key in CHANGED if key in read)
