"""A walk without what turned out not to be needed: each step and each rule is tried without, and what fits without it is marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.errors import RequestError
from advisor.planning.pairs import broken_pairs
from advisor.planning.steps import State, Tools
from advisor.results import Step
from advisor.workload import Workload


def without_needless(initial: State, steps: list[Step], last: State, tools: Tools) -> tuple[list[Step], State]:
    """The steps with those marked that the job fits without, and where the others lead.

    From the last one back, because later rules cost more; the last one made it fit. Then all steps of a rule together:
    gradients stay between the micro-steps of a smaller batch, so a batch of 4 can fit where two micro-steps of 2 do not.
    What keeps the global batch is needed for that.
    """
    steps, needed = list(steps), [True] * len(steps)
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
    return [step._replace(needed=is_needed) for step, is_needed in zip(steps, needed, strict=True)], last


def _removals(steps: list[Step]) -> list[list[int]]:
    """The places of each step but the last, then of all steps of each rule that has several; the last ones first."""
    by_rule: dict[str, list[int]] = {}
    for place, step in enumerate(steps):
        by_rule.setdefault(step.rule, []).append(place)
    singles = [[place] for place in range(len(steps) - 1)]
    groups = [places for rule, places in by_rule.items() if len(places) > 1 and rule != steps[-1].rule]
    return [*reversed(singles), *reversed(groups)]


def _replay(initial: State, steps: list[Step], last: State, tools: Tools) -> tuple[list[Step], State] | None:
    """The steps without others, the steps of accumulation as these lead to them; None where they do not fit, see another global batch
    or leave a pair that the engine refuses: a step that is not needed for memory may have kept the pair apart.
    """
    changes: dict[str, Any] = {}
    again: list[Step] = []

    def so_far() -> Workload:
        return tools.resolve(initial.workload.asked.with_changes(**changes)) if changes else initial.workload

    try:
        for step in steps:
            again.append(_as_of(step, so_far))
            changes.update(_changes(again[-1]))
        w = so_far()
        state = State(w, tools.estimate(w))
        same = w.task != "train" or w.global_batch == last.workload.global_batch
        if not same or not state.estimate.fits or broken_pairs(initial.workload, w):
            return None
        changes.clear()
        for step in again:  # what they lead to one after the other are jobs as well
            changes.update(_changes(step))
            so_far()
    except RequestError:
        return None
    return again, state


def _changes(step: Step) -> dict[str, Any]:
    return {key: new for key, (_, new) in step.change.items()}


def _as_of(step: Step, so_far: Callable[[], Workload]) -> Step:
    """The step taken from this job: more GPUs divide the micro-steps that there are now, and a list grows from what it is now."""
    change = dict(step.change)
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
