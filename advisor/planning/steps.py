"""One step: where it starts, what it changes and costs, where it leads, in figures and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.errors import RequestError
from advisor.planning.describe import makeup
from advisor.results import Cost, Estimate, Step
from advisor.vocabulary import KEYS

if TYPE_CHECKING:
    from advisor.job import Job
    from advisor.planning.engine import Engine
    from advisor.planning.rulebook import Rule
    from advisor.workload import Workload

Estimator = Callable[["Workload"], Estimate]
Resolver = Callable[["Job"], "Workload"]


SAME = ("train", "infer", "observed", "observed_with")  # for a whole request, and they may be objects, which have no hash
_what_may_change = itemgetter(*(key.name for key in KEYS if key.name not in SAME))
OPERATOR_WORDS = {"is": "", "not": "not ", "at_least": "at least ", "at_most": "at most ", "above": "above ", "below": "below "}


class State(NamedTuple):
    """Where a walk stands."""

    workload: Workload
    estimate: Estimate


class Tools(NamedTuple):
    """What a walk asks: how a job is decided, what it takes, which rule is next."""

    resolve: Resolver
    estimate: Estimator
    engine: Engine | None = None  # None: the one of this process
    first: Sequence[str] = ()  # ids of rules that come before the order of the rulebook


class Decided:
    """Every job of one request decided once: replays and searches come to the same ones."""

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self._known: dict[tuple[Any, ...], Workload] = {}

    def __call__(self, job: Job) -> Workload:
        key = _what_may_change(job.__dict__)
        if key not in self._known:
            self._known[key] = self._resolve(job)
        return self._known[key]


def decided_once(resolve: Resolver | None) -> Decided:
    """The resolver of a request, by default the one for all; it remembers what it has decided."""
    if isinstance(resolve, Decided):
        return resolve
    if resolve is None:
        from advisor.workload import resolve as decide

        return Decided(decide)
    return Decided(resolve)


def changed(w: Workload, changes: dict[str, Any], resolve: Resolver) -> Workload | str:
    """The job with these changes, or why it is not to be changed so."""
    kept = [key for key in changes if key in w.keep]
    if kept:
        return f"you asked to keep {kept[0]}"
    try:
        new = resolve(w.asked.with_changes(**changes))
    except RequestError as refusal:
        return str(refusal)
    if new[1:] == w[1:]:  # all but ``asked``
        return "it is so already"
    if followed := which_kept_key_follows(w, new):
        return f"you asked to keep {followed}, which would follow"
    from advisor.planning.pairs import broken_pairs

    return "; ".join(broken_pairs(w, new)) or new


def which_kept_key_follows(old: Workload, new: Workload) -> str | None:
    """A kept key that a change does not name and that is another after it: what it defaults to has changed."""
    return next((key for key in old.keep if getattr(new, key, None) != getattr(old, key, None)), None)


def step_of(
    rule: Rule,
    changes: dict[str, Any],
    cost: Cost,
    old: State,
    new: State,
    how: dict[str, str] | Callable[[], dict[str, str]],
    refusals: list[str],
) -> Step:
    """The step from one state to the next. ``refusals``: why it did not stop at an earlier setting."""
    return Step(
        rule=rule.id,
        name=rule.name,
        title=rule.title,
        change={key: (getattr(old.workload, key), value) for key, value in changes.items()},
        before_bytes=old.estimate.device_bytes,
        after_bytes=new.estimate.device_bytes,
        cost=cost._replace(host_bytes=_more_host(old, new)),
        why=" ".join([rule.why, _effect(old, new), *_side_effects(old, new), *(f"Not sooner: {why}." for why in refusals)]),
        how=how,
        because=_because(rule, old),
        source=tuple(rule.source),
    )


def changes_of(steps: Iterable[Step]) -> dict[str, Any]:
    """What the steps change together: the last one has the last word."""
    return {key: new for step in steps for key, (_, new) in step.change.items()}


def host_bytes(estimate: Estimate) -> int:
    """What a machine's own memory holds of the job; 0 where it is not worked out."""
    return estimate.host.bytes if estimate.host else 0


def over_host(state: State) -> int:
    """What the machine's own memory lacks, where it is limited."""
    limit = state.workload.host_ram
    return max(0, host_bytes(state.estimate) - limit) if limit is not None else 0


def _more_host(old: State, new: State) -> int:
    """Bytes of a machine's own memory that a step takes more of, where what it holds is worked out."""
    if new.estimate.host is None:
        return 0
    from advisor.memory.host import host

    before = old.estimate.host or host(old.workload)
    return max(0, new.estimate.host.bytes - before.bytes)


def _because(rule: Rule, state: State) -> tuple[str, ...]:
    """The facts of the job that the rule's conditions are true of."""
    from advisor.planning.engine import Other
    from advisor.planning.facts import facts

    known = facts(state.workload, fits=False, past=0, host_bytes=host_bytes(state.estimate))
    told = []
    for fact, operator, value in (clause.condition for clause in rule.when):
        wanted = f"{value.fact} {_shown(known[value.fact])}" if isinstance(value, Other) else _shown(value)
        told.append(f"{fact} {_shown(known[fact])} is {OPERATOR_WORDS[operator]}{wanted}")
    return tuple(told)


def _shown(value: object) -> str:
    return {"True": "true", "False": "false"}.get(str(value), str(value))


def _effect(old: State, new: State) -> str:
    """Where the peak stands after the step."""
    before, after = old.estimate, new.estimate
    made_of = makeup(after, new.workload)
    if after.peak_phase is None:
        return f"The total is now {made_of}."
    if after.device_bytes == before.device_bytes:
        return f"It saves nothing yet: the {after.peak_phase} phase holds the peak with {made_of}."
    if after.peak_phase != before.peak_phase:
        return f"The peak moves from the {before.peak_phase} to the {after.peak_phase} phase: {made_of}."
    return f"The {after.peak_phase} phase still holds the peak with {made_of}."


def _side_effects(old: State, new: State) -> list[str]:
    before, after = old.workload.global_batch, new.workload.global_batch
    if new.workload.task != "train" or before == after:
        return []
    return [f"The global batch goes from {before} to {after}."]
