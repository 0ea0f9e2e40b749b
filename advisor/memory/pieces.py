"""The largest pieces of a model on one rank: what has to be whole for a moment when it is read, unpacked or gathered. In bytes."""

from __future__ import annotations

from functools import lru_cache

from advisor.memory.allocator import block
from advisor.memory.parameters import Weight, layer_weights
from advisor.memory.sharding import Rank
from advisor.memory.weights import Storing, held_outside, quantizes, tensor_bytes
from advisor.model import Experts, Layer


@lru_cache(maxsize=1024)
def largest_tensor(rank: Rank, how: Storing) -> int:
    """The largest single tensor; a layer's experts are one."""
    return max(tensor_bytes(x._replace(copies=1), how) for x in _all(rank))


@lru_cache(maxsize=1024)
def largest_module(rank: Rank, how: Storing) -> int:
    """The largest module's own parameters: an embedding, a matrix with its bias, a layer's experts together."""
    experts = [sum(tensor_bytes(x, how) for x in _experts(layer, rank.model.hidden)) for layer, _ in rank.model.kinds]
    return max(largest_tensor(rank, how), *experts)


@lru_cache(maxsize=1024)
def outside(rank: Rank, width: int) -> int:
    """The largest tensor outside the layers, an embedding or the head, at ``width`` bytes an element."""
    return max((block(x.rows * x.cols * width) for x in held_outside(rank)), default=0)


@lru_cache(maxsize=1024)
def largest_experts(rank: Rank, width: int) -> int:
    """One of the projections of all experts of a layer, in one tensor."""
    experts = (x.elements for layer, _ in rank.model.kinds for x in _experts(layer, rank.model.hidden))
    return width * max(experts, default=0)


@lru_cache(maxsize=1024)
def gates_and_ups(rank: Rank, width: int) -> int:
    """The gate and up projections of all experts of all layers; the two of a layer are one tensor."""
    return width * sum(
        many * x.elements
        for layer, many in rank.model.kinds
        for x in _experts(layer, rank.model.hidden)
        if x.name.endswith("gate_up_proj")
    )


@lru_cache(maxsize=1024)
def largest_quantized(rank: Rank, how: Storing) -> int:
    """Elements of the largest matrix that the format takes; of fused experts, one of them."""
    sizes = [0]
    for layer, _ in rank.model.kinds:
        experts = layer.feed_forward.total if isinstance(layer.feed_forward, Experts) else 1
        for x in layer_weights(layer, rank.model.hidden):
            if quantizes(x, how):
                sizes.append(x.rows * x.cols // (experts if x.kind == "expert" else 1))
    return max(sizes)


def _all(rank: Rank) -> tuple[Weight, ...]:
    return (*held_outside(rank), *(x for layer, _ in rank.model.kinds for x in layer_weights(layer, rank.model.hidden)))


def _experts(layer: Layer, hidden: int) -> tuple[Weight, ...]:
    return tuple(x for x in layer_weights(layer, hidden) if x.kind == "expert")
