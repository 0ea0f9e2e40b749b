"""Every weight of a model with its shape, as transformers 5.23 stores it.

The shapes matter beside their sum: the CUDA allocator rounds each tensor, an adapter is as wide as its matrix, and 4-bit formats
leave everything but matrices alone. Sizes are counts of elements.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from advisor.mixers import (
    Attention,
    AttentionBesideStateSpace,
    DeltaRule,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    SelectiveScan,
    ShortConvolution,
    StateSpace,
)
from advisor.model import Audio, Ends, Experts, Layer, Mlp, Model, Norm, SharedBlock

# frozen: what no method of training touches
Kind = Literal["linear", "expert", "norm", "bias", "router", "embedding", "head", "other", "frozen"]


class Weight(NamedTuple):
    """One tensor; vectors have one column, fused experts are one tensor with the rows of all of them."""

    name: str  # within its layer, as transformers calls it
    rows: int
    cols: int
    kind: Kind
    copies: int = 1

    @property
    def elements(self) -> int:
        return self.rows * self.cols * self.copies


@lru_cache(maxsize=4096)
def layer_weights(layer: Layer, hidden: int) -> tuple[Weight, ...]:
    """The weights of one decoder layer."""
    weights = [
        *_shared_block(layer, hidden),
        *_mixer(layer, hidden),
        *_feed_forward(layer, hidden),
        *_layer_norms(layer, hidden),
    ]
    own = dict(layer.names)
    return tuple(weight._replace(name=_renamed(weight.name, own)) for weight in weights)


@lru_cache(maxsize=4096)
def module_weights(layer: Layer, hidden: int) -> tuple[Weight, ...]:
    """The weights that one decoder layer's modules have, those too that it has in common with an earlier layer."""
    return layer_weights(layer._replace(shared=layer.shared._replace(first=True)) if layer.shared else layer, hidden)


@lru_cache(maxsize=4096)
def own_weights(layer: Layer, hidden: int) -> tuple[Weight, ...]:
    """Those that it has in common with no other layer."""
    return layer_weights(layer._replace(shared=layer.shared._replace(first=False)) if layer.shared else layer, hidden)


@lru_cache(maxsize=1024)
def outer_weights(model: Model) -> tuple[Weight, ...]:
    """The weights outside the layers: embedding, positions, last norm, and the head when it is not the embedding."""
    if model.ends:
        return tuple(_ends(model, model.ends))
    width = model.embedding_width or model.hidden
    weights = [Weight("embed_tokens", model.vocab, width, "embedding")]
    if model.positions:
        weights.append(Weight("embed_positions", model.positions, model.hidden, "embedding"))
    if width != model.hidden:
        weights += [Weight("project_in", model.hidden, width, "linear"), Weight("project_out", width, model.hidden, "linear")]
    if model.embedding_norm:
        weights += _norm("embedding_norm", model.hidden, model.norm)
    if model.final_norm:
        weights += _norm("norm", model.hidden, model.norm)
    if model.scored:
        return (*weights, Weight("score", 1, model.hidden, "head"))
    if not model.tied:
        weights.append(Weight("lm_head", model.vocab, width, "head"))
    if model.head_bias:
        weights.append(Weight("lm_head.bias", model.vocab, 1, "bias"))
    return tuple(weights)


def _ends(model: Model, ends: Ends) -> Iterator[Weight]:
    """What stands around an encoder's layers, and around those of a decoder behind it. They share the embedding alone."""
    width = model.embedding_width or model.hidden
    yield Weight("embed_tokens", model.vocab, width, "embedding")
    if ends.token_types:
        yield Weight("token_type_embeddings", ends.token_types, width, "embedding")
    if width != model.hidden:
        yield from _linear("project_in", model.hidden, width, bias=True)
    for stack in ("encoder", "decoder") if model.is_encoder_decoder else ("encoder",):
        if ends.audio and stack == "encoder":
            yield from _of_sound(ends.audio, model.hidden)
        elif model.positions:
            yield Weight(f"{stack}.embed_positions", model.positions, width, "embedding")
        if model.embedding_norm:
            yield from _norm(f"{stack}.embedding_norm", width, model.norm)
        if model.final_norm:
            yield from _norm(f"{stack}.norm", model.hidden, model.norm)
    if ends.distances:
        yield Weight("rel_embeddings", ends.distances, model.hidden, "embedding")
    if ends.distances_norm:
        yield from _norm("rel_embeddings.norm", model.hidden, model.norm)
    if ends.convolution:
        yield from _convolution(
            "conv", model.hidden, model.hidden // ends.convolution.groups * ends.convolution.kernel, bias=True
        )
        yield from _norm("conv.norm", model.hidden, model.norm)
    if ends.head in ("masked-lm", "sequence", "pooler"):
        inner = width if ends.head == "masked-lm" else model.hidden
        yield from _linear(ends.dense, inner, model.hidden, ends.dense_bias)
        if ends.dense_norm or ends.head == "masked-lm":
            yield from _norm("head.norm", inner, model.norm)
    if model.has_lm_head and not model.tied:
        yield Weight("lm_head", model.vocab, width, "head")
    if ends.head == "masked-lm":
        yield Weight("lm_head.bias", model.vocab, 1, "bias")
    elif ends.head in ("sequence", "tokens"):
        yield Weight("classifier", ends.labels, model.hidden, "head")
        yield Weight("classifier.bias", ends.labels, 1, "bias")


