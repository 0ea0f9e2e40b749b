"""The walk: one remedy after the other in the documented order, the estimate made again after each, until it fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import log2
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.errors import RequestError
from advisor.planning.describe import amount, budget, describe_model, makeup
from advisor.results import Cost, Estimate, Final, Plan, Skip, Step

if TYPE_CHECKING:
    from advisor.job import Job
    from advisor.planning.engine import Engine, Facts
    from advisor.planning.rulebook import Question, Rule, Rulebook
    from advisor.workload import Workload

Estimator = Callable[["Workload"], Estimate]
Resolver = Callable[["Job"], "Workload"]
COUNTS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # of GPUs that `missing` tries


class State(NamedTuple):
    """Where the walk stands."""

    workload: Workload
    estimate: Estimate


class Tools(NamedTuple):
    """What a walk asks: how a job is decided, what it takes, which rule is next."""

    resolve: Resolver
    estimate: Estimator
    engine: Engine | None = None  # None: the one of this process


def walk(w: Workload, estimate: Estimator, resolve: Resolver | None = None, engine: Engine | None = None) -> Plan:
    """The plan for a job: that it fits, the steps that make it fit, or what is missing."""
    if resolve is None:
        from advisor.workload import resolve as decide

        resolve = decide
    initial = State(w, estimate(w))
    if initial.estimate.fits:
        return _plan(initial, "fits", final=Final(w.to_dict(), initial.estimate))
    tools = Tools(resolve, estimate, engine)
    steps, skipped, last = _walk(initial, tools)
    if not last.estimate.fits:
        missing = _missing(initial, last, tools)
        told = _told("After every step", initial, last)
        return _plan(initial, "does-not-fit", steps, skipped, missing=missing, notes=told)
    from advisor.planning.snippets import agreed

    steps, last = _without_needless(initial, steps, last, tools)
    final = Final(last.workload.to_dict(), last.estimate)
    return _plan(initial, "fits-after-changes", agreed(steps, _book(w).rule, last.workload), skipped, final=final,
                 notes=_told("Planned", initial, last))  # fmt: skip


def _question(w: Workload) -> Question:
    return "training" if w.task == "train" else "inference"


def _book(w: Workload) -> Rulebook:
    from advisor.planning.rulebook import load

    return load(_question(w))


def _told(of: str, initial: State, last: State) -> list[str]:
    """The notes on the last job that the first one did not have: two of a kind, with two figures, must not stand side by side."""
    known = {*initial.workload.notes, *initial.estimate.notes}
    return [f"{of}: {note}" for note in (*last.workload.notes, *last.estimate.notes) if note not in known]


def _walk(initial: State, tools: Tools) -> tuple[list[Step], list[Skip], State]:
    from advisor.planning.rulebook import EXHAUSTED, FITS

    book = _book(initial.workload)
    places = {rule.id: place for place, rule in enumerate(book.rule, start=1)}
    steps: list[Step] = []
    skipped: list[Skip] = []
    state = initial

    def apply(fired: str, situation: Facts) -> Facts | None:
        nonlocal state
        if fired == FITS:
            return None
        place = len(book.rule) + 1 if fired == EXHAUSTED else places[fired]
        skipped.extend(_passed_over(book, situation, place, steps))
        if fired == EXHAUSTED:
            return None
        rule = book.rule[place - 1]
        outcome = _fire(rule, state, tools)
        if isinstance(outcome, Skip):
            skipped.extend([outcome] if outcome.reason else [])
            return _situation(state, past=place)
        step, state = outcome
        steps.append(step)
        return _situation(state, past=place - 1)

    (tools.engine or _engine(_question(initial.workload))).run(_situation(state, past=0), apply)
    return steps, skipped, state


def _situation(state: State, past: int) -> Facts:
    from advisor.planning.facts import facts

    w, estimate = state
    return facts(w, estimate.fits, past, host_bytes=_host_bytes(estimate))


@cache
def _engine(question: Question) -> Engine:
    from advisor.planning.engine import build
    from advisor.planning.rulebook import load

    return build(question, load(question).conditions())


def _passed_over(book: Rulebook, situation: Facts, place: int, steps: list[Step]) -> list[Skip]:
    """The rules before ``place`` that never fired, each with its first condition that is false."""
    from advisor.planning.engine import holds
    from advisor.planning.facts import filled

    past = int(situation["past"])
    done = {step.rule for step in steps}
    return [
        Skip(rule.id, rule.name, filled(clause.otherwise, situation))
        for rule in book.rule[past : place - 1]
        if rule.id not in done and all(holds(clause.condition, situation) for clause in rule.scope)
        for clause in [clause for clause in rule.when if not holds(clause.condition, situation)][:1]
    ]


def _fire(rule: Rule, state: State, tools: Tools) -> tuple[Step, State] | Skip:
    """The next setting of a rule's remedy that the job accepts and that does not need more; else why there is none."""
    from advisor.planning.remedies import REMEDIES, NotApplicable

    settings = REMEDIES[rule.remedy](state.workload)
    if isinstance(settings, NotApplicable):
        return Skip(rule.id, rule.name, settings.reason)
    refusals: list[str] = []
    for changes in settings:
        tried = _try(changes, state, tools)
        if isinstance(tried, State):
            return _step(rule, changes, state, tried, refusals), tried
        if tried not in refusals:
            refusals.append(tried)
    return Skip(rule.id, rule.name, "; ".join(refusals))


