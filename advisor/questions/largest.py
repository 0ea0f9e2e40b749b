"""The largest model that a card holds, by task and number format: the question that the memory guide is called after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from advisor import catalog
from advisor.errors import RequestError
from advisor.job import Job
from advisor.memory.sharding import ranks
from advisor.planning.describe import budget
from advisor.planning.steps import Estimator, Resolver
from advisor.questions.edge import edge
from advisor.questions.shapes import LADDER, Shape, firsts, shapes
from advisor.results import Estimate
from advisor.workload import Workload

# What the rows ask, each a task and keys of a job. A key that was given or is to be kept is not varied.
KINDS: tuple[tuple[str, dict[str, str]], ...] = (
    ("infer", {"quantization": "none"}),
    ("infer", {"quantization": "int8"}),
    ("infer", {"quantization": "int4"}),
    ("train", {"method": "full"}),
    ("train", {"method": "full", "precision": "bf16-mixed"}),
    ("train", {"method": "lora"}),
    ("train", {"method": "qlora"}),
)
EXAMPLES = 3
HELD = ("model", "weights", "gradients", "optimizer-state", "master-weights")  # parts that grow with the parameters alone
AGAIN = 2  # times the size up to which a wider shape is looked at that may fit where a deeper one does not
REACH = 1.5  # times its size: no larger example is looked for in training, where a model's first estimate takes the longest
# Of what a Llama holds per parameter: no other model of the same format holds less, on one GPU or on the fullest of several.
LESS, LESS_OF_SEVERAL = 0.8, 0.5


class Row(NamedTuple):
    """The largest model for one task and number format. No shape where not even the smallest fits."""

    w: Workload  # the job, on the largest shape that fits or the smallest that does not
    high_bytes: int
    shape: Shape | None
    beyond: Shape | None  # the next larger one; None at the end of the ladder
    examples: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def billions(self) -> float | None:
        return self.shape and round(self.shape.parameters / 10**9, 3)

    def to_dict(self) -> dict[str, Any]:
        w = self.w
        return {
            "task": w.task,
            "method": w.method if w.task == "train" else None,
            "precision": w.precision,
            "quantization": w.quantization,
            "billions": self.billions,
            "examples": list(self.examples),
            "next_billions": self.beyond and round(self.beyond.parameters / 10**9, 3),
            "high_bytes": self.high_bytes,
            "batch": w.batch,
            "seq": w.seq,
            "config": self.shape and self.shape.config(),
        }


class Largest(NamedTuple):
    """The answer for one card."""

    asked: dict[str, Any]
    gpu: dict[str, Any]
    total_bytes: int
    usable_bytes: int
    rows: tuple[Row, ...]
    guide: tuple[dict[str, Any], ...] = ()  # what the memory guide claims of this card, with its own checklist beside it
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 0 if any(row.shape for row in self.rows) else 3

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "rows": [row.to_dict() for row in self.rows],
            "asked": {key: list(value) if isinstance(value, tuple) else value for key, value in self.asked.items()},
            "gpu": self.gpu,
            "budget": {"total_bytes": self.total_bytes, "usable_bytes": self.usable_bytes},
            "shapes": list(LADDER),
            "guide": list(self.guide),
            "notes": list(self.notes),
        }


def largest(job: Job, resolve: Resolver, estimator: Callable[[Workload], Estimator]) -> Largest:
    """The largest model for each of the kinds that the job leaves open. Raises RequestError where it leaves none.

    ``estimator`` is asked for once for each kind: what earlier jobs have taught may be of one task only.
    """
    rows: list[Row] = []
    refusals: dict[str, str] = {}
    for task, keys in _open(job):
        try:
            rows.append(_row(job, task, keys, resolve, estimator))
        except RequestError as refusal:
            refusals.setdefault(str(refusal), "inference" if task == "infer" else f"{keys.get('method', '')} training".strip())
    if not rows:
        raise RequestError(next(iter(refusals)))
    total, usable = budget(rows[0].w)
    guide = _guide(rows[0].w) if rows[0].w.estimator == "checklist" else ()
    left_out = [f"Left out, {kind}: {why}" for why, kind in refusals.items()]
    notes = tuple(dict.fromkeys((*(note for row in rows for note in row.notes), *left_out)))
    return Largest(job.given(), rows[0].w.gpu.to_dict(), total, usable, tuple(rows), guide, notes)


def _open(job: Job) -> list[tuple[str, dict[str, str]]]:
    """The kinds, without what the job says itself; those that are one then, once."""
    fixed = {*job.given(), *(job.keep or ())}
    if job.estimator in ("checklist", "quick") or not catalog.find_gpu(job.gpu or "").bf16:
        fixed.add("precision")  # to the guide mixed is 16 bits like any, and a card without bf16 trains mixed anyway
    found: list[tuple[str, dict[str, str]]] = []
    for task, keys in KINDS:
        varied = (task, {key: value for key, value in keys.items() if key not in fixed})
        if varied not in found:
            found.append(varied)
    return found


def _row(job: Job, task: str, keys: dict[str, str], resolve: Resolver, estimator: Callable[[Workload], Estimator]) -> Row:
    def on(shape: Shape) -> Workload:
        return resolve(job.with_changes(**{task: shape.config()}, **keys))

    found = _possible(on)
    estimate = estimator(on(found[0]))
    place = _last_that_fits(found, lambda place: estimate(on(found[place])).fits)
    shape = found[place or 0]
    w = on(shape)
    answer = estimate(w)
    some = (f"The parallel degrees divide {len(found)} of {len(shapes())} shapes; others are left out.",)
    notes = (*w.notes, *answer.notes, *(some if len(found) < len(shapes()) else ()))
    if place is None:
        return Row(w, answer.high_bytes, None, shape, (), notes)
    beyond = found[place + 1] if place + 1 < len(found) else None
    return Row(w, answer.high_bytes, shape, beyond, _examples(w, shape, answer, resolve, estimate), notes)


def _last_that_fits(ladder: Sequence[Shape], fits: Callable[[int], bool]) -> int | None:
    """The edge, or a later one: a wider shape that is less deep may fit again."""
    end = len(ladder) - 1
    place = edge(fits, 0, end, step=len(ladder) // 4 + 1)
    if place is None:
        return None
    starts = [
        each for each in firsts(ladder) if each > place + 1 and ladder[each].parameters < AGAIN * ladder[place].parameters
    ]
    later = next((each for each in reversed(starts) if fits(each)), None)
    return place if later is None else edge(fits, later, end)


def _possible(on: Callable[[Shape], Workload]) -> Sequence[Shape]:
    """The shapes that the job's parallel degrees divide. Raises RequestError where there is none."""
    found, refusals = [], []
    for shape in shapes():
        w = on(shape)
        if w.gpus == 1:
            return shapes()
        try:
            list(ranks(w))
            found.append(shape)
        except RequestError as refusal:
            refusals.append(refusal)
    if not found:
        raise refusals[-1]
    return found


