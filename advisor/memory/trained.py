"""What is trained on one rank, and what that brings with it: gradients and optimizer state. Sizes in bytes."""

from __future__ import annotations

from functools import lru_cache

from advisor.memory import optimizers
from advisor.memory.allocator import block
from advisor.memory.net import Recipe
from advisor.memory.parameters import Weight, layer_weights
from advisor.memory.recipe import kbit, keeps_masters, resident_width, trains_fully
from advisor.memory.sharding import Rank
from advisor.memory.weights import adapter_of, adapter_weights, held_outside, largest_matrix, last_name
from advisor.workload import Workload

Adapters = tuple[int, frozenset[str]]  # rank and targets


def _adapters(w: Workload, recipe: Recipe) -> Adapters | None:
    return None if trains_fully(w) else (recipe.rank, recipe.targets)


@lru_cache(maxsize=1024)
def _tensors(rank: Rank, adapters: Adapters | None) -> tuple[Weight, ...]:
    """All weights of the rank that training changes, or the adapters."""
    model = rank.model
    if adapters is None:
        layers = (x for layer in model.layers for x in layer_weights(layer, model.hidden))
        return (*layers, *(x for x in held_outside(rank) if x.kind != "frozen"))
    around = (x for x in held_outside(rank) if model.ends and x.kind == "linear" and last_name(x.name) in adapters[1])
    ends = (x for weight in around for x in adapter_of(weight, adapters[0]))
    heads = [x for x in held_outside(rank) if x.name == "lm_head"] or [Weight("lm_head", model.vocab, model.hidden, "head")]
    of_head = adapter_of(heads[0], adapters[0]) if "lm_head" in adapters[1] and rank.has_head else ()
    return (*(x for layer in model.layers for x in adapter_weights(layer, model.hidden, *adapters)), *ends, *of_head)


@lru_cache(maxsize=1024)
def _elements(rank: Rank, adapters: Adapters | None) -> int:
    return sum(x.elements for x in _tensors(rank, adapters))


@lru_cache(maxsize=1024)
def _bytes(rank: Rank, adapters: Adapters | None, width: int) -> int:
    return sum(x.copies * block(x.rows * x.cols * width) for x in _tensors(rank, adapters))


@lru_cache(maxsize=1024)
def _states(rank: Rank, adapters: Adapters | None, optimizer: str, width: int) -> int:
    return sum(optimizers.state_bytes(optimizer, x, width) for x in _tensors(rank, adapters))


def elements(w: Workload, rank: Rank, recipe: Recipe) -> int:
    return _elements(rank, _adapters(w, recipe))


def in_blocks(w: Workload, rank: Rank, recipe: Recipe, width: int) -> int:
    """What is trained, in the allocator's blocks, at ``width`` bytes an element."""
    return _bytes(rank, _adapters(w, recipe), width)


def width(w: Workload, recipe: Recipe) -> int:
    """Bytes of an element of what is trained, as it lies between steps."""
    return resident_width(w) if trains_fully(w) else recipe.adapter


def gradient_width(w: Workload, recipe: Recipe) -> int:
    """Gradients have the type of what they belong to, save where the engine sums them in fp32 (Megatron's main_grad; with bf16
    moments Megatron-Bridge's recipes of DeepSeek-V3 and Moonlight have those in bf16 too, main_grads_dtype)."""
    return 4 if w.engine.fp32_gradients and not optimizers.OPTIMIZERS[w.optimizer].bf16 else width(w, recipe)


def gradient_bytes(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Gradients lie where activations were, cut out of larger blocks, so that they waste none."""
    return elements(w, rank, recipe) * gradient_width(w, recipe)


def forgotten_gradient_bytes(w: Workload, rank: Rank) -> int:
    """LitGPT puts bitsandbytes' StableEmbedding in the place of the embedding after it has frozen the rest, and outside the
    optimizer (finetune/lora.py): its gradient is made in every step and never dropped."""
    if not (w.engine.kbit_embedding_gradient and kbit(w) and rank.embeds):
        return 0
    return block(rank.model.vocab * rank.model.hidden * resident_width(w))


def state_width(w: Workload, recipe: Recipe) -> int:
    return 4 if keeps_masters(w) else width(w, recipe)


def state_bytes(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Optimizer state on the card; paged states live in the host's memory."""
    if not optimizers.OPTIMIZERS[w.optimizer].on_device:
        return 0
    return all_state_bytes(w, rank, recipe)


def all_state_bytes(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Optimizer state, wherever it is."""
    return _states(rank, _adapters(w, recipe), w.optimizer, state_width(w, recipe))


def widest_matrix(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Elements of the largest trained matrix; of fused experts, one of them."""
    adapters = _adapters(w, recipe)
    if adapters is None:
        return largest_matrix(rank.model)
    return max((x.rows * x.cols for x in _tensors(rank, adapters)), default=0)
