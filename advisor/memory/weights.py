"""Weights in bytes: each tensor in the format it is held in, as the allocator counts it."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from advisor.memory import ggml
from advisor.memory.allocator import block
from advisor.memory.formats import BYTES, FORMATS
from advisor.memory.parameters import Kind, Weight, layer_weights, module_weights, outer_weights
from advisor.memory.sharding import Rank
from advisor.mixers import Attention, LightningAttention
from advisor.model import Experts, Layer, Model, StoredTensor


class Sum(NamedTuple):
    """Elements, and the bytes of the blocks that hold them."""

    elements: int
    bytes: int


class Storing(NamedTuple):
    """How weights lie on the card: the quantized format, the bytes of what is not quantized, and whether each tensor has an
    allocator block of its own (else they are cut out of one large block, and nothing is lost to rounding).

    ``skips``: kinds of weights that the engine leaves as they are though the format could take them. ``ggml``: as llama.cpp
    holds them, with fp32 vectors and the input embedding on the CPU. ``head_copy``: a tied head is there beside the embedding; ``kbit_head``:
    bitsandbytes quantizes the head like the layers.
    ``each_expert``: the experts are matrices of their own, not one stack.
    """

    quantization: str
    width: int
    blocks: bool = True
    skips: tuple[Kind, ...] = ()
    ggml: bool = False
    head_copy: bool = False
    kbit_head: bool = False
    each_expert: bool = False
    kept: tuple[str, ...] = ()  # modules that are never quantized, and their bytes an element (T5's wo, modeling_t5.py)
    kept_width: int = 0


def is_kept(weight: Weight, how: Storing) -> bool:
    return bool(how.kept) and last_name(weight.name) in how.kept


def quantizes(weight: Weight, how: Storing) -> bool:
    """Whether a tensor is among those that the format touches: the matrices of the layers; in GGUF the embedding and head too."""
    if how.quantization == "none" or weight.cols == 1 or weight.rows == 1 or weight.kind in how.skips or is_kept(weight, how):
        return False
    if weight.kind in ("linear", "expert") or (weight.kind == "head" and how.kbit_head and FORMATS[how.quantization].kbit):
        return True
    return FORMATS[how.quantization].everything and weight.kind in ("embedding", "head")


def tensor_bytes(weight: Weight, how: Storing) -> int:
    """Bytes of one weight."""
    sizes: tuple[int, ...] = (weight.rows * weight.cols * (how.kept_width if is_kept(weight, how) else how.width),)
    if quantizes(weight, how):
        sizes = FORMATS[how.quantization].tensors(weight.rows, weight.cols)
    return weight.copies * sum(block(size) if how.blocks else size for size in sizes)


@lru_cache(maxsize=4096)
def layer_sum(layer: Layer, hidden: int, how: Storing) -> Sum:
    weights = layer_weights(layer, hidden)
    if how.each_expert and isinstance(layer.feed_forward, Experts):
        weights = tuple(_unstacked(x, layer.feed_forward.total) if x.kind == "expert" else x for x in weights)
    tables = layer.mixer.tables * how.width if isinstance(layer.mixer, LightningAttention) else 0
    return Sum(sum(x.elements for x in weights), sum(tensor_bytes(x, how) for x in weights) + tables)


def _unstacked(weight: Weight, experts: int) -> Weight:
    """A stack of experts as transformers 4 has them: each by itself, gate and up too."""
    many = experts * (2 if "gate_up" in weight.name else 1)
    return weight._replace(rows=weight.rows // many, copies=many)


@lru_cache(maxsize=1024)
def rank_sum(rank: Rank, how: Storing) -> Sum:
    """All weights of one rank: as its checkpoint's headers have them if it is held as published, else by its shape."""
    model = rank.model
    if model.stored and taken_as_published(model, how):
        held = loaded(model, how)
        return Sum(sum(x.elements for x in held), sum(block(x.bytes) if how.blocks else x.bytes for x in held))
    if how.ggml:
        return ggml_sum(rank, how)
    elements, total = 0, 0
    for layer, many in model.kinds:
        one = layer_sum(layer, model.hidden, how)
        elements, total = elements + many * one.elements, total + many * one.bytes
    outside = held_outside(rank)
    if how.head_copy and model.tied and rank.embeds and rank.has_head:
        outside = (*outside, tied_head(model))
    for weight in outside:
        elements, total = elements + weight.elements, total + tensor_bytes(weight, how)
    if rank.embeds:
        elements, total = elements + model.extra_parameters, total + model.extra_parameters * how.width
    return Sum(elements, total)


