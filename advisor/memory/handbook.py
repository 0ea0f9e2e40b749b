"""The two simple estimators, ``checklist`` and ``quick``: the memory guide's formulas, to the digit.

The guide is "How many B of model fit on my GPU?" (asidefine.tistory.com, 6 July 2025, in Korean); section
numbers (§) are its own. It writes "GB" for billions of parameters × bytes (10⁹) and for caches and
activations / 1024³ (2³⁰) and adds the two. That mix is kept: a figure here is the guide's GB, and its
number × 10⁹, rounded, is what every byte field of the estimate holds.

What the guide leaves open is decided so:

- ZeRO-1, -2, -3 divide state, gradients and weights by the data-parallel GPUs (§6.2). Splitting a model
  divides the weights, and with them the gradients and the state, which §4.1 derives from them.
- System overhead is a share of the model, and so of the part of the model that this GPU holds: it shrinks
  with splitting and ZeRO-3, and is whole under ZeRO-2, as in the example of §4.4.
- KV cache, activations and input are not derived from the model: splitting leaves them whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.errors import RequestError
from advisor.results import Estimate, Origin, Part
from advisor.workload import Workload

GB = 10**9
GIB = 2**30

# §1.2 knows FP32, FP16, INT8 and INT4: bytes of one value, of whatever kind.
PRECISION_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp16-mixed": 2.0, "bf16-mixed": 2.0}
QUANTIZATION_BYTES = {
    **dict.fromkeys(("int8", "fp8", "gptq-int8", "q8_0"), 1.0),
    **dict.fromkeys(("int4", "nf4", "nf4-dq", "gptq-int4", "awq-int4", "mxfp4", "nvfp4"), 0.5),
    **dict.fromkeys(("q4_k_m", "q4_k_s", "q4_0", "q4_1", "iq4_xs", "iq4_nl"), 0.5),
}
KV_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "q8_0": 1.0, "q4_0": 0.5}

# §4.1 and §4.2: optimizer state as a multiple of the model. Adafactor is the table's 10 GB for a model of 14.
STATE_FACTOR = {
    **dict.fromkeys(
        ("adamw", "adamw-fused", "adamw-bf16", "adamw-8bit", "paged-adamw", "paged-adamw-8bit", "galore-adamw"), 2.0
    ),
    **dict.fromkeys(("sgd", "sgd-momentum", "lion", "lion-8bit", "muon"), 1.0),
    "adafactor": 10 / 14,
    "none": 0.0,
}
CHECKPOINTED = 0.2  # §6.2: checkpointing saves 80 % of the activations
MARGIN = 0.1
OVERHEAD = {"infer": (0.2, 1), "train": (0.3, 2)}  # a share of the model, and GB
INPUT_FACTOR = {"infer": 2, "train": 4}
SECTION = {
    ("checklist", "infer"): "§3.1",
    ("checklist", "train"): "§4.1",
    ("quick", "infer"): "§8.1",
    ("quick", "train"): "§8.1",
}
QUICK_SHAPE = (4096, 32)  # §8.1 has the hidden size and the layers of a 7B in it, whatever the model

UNITS_NOTE = (
    "The memory guide mixes 10⁹ (weights) and 2³⁰ (caches, activations) in its GB; shown is its number, times 10⁹ as bytes."
)
ACTIVATIONS_NOTE = (
    "The guide's activations (§4.1) are an order of magnitude below what a transformer keeps for the backward pass without"
    " checkpointing; the detailed estimator counts them."
)


class Term(NamedTuple):
    """One line of a checklist, in the guide's GB."""

    name: str
    gb: float
    formula: str


def estimate(w: Workload) -> Estimate:
    """The guide's total for ``w`` on one GPU; ``w.estimator`` is ``checklist`` or ``quick``."""
    _refuse(w)
    terms = [term for term in _terms(w) if term.gb]
    total = round(sum(term.gb for term in terms) * GB)
    return Estimate(
        allocated_bytes=total,
        reserved_bytes=total,
        device_bytes=total,
        low_bytes=total,
        high_bytes=total,
        fits=total <= budget_bytes(w),
        peak_phase=None,
        phases={},
        parts=_parts(terms, total, f"memory guide {SECTION[w.estimator, w.task]}"),
        notes=(*w.notes, *_notes(w)),
    )


def budget_bytes(w: Workload) -> int:
    """What the job may take: the size that the card is sold as × 10⁹, less if only some is free or the engine takes a share."""
    nominal = round(w.gpu.marketed_gb * GB) or w.gpu.total_bytes
    limits = [nominal if w.free is None else w.free]
    if w.memory_fraction is not None:
        limits.append(int(w.memory_fraction * nominal))
    return min(limits)