def _examples(w: Workload, shape: Shape, of_shape: Estimate, resolve: Resolver, estimate: Estimator) -> tuple[str, ...]:
    """The largest models of the catalogue that fit with the very settings of the row; of those of one size the first."""
    settings = {key: getattr(w, key) for key in ("batch", "seq", "prompt", "precision", "quantization")}
    asked = w.asked.with_changes(**settings, **({"method": w.method} if w.task == "train" else {}))
    tried: set[int] = set()
    found: list[str] = []
    for parameters, slug in _candidates(w, shape, of_shape):
        if parameters in tried or catalog.find_model(slug).ends is not None:
            continue
        tried.add(parameters)
        try:
            if estimate(resolve(asked.with_changes(**{w.task: slug}))).fits:
                found.append(slug)
        except RequestError:
            continue
        if len(found) == EXAMPLES:
            break
    return tuple(found)


def _candidates(w: Workload, shape: Shape, of_shape: Estimate) -> Iterator[tuple[int, str]]:
    """Models by parameters, the largest that can fit first: the guide's size classes for its own formulas, real ones otherwise."""
    held = sum(part.bytes for part in of_shape.parts if part.name in HELD) / shape.parameters
    most = budget(w)[1] / ((LESS_OF_SEVERAL if w.gpus > 1 else LESS) * held) if held and not w.offload else float("inf")
    if w.task == "train":
        most = min(most, REACH * shape.parameters)
    simple = w.estimator != "detailed"
    known = [
        (model.nominal or model.counted or model.published or 0, model.slug)
        for model in catalog.models()
        if model.estimated and (model.nominal is not None) == simple and (model.context is None or model.context >= w.seq)
    ]
    # Sorting is stable: of models of one size the catalogue's first comes first.
    return ((parameters, slug) for parameters, slug in sorted(known, key=lambda pair: -pair[0]) if 0 < parameters <= most)


def _guide(w: Workload) -> tuple[dict[str, Any], ...]:
    """What the memory guide says of this card (§5) and of cards of its size (§8.2)."""
    from advisor.planning.claims import claims, is_of_card

    return tuple(
        {"section": claim.section, "says": claim.says, "checklist_gb": claim.formula_gb, "contradicts": claim.contradicts}
        for claim in claims()
        if claim.section.startswith(("§5", "§8.2")) and is_of_card(claim, w.gpu)
    )