def _try(changes: dict[str, Any], state: State, tools: Tools) -> State | str:
    from advisor.planning.pairs import broken_pairs

    w, before = state
    kept = [key for key in changes if key in w.keep]
    if kept:
        return f"you asked to keep {kept[0]}"
    try:
        changed = tools.resolve(w.asked.with_changes(**changes))
        after = tools.estimate(changed)
    except RequestError as refusal:
        return str(refusal)
    if changed._replace(asked=w.asked) == w:
        return "it is so already"
    if broken := broken_pairs(w, changed):
        return "; ".join(broken)
    if _over_host(State(changed, after)) > _over_host(state):
        return f"it would need {amount(_host_bytes(after), changed)} of a machine's own memory, which host_ram limits"
    if after.device_bytes > before.device_bytes:
        what = " and ".join(f"{key} {_plain(value)}" for key, value in changes.items())
        return f"with {what} it would need more, {amount(after.device_bytes, w)} instead of {amount(before.device_bytes, w)}"
    return State(changed, after)


def _plain(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _step(rule: Rule, changes: dict[str, Any], old: State, new: State, refusals: list[str]) -> Step:
    from advisor.planning.snippets import how, speed

    gpus, time = new.workload.gpus - old.workload.gpus, speed(rule, changes, new.workload)
    doublings = log2(new.workload.gpus / old.workload.gpus) if gpus > 0 else 1  # what more GPUs cost is told of twice as many
    return Step(
        rule=rule.id,
        name=rule.name,
        title=rule.title,
        change={key: (getattr(old.workload, key), value) for key, value in changes.items()},
        before_bytes=old.estimate.device_bytes,
        after_bytes=new.estimate.device_bytes,
        cost=Cost(
            time.low**doublings,
            time.high**doublings,
            time.source,
            rule.cost.quality,
            gpus,
            _more_host(old, new),
            changes_result=rule.cost.changes_result or old.workload.global_batch != new.workload.global_batch,
        ),
        why=" ".join([rule.why, _effect(old, new), *_side_effects(old, new), *(f"Not sooner: {why}." for why in refusals)]),
        how=how(rule, changes, new.workload),
    )


def _more_host(old: State, new: State) -> int:
    """Bytes of a machine's own memory that a step takes more of, where what it holds is worked out."""
    if new.estimate.host is None:
        return 0
    from advisor.memory.host import host

    before = old.estimate.host or host(old.workload)
    return max(0, new.estimate.host.bytes - before.bytes)


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


def _without_needless(initial: State, steps: list[Step], last: State, tools: Tools) -> tuple[list[Step], State]:
    """The steps with those marked that the job fits without, and where the others lead.

    From the last one back, because later rules cost more. A step whose keys a later step changed again stays.
    """
    needed = [True] * len(steps)
    for place in reversed(range(len(steps) - 1)):
        later = {key for i in range(place + 1, len(steps)) if needed[i] for key in steps[i].change}
        if later & steps[place].change.keys():
            continue
        needed[place] = False
        without = _replay(initial, [step for step, is_needed in zip(steps, needed, strict=True) if is_needed], tools)
        if without is not None and without.estimate.fits:
            last = without
        else:
            needed[place] = True
    return [step._replace(needed=is_needed) for step, is_needed in zip(steps, needed, strict=True)], last


def _replay(initial: State, steps: list[Step], tools: Tools) -> State | None:
    changes = {key: new for step in steps for key, (_, new) in step.change.items()}
    try:
        w = tools.resolve(initial.workload.asked.with_changes(**changes))
        return State(w, tools.estimate(w))
    except RequestError:
        return None


def _missing(initial: State, last: State, tools: Tools) -> dict[str, Any]:
    """How far the end of the walk is from fitting, and what more would have helped."""
    over = max(0, last.estimate.high_bytes - budget(last.workload)[1])
    return {
        "bytes": over,
        "host_bytes": _over_host(last),
        "gpus": _enough_gpus(last, tools),
        "keep": _key_to_release(initial, tools),
    }


def _over_host(state: State) -> int:
    """What the machine's own memory lacks, where it is limited."""
    limit = state.workload.host_ram
    return max(0, _host_bytes(state.estimate) - limit) if limit is not None else 0


def _host_bytes(estimate: Estimate) -> int:
    """What a machine's own memory holds of the job; 0 where it is not worked out."""
    return estimate.host.bytes if estimate.host else 0


def _enough_gpus(last: State, tools: Tools) -> int | None:
    """The fewest GPUs, a power of two beyond what the walk could use, on which its last job fits."""
    from advisor.planning.dividing import on_gpus

    w = last.workload
    reach = w.gpus if "gpus" in w.keep else w.max_gpus
    for gpus in (count for count in COUNTS if count > reach):
        changes = on_gpus(w, gpus)
        if changes is None:
            continue
        try:
            enough = tools.estimate(tools.resolve(w.asked.with_changes(**changes, max_gpus=gpus)))
        except RequestError:
            continue
        if enough.fits:
            return gpus
    return None


def _key_to_release(initial: State, tools: Tools) -> str | None:
    """The first of the kept keys without which a plan would have been found."""
    for key in initial.workload.keep:
        keep = tuple(other for other in initial.workload.keep if other != key)
        freed = tools.resolve(initial.workload.asked.with_changes(keep=keep))
        if _walk(State(freed, initial.estimate), tools)[2].estimate.fits:
            return key
    return None


def _of_software(w: Workload) -> list[str]:
    """Which software still runs on the card, and what the engine refuses of the job as asked."""
    if w.estimator != "detailed":  # the guide's own formulas know no software
        return []
    from advisor.planning.pairs import refused
    from advisor.planning.software import versions

    return [*versions(w), *(f"As asked, {because}." for because in refused(w))]


def _contradicted(w: Workload) -> list[str]:
    """Claims of the memory guide about this very job that its own formulas contradict; it speaks of size classes only."""
    if not w.model.nominal:
        return []
    from advisor.planning.claims import contradicted

    return contradicted(w)


def _plan(
    initial: State,
    verdict: Any,
    steps: list[Step] | None = None,
    skipped: list[Skip] | None = None,
    *,
    final: Final | None = None,
    missing: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    w = initial.workload
    total, usable = budget(w)
    return Plan(
        verdict=verdict,
        job=w.to_dict(),
        asked=w.asked.given(),
        gpu=w.gpu.to_dict(),
        model=describe_model(w.model),
        total_bytes=total,
        usable_bytes=usable,
        initial=initial.estimate,
        steps=tuple(steps or ()),
        skipped=tuple(skipped or ()),
        final=final,
        missing=missing,
        notes=tuple(dict.fromkeys((*w.notes, *initial.estimate.notes, *notes, *_contradicted(w), *_of_software(w)))),
    )