def bytes_per_value(w: Workload) -> float:
    """The one size that serves weights, KV cache, activations and input alike (§1.2)."""
    if w.quantization == "none":
        return PRECISION_BYTES[w.precision]
    if w.quantization not in QUANTIZATION_BYTES:
        raise RequestError(
            f"the memory guide knows 8-bit and 4-bit quantization only, not {w.quantization}: use --estimator detailed"
        )
    return QUANTIZATION_BYTES[w.quantization]


def billions(w: Workload) -> float:
    """Parameters as the guide counts them: what the size class is called by, else the model's own count, / 10⁹."""
    if w.model.nominal is not None:
        return w.model.nominal / GB
    from advisor.memory.parameters import parameter_count

    return parameter_count(w.model) / GB


def _refuse(w: Workload) -> None:
    if w.task == "train" and w.method != "full":
        raise RequestError(f"the memory guide knows no adapters: --method {w.method} needs --estimator detailed")
    if w.estimator == "quick" and w.quantization == "none" and w.precision == "fp32":
        raise RequestError("the quick formulas have no fp32: use --estimator checklist or detailed")
    if w.estimator == "quick" and w.quantization != "none" and w.task == "train":
        raise RequestError("the quick formula for training counts 16-bit weights only: use --estimator detailed")


def _terms(w: Workload) -> Iterator[Term]:
    """The lines of the checklist in the guide's order, those that are zero too."""
    terms = [_share_of_model(w, "model", 1, zero_stage=3)]
    if w.task == "train":
        terms += [
            _share_of_model(w, "gradients", 1, zero_stage=2),
            _share_of_model(w, "optimizer-state", STATE_FACTOR[w.optimizer], zero_stage=1),
            _per_token(w, "activations", CHECKPOINTED if w.checkpointing == "full" else 1, layered=True),
        ]
    else:
        terms.append(_per_token(w, "kv-cache", 2, layered=True))
    if w.estimator == "checklist":
        terms.append(_per_token(w, "input-data", INPUT_FACTOR[w.task], layered=False))
    share, fixed = OVERHEAD[w.task]
    terms.append(Term("system-overhead", share * terms[0].gb + fixed, f"{share:g} × {terms[0].gb:.10g} + {fixed}"))
    yield from terms
    if w.estimator == "checklist":
        together = sum(term.gb for term in terms)
        yield Term("safety-margin", MARGIN * together, f"{MARGIN:g} × {together:.10g}")


def _share_of_model(w: Workload, name: str, factor: float, *, zero_stage: int) -> Term:
    """A multiple of the model, divided by what splits it and, from ``zero_stage`` on, by the data-parallel GPUs."""
    size, count = bytes_per_value(w), billions(w)
    sharded = w.task == "train" and w.zero >= zero_stage
    gpus = w.sharers * (w.data_parallel if sharded else 1)
    formula = f"{count:.12g} billion × {size:g} bytes" + (f" × {factor:.10g}" if factor != 1 else "")
    return Term(name, count * size * factor / gpus, formula + (f" / {gpus} GPUs" if gpus > 1 else ""))


def _per_token(w: Workload, name: str, factor: float, *, layered: bool) -> Term:
    """Batch × sequence × hidden × bytes × a factor, in every layer or once."""
    size = bytes_per_value(w)
    hidden, layers = QUICK_SHAPE if w.estimator == "quick" else (w.model.hidden, len(w.model.layers))
    gb = w.batch * w.seq * hidden * (layers if layered else 1) * size * factor / GIB
    shape = f"hidden {hidden}" + (f" × {layers} layers" if layered else "")
    times = f" × {factor:g}" if factor != 1 else ""
    return Term(name, gb, f"batch {w.batch} × {w.seq} tokens × {shape} × {size:g} bytes{times} / 1024³")


def _parts(terms: list[Term], total: int, source: str) -> tuple[Part, ...]:
    """Parts that add up to ``total``. The last, a margin or an overhead and so a guess, takes the few bytes that rounding leaves."""
    parts = [Part(term.name, round(term.gb * GB), Origin(term.formula, source)) for term in terms]
    parts[-1] = parts[-1]._replace(bytes=total - sum(part.bytes for part in parts[:-1]))
    return tuple(parts)


def _notes(w: Workload) -> Iterator[str]:
    yield UNITS_NOTE
    if w.task == "train" and w.checkpointing != "full":
        yield ACTIVATIONS_NOTE
    if w.task == "train" and w.checkpointing == "selective":
        yield "The guide knows no selective checkpointing: activations are counted whole."
    if w.task == "infer" and bytes_per_value(w) != KV_BYTES[w.kv_precision]:
        yield f"The guide counts the KV cache at {bytes_per_value(w):g} B a value, as the weights, not in {w.kv_precision}."
    unknown = [name for name, used in (("offload", w.offload), ("cp", w.cp > 1), ("ep", w.ep > 1)) if used]
    if unknown:
        yield f"The guide knows nothing of {' or '.join(unknown)}: they save nothing here."
