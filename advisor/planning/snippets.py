"""What a rule says for the very change that it made: its snippets and its cost in time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from advisor.planning.facts import facts, filled
from advisor.planning.remedies import KV_BITS, weight_bits

if TYPE_CHECKING:
    from advisor.planning.rulebook import Rule, Speed
    from advisor.results import Step
    from advisor.workload import Workload

Written = TypeVar("Written")


def chosen(written: dict[str, Written], names: set[str]) -> Written | None:
    """What is written for the first case that holds: every name of it, with + between."""
    return next((text for case, text in written.items() if names.issuperset(case.split("+"))), None)


def changed(changes: dict[str, Any], w: Workload) -> set[str]:
    """The names of what was done: a key that changes, its new value, the bits of the new format, or the sharding, with its
    ZeRO stage or, where there is one, without."""
    names = {*changes, *map(str, changes.values()), f"{weight_bits(w)}-bit", f"{w.sharding}-{w.zero}"}
    return names | ({w.sharding} if w.zero else set())


def standing(w: Workload) -> set[str]:
    """The names of what holds beside that, which can decide where a setting goes: the steps of a plan share files and calls."""
    names = {f"{kind}-away" for kind in w.offload} | {f"kv-{KV_BITS[w.kv_precision]}-bit"}
    names.add("all-weights" if w.method == "full" else "adapters")
    return names | {"checkpointed"} if w.checkpointing == "full" else names


def speed(rule: Rule, changes: dict[str, Any], w: Workload) -> Speed:
    """What these changes cost in time."""
    written = rule.cost.speed
    if not isinstance(written, dict):
        return written
    found = chosen(written, changed(changes, w) | standing(w))
    assert found is not None, f"{rule.id} has no cost for {changes}"
    return found


def how(rule: Rule, changes: dict[str, Any], w: Workload) -> dict[str, str]:
    """The rule's snippets for these changes, the one of the job's engine first."""
    known = facts(w, fits=False, past=0)
    names = changed(changes, w) | standing(w)
    texts = {}
    for framework in sorted(rule.how, key=lambda name: name != w.engine.name):
        written = rule.how[framework]
        text = chosen(written, names) if isinstance(written, dict) else written
        if text is not None:
            texts[framework] = filled(text, known)
    return texts


def agreed(steps: list[Step], rules: list[Rule], w: Workload) -> list[Step]:
    """The steps, of which the last needed one of each rule tells all that the rule changed, as it is at the end of the plan.

    Halving the batch says how many micro-steps take its place; more GPUs, later, take some of them away again.
    """
    by_id = {rule.id: rule for rule in rules}
    changes: dict[str, dict[str, Any]] = {}
    last: dict[str, int] = {}
    for place, step in enumerate(steps):
        if step.needed:
            changes.setdefault(step.rule, {}).update({key: getattr(w.asked, key) for key in step.change})
            last[step.rule] = place
    told = list(steps)
    for rule, place in last.items():
        told[place] = steps[place]._replace(how=partial(how, by_id[rule], changes[rule], w))
    return told
