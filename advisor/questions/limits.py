"""How far the batch and the sequences of a job can go on its card."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

from advisor.errors import RequestError
from advisor.job import MOST, Job
from advisor.planning.describe import budget, describe_model
from advisor.questions.edge import edge
from advisor.results import Estimate
from advisor.workload import Workload

SHORTEST = 128  # tokens: a frontier goes no further than to sequences of that length
DOUBLINGS = 16  # of the batch


class Edge(NamedTuple):
    """The last value that fits and what it takes up to, in bytes; what the next one would, or why there is none."""

    value: int
    high_bytes: int
    next_high_bytes: int | None
    refused: str | None = None


class Limits(NamedTuple):
    """The answer. ``batch`` at the job's own length, ``seq`` at its own batch; None where nothing fits or it was to be kept."""

    job: dict[str, Any]
    gpu: dict[str, Any]
    model: dict[str, Any]
    total_bytes: int
    usable_bytes: int
    batch: Edge | None
    seq: Edge | None
    frontier: tuple[tuple[int, int], ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 0 if self.frontier else 3

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "max_batch": self.batch and self.batch.value,
            "max_seq": self.seq and self.seq.value,
            "frontier": [list(point) for point in self.frontier],
            "job": self.job,
            "gpu": self.gpu,
            "model": self.model,
            "budget": {"total_bytes": self.total_bytes, "usable_bytes": self.usable_bytes},
            "edges": {name: found._asdict() for name, found in (("batch", self.batch), ("seq", self.seq)) if found},
            "notes": list(self.notes),
        }


class _Search(NamedTuple):
    """Estimates of one job with another batch and another length."""

    w: Workload
    resolve: Callable[[Job], Workload]
    estimate: Callable[[Workload], Estimate]

    def ask(self, batch: int, seq: int) -> Estimate:
        return self.estimate(self.resolve(self.w.asked.with_changes(batch=batch, seq=seq)))

    def fits(self, batch: int, seq: int) -> bool:
        """Whether it is a job that fits."""
        try:
            return self.ask(batch, seq).fits
        except RequestError:
            return False

    def largest_batch(self, seq: int) -> int | None:
        return edge(lambda batch: self.fits(batch, seq), 1, MOST["count"])

    def longest(self, batch: int) -> int | None:
        """No shorter than a prompt that was given: the rest of it is what comes out."""
        return edge(partial(self.fits, batch), self.w.asked.prompt or 1, MOST["count"])

    def edge(self, value: int | None, at: Callable[[int], tuple[int, int]]) -> Edge | None:
        if value is None:
            return None
        last = Edge(value, self.ask(*at(value)).high_bytes, None)
        if value == MOST["count"]:
            return last
        try:
            return last._replace(next_high_bytes=self.ask(*at(value + 1)).high_bytes)
        except RequestError as refusal:
            return last._replace(refused=str(refusal))


def limits(w: Workload, resolve: Callable[[Job], Workload], estimate: Callable[[Workload], Estimate]) -> Limits:
    """The largest batch at the job's length, the longest sequence at its batch, and the frontier between them."""
    asked = estimate(w)  # which refuses what cannot be estimated at all
    search = _Search(w, resolve, estimate)
    batch = None if "batch" in w.keep else search.largest_batch(w.seq)
    seq = None if "seq" in w.keep else search.longest(w.batch)
    total, usable = budget(w)
    return Limits(
        job=w.to_dict(),
        gpu=w.gpu.to_dict(),
        model=describe_model(w.model),
        total_bytes=total,
        usable_bytes=usable,
        batch=search.edge(batch, lambda value: (value, w.seq)),
        seq=search.edge(seq, lambda value: (w.batch, value)),
        frontier=_frontier(search, batch, seq),
        notes=tuple(dict.fromkeys((*w.notes, *asked.notes, *_notes(w, batch, seq)))),
    )


def _frontier(search: _Search, batch: int | None, seq: int | None) -> tuple[tuple[int, int], ...]:
    """The longest sequence for batches that double, for the batch as asked and for the largest at the length as asked."""
    w = search.w
    if {"batch", "seq"} <= {*w.keep}:
        return ((w.batch, w.seq),) if search.fits(w.batch, w.seq) else ()
    if "batch" in w.keep:
        return ((w.batch, seq),) if seq is not None else ()
    if "seq" in w.keep:
        return ((batch, w.seq),) if batch is not None else ()
    floor = min(w.seq, SHORTEST)
    doubled = ((count, search.longest(count)) for count in (2**power for power in range(DOUBLINGS + 1)))
    points = dict(takewhile(lambda point: (point[1] or 0) >= floor, doubled))
    if seq is not None:
        points[w.batch] = seq
    if batch is not None and batch < MOST["count"]:
        points[batch] = search.longest(batch)
    return tuple((count, length) for count, length in sorted(points.items()) if length is not None)


def _notes(w: Workload, batch: int | None, seq: int | None) -> list[str]:
    notes = []
    if seq is not None and w.model.max_context and seq > w.model.max_context:
        notes.append(f"{w.model.name} was made for {w.model.max_context:,} tokens: the card would hold more.")
    if MOST["count"] in (batch, seq):
        notes.append(f"{MOST['count']:,} is as far as this looks: memory sets no limit before it.")
    return notes
