"""Weights in bytes: each tensor in the format it is held in, as the allocator counts it."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from advisor.memory.allocator import block
from advisor.memory.formats import BYTES, FORMATS
from advisor.memory.parameters import Weight, layer_weights, outer_weights
from advisor.memory.sharding import Rank
from advisor.model import Experts, Layer, Model, StoredTensor


class Sum(NamedTuple):
    """Elements, and the bytes of the blocks that hold them."""

    elements: int
    bytes: int


def quantizes(weight: Weight, quantization: str) -> bool:
    """Whether a tensor is among those that the format touches: the matrices of the layers; in GGUF the embedding and head too."""
    if quantization == "none" or weight.cols == 1:
        return False
    if weight.kind in ("linear", "expert"):
        return True
    return FORMATS[quantization].everything and weight.kind in ("embedding", "head")


class Storing(NamedTuple):
    """How weights lie on the card: the quantized format, the bytes of what is not quantized, and whether each tensor has an
    allocator block of its own (else they are cut out of one large block, and nothing is lost to rounding)."""

    quantization: str
    width: int
    blocks: bool = True


def tensor_bytes(weight: Weight, how: Storing) -> int:
    """Bytes of one weight."""
    sizes: tuple[int, ...] = (weight.rows * weight.cols * how.width,)
    if quantizes(weight, how.quantization):
        sizes = FORMATS[how.quantization].tensors(weight.rows, weight.cols)
    return weight.copies * sum(block(size) if how.blocks else size for size in sizes)


@lru_cache(maxsize=4096)
def layer_sum(layer: Layer, hidden: int, how: Storing) -> Sum:
    weights = layer_weights(layer, hidden)
    return Sum(sum(x.elements for x in weights), sum(tensor_bytes(x, how) for x in weights))


@lru_cache(maxsize=1024)
def rank_sum(rank: Rank, how: Storing) -> Sum:
    """All weights of one rank: as its checkpoint's headers have them if it is held as published, else by its shape."""
    model = rank.model
    if model.stored and how.quantization == model.quantization and how.width == BYTES[model.dtype]:
        loaded = [x for x in model.stored if _is_loaded(x, model)]
        return Sum(sum(x.elements for x in loaded), sum(block(x.bytes) if how.blocks else x.bytes for x in loaded))
    elements, total = 0, 0
    for layer, many in model.kinds:
        one = layer_sum(layer, model.hidden, how)
        elements, total = elements + many * one.elements, total + many * one.bytes
    for weight in held_outside(rank):
        elements, total = elements + weight.elements, total + tensor_bytes(weight, how)
    if rank.embeds:
        elements, total = elements + model.extra_parameters, total + model.extra_parameters * how.width
    return Sum(elements, total)


def _is_loaded(tensor: StoredTensor, model: Model) -> bool:
    """transformers leaves out a tied head's second copy, rotary and mask buffers, and layers behind the last (MTP)."""
    if tensor.name.endswith("lm_head.weight") and model.tied:
        return False
    if tensor.name.endswith((".inv_freq", ".attn.bias", ".masked_bias", ".attention.bias")):
        return False
    depth = re.search(r"\blayers\.(\d+)\.", tensor.name)
    return depth is None or int(depth[1]) < len(model.layers)


def held_outside(rank: Rank) -> tuple[Weight, ...]:
    """The weights outside the layers that are on this rank. A tied head on another rank than the embedding is a copy."""
    model = rank.model
    if rank.embeds and rank.has_head:
        return outer_weights(model)
    kept = []
    for weight in outer_weights(model):
        of_head = weight.kind == "head" or weight.name in ("norm", "norm.bias", "lm_head.bias", "project_out")
        if (of_head and rank.has_head) or (not of_head and rank.embeds):
            kept.append(weight)
    if rank.has_head and not rank.embeds and model.tied:
        kept.append(Weight("lm_head", model.vocab, model.embedding_width or model.hidden, "head"))
    return tuple(kept)


def largest_matrix(model: Model) -> int:
    """Elements of the largest matrix in the layers."""
    return max(
        (
            w.rows * w.cols
            for layer, _ in model.kinds
            for w in layer_weights(layer, model.hidden)
            if w.kind in ("linear", "expert")
        ),
        default=0,
    )


EXPERT_NAMES = {"gate_proj": "experts.gate_up_proj", "up_proj": "experts.gate_up_proj", "down_proj": "experts.down_proj"}
ROUTER = "gate"


@lru_cache(maxsize=256)
def adapter_targets(model: Model, asked: tuple[str, ...]) -> frozenset[str]:
    """The modules that get an adapter, by their last name; experts by ``experts.`` and theirs.

    PEFT 0.21 reads the names of a feed-forward part in a mixture as its experts', and puts `all-linear` on the attention, the
    experts and the router (transformers_weight_conversion.py).
    """
    everything = asked == ("all-linear",)
    names = linear_names(model) if everything else frozenset(asked)
    if not any(isinstance(layer.feed_forward, Experts) for layer, _ in model.kinds):
        return names
    ours = {ROUTER, *EXPERT_NAMES.values()} if everything else {EXPERT_NAMES[name] for name in names if name in EXPERT_NAMES}
    return frozenset((names - EXPERT_NAMES.keys()) | ours)


def adapter_weights(layer: Layer, hidden: int, rank: int, targets: frozenset[str]) -> Iterator[Weight]:
    """The two matrices of each LoRA adapter of a layer (Hu et al., arXiv 2106.09685)."""
    for weight in layer_weights(layer, hidden):
        width, name = rank, last_name(weight.name)
        if weight.kind == "expert" and isinstance(layer.feed_forward, Experts):
            name = weight.name
            width = expert_rank(name, rank) * layer.feed_forward.total
            weight = weight._replace(rows=weight.rows // layer.feed_forward.total)
        if weight.kind in ("linear", "expert", "router") and weight.cols > 1 and name in targets:
            yield from adapter_of(weight, width)


def expert_rank(name: str, rank: int) -> int:
    """Gate and up projections are one matrix, with the ranks of both."""
    return 2 * rank if name.endswith("gate_up_proj") else rank


def adapter_of(weight: Weight, rank: int) -> tuple[Weight, Weight]:
    return (
        Weight(f"{weight.name}.lora_A", rank, weight.cols, "linear"),
        Weight(f"{weight.name}.lora_B", weight.rows, rank, "linear"),
    )


def last_name(name: str) -> str:
    return name.rsplit(".", 1)[-1]


@lru_cache(maxsize=256)
def linear_names(model: Model) -> frozenset[str]:
    """The module names of the layers that an adapter can be put on; `lm_head` can have one too when it is asked for."""
    names = (last_name(w.name) for layer, _ in model.kinds for w in layer_weights(layer, model.hidden) if w.kind == "linear")
    experts = any(isinstance(layer.feed_forward, Experts) for layer, _ in model.kinds)
    return frozenset((*names, *(EXPERT_NAMES if experts else ())))
