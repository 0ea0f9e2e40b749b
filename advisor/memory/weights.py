"""Weights in bytes: each tensor in the format it is held in, as the allocator counts it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from advisor.memory.allocator import block
from advisor.memory.formats import FORMATS
from advisor.memory.parameters import Weight, layer_weights, outer_weights
from advisor.memory.sharding import Rank
from advisor.model import Layer, Model


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
    """All weights of one rank."""
    model = rank.model
    elements, total = 0, 0
    for layer, many in model.kinds:
        one = layer_sum(layer, model.hidden, how)
        elements, total = elements + many * one.elements, total + many * one.bytes
    for weight in held_outside(rank):
        elements, total = elements + weight.elements, total + tensor_bytes(weight, how)
    if rank.embeds:
        elements, total = elements + model.extra_parameters, total + model.extra_parameters * how.width
    return Sum(elements, total)


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


def adapter_weights(layer: Layer, hidden: int, rank: int, targets: frozenset[str]) -> tuple[Weight, ...]:
    """The two matrices of each LoRA adapter of a layer (Hu et al., arXiv 2106.09685)."""
    return tuple(
        piece
        for weight in layer_weights(layer, hidden)
        if weight.kind == "linear" and last_name(weight.name) in targets
        for piece in (
            Weight(f"{weight.name}.lora_A", rank, weight.cols, "linear"),
            Weight(f"{weight.name}.lora_B", weight.rows, rank, "linear"),
        )
    )


def last_name(name: str) -> str:
    return name.rsplit(".", 1)[-1]


@lru_cache(maxsize=256)
def linear_names(model: Model) -> frozenset[str]:
    """The module names that an adapter can be put on."""
    names = (last_name(w.name) for layer, _ in model.kinds for w in layer_weights(layer, model.hidden) if w.kind == "linear")
    return frozenset(names)
