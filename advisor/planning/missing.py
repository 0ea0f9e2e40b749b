"""The smallest thing that is missing where nothing within the limits makes a job fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from advisor.planning.describe import budget
from advisor.planning.steps import over_host

if TYPE_CHECKING:
    from advisor.job import Job
    from advisor.planning.search import Search
    from advisor.workload import Workload

COUNTS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # of GPUs that are tried
LIMITS = ("min_batch", "min_seq", "host_ram")  # what the user may have set to bound a plan, beside keep and max_gpus


def missing(search: Search, has_a_plan: Callable[[Job], bool]) -> dict[str, Any]:
    """How far the way that needs least is from fitting, and which one thing would have let a plan be found."""
    w, nearest = search.space.w, search.nearest()
    return {
        "bytes": max(0, nearest.estimate.high_bytes - budget(w)[1]),
        "host_bytes": over_host(nearest),
        "gpus": next((gpus for gpus, job in _on_more_gpus(w) if has_a_plan(job)), None),
        "keep": next((key for key, job in _without_a_wish(w) if has_a_plan(job)), None),
        "limit": next((limit for limit, job in _without_a_limit(w) if has_a_plan(job)), None),
    }


def _on_more_gpus(w: Workload) -> Iterator[tuple[int, Job]]:
    """The job with more GPUs than a plan may use, the fewest first; with as many as that where their number is kept."""
    from advisor.planning.dividing import on_gpus

    kept = "gpus" in w.keep
    for gpus in COUNTS:
        if gpus > (w.gpus if kept else w.max_gpus):
            changes = on_gpus(w, gpus) if kept else {}
            if changes is not None:
                yield gpus, w.asked.with_changes(**changes, max_gpus=gpus)


def _without_a_wish(w: Workload) -> Iterator[tuple[str, Job]]:
    for key in w.keep:
        yield key, w.asked.with_changes(keep=tuple(other for other in w.keep if other != key))


def _without_a_limit(w: Workload) -> Iterator[tuple[str, Job]]:
    for limit in LIMITS:
        if getattr(w.asked, limit) is not None:
            yield limit, w.asked.with_changes(**{limit: None if limit == "host_ram" else 1})