def _of_sound(audio: Audio, hidden: int) -> Iterator[Weight]:
    """Two convolutions over three frames each, and sinusoids in a table (modeling_whisper.py, WhisperEncoder)."""
    yield from _convolution("conv1", hidden, 3 * audio.bins, bias=True)
    yield from _convolution("conv2", hidden, 3 * hidden, bias=True)
    yield Weight("encoder.embed_positions", audio.positions, hidden, "frozen")


@lru_cache(maxsize=1024)
def parameter_count(model: Model) -> int:
    """Unique parameters: a tied head counts once, buffers do not count."""
    layers = sum(many * _elements(layer_weights(layer, model.hidden)) for layer, many in model.kinds)
    return layers + _elements(outer_weights(model)) + model.extra_parameters


@lru_cache(maxsize=1024)
def active_parameters(model: Model) -> int:
    """Parameters that take part in one token: of the experts, those that the router picks."""
    idle = 0
    for layer, many in model.kinds:
        if isinstance(layer.feed_forward, Experts):
            experts = sum(weight.elements for weight in layer_weights(layer, model.hidden) if weight.kind == "expert")
            idle += many * experts // layer.feed_forward.total * (layer.feed_forward.total - layer.feed_forward.active)
    return parameter_count(model) - idle


def _elements(weights: tuple[Weight, ...]) -> int:
    return sum(weight.elements for weight in weights)


def _renamed(name: str, own: dict[str, str]) -> str:
    """The family's own name of a tensor or its module; a trailing ``.bias`` stays."""
    if name in own:
        return own[name]
    module, dot, tail = name.partition(".bias")
    return own.get(module, module) + dot + tail


def _linear(name: str, rows: int, cols: int, bias: bool) -> Iterator[Weight]:
    yield Weight(name, rows, cols, "linear")
    if bias:
        yield Weight(f"{name}.bias", rows, 1, "bias")


def _norm(name: str, width: int, norm: Norm) -> Iterator[Weight]:
    if norm != "none":
        yield Weight(name, width, 1, "norm")
    if norm in ("layer", "layer-written"):
        yield Weight(f"{name}.bias", width, 1, "norm")


def _mixer(layer: Layer, hidden: int) -> Iterator[Weight]:
    mixer = layer.mixer
    if isinstance(mixer, AttentionBesideStateSpace):
        yield from _state_space(mixer.state_space, hidden)
        mixer = mixer.attention
    if isinstance(mixer, Attention):
        yield from _attention(mixer, layer.norm, hidden)
    elif isinstance(mixer, LatentAttention):
        yield from _latent(mixer, layer.norm, hidden)
    elif isinstance(mixer, DeltaRule):
        yield from _delta_rule(mixer, hidden)
    elif isinstance(mixer, KimiDelta):
        yield from _kimi_delta(mixer, hidden)
    elif isinstance(mixer, StateSpace):
        yield from _state_space(mixer, hidden)
    elif isinstance(mixer, SelectiveScan):
        yield from _selective_scan(mixer, hidden)
    elif isinstance(mixer, LightningAttention):
        yield Weight("qkv_proj", 3 * mixer.width, hidden, "linear")
        yield Weight("output_gate", mixer.width, hidden, "linear")
        yield Weight("mixer.norm", mixer.width, 1, "norm")
        yield Weight("out_proj", hidden, mixer.width, "linear")
    elif isinstance(mixer, ShortConvolution):
        yield from _linear("in_proj", 3 * mixer.width, hidden, mixer.bias)
        yield from _convolution("conv", mixer.width, mixer.kernel, mixer.bias)
        yield from _linear("out_proj", hidden, mixer.width, mixer.bias)
    if layer.cross:
        yield from _attention(layer.cross, layer.norm, hidden, "cross.")


