"""The remedies: which keys of a job change when a rule fires.

A remedy tells its settings in order, the next one first. The walk takes the first that the job
accepts and that does not raise the estimate, so each firing is one setting on. Pure functions;
none looks at bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.memory.sharding import undivided

if TYPE_CHECKING:
    from advisor.model import Model
    from advisor.workload import Workload

Changes = dict[str, Any]


class NotApplicable(NamedTuple):
    """Why a remedy has nothing to offer to this job."""

    reason: str


Settings = list[Changes] | NotApplicable
Remedy = Callable[["Workload"], Settings]

LENGTHS = (32768, 16384, 8192)
# Bits that a weight has by its name; blocks carry scales on top, which the estimate counts.
BITS = {
    "int8": 8, "fp8": 8, "gptq-int8": 8, "q8_0": 8, "q6_k": 6, "q5_k_m": 5, "q5_k_s": 5, "q5_0": 5, "q5_1": 5,
    "int4": 4, "nf4": 4, "nf4-dq": 4, "gptq-int4": 4, "awq-int4": 4, "mxfp4": 4, "nvfp4": 4,
    "q4_k_m": 4, "q4_k_s": 4, "q4_0": 4, "q4_1": 4, "iq4_xs": 4, "iq4_nl": 4,
    "q3_k_l": 3, "q3_k_m": 3, "q3_k_s": 3, "iq3_m": 3, "iq3_xxs": 3, "q2_k": 2, "iq2_m": 2, "iq2_xxs": 2,
}  # fmt: skip


def weight_bits(w: Workload) -> int:
    """Bits of one weight of the job."""
    return BITS.get(w.quantization, 32 if w.precision == "fp32" else 16)


def halve_batch(w: Workload) -> Settings:
    return [{"batch": max(w.batch // 2, w.min_batch)}]


def limit_sequence(w: Workload) -> Settings:
    lengths = [length for length in LENGTHS if w.min_seq <= length < w.seq]
    if not lengths:
        return NotApplicable(f"the next shorter length is below the {w.min_seq} tokens of min_seq")
    return [_shorter(w, length) for length in lengths]


def _shorter(w: Workload, length: int) -> Changes:
    prompt = w.asked.prompt  # None follows the sequence by itself
    return {"seq": length, "prompt": length} if prompt is not None and prompt > length else {"seq": length}


def quantize_weights(w: Workload) -> Settings:
    kinds = [kind for kind in (w.engine.int8, w.engine.int4) if BITS[kind] < weight_bits(w)]
    if not kinds:
        return NotApplicable(f"the weights are {w.quantization} already")
    return [{"quantization": kind} for kind in kinds]


def split_model(w: Workload) -> Settings:
    ladder = _more_layers_apart(w) if w.deals_out_layers else _more_degrees(w)
    return ladder or NotApplicable(
        f"{w.gpus} GPUs are as far as the {w.max_gpus} of max_gpus, the heads and the layers of the model let it be divided"
    )


def _more_layers_apart(w: Workload) -> list[Changes]:
    return [_with_gpus(w, gpus) for gpus in doublings(w.gpus, w.max_gpus)]


def _more_degrees(w: Workload) -> list[Changes]:
    """Degrees and GPUs double together, so that the replicas stay; at max_gpus the replicas give their GPUs up."""
    ladder, tp, pp, gpus = [], w.tp, w.pp, w.gpus
    while degrees := next_degrees(w.model, tp, pp):
        tp, pp = degrees
        held = min(2 * gpus, w.max_gpus)
        held -= held % (tp * pp)
        if held < gpus:
            break
        gpus = held
        changes = {"tp": tp, "pp": pp, **_with_gpus(w, gpus)}
        ladder.append({key: value for key, value in changes.items() if value != getattr(w, key)})
    return ladder


def next_degrees(model: Model, tp: int, pp: int) -> tuple[int, int] | None:
    """Twice the GPUs for one copy: by tensor parallel where it divides the model's widths, else by pipeline parallel."""
    if not undivided(model, 2 * tp):
        return 2 * tp, pp
    return (tp, 2 * pp) if 2 * pp <= len(model.layers) else None


def checkpoint_everything(w: Workload) -> Settings:
    return [{"checkpointing": "full"}]


