"""Each part in words: the arithmetic with its numbers, and where it comes from.

The texts are made when they are shown; an estimate carries functions.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.memory import optimizers, runtime
from advisor.memory.formats import FORMATS, KV_BYTES_PER_32
from advisor.memory.kv_cache import token_elements
from advisor.memory.recipe import deepspeed_masters, recipe_of, resident_width, storing
from advisor.memory.sharding import Rank, zero_shares
from advisor.memory.training import local_seq, trained, trained_width
from advisor.memory.weights import adapter_targets, rank_sum
from advisor.workload import Workload

SHADOW = "the layer's code in transformers 5.23 and PyTorch's derivatives.yaml, tensor by tensor"

SOURCES = {
    "weights": "the model's shape; PyTorch's caching allocator counts blocks",
    "adapter-weights": "LoRA, arXiv 2106.09685; PEFT 0.21 keeps adapters in fp32 by default",
    "kv-cache": "transformers 5.23 cache_utils.py",
    "gradients": "autograd: a gradient has the type of its parameter",
    "master-weights": "DeepSpeed memory requirements (deepspeed.readthedocs.io/memory)",
    "activations": SHADOW,
    "logits-and-loss": "transformers 5.23 loss_utils.py, ForCausalLMLoss",
    "gathered-parameters": "DeepSpeed config-json, stage3_max_live_parameters; PyTorch fully_shard",
    "communication-buffers": runtime.NCCL_SOURCE + "; DDP's gradient buckets (torch.nn.parallel)",
    "cublas-workspace": "aten/src/ATen/cuda/CublasHandlePool.cpp",
    "allocator-slack": runtime.SLACK_SOURCE,
    "cuda-graphs": "the engine's start-up log",
}


def source(name: str, w: Workload) -> str:
    if name in ("optimizer-state", "step-temporaries"):
        return optimizers.OPTIMIZERS[w.optimizer].source
    if name == "cuda-context":
        return runtime.context(w).source
    if name == "weights" and w.quantization != "none":
        return FORMATS[w.quantization].source
    return SOURCES.get(name, "")


def formula(name: str, w: Workload, rank: Rank, phase: str, amount: int) -> str:
    """The arithmetic behind ``amount`` bytes of a part, in one line."""
    said = _TEXTS.get(name)
    return said(w, rank, phase) if said else f"{amount:,} B"


def _over(count: int) -> str:
    return f" ÷ {count} GPUs" if count > 1 else ""


def _weights(w: Workload, rank: Rank, _phase: str) -> str:
    held = rank_sum(rank, storing(w))
    part = f"{held.elements:,} parameters"
    if rank.model.extra_parameters and rank.embeds:
        part += f" ({rank.model.extra_parameters:,} of them {rank.model.extra_name or 'outside the language model'})"
    shares = zero_shares(w.zero, w.data_parallel).weights
    if w.quantization != "none":
        rest = resident_width(w)
        return f"{part} in {w.quantization}: {FORMATS[w.quantization].text}; what stays unquantized {rest} B{_over(shares)}"
    return f"{part} × {resident_width(w)} B{_over(shares)}"


def _adapters(w: Workload, rank: Rank, _phase: str) -> str:
    names = len(adapter_targets(w.model, w.lora_targets))
    elements = sum(x.elements for x in trained(w, rank))
    return f"rank {w.lora_rank} on {names} modules a layer: {elements:,} parameters × {recipe_of(w).adapter} B"


def _kv(w: Workload, rank: Rank, phase: str) -> str:
    tokens = w.prompt if phase == "prefill" else w.seq
    each = sum(many * token_elements(layer) for layer, many in rank.model.kinds)
    width = KV_BYTES_PER_32[w.kv_precision] / 32
    windows = {window for layer, _ in rank.model.kinds if (window := getattr(layer.mixer, "window", None))}
    cut = f"; sliding layers at most {min(windows):,} tokens" if windows else ""
    return f"{w.batch:,} sequences × {tokens:,} tokens × {each:,} elements a token (all layers) × {width:g} B{cut}"


def _gradients(w: Workload, rank: Rank, phase: str) -> str:
    elements = sum(x.elements for x in trained(w, rank))
    width = trained_width(w, recipe_of(w))
    reached = "" if phase == "step" or w.accumulation > 1 else "; those that exist at the peak, of "
    shares = zero_shares(w.zero, w.data_parallel).gradients
    return f"{reached}{elements:,} trained parameters × {width} B{_over(shares)}".removeprefix("; ")


def _states(w: Workload, rank: Rank, _phase: str) -> str:
    elements = sum(x.elements for x in trained(w, rank))
    width = 4 if deepspeed_masters(w) else trained_width(w, recipe_of(w))
    optimizer = optimizers.OPTIMIZERS[w.optimizer]
    each = "1 B and its scales" if optimizer.bits8 else f"{width} B"
    return f"{w.optimizer}: {optimizer.text} × {elements:,} parameters × {each}{_over(zero_shares(w.zero, w.data_parallel).states)}"


def _masters(w: Workload, rank: Rank, _phase: str) -> str:
    elements = sum(x.elements for x in trained(w, rank))
    return f"fp32 copy of {elements:,} trained parameters × 4 B{_over(zero_shares(w.zero, w.data_parallel).states)}"


def _activations(w: Workload, rank: Rank, phase: str) -> str:
    layers = len(rank.model.layers)
    if w.task == "infer":
        return (
            f"temporaries of one layer, {w.batch:,} × {w.prompt:,} tokens"
            if phase == "prefill"
            else "one layer's cache, copied"
        )
    from advisor.memory.passes import training_passes

    recipe = recipe_of(w)
    checkpointed = w.checkpointing == "full"
    kept = training_passes(recipe, rank, checkpointed=checkpointed, holds_logits=False, adding=False).kept
    tokens = w.batch * local_seq(w)
    terms = [f"{tokens:,} tokens × {kept[1]:,} B"]
    if kept[2]:
        terms.append(f"{tokens:,} tokens × {local_seq(w):,} × {kept[2]:,} B of scores")
    how = "each layer's input, one layer computed again" if checkpointed else "all that the derivatives need"
    return f"{' + '.join(terms)} kept by {layers} layers and the loss ({how}), less what is gone at the peak"


def _loss(w: Workload, rank: Rank, phase: str) -> str:
    if w.task == "infer":
        return f"{w.batch:,} × {rank.model.vocab:,} logits of the last token"
    tokens = w.batch * local_seq(w)
    if w.loss == "chunked":
        return f"a chunk of {tokens:,} tokens × {rank.model.vocab:,} logits at a time"
    return f"{tokens:,} tokens × {rank.model.vocab:,} logits: as computed, in fp32, their log-softmax, their gradient"


def _temporaries(w: Workload, rank: Rank, _phase: str) -> str:
    if w.task == "infer":
        return "one matrix unpacked to 16 bits"
    return f"{w.optimizer} makes a copy of what it steps: {sum(x.elements for x in trained(w, rank)):,} parameters"


_TEXTS: dict[str, Callable[[Workload, Rank, str], str]] = {
    "weights": _weights,
    "adapter-weights": _adapters,
    "kv-cache": _kv,
    "gradients": _gradients,
    "optimizer-state": _states,
    "master-weights": _masters,
    "activations": _activations,
    "logits-and-loss": _loss,
    "step-temporaries": _temporaries,
    "gathered-parameters": lambda w, rank, phase: "parameters gathered for the layers at work",
    "communication-buffers": lambda w, rank, phase: "NCCL's buffers, and gradients laid out to be sent",
    "cublas-workspace": lambda w, rank, phase: "one workspace for each handle and stream",
    "allocator-slack": lambda w, rank, phase: "reserved by the allocator, not allocated: rounding and fragmentation",
    "cuda-context": lambda w, rank, phase: "kernels and state of the driver, outside PyTorch",
}