def _shared_block(layer: Layer, hidden: int) -> Iterator[Weight]:
    block = layer.shared
    if block is None:
        return
    if block.first:
        for weight in _attention(block.attention, layer.norm, 2 * hidden):
            yield weight._replace(rows=hidden) if weight.name == "o_proj" else weight
        yield from _mlp("", block.mlp, hidden)
        yield from _norm("shared.input_layernorm", 2 * hidden, layer.norm)
        yield from _norm("shared.pre_ff_layernorm", hidden, layer.norm)
    for name, rank, out in block_adapters(block, hidden):
        yield Weight(f"{name}.0", rank, hidden if name.startswith("gate") else 2 * hidden, "linear")
        yield Weight(f"{name}.1", out, rank, "linear")
    yield Weight("linear", hidden, hidden, "linear")


def block_adapters(block: SharedBlock, hidden: int) -> Iterator[tuple[str, int, int]]:
    """A layer's own adapters of a shared block (Zamba2Attention, Zamba2MLP): name, rank, output features."""
    if block.attention_rank:
        for part in "qkv":
            yield f"linear_{part}_adapter_list", block.attention_rank, 2 * hidden
    if block.rank:
        yield "gate_up_proj_adapter_list", block.rank, 2 * block.mlp.width


def _attention(mixer: Attention, norm: Norm, hidden: int, part: str = "") -> Iterator[Weight]:
    query, kv = mixer.query_width, mixer.kv_width
    query_rows = 2 * query if mixer.output_gate else query
    if mixer.fused:
        yield from _linear("qkv_proj", query_rows + 2 * kv, hidden, mixer.bias)
    else:
        yield from _linear(part + "q_proj", query_rows, hidden, mixer.bias)
        yield from _linear(part + "k_proj", kv, hidden, mixer.bias and not mixer.unbiased_keys)
        yield from _linear(part + "v_proj", kv, hidden, mixer.bias)
    yield from _linear(part + "o_proj", hidden, query, mixer.out_bias)
    if mixer.qk_norm == "head":
        yield from _norm("q_norm", mixer.head_dim, norm)
        yield from _norm("k_norm", mixer.head_dim, norm)
    elif mixer.qk_norm == "projection":
        yield from _norm("q_norm", query, norm)
        yield from _norm("k_norm", kv, norm)
    elif mixer.qk_norm == "per-head":
        yield Weight("q_norm", mixer.heads, mixer.head_dim, "norm")
        yield Weight("k_norm", mixer.kv_heads, mixer.head_dim, "norm")
    if mixer.sinks:
        yield Weight("sinks", mixer.heads, 1, "other")
    if mixer.disentangled:
        yield from _distances(mixer, hidden)
    if mixer.buckets:
        yield Weight("relative_attention_bias", mixer.buckets, mixer.heads, "other")


def _distances(mixer: Attention, hidden: int) -> Iterator[Weight]:
    """DeBERTa's biases beside a projection of all three, and its projections of distances."""
    if mixer.fused:
        yield Weight("q_bias", mixer.query_width, 1, "other")
        yield Weight("v_bias", mixer.query_width, 1, "other")
    if mixer.distances and not mixer.distances.shared:
        if mixer.distances.to_keys:
            yield from _linear("pos_key_proj", mixer.query_width, hidden, bias=not mixer.fused)
        if mixer.distances.to_queries:
            yield from _linear("pos_query_proj", mixer.query_width, hidden, bias=True)