def loaded(model: Model, how: Storing) -> list[StoredTensor]:
    """The tensors of the files that come to the card."""
    return [x for x in model.stored or () if _is_loaded(x, model, how)]


def is_gguf(model: Model) -> bool:
    """Whether the stored tensors are those of a GGUF file."""
    return any(x.name == GGUF_EMBEDDING for x in model.stored or ())


def taken_as_published(model: Model, how: Storing) -> bool:
    """Whether the weights lie on the card as in the file. llama.cpp takes a GGUF as it is, and nothing else."""
    if how.quantization != model.quantization:
        return False
    if how.ggml or is_gguf(model):
        return how.ggml and is_gguf(model)
    return how.width == BYTES[model.dtype] and (how.quantization != "none" or how.width == _stored_width(model))


@lru_cache(maxsize=256)
def _stored_width(model: Model) -> int:
    """Bytes of an element in the dtype that most of a checkpoint has: fp32 files of a bf16 model are loaded as bf16."""
    elements = Counter[int]()
    for tensor in model.stored or ():
        elements[tensor.bytes // max(1, tensor.elements)] += tensor.elements
    return elements.most_common(1)[0][0]


GGUF_EMBEDDING, GGUF_HEAD = "token_embd.weight", "output.weight"
GGUF_INPUTS = (
    GGUF_EMBEDDING,
    "token_embd_norm.weight",
    "token_embd_norm.bias",
    "position_embd.weight",
    "per_layer_token_embd.weight",
)


def _is_loaded(tensor: StoredTensor, model: Model, how: Storing) -> bool:
    """transformers leaves out a tied head's second copy, rotary and mask buffers, and layers behind the last (MTP); llama.cpp
    keeps the input layer on the CPU, and puts the embedding on the card where it is the head too."""
    if how.ggml and tensor.name in GGUF_INPUTS and not (tensor.name == GGUF_EMBEDDING and model.tied):
        return False
    if tensor.name.endswith("lm_head.weight") and model.tied and not how.head_copy:
        return False
    if tensor.name.endswith((".inv_freq", ".attn.bias", ".masked_bias", ".attention.bias")):
        return False
    depth = re.search(r"\b(?:layers|blk)\.(\d+)\.", tensor.name)
    return depth is None or int(depth[1]) < len(model.layers)


@lru_cache(maxsize=1024)
def ggml_sum(rank: Rank, how: Storing) -> Sum:
    """The weights as llama.cpp has them on the card: each matrix in the type that its place gives it, vectors in fp32.

    Of a pipeline's stage the layers count from its own first: the shares of each type are about the same.
    """
    model = rank.model
    elements, total = 0, 0
    seen: dict[tuple[Layer, tuple[str, ...]], Sum] = {}
    for index, layer in enumerate(model.layers):
        place = _place(model, layer, index)
        key = (layer, _types(how.quantization, place))
        one = seen.get(key)
        if one is None:
            weights = layer_weights(layer._replace(names=()), model.hidden)
            one = seen[key] = Sum(sum(x.elements for x in weights), sum(ggml_bytes(x, how, place) for x in weights))
        elements, total = elements + one.elements, total + one.bytes
    place = _place(model, model.layers[-1], 0)
    for weight in held_outside(rank):
        if weight.kind == "embedding" and not (model.tied and rank.has_head and weight.name == "embed_tokens"):
            continue
        elements, total = elements + weight.elements, total + ggml_bytes(weight, how, place)
    if rank.embeds:
        elements, total = elements + model.extra_parameters, total + model.extra_parameters * how.width
    return Sum(elements, total)


def ggml_bytes(weight: Weight, how: Storing, place: ggml.Place) -> int:
    """Bytes of one weight in a GGUF file; a model's own name of it must be Llama's."""
    if weight.cols == 1 or weight.kind in ("norm", "bias", "router", "other") or weight.name == "embed_positions":
        return weight.elements * ggml.VECTOR
    mixture = ggml.MIXTURES.get(how.quantization)
    if mixture is None or weight.rows == 1:
        return tensor_bytes(weight, how)
    part = ggml.PARTS.get(last_name(weight.name), "")
    return weight.copies * ggml.size(ggml.type_of(part, mixture, place, weight.kind == "expert"), weight.rows, weight.cols)


def _place(model: Model, layer: Layer, index: int) -> ggml.Place:
    mixer, experts = layer.mixer, layer.feed_forward
    return ggml.Place(
        layer=index,
        layers=len(model.layers),
        experts=experts.total if isinstance(experts, Experts) else 0,
        queries=mixer.heads // mixer.kv_heads if isinstance(mixer, Attention) else 1,
        tied=model.tied,
        falcon=model.model_type == "falcon",
    )


def _types(quantization: str, place: ggml.Place) -> tuple[str, ...]:
    """The types in one layer: layers of one kind with the same types are of the same size."""
    mixture = ggml.MIXTURES.get(quantization)
    return tuple(ggml.type_of(part, mixture, place) for part in ("value", "output", "down")) if mixture else ()


@lru_cache(maxsize=1024)
def held_outside(rank: Rank) -> tuple[Weight, ...]:
    """The weights outside the layers that are on this rank. A tied head on another rank than the embedding is a copy."""
    model = rank.model
    kept = [_cut_head(weight, rank.head_parts) for weight in outer_weights(model) if _is_here(weight, rank)]
    if rank.has_head and not rank.embeds and model.tied:
        kept.append(tied_head(model))
    return tuple(kept)


def _is_here(weight: Weight, rank: Rank) -> bool:
    of_head = weight.kind == "head" or weight.name in ("norm", "norm.bias", "lm_head.bias", "project_out")
    return rank.has_head if of_head else rank.embeds


def _cut_head(weight: Weight, parts: int) -> Weight:
    return weight._replace(rows=-(-weight.rows // parts)) if weight.name in ("lm_head", "lm_head.bias") else weight


def tied_head(model: Model) -> Weight:
    """The embedding once more, as a head."""
    return Weight("lm_head", model.vocab, model.embedding_width or model.hidden, "head")


@lru_cache(maxsize=256)
def largest_matrix(model: Model) -> int:
    """Elements of the largest matrix in the layers; of fused experts, one of them."""
    sizes = [0]
    for layer, _ in model.kinds:
        experts = layer.feed_forward.total if isinstance(layer.feed_forward, Experts) else 1
        for weight in layer_weights(layer, model.hidden):
            if weight.kind in ("linear", "expert"):
                sizes.append(weight.rows * weight.cols // (experts if weight.kind == "expert" else 1))
    return max(sizes)


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
    if not model.has_experts:
        return names
    ours = {ROUTER, *EXPERT_NAMES.values()} if everything else {EXPERT_NAMES[name] for name in names if name in EXPERT_NAMES}
    return frozenset((names - EXPERT_NAMES.keys()) | ours)


def adapter_weights(layer: Layer, hidden: int, rank: int, targets: frozenset[str]) -> Iterator[Weight]:
    """The two matrices of each LoRA adapter of a layer (Hu et al., arXiv 2106.09685)."""
    for weight in module_weights(layer, hidden):
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
    """The module names of the layers that an adapter can be put on; `lm_head` can have one too when it is asked for.

    PEFT refuses the last projection of these Mamba models (tuners_utils.py, _check_lora_target_modules_mamba).
    """
    around = outer_weights(model) if model.ends else ()
    weights = (*around, *(w for layer, _ in model.kinds for w in layer_weights(layer, model.hidden)))
    names = {last_name(w.name) for w in weights if w.kind == "linear"}
    if model.model_type in ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"):
        names.discard("out_proj")
    return frozenset((*names, *(EXPERT_NAMES if model.has_experts else ())))
