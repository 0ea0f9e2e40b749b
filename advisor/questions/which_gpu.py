"""The cards that hold a job: how many of each, with what headroom, and after which changes where it does not fit as asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from advisor.errors import RequestError
from advisor.estimator import holds
from advisor.hardware import Gpu
from advisor.job import Job
from advisor.planning.describe import budget, describe_model
from advisor.planning.dividing import doublings, on_gpus
from advisor.planning.plan import search_of
from advisor.planning.pruning import without_needless
from advisor.planning.routes import find_routes
from advisor.planning.space import job_key
from advisor.planning.steps import Estimator, Resolver, State, Tools, changes_of
from advisor.planning.walk import all_steps
from advisor.results import Estimate, Step
from advisor.workload import Workload

SEARCHED = 8  # cards on which other orders are searched one by one; of more, the largest of each kind
LARGEST = "2048GB"  # a card without a maker on which anything that is a job at all can be asked


class Row(NamedTuple):
    """A card, and how many of it hold the job: as asked, or after the rules of ``plan``.

    ``headroom_bytes`` is what is left of each at the upper end of the interval; below zero where nothing within the limits helps.
    ``changes`` are the keys that differ from the job as asked.
    """

    gpu: Gpu
    gpus: int
    fits: bool
    headroom_bytes: int
    plan: tuple[str, ...] = ()
    changes: dict[str, Any] | None = None

    @property
    def holds(self) -> bool:
        """Whether the job runs on it, as asked or changed."""
        return self.fits or bool(self.plan)

    def to_dict(self) -> dict[str, Any]:
        return {
            "gpu": self.gpu.slug,
            "gpus": self.gpus,
            "fits": self.fits,
            "headroom_bytes": self.headroom_bytes,
            "plan": list(self.plan),
            "name": self.gpu.name,
            "marketed_gb": self.gpu.marketed_gb,
            "changes": dict(self.changes or {}),
        }


class Cards(NamedTuple):
    """The answer: rows with the smallest memory in all first, those that hold the job as asked before the others."""

    job: dict[str, Any]  # every key, as decided on a card that has everything
    model: dict[str, Any]
    rows: tuple[Row, ...]
    refused: tuple[tuple[str, str], ...]  # cards on which it is no job, and why
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 0 if any(row.holds for row in self.rows) else 3

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "rows": [row.to_dict() for row in self.rows],
            "job": self.job,
            "model": self.model,
            "refused": [{"gpu": slug, "reason": reason} for slug, reason in self.refused],
            "notes": list(self.notes),
        }


def which_gpu(job: Job, cards: Iterable[Gpu], resolve: Resolver, estimate: Estimator) -> Cards:
    """How each of the cards holds the job. Raises RequestError where it is no job on any card."""
    anywhere = resolve(job.with_changes(gpu=LARGEST))
    estimate(anywhere)
    held: list[Row] = []
    short: list[Workload] = []
    refused: list[tuple[str, str]] = []
    notes = list(anywhere.notes)
    for card in cards:
        try:
            w = resolve(job.with_changes(gpu=card.slug))
            row = _as_asked(w, resolve, estimate)
        except RequestError as refusal:
            refused.append((card.slug, str(refusal)))
            continue
        notes = [note for note in notes if note in w.notes]  # what is said on every card is of the job
        if row is None:
            short.append(w)
        else:
            held.append(row)
    if refused and not held and not short:
        raise RequestError(refused[0][1])
    groups = _alike(short)
    rows = held + [row for alike in groups for row in _after_changes(alike, resolve, estimate)]
    if not any(row.holds for row in rows):  # the last word is that of other orders; searching them takes as long as ten walks
        searched = short if len(short) <= SEARCHED else [alike[-1] for alike in groups]
        found = {row.gpu: row for w in searched if (row := _searched(w, resolve, estimate))}
        rows = [found.get(row.gpu, row) for row in rows]
    return Cards(
        job={**anywhere.to_dict(), "gpu": None},
        model=describe_model(anywhere.model),
        rows=tuple(sorted(rows, key=_place)),
        refused=tuple(refused),
        notes=tuple(notes),
    )


def filtered(cards: Iterable[Gpu], vendor: str | None, family: str | None, memory: str | None) -> list[Gpu]:
    """The cards of a maker, of an architecture, of a size as sold. Raises RequestError where there is none."""
    found = list(cards)
    if vendor is not None:
        found = _named("vendor", vendor, found, lambda gpu: [gpu.vendor])
    if family is not None:
        found = _named("family", family, found, lambda gpu: [gpu.architecture, *gpu.architecture.split()])
    if memory is not None:
        least, most = _sizes(memory)
        found = [gpu for gpu in found if least <= gpu.marketed_gb <= most]
        if not found:
            raise RequestError(f"memory: no card of these is sold with {memory}")
    return found


def _named(filter: str, said: str, cards: list[Gpu], names: Callable[[Gpu], list[str]]) -> list[Gpu]:
    wanted = said.strip().lower()
    found = [gpu for gpu in cards if wanted in [name.lower() for name in names(gpu)]]
    if not found:
        known = sorted({names(gpu)[0] for gpu in cards})
        raise RequestError(f"{filter}: no card is of {said!r}; there are {', '.join(known)}")
    return found


def _sizes(memory: str) -> tuple[float, float]:
    """``24GB`` is that size, ``24GB-80GB`` a range, ``24GB+`` that or more."""
    number = r"(\d{1,5}(?:\.\d{1,3})?)\s*(?:Gi?B?)?"
    found = re.fullmatch(rf"\s*{number}\s*(?:(\+)|-\s*{number})?\s*", memory, re.IGNORECASE | re.ASCII)
    if not found:
        raise RequestError(f"memory: {memory!r} does not do: a size such as 24GB, 24GB+ or 24GB-80GB")
    least = float(found[1])
    return least, float(found[3]) if found[3] else float("inf") if found[2] else least


def _as_asked(w: Workload, resolve: Resolver, estimate: Estimator) -> Row | None:
    """The fewest of the card that hold the job with nothing changed but what divides it over them."""
    for changes in _counts(w):
        try:
            changed = resolve(w.asked.with_changes(**changes)) if changes else w
            found = estimate(changed)
        except RequestError:
            if not changes:
                raise
            continue
        if found.fits:
            return _row(changed, found, True, (), changes)
    return None


def _counts(w: Workload) -> Iterator[dict[str, Any]]:
    """The job as it is, then over more and more cards where that leaves each less to hold: training without ZeRO copies it."""
    yield {}
    if "gpus" in w.keep or (w.task == "train" and not w.zero):
        return
    for gpus in doublings(w.gpus, w.max_gpus):
        changes = on_gpus(w, gpus)
        if changes and not any(key in w.keep for key in changes):
            yield {key: value for key, value in changes.items() if key != "zero"}


def _alike(workloads: Iterable[Workload]) -> list[list[Workload]]:
    """Those whose cards differ in nothing but names and memory, the smallest first."""
    groups: dict[Any, list[Workload]] = {}
    for w in workloads:
        gpu = w.gpu
        traits = (
            gpu.vendor,
            gpu.architecture.partition(" ")[0],
            gpu.compute_capability,
            gpu.bf16,
            gpu.fp8,
            bool(gpu.link),
            gpu.per_node,
        )
        groups.setdefault(traits, []).append(w)
    return [sorted(group, key=lambda w: (budget(w)[1], w.gpu.total_bytes)) for group in groups.values()]


def _after_changes(alike: list[Workload], resolve: Resolver, estimate: Estimator) -> list[Row]:
    """The plan of each: no rule asks for the size of the memory, so the walk of the least stops the latest, and each other on its way."""
    tools = Tools(resolve, _remembered(estimate))
    least = State(alike[0], tools.estimate(alike[0]))
    steps = all_steps(least, tools)[0]
    rows, taken = [], 1
    for w in reversed(alike):
        row, taken = _planned(w, steps, taken, tools)
        rows.append(row)
    return rows


def _planned(w: Workload, walked: list[Step], least: int, tools: Tools) -> tuple[Row, int]:
    """The card after as many of the steps as it takes, without those that turn out not to be needed; a larger one took ``least``."""
    initial = State(w, tools.estimate(w))
    for count in range(least, len(walked) + 1):
        changed = tools.resolve(w.asked.with_changes(**changes_of(walked[:count])))
        reached = State(changed, tools.estimate(changed))
        if reached.estimate.fits:
            steps, last = without_needless(initial, walked[:count], reached, tools)
            needed = [step for step in steps if step.needed]
            return _row(*last, False, tuple(step.rule for step in needed), changes_of(needed)), count
    return _row(*initial, False, (), {}), len(walked) + 1


def _searched(w: Workload, resolve: Resolver, estimate: Estimator) -> Row | None:
    """The card after the steps that `advise` finds for it in another order, where it finds some."""
    route = next((route for route, _ in find_routes(search_of(w, resolve, estimate), ["cheapest"])), None)
    if route is None:
        return None
    changes = changes_of(route.steps)
    changed = resolve(w.asked.with_changes(**changes))
    return _row(changed, route.final.estimate, False, tuple(step.rule for step in route.steps), changes)


def _remembered(estimate: Estimator) -> Estimator:
    """The estimates of cards that differ in memory alone: one job takes the same on each, but for what looks at the memory itself."""
    known: dict[Any, Estimate] = {}

    def ask(w: Workload) -> Estimate:
        if w.estimator != "detailed" or w.engine.serving or "layers" in w.offload or w.observed:
            return estimate(w)
        key = job_key(w)
        if key not in known:
            known[key] = estimate(w)
        found = known[key]
        return found._replace(fits=holds(w, found))

    return ask


def _row(w: Workload, estimate: Estimate, fits: bool, plan: tuple[str, ...], changes: dict[str, Any]) -> Row:
    return Row(w.gpu, w.gpus, fits, budget(w)[1] - estimate.high_bytes, plan, changes)


def _place(row: Row) -> tuple[Any, ...]:
    memory = row.gpu.marketed_gb
    return (not row.fits, not row.plan, row.gpus * memory, row.gpus, len(row.plan), row.headroom_bytes, row.gpu.slug)