def _latent(mixer: LatentAttention, norm: Norm, hidden: int) -> Iterator[Weight]:
    query = mixer.heads * (mixer.nope_dim + mixer.rope_dim)
    if mixer.query_rank is None:
        yield Weight("q_proj", query, hidden, "linear")
    else:
        yield Weight("q_a_proj", mixer.query_rank, hidden, "linear")
        yield from _norm("q_a_layernorm", mixer.query_rank, norm)
        yield Weight("q_b_proj", query, mixer.query_rank, "linear")
    yield Weight("kv_a_proj_with_mqa", mixer.kv_rank + mixer.rope_dim, hidden, "linear")
    yield from _norm("kv_a_layernorm", mixer.kv_rank, norm)
    yield Weight("kv_b_proj", mixer.heads * (mixer.nope_dim + mixer.value_dim), mixer.kv_rank, "linear")
    yield Weight("o_proj", hidden, mixer.heads * mixer.value_dim, "linear")


def _delta_rule(mixer: DeltaRule, hidden: int) -> Iterator[Weight]:
    if mixer.apart:
        for part, rows in (("q", mixer.key_width), ("k", mixer.key_width), ("v", mixer.value_width), ("g", mixer.value_width)):
            yield Weight(f"{part}_proj", rows, hidden, "linear")
        yield Weight("a_proj", mixer.value_heads, hidden, "linear")
        yield Weight("b_proj", mixer.value_heads, hidden, "linear")
    elif mixer.joined:
        yield Weight("in_proj_qkvz", mixer.mixed_width + mixer.value_width, hidden, "linear")
        yield Weight("in_proj_ba", 2 * mixer.value_heads, hidden, "linear")
    else:
        yield Weight("in_proj_qkv", mixer.mixed_width, hidden, "linear")
        yield Weight("in_proj_z", mixer.value_width, hidden, "linear")
        yield Weight("in_proj_b", mixer.value_heads, hidden, "linear")
        yield Weight("in_proj_a", mixer.value_heads, hidden, "linear")
    yield from _convolution("conv1d", mixer.mixed_width, mixer.kernel, bias=False)
    yield Weight("dt_bias", mixer.value_heads, 1, "other")
    yield Weight("A_log", mixer.value_heads, 1, "other")
    yield Weight("mixer.norm", mixer.value_dim, 1, "norm")
    yield Weight("o_proj" if mixer.apart else "out_proj", hidden, mixer.value_width, "linear")


def _kimi_delta(mixer: KimiDelta, hidden: int) -> Iterator[Weight]:
    for name in ("q_proj", "k_proj", "v_proj"):
        yield Weight(name, mixer.width, hidden, "linear")
    yield Weight("conv1d", mixer.mixed_width, mixer.kernel, "other")
    yield Weight("forget_gate.f_a_proj", mixer.head_dim, hidden, "linear")
    yield Weight("forget_gate.f_b_proj", mixer.width, mixer.head_dim, "linear")
    yield Weight("dt_bias", mixer.width, 1, "other")
    yield Weight("A_log", mixer.heads, 1, "other")
    yield Weight("b_proj", mixer.heads, hidden, "linear")
    yield Weight("g_a_proj", mixer.head_dim, hidden, "linear")
    yield Weight("g_b_proj", mixer.width, mixer.head_dim, "linear")
    yield Weight("o_norm", mixer.head_dim, 1, "norm")
    yield Weight("o_proj", hidden, mixer.width, "linear")


def _convolution(name: str, channels: int, kernel: int, bias: bool) -> Iterator[Weight]:
    yield Weight(name, channels, kernel, "other")
    if bias:
        yield Weight(f"{name}.bias", channels, 1, "bias")


def _selective_scan(mixer: SelectiveScan, hidden: int) -> Iterator[Weight]:
    yield from _linear("in_proj", 2 * mixer.width, hidden, mixer.bias)
    yield from _convolution("conv1d", mixer.width, mixer.kernel, mixer.conv_bias)
    if mixer.heads > 1:  # parameters, not modules: neither quantized nor adapted
        yield Weight("x_proj_weight", mixer.rank + 2 * mixer.state, mixer.width, "other")
        yield Weight("dt_proj_weight", mixer.width, mixer.rank, "other")
        yield Weight("dt_proj_bias", mixer.width, 1, "other")
    else:
        yield Weight("x_proj", mixer.rank + 2 * mixer.state, mixer.width, "linear")
        yield from _linear("dt_proj", mixer.width, mixer.rank, bias=True)
    yield Weight("A_log", mixer.width, mixer.state, "other")
    yield Weight("D", mixer.width, 1, "other")
    if mixer.norms == "weights":
        for name, width in (("dt_layernorm", mixer.rank), ("b_layernorm", mixer.state), ("c_layernorm", mixer.state)):
            yield Weight(name, width, 1, "norm")
    yield from _linear("out_proj", hidden, mixer.width, mixer.bias)


