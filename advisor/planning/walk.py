"""The walk: one remedy after the other in the documented order, the estimate made again after each, until it fits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from advisor.errors import RequestError
from advisor.planning.describe import amount, budget, describe_model
from advisor.planning.steps import Estimator, Resolver, State, Tools, changed, decided_once, host_bytes, over_host, step_of
from advisor.results import Final, Plan, Skip, Step

if TYPE_CHECKING:
    from advisor.planning.engine import Engine, Facts
    from advisor.planning.rulebook import Question, Rule, Rulebook
    from advisor.workload import Workload


def walk(
    w: Workload,
    estimate: Estimator,
    resolve: Resolver | None = None,
    engine: Engine | None = None,
    first: Sequence[str] = (),
) -> Plan:
    """The plan for a job: that it fits, the steps that make it fit, or that they do not.

    ``first`` are rules that a diagnosis puts before the others, each as often as it applies.
    """
    resolve = decided_once(resolve)
    if w.policy != "documented":  # a name that is none is wrong whether the job fits or not
        book_of(w)
    initial = State(w, estimate(w))
    if initial.estimate.fits:
        return _plan(initial, "fits", final=Final(w.to_dict(), initial.estimate))
    tools = Tools(resolve, estimate, engine, first)
    steps, skipped, last = all_steps(initial, tools)
    if not last.estimate.fits:
        return _plan(initial, "does-not-fit", steps, skipped, notes=_told("After every step", initial, last))
    from advisor.planning.pruning import without_needless
    from advisor.planning.snippets import agreed

    steps, last = without_needless(initial, steps, last, tools)
    final = Final(last.workload.to_dict(), last.estimate)
    return _plan(initial, "fits-after-changes", agreed(steps, book_of(w).rule, last.workload), skipped, final=final,
                 notes=_told("Planned", initial, last))  # fmt: skip


def _question(w: Workload) -> Question:
    return "training" if w.task == "train" else "inference"


def book_of(w: Workload) -> Rulebook:
    from advisor.planning.policies import ordered

    return ordered(_question(w), w.policy)


def _told(of: str, initial: State, last: State) -> list[str]:
    """The notes on the last job that the first one did not have: two of a kind, with two figures, must not stand side by side."""
    known = {*initial.workload.notes, *initial.estimate.notes}
    return [f"{of}: {note}" for note in (*last.workload.notes, *last.estimate.notes) if note not in known]


def all_steps(initial: State, tools: Tools) -> tuple[list[Step], list[Skip], State]:
    """The walk as walked: its steps, what it passed over, and where it ends."""
    from advisor.planning.rulebook import EXHAUSTED, FITS

    book = book_of(initial.workload)
    places = {rule.id: place for place, rule in enumerate(book.rule, start=1)}
    skipped: list[Skip] = []
    steps, state = _begin(initial, tools)

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

    engine = tools.engine or _engine(_question(initial.workload), initial.workload.policy)
    engine.run(_situation(state, past=0), apply)
    return steps, skipped, state


def _situation(state: State, past: int) -> Facts:
    from advisor.planning.facts import facts

    w, estimate = state
    return facts(w, estimate.fits, past, host_bytes=host_bytes(estimate))


def _begin(initial: State, tools: Tools) -> tuple[list[Step], State]:
    """The steps of the rules that come first."""
    if not tools.first:
        return [], initial
    rules = {rule.id: rule for rule in book_of(initial.workload).rule}
    steps: list[Step] = []
    state = initial
    for rule in (rules[id] for id in tools.first if id in rules):
        while not state.estimate.fits:
            outcome = _fire(rule, state, tools) if rule.applies(_situation(state, past=0)) else None
            if outcome is None or isinstance(outcome, Skip):
                break
            step, state = outcome
            steps.append(step)
    return steps, state


@cache
def _engine(question: Question, policy: str) -> Engine:
    from advisor.planning.engine import build
    from advisor.planning.policies import ordered

    return build(f"{question}, {policy}", ordered(question, policy).conditions())


def _passed_over(book: Rulebook, situation: Facts, place: int, steps: list[Step]) -> list[Skip]:
    """The rules before ``place`` that never fired, each with its first condition that is false."""
    from advisor.planning.engine import holds
    from advisor.planning.facts import filled

    past = int(situation["past"])
    done = {each.rule for each in steps}
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
            from advisor.planning.prices import cost
            from advisor.planning.snippets import how

            price, words = cost(rule, changes, state.workload, tried.workload), partial(how, rule, changes, tried.workload)
            return step_of(rule, changes, price, state, tried, words, refusals), tried
        if tried not in refusals:
            refusals.append(tried)
    return Skip(rule.id, rule.name, "; ".join(refusals))


def _try(changes: dict[str, Any], state: State, tools: Tools) -> State | str:
    w, before = state
    new = changed(w, changes, tools.resolve)
    if isinstance(new, str):
        return new
    try:
        after = tools.estimate(new)
    except RequestError as refusal:
        return str(refusal)
    if over_host(State(new, after)) > over_host(state):
        return f"it would need {amount(host_bytes(after), new)} of a machine's own memory, which host_ram limits"
    if after.device_bytes > before.device_bytes:
        what = " and ".join(f"{key} {_plain(value)}" for key, value in changes.items())
        more, now = amount(after.device_bytes, w), amount(before.device_bytes, w)
        return f"with {what} it would need " + (f"more, {more} instead of {now}" if more != now else "a little more")
    return State(new, after)


def _plain(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


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
        notes=tuple(dict.fromkeys((*w.notes, *initial.estimate.notes, *notes, *_contradicted(w), *_of_software(w)))),
    )
