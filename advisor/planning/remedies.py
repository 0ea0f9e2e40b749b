"""The remedies: which keys of a job change when a rule fires.

A remedy tells its settings in order, the next one first. The walk takes the first that the job
accepts and that does not raise the estimate, so each firing is one setting on; no setting means
that the remedy has come to its end. Pure functions; none looks at bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.planning.abilities import abilities
from advisor.planning.dividing import Changes, divisors, doublings, next_degrees, spread, with_gpus
from advisor.planning.software import runs_on

if TYPE_CHECKING:
    from advisor.workload import Workload


class NotApplicable(NamedTuple):
    """Why a remedy has nothing to offer to this job."""

    reason: str


Settings = list[Changes] | NotApplicable
Remedy = Callable[["Workload"], Settings]

LENGTHS = (32768, 16384, 8192)
CHUNKS = (2048, 512)  # tokens of a prompt that are read in one pass
KV_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "int8": 8, "q8_0": 8, "q4_0": 4}
BITSANDBYTES = ("int8", "nf4", "nf4-dq")
IN_8_BITS = {
    "adamw": "adamw-8bit",
    "adamw-fused": "adamw-8bit",
    "adamw-bf16": "adamw-8bit",
    "paged-adamw": "paged-adamw-8bit",
    "lion": "lion-8bit",
}
PLAIN = {"adamw-8bit": "adamw", "paged-adamw": "adamw", "paged-adamw-8bit": "adamw", "lion-8bit": "lion"}
PAGED = {"adamw": "paged-adamw", "adamw-fused": "paged-adamw", "adamw-8bit": "paged-adamw-8bit"}
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
    smaller = [kind for kind in (w.engine.int8, w.engine.int4) if BITS[kind] < weight_bits(w)]
    if not smaller:
        return NotApplicable(f"the weights are {w.quantization} already")
    kinds = [kind for kind in smaller if _runs(kind, w)]
    if not kinds:
        return NotApplicable(f"{w.engine.name} runs {' and '.join(smaller)} on other cards only")
    return [{"quantization": kind} for kind in kinds]


def _runs(kind: str, w: Workload) -> bool:
    """Whether engine and card run weights of this format. The guide's own formulas know neither."""
    if w.estimator != "detailed":
        return True
    if kind in BITSANDBYTES:
        return runs_on("bitsandbytes", w.gpu)
    if kind == "fp8" and w.gpu.vendor == "amd" and not w.gpu.fp8:
        return (
            False  # what unpacks it for cards that do not compute in it is Marlin, of CUDA (vLLM 0.32 documentation, FP8 W8A8)
        )
    return w.gpu.reaches(abilities(w.engine.name).weights.get(kind, 0))


def split_model(w: Workload) -> Settings:
    ladder = _more_layers_apart(w) if w.deals_out_layers else _more_degrees(w)
    return ladder or NotApplicable(
        f"{w.gpus} GPUs are as far as the {w.max_gpus} of max_gpus, the heads and the layers of the model let it be divided"
    )


def _more_layers_apart(w: Workload) -> list[Changes]:
    return [with_gpus(w, gpus) for gpus in doublings(w.gpus, w.max_gpus)]


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
        changes = {"tp": tp, "pp": pp, **with_gpus(w, gpus)}
        ladder.append({key: value for key, value in changes.items() if value != getattr(w, key)})
    return ladder


def checkpoint_everything(w: Workload) -> Settings:
    return [{"checkpointing": "full"}]