def _state_space(mixer: StateSpace, hidden: int) -> Iterator[Weight]:
    yield from _linear("in_proj", mixer.width + mixer.mixed_width + mixer.heads, hidden, mixer.bias)
    yield from _convolution("conv1d", mixer.mixed_width, mixer.kernel, mixer.conv_bias)
    for name in ("dt_bias", "A_log", "D"):
        yield Weight(name, mixer.heads, 1, "other")
    if mixer.norm:
        yield Weight("mixer.norm", mixer.width, 1, "norm")
    yield from _linear("out_proj", hidden, mixer.width, mixer.bias)


def _feed_forward(layer: Layer, hidden: int) -> Iterator[Weight]:
    part = layer.feed_forward
    if isinstance(part, Mlp):
        yield from _mlp("", part, hidden)
    elif isinstance(part, Experts):
        yield from _experts(part, hidden)


def _mlp(prefix: str, part: Mlp, hidden: int) -> Iterator[Weight]:
    if part.gated and part.fused:
        yield from _linear(f"{prefix}gate_up_proj", 2 * part.width, hidden, part.bias)
    elif part.gated:
        yield from _linear(f"{prefix}gate_proj", part.width, hidden, part.bias)
        yield from _linear(f"{prefix}up_proj", part.width, hidden, part.bias)
    else:
        yield from _linear(f"{prefix}up_proj", part.width, hidden, part.bias)
    yield from _linear(f"{prefix}down_proj", hidden, part.width, part.bias)
    if part.activation == "xielu":  # two learned scalars
        yield from (Weight(f"{prefix}act_fn.{name}", 1, 1, "other") for name in ("alpha_p", "alpha_n"))


def _experts(part: Experts, outside: int) -> Iterator[Weight]:
    hidden = part.latent or outside
    into = 2 * part.width if part.gated else part.width
    first = "experts.gate_up_proj" if part.gated else "experts.up_proj"
    yield Weight(first, part.total * into, hidden, "expert")
    yield Weight("experts.down_proj", part.total * hidden, part.width, "expert")
    if part.bias:
        yield Weight(f"{first}_bias", part.total * into, 1, "expert")
        yield Weight("experts.down_proj_bias", part.total * hidden, 1, "expert")
    known = part.routed or part.total
    yield Weight("gate", known, outside, "router")
    if part.router_bias:
        yield Weight("gate.bias", known, 1, "bias")
    if part.shared_width:
        yield from _mlp("shared_experts.", Mlp(part.shared_width, part.gated, fused=part.shared_fused), outside)
    if part.shared_gate:
        yield Weight("shared_expert_gate", 1, outside, "linear")
    if part.latent:
        yield Weight("fc1_latent_proj", part.latent, outside, "linear")
        yield Weight("fc2_latent_proj", outside, part.latent, "linear")
    if part.beside:
        yield from _mlp("residual_mlp.", Mlp(part.beside, part.gated), outside)


_BEFORE_OR_AFTER = {  # arrangement -> the norms that go with the mixer, those that go with the feed-forward part
    "pre": (("input_layernorm",), ("post_attention_layernorm",)),
    "sandwich": (
        ("input_layernorm", "post_attention_layernorm"),
        ("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
    "post": (("post_attention_layernorm",), ("post_feedforward_layernorm",)),
    "parallel": (("input_layernorm",), ()),
    "parallel2": (("input_layernorm",), ("post_attention_layernorm",)),
    "after": (("post_attention_layernorm",), ("post_feedforward_layernorm",)),
    "half": ((), ("post_attention_layernorm",)),
    "scaled": (("input_layernorm",), ("post_attention_layernorm",)),
}


def _layer_norms(layer: Layer, hidden: int) -> Iterator[Weight]:
    of_mixer, of_feed_forward = _BEFORE_OR_AFTER[layer.arrangement]
    of_cross = ("cross_attention_layernorm",) if layer.cross else ()
    for name in (*(of_mixer if layer.mixer else ()), *of_cross, *(of_feed_forward if layer.feed_forward else ())):
        yield from _norm(name, hidden, layer.norm)
    if isinstance(layer.feed_forward, Experts) and layer.feed_forward.beside:
        yield from _norm("residual_layernorm", hidden, layer.norm)
