"""The smallest thing that is missing where nothing within the limits makes a job fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advisor.errors import RequestError
from advisor.planning.describe import budget
from advisor.planning.steps import State, Tools, over_host

if TYPE_CHECKING:
    from advisor.workload import Workload

COUNTS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # of GPUs that are tried
LIMITS = ("min_batch", "min_seq", "host_ram")  # what the user may have set to bound a plan, beside keep and max_gpus


def missing(initial: State, last: State, tools: Tools, plans: Callable[[State], bool]) -> dict[str, Any]:
    """How far the end of the walk is from fitting, and what more would have helped. ``plans``: whether a walk ends in a fit."""
    return {
        "bytes": max(0, last.estimate.high_bytes - budget(last.workload)[1]),
        "host_bytes": over_host(last),
        "gpus": _enough_gpus(last, tools),
        "keep": _first(initial, tools, plans, initial.workload.keep, _without_key),
        "limit": _first(initial, tools, plans, LIMITS, _without_limit),
    }


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


def _without_key(w: Workload, key: str) -> dict[str, Any] | None:
    return {"keep": tuple(other for other in w.keep if other != key)}


def _without_limit(w: Workload, limit: str) -> dict[str, Any] | None:
    return None if getattr(w.asked, limit) is None else {limit: None if limit == "host_ram" else 1}


def _first(
    initial: State,
    tools: Tools,
    plans: Callable[[State], bool],
    wishes: tuple[str, ...],
    without: Callable[[Workload, str], dict[str, Any] | None],
) -> str | None:
    """The first of the user's wishes without which a plan would have been found."""
    for wish in wishes:
        changes = without(initial.workload, wish)
        if changes is not None:
            freed = tools.resolve(initial.workload.asked.with_changes(**changes))
            if plans(State(freed, initial.estimate)):
                return wish
    return None
