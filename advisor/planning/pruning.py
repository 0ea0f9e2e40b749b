"""A walk without what turned out not to be needed: each step and each rule is tried without, and what fits without it is marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.errors import RequestError
from advisor.planning.dividing import Changes
from advisor.planning.pairs import broken_pairs
from advisor.planning.steps import State, Tools, changes_of, which_kept_key_follows
from advisor.results import Step
from advisor.workload import Workload


def without_needless(initial: State, steps: list[Step], last: State, tools: Tools) -> tuple[list[Step], State]:
    """The steps with those marked that the job fits without, and where the others lead.

    From the last one back, because later rules cost more; the last one made it fit. Then all steps of a rule together:
    gradients stay between the micro-steps of a smaller batch, so a batch of 4 can fit where two micro-steps of 2 do not.
    What keeps the global batch is needed for that.
    """
    walked, steps, needed = steps, list(steps), [True] * len(steps)
    for left_out in _removals(steps):
        rule, after = steps[left_out[0]].rule, left_out[-1]
        kept = [place for place in range(len(steps)) if needed[place] and place not in left_out]
        built_on = any(steps[place].rule == rule for place in kept if place > after)
        if built_on or not any(needed[place] for place in left_out):
            continue
        without = _replay(initial, [steps[place] for place in kept], last, tools)
        if without is not None:
            again, last = without
            for place, step in zip(kept, again, strict=True):
                steps[place] = step
            for place in left_out:
                needed[place] = False
    return [step if is_needed else as_walked._replace(needed=False)
            for step, as_walked, is_needed in zip(steps, walked, needed, strict=True)], last  # fmt: skip


def _removals(steps: list[Step]) -> list[list[int]]:
    """The places of each step but the last, then of all steps of each rule that has several; the last ones first."""
    by_rule: dict[str, list[int]] = {}
    for place, step in enumerate(steps):
        by_rule.setdefault(step.rule, []).append(place)
    singles = [[place] for place in range(len(steps) - 1)]
    groups = [places for rule, places in by_rule.items() if len(places) > 1 and rule != steps[-1].rule]
    return [*reversed(singles), *reversed(groups)]


def _replay(initial: State, steps: list[Step], last: State, tools: Tools) -> tuple[list[Step], State] | None:
    """The steps without others, where they fit, make the global batch no other and can still be taken one after the other; the
    steps of accumulation as these lead to them."""
    changes: dict[str, Any] = {}
    again: list[Step] = []

    def so_far() -> Workload:
        return tools.resolve(initial.workload.asked.with_changes(**changes)) if changes else initial.workload

    try:
        for step in steps:
            undone = {key for key, (old, _) in step.change.items() if changes.get(key, getattr(initial.workload, key)) != old}
            undone -= {"offload", "accumulation"}  # these follow what there is now
            again.append(_as_of(step, undone, so_far))
            changes.update(changes_of([again[-1]]))
        w = so_far()
        state = State(w, tools.estimate(w))
        batches = (initial.workload.global_batch, last.workload.global_batch)  # as asked, or as it grew on more GPUs
        if (w.task == "train" and w.global_batch not in batches) or not state.estimate.fits:
            return None
        if which_kept_key_follows(initial.workload, w) or broken_pairs(initial.workload, w):
            return None
        changes.clear()
        now = initial.workload
        for step in again:
            if not _can_be_taken(step, now):
                return None
            changes.update(changes_of([step]))
            now = so_far()
    except RequestError:
        return None
    return again, state


def _spared(step: Step, undone: set[str], so_far: Callable[[], Workload]) -> set[str]:
    """Of the keys that are no more what the step changed, those that its rule would leave alone now."""
    if not undone:
        return undone
    offered = _settings(step, so_far())
    rest = [(key, new) for key, (_, new) in step.change.items() if key not in undone and not isinstance(new, tuple)]
    alone = any(undone.isdisjoint(setting) and all(setting.get(key) == new for key, new in rest) for setting in offered)
    return undone if alone else set()


def _settings(step: Step, w: Workload) -> list[Changes]:
    """What the step's rule has to offer to this job; nothing where it does not apply."""
    from advisor.planning.facts import facts
    from advisor.planning.remedies import offers
    from advisor.planning.walk import book_of

    rule = next(rule for rule in book_of(w).rule if rule.id == step.rule)
    return offers(rule.remedy, w) if rule.applies(facts(w, fits=False, past=0)) else []


def _can_be_taken(step: Step, w: Workload) -> bool:
    """Whether the step's rule still comes to this: quantizing the weights under adapters needs the step that made them, or
    nobody would have been told of that one nor been asked its price."""
    wanted = changes_of([step]).items()
    return any(all(setting.get(key, getattr(w, key)) == value for key, value in wanted) for setting in _settings(step, w))


def _as_of(step: Step, undone: set[str], so_far: Callable[[], Workload]) -> Step:
    """The step taken from this job: more GPUs divide the micro-steps that there are now, a list grows from what it is now, and what
    a left-out step had done is not changed back."""
    spared = _spared(step, undone, so_far)
    change = {key: pair for key, pair in step.change.items() if key not in spared}
    for key, (old, new) in step.change.items():
        if isinstance(new, tuple):
            now = getattr(so_far(), key)
            change[key] = (now, (*now, *(each for each in new if each not in old and each not in now)))
    if "accumulation" in change and "gpus" in change:
        from advisor.planning.dividing import spread

        w = so_far()
        there = spread(w, change["gpus"][1])
        change["accumulation"] = (w.accumulation, there.get("accumulation", w.accumulation))
    return step._replace(change=change) if change != step.change else step