def accumulate_gradients(w: Workload) -> Settings:
    """Half the batch, or the largest below it that keeps the global batch whole: 5 becomes 1 × 5."""
    sequences = w.batch * w.accumulation
    most = max(w.batch // 2, w.min_batch)
    batch = max((batch for batch in divisors(w.batch, w.accumulation) if batch <= most), default=0)
    if batch < w.min_batch:
        return NotApplicable(f"no batch from {w.min_batch} to {most} keeps the {sequences} sequences of one GPU's step")
    return [{"batch": batch, "accumulation": sequences // batch}]


def shard(w: Workload) -> Settings:
    return [{"zero": stage} for stage in (2, 3) if stage > w.zero]


def plain_sgd(w: Workload) -> Settings:
    return [{"optimizer": "sgd"}]


def mixed_precision(w: Workload) -> Settings:
    """Under autocast; then 16-bit weights beside fp32 masters, where the engine keeps these."""
    half = "bf16" if w.gpu.bf16 else "fp16"
    autocast, masters = {"precision": f"{half}-mixed"}, {"precision": half}
    return [autocast, masters] if w.engine.masters else [autocast]


def more_gpus(w: Workload) -> Settings:
    group = w.tp * w.pp * w.cp * w.ep  # ranks come in whole groups
    counts = doublings(w.gpus, w.max_gpus - w.max_gpus % group)
    if not counts:
        return NotApplicable(f"max_gpus {w.max_gpus} leaves no room for another {group} GPUs")
    return [spread(w, gpus) for gpus in counts]


# --- beyond the guide ------------------------------------------------------------------------------------------------


def chunk_loss(w: Workload) -> Settings:
    return [{"loss": "chunked"}]


def faster_attention(w: Workload) -> Settings:
    """FlashAttention; where it cannot run, what PyTorch has in its place, unless the scores are soft-capped."""
    from advisor.defaults import why_not_flash

    why_not = why_not_flash(w.engine, w.gpu, w.model, w.precision)
    if not why_not:
        return [{"attention": "flash"}]
    return NotApplicable(why_not) if w.model.eager_only else [{"attention": "auto"}]


def fuse_optimizer(w: Workload) -> Settings:
    return [{"optimizer": "adamw-fused"}]


def expand_segments(w: Workload) -> Settings:
    return [{"allocator": "expandable"}]


def pure_16_bit(w: Workload) -> Settings:
    return [{"precision": "bf16"}]


def shard_with_fsdp(w: Workload) -> Settings:
    """On the GPUs there are, then on more of them."""
    sharded = (w.sharding, w.zero) == ("fsdp", 3)
    here = [] if w.data_parallel == 1 or sharded else [_differing(w, sharding="fsdp", zero=3)]
    more = more_gpus(w)
    if isinstance(more, NotApplicable):
        return here if here or sharded else more
    return [*here, *(_differing(w, sharding="fsdp", **changes) for changes in more)]


def _differing(w: Workload, **changes: Any) -> Changes:
    return {key: value for key, value in changes.items() if value != getattr(w, key)}


def optimizer_in_8_bits(w: Workload) -> Settings:
    return _other_optimizer(w, IN_8_BITS, "AdamW and Lion have 8-bit forms")


def page_optimizer(w: Workload) -> Settings:
    return _other_optimizer(w, PAGED, "AdamW has a paged form")


def _other_optimizer(w: Workload, forms: dict[str, str], which: str) -> Settings:
    kind = forms.get(w.optimizer)
    return [{"optimizer": kind}] if kind else NotApplicable(f"{which}; the optimizer is {w.optimizer}")


def offload_optimizer(w: Workload) -> Settings:
    """DeepSpeed moves the optimizer of stages 2 and 3, and the gradients with it, on one GPU too (ZeRO-Offload).

    Where bitsandbytes' forms cannot be moved, the plain one can.
    """
    with_gradients = abilities(w.engine.name).deepspeed and w.sharding == "deepspeed" and w.zero < 2 and "zero" not in w.keep
    away = _with("optimizer", w) | ({"zero": 2} if with_gradients else {})
    plain = PLAIN.get(w.optimizer)
    return [away, away | {"optimizer": plain}] if plain else [away]


def offload_activations(w: Workload) -> Settings:
    return [_with("activations", w)]


def offload_parameters(w: Workload) -> Settings:
    return [_with("parameters", w) | ({"zero": 3} if w.zero < 3 else {})]


def offload_kv(w: Workload) -> Settings:
    """Where a cache in fewer bits cannot be moved, one in the numbers of the computation can."""
    away = _with("kv", w)
    smaller = KV_BITS[w.kv_precision] < KV_BITS[w.precision]
    return [away, away | {"kv_precision": w.precision}] if smaller else [away]


def offload_layers(w: Workload) -> Settings:
    """An eighth of the layers at a time. Those that bitsandbytes has quantized cannot wait on the host."""
    layers = len(w.model.layers)
    counts = dict.fromkeys(-(-layers * eighths // 8) for eighths in range(1, 9))
    away = {} if "layers" in w.offload else _with("layers", w)
    more: list[Changes] = [away | {"offload_layers": count} for count in counts if count > (w.offload_layers or 0)]
    unquantized = {"quantization": "none"}
    return [*more, *(changes | unquantized for changes in more)] if w.quantization in BITSANDBYTES else more


def _with(kind: str, w: Workload) -> Changes:
    return {"offload": (*w.offload, kind)}


def shorten(w: Workload) -> Settings:
    """The next power of two below the present length; the last step goes to ``min_seq``."""
    lengths, seq = [], w.seq
    while seq > w.min_seq:
        seq = max(2 ** ((seq - 1).bit_length() - 1), w.min_seq)
        lengths.append(seq)
    return [_shorter(w, length) for length in lengths]


def train_adapters(w: Workload) -> Settings:
    return [{"method": "lora"}]


def quantize_base(w: Workload) -> Settings:
    return [{"method": "qlora", "quantization": w.engine.int4 if weight_bits(w) > 4 else w.quantization}]


def prefill_in_chunks(w: Workload) -> Settings:
    chunks = [chunk for chunk in CHUNKS if chunk < w.prompt]
    return [{"prompt": chunk} for chunk in chunks] or NotApplicable(f"{w.prompt} tokens are read in one pass, which is little")


def quantize_kv(w: Workload) -> Settings:
    formats = abilities(w.engine.name).kv
    smaller = [kind for kind in formats if KV_BITS[kind] < KV_BITS[w.kv_precision]]
    if not smaller and w.kv_precision in formats:
        return []
    kinds = [kind for kind in smaller if w.gpu.reaches(formats[kind]) and (kind != "fp8" or w.gpu.fp8)]
    if smaller and not kinds:
        return NotApplicable(f"{w.engine.name} keeps the cache in {' or '.join(smaller)} on newer cards only")
    return [{"kv_precision": kind} for kind in kinds] or NotApplicable(
        f"{w.engine.name} keeps the cache in nothing smaller than {w.kv_precision}"
    )


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
        chunk_loss,
        faster_attention,
        fuse_optimizer,
        expand_segments,
        pure_16_bit,
        shard_with_fsdp,
        optimizer_in_8_bits,
        page_optimizer,
        offload_optimizer,
        offload_activations,
        offload_parameters,
        offload_kv,
        offload_layers,
        shorten,
        train_adapters,
        quantize_base,
        prefill_in_chunks,
        quantize_kv,
    )
}


def offers(remedy: str, w: Workload) -> list[Changes]:
    """The settings of a remedy; none where it has none, whatever the reason."""
    settings = REMEDIES[remedy](w)
    return [] if isinstance(settings, NotApplicable) else settings


# The keys that each remedy looks at or changes. What it offers to a job depends on nothing else that another changes.
KEYS_OF: dict[str, tuple[str, ...]] = {
    "halve_batch": ("batch",),
    "limit_sequence": ("seq", "prompt"),
    "quantize_weights": ("quantization", "precision"),
    "split_model": ("tp", "pp", "gpus", "nodes"),
    "checkpoint_everything": ("checkpointing",),
    "accumulate_gradients": ("batch", "accumulation"),
    "shard": ("zero",),
    "plain_sgd": ("optimizer",),
    "mixed_precision": ("precision",),
    "more_gpus": ("gpus", "nodes", "zero", "accumulation", "checkpointing"),
    "chunk_loss": ("loss", "method"),  # an engine may compute the loss otherwise where it trains adapters
    "faster_attention": ("attention", "precision"),
    "fuse_optimizer": ("optimizer",),
    "expand_segments": ("allocator",),
    "pure_16_bit": ("precision",),
    "shard_with_fsdp": ("sharding", "gpus", "nodes", "zero", "accumulation", "checkpointing"),
    "optimizer_in_8_bits": ("optimizer",),
    "page_optimizer": ("optimizer",),
    "offload_optimizer": ("offload", "zero", "sharding", "optimizer"),
    "offload_activations": ("offload", "checkpointing"),
    "offload_parameters": ("offload", "zero"),
    "offload_kv": ("offload", "kv_precision"),
    "offload_layers": ("offload", "offload_layers", "quantization"),
    "shorten": ("seq", "prompt"),
    "train_adapters": ("method",),
    "quantize_base": ("method", "quantization", "precision"),
    "prefill_in_chunks": ("prompt", "seq"),
    "quantize_kv": ("kv_precision",),
}

# Remedies after which no job needs more, on the card or beside it: they leave something out and put nothing in its place.
NEVER_MORE = frozenset(
    {
        "halve_batch",
        "limit_sequence",
        "checkpoint_everything",
        "plain_sgd",
        "chunk_loss",
        "faster_attention",
        "fuse_optimizer",
        "expand_segments",
        "optimizer_in_8_bits",
        "shorten",
        "prefill_in_chunks",
        "quantize_kv",
    }
)
