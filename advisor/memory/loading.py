"""What loading peaks at: the weights, and what has to be whole beside them while they are read, unpacked, cast or divided.

Loading goes through moments, one after the other; the phase is the highest of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from advisor.memory import pieces, trained
from advisor.memory.collectives import SUB_GROUP
from advisor.memory.formats import BYTES, FORMATS
from advisor.memory.net import Recipe
from advisor.memory.offload import moved
from advisor.memory.recipe import (
    compute_width,
    deepspeed_masters,
    resident_width,
    storing,
    trains_fully,
    upcast,
)
from advisor.memory.sharding import Rank, shares_of
from advisor.memory.weights import rank_sum, tied_head
from advisor.workload import Workload

Parts = dict[str, int]

# Families whose checkpoints have a layer's experts in one tensor already (transformers 5.23 conversion_mapping.py has no
# converter for them).
FUSED_IN_FILES = (
    "gpt_oss",
    "gemma4",
    "gemma4_text",
    "granitemoe",
    "granitemoehybrid",
    "granitemoeshared",
    "llama4_text",
    "dbrx",
)


class Moment(NamedTuple):
    """The parts that are there, what the one among them is that goes away again, and who says so. ``width``: bytes of a weight that
    is not quantized, at this moment."""

    parts: Parts
    width: int
    text: str = ""
    source: str = ""


def training(w: Workload, rank: Rank, recipe: Recipe, there: Parts) -> Moment:
    """The highest moment of loading and setting up. ``there``: what stays for the whole training."""
    return max(_moments(w, rank, recipe, there), key=lambda moment: sum(moment.parts.values()))


def _moments(w: Workload, rank: Rank, recipe: Recipe, there: Parts) -> Iterator[Moment]:
    width = resident_width(w)
    yield Moment(_without(there, "optimizer-state"), width)  # which the first step makes
    if deepspeed_masters(w) and "optimizer" not in moved(w) and w.optimizer != "none":
        before = _without(there, "optimizer-state", "gradients")
        yield Moment({**before, "step-temporaries": first_gradients(w, rank, recipe)}, width, *FIRST_GRADIENTS)
    read = {name: size for name, size in there.items() if name in ("weights", "reference-weights")}
    if w.zero == 3 and "parameters" not in moved(w):
        yield Moment({**read, "gathered-parameters": whole_piece(w, rank)}, width, *WHOLE[w.sharding])
    if quantizes_on_load(w):
        share = shares_of(w).weights
        held = rank_sum(rank, storing(w)._replace(width=compute_width(w))).bytes // share
        yield Moment({"weights": held, "step-temporaries": unpacked_matrix(w, rank)}, compute_width(w), *UNPACKED)
    elif w.engine.loads_to_device and w.data_parallel == 1 and stacks_experts(w):
        yield Moment({**read, "step-temporaries": pieces.largest_experts(rank, recipe.weight)}, width, *EXPERTS)
    if upcast(w):
        yield Moment({**read, "step-temporaries": pieces.outside(rank, BYTES["bf16"])}, width, *CAST)
    if w.engine.remaps_parameters and trains_fully(w) and w.zero in (1, 2):
        yield Moment({**read, "gradients": there["gradients"], "step-temporaries": read["weights"]}, width, *REMAPPED)


def _without(there: Parts, *names: str) -> Parts:
    return {name: size for name, size in there.items() if name not in names}


FIRST_GRADIENTS = (
    "fp32 gradients of the partition, zeros for once",
    "DeepSpeed 0.19 zero/stage_1_and_2.py and stage3.py, initialize_optimizer_states",
)
WHOLE = {
    "deepspeed": ("the largest module, whole until it is partitioned", "DeepSpeed 0.19 zero/partition_parameters.py, Init"),
    "fsdp": ("the largest tensor, whole until it is sharded", "accelerate 1.15 fsdp_utils.py, fsdp2_load_full_state_dict"),
}
UNPACKED = (
    "the largest matrix as it comes from the file, beside the packed one",
    "transformers 5.23 integrations/bitsandbytes.py; bitsandbytes 0.50 nn/modules.py, _quantize",
)
EXPERTS = (
    "a layer's experts one by one, while they are made one tensor",
    "transformers 5.23 core_model_loading.py, MergeModulelist and Concatenate",
)
CAST = (
    "the head or the embedding in 16 bits, beside the fp32 copy that takes its place",
    "PEFT 0.21 utils/other.py, prepare_model_for_kbit_training",
)
REMAPPED = (
    "the parameters that were loaded, until they are moved into the optimizer's buffer",
    "Megatron-LM d98e8a64 core/distributed/param_and_grad_buffer.py",
)
TIED = ("a head, until it is tied to the embedding", "Qwen2.5 speed benchmark, AWQ models of 0.5B and 1.5B, transformers 4.46")


def first_gradients(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """What DeepSpeed fills with zeros to set its optimizer up, in fp32; stage 3 a sub-group at a time."""
    shard = trained.elements(w, rank, recipe) // shares_of(w).states
    return 4 * (min(shard, SUB_GROUP) if w.zero == 3 else shard)


def whole_piece(w: Workload, rank: Rank) -> int:
    """What is whole for a moment on ranks that keep a shard of it: a module with ZeRO-3, a tensor with FSDP 2."""
    return (pieces.largest_module if w.sharding == "deepspeed" else pieces.largest_tensor)(rank, storing(w))


def quantizes_on_load(w: Workload) -> bool:
    """Whether bitsandbytes packs the weights as they come."""
    return w.quantization != "none" and FORMATS[w.quantization].kbit and w.model.quantization != w.quantization


def unpacked_matrix(w: Workload, rank: Rank) -> int:
    """The largest matrix as it comes from the file; LLM.int8 makes an fp16 copy of it first."""
    width = compute_width(w) + (BYTES["fp16"] if w.quantization == "int8" else 0)
    return width * pieces.largest_quantized(rank, storing(w))


def stacks_experts(w: Workload) -> bool:
    """Whether transformers 5 makes one tensor of a layer's experts when it loads them, and takes it apart to save them."""
    return w.engine.stacked_experts and w.model.has_experts and w.model.model_type not in FUSED_IN_FILES


def inference(w: Workload, rank: Rank, there: Parts) -> Moment:
    """The highest moment before the first prompt."""
    beside, about = 0, ("", "")
    if quantizes_on_load(w):
        beside, about = unpacked_matrix(w, rank), UNPACKED
    elif w.quantization == "none" and stacks_experts(w):
        beside, about = pieces.largest_experts(rank, compute_width(w)), EXPERTS
    elif makes_a_head(w, rank):
        beside, about = tied_head(rank.model).elements * compute_width(w), TIED
    parts = {**there, "step-temporaries": beside} if beside else there
    return Moment(parts, resident_width(w), *about)


def makes_a_head(w: Workload, rank: Rank) -> bool:
    """transformers 4 loaded AWQ checkpoints of tied models with a head of its own and tied it afterwards."""
    return w.engine.ties_late and w.quantization == "awq-int4" and rank.model.tied and rank.embeds and rank.has_head