def accumulate_gradients(w: Workload) -> Settings:
    """Half the batch, or the largest below it that keeps the global batch whole: 5 becomes 1 × 5."""
    sequences = w.batch * w.accumulation
    most = max(w.batch // 2, w.min_batch)
    batch = max((batch for batch in _divisors(w.batch, w.accumulation) if batch <= most), default=0)
    if batch < w.min_batch:
        return NotApplicable(f"no batch from {w.min_batch} to {most} keeps the {sequences} sequences of one GPU's step")
    return [{"batch": batch, "accumulation": sequences // batch}]


def _divisors(*factors: int) -> set[int]:
    """The divisors of a product."""
    divisors = {1}
    for rest in factors:
        prime = 2
        while rest > 1:
            if prime * prime > rest:
                prime = rest
            if rest % prime == 0:
                rest //= prime
                divisors |= {divisor * prime for divisor in divisors}
            else:
                prime += 1
    return divisors


def shard(w: Workload) -> Settings:
    return [{"zero": stage} for stage in (2, 3) if stage > w.zero]


def plain_sgd(w: Workload) -> Settings:
    return [{"optimizer": "sgd"}]


def mixed_precision(w: Workload) -> Settings:
    return [{"precision": "bf16-mixed" if w.gpu.bf16 else "fp16-mixed"}]


def more_gpus(w: Workload) -> Settings:
    group = w.tp * w.pp * w.cp * w.ep  # ranks come in whole groups
    counts = doublings(w.gpus, w.max_gpus - w.max_gpus % group)
    if not counts:
        return NotApplicable(f"max_gpus {w.max_gpus} leaves no room for another {group} GPUs")
    return [spread(w, gpus) for gpus in counts]


def spread(w: Workload, gpus: int) -> Changes:
    """The job over so many GPUs, everything sharded; the batch of each stays, the steps of accumulation shrink."""
    changes = {"zero": 3, "accumulation": _accumulation(w, gpus // (w.tp * w.pp * w.cp)), **_with_gpus(w, gpus)}
    if "accumulation" in w.keep:
        del changes["accumulation"]
    return {key: value for key, value in changes.items() if value != getattr(w, key)}


def _accumulation(w: Workload, ranks: int) -> int:
    """Micro-steps that keep the global batch on so many ranks, or the fewest by division that do not go below it."""
    if w.accumulation * w.data_parallel % ranks == 0:
        return w.accumulation * w.data_parallel // ranks
    divisors = [n for n in range(1, ranks // w.data_parallel + 1) if w.accumulation % n == 0]
    return w.accumulation // max(divisors)


def on_gpus(w: Workload, gpus: int) -> Changes | None:
    """The last remedy of its walk taken to so many GPUs at once; None where the model cannot be divided so far."""
    if w.task == "train":
        return spread(w, gpus) if gpus % (w.tp * w.pp * w.cp * w.ep) == 0 else None
    if w.deals_out_layers:
        return _with_gpus(w, gpus)
    tp, pp = w.tp, w.pp
    while tp * pp < gpus:
        degrees = next_degrees(w.model, tp, pp)
        if degrees is None:
            return None
        tp, pp = degrees
    return {"tp": tp, "pp": pp, **_with_gpus(w, gpus)}


def doublings(least: int, most: int) -> list[int]:
    """Twice as many, four times as many and so on; the last step goes to ``most``.

    >>> doublings(3, 16)
    [6, 12, 16]
    """
    counts = []
    while least < most:
        least = min(2 * least, most)
        counts.append(least)
    return counts


def _with_gpus(w: Workload, gpus: int) -> Changes:
    """So many GPUs, and as many machines as hold them where the user counted the machines."""
    nodes = -(-gpus // w.gpu.per_node)
    return {"gpus": gpus, "nodes": nodes} if w.asked.nodes is not None and nodes > w.nodes else {"gpus": gpus}


REMEDIES: dict[str, Remedy] = {
    remedy.__name__: remedy
    for remedy in (
        halve_batch,
        limit_sequence,
        quantize_weights,
        split_model,
        checkpoint_everything,
        accumulate_gradients,
        shard,
        plain_sgd,
        mixed_precision,
        more_gpus,
    )
}
