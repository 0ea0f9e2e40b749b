"""Layers of several kinds in one model: recurrent mixers among attention, or in its place."""

from __future__ import annotations

from typing import Any

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
from advisor.model import Layer
from advisor.model_files.config import attention_of, experts_of, mlp_of, sparse_layers
from advisor.model_files.families import Family
from advisor.model_files.keys import Keys, shown


def kinds_of(keys: Keys, layers: int, known: dict[str, str]) -> list[str]:
    """What ``layer_types`` says of each layer, in our words."""
    kinds = keys.each("layer_types", layers)
    for kind in kinds:
        if not isinstance(kind, str) or kind not in known:
            raise keys.fail("layer_types", f"has {shown(kind)}, which is not estimated yet")
    return [known[kind] for kind in kinds]


def every(keys: Keys, layers: int, interval: str) -> list[str]:
    """Attention in each ``interval``-th layer."""
    return ["attention" if (layer + 1) % keys.count(interval) == 0 else "recurrent" for layer in range(layers)]


def qwen3_next(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    return qwen3_5(keys, family, layers, joined=True)


def qwen3_5(keys: Keys, family: Family, layers: int, *, joined: bool = False) -> tuple[Layer, ...]:
    """A gated delta rule in three layers of four, or as ``layer_types`` says."""
    kinds = kinds_of(keys, layers, {"linear_attention": "recurrent", "full_attention": "attention"})
    keys.get("full_attention_interval")
    mixers: dict[str, Any] = {
        "attention": attention_of(keys, family, None),
        "recurrent": DeltaRule(
            key_heads=keys.count("linear_num_key_heads"),
            value_heads=keys.count("linear_num_value_heads"),
            key_dim=keys.count("linear_key_head_dim"),
            value_dim=keys.count("linear_value_head_dim"),
            kernel=keys.count("linear_conv_kernel_dim"),
            joined=joined,
        ),
    }
    sparse = sparse_layers(keys, family, layers)
    parts = {here: experts_of(keys, family) if here else mlp_of(keys, family) for here in dict.fromkeys(sparse)}
    return tuple(
        Layer(mixers[kind], parts[here], family.arrangement, family.norm, family.names)
        for kind, here in zip(kinds or every(keys, layers, "full_attention_interval"), sparse, strict=True)
    )


def minimax(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Lightning attention, and softmax attention in some layers; experts in all."""
    kinds = kinds_of(keys, layers, {"linear_attention": "recurrent", "full_attention": "attention"})
    attention = attention_of(keys, family, None)
    assert isinstance(attention, Attention)
    mixers: dict[str, Any] = {
        "attention": attention,
        "recurrent": LightningAttention(attention.heads, attention.head_dim, keys.count("block_size")),
    }
    experts = experts_of(keys, family)
    kinds = kinds or ["recurrent" if depth % 2 else "attention" for depth in range(layers)]
    return tuple(Layer(mixers[kind], experts, "scaled", family.norm, family.names) for kind in kinds)


def olmo_hybrid(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """A gated delta rule in three layers of four, with its norms before it; the attention layers have theirs behind."""
    kinds = kinds_of(keys, layers, {"linear_attention": "recurrent", "full_attention": "attention"})
    kinds = kinds or every(keys, layers, "full_attention_interval")
    if "attention" not in kinds:
        kinds[-1] = "attention"
    heads = keys.count("num_attention_heads")
    key_heads = keys.optional("linear_num_key_heads") or heads
    key_dim = keys.optional("linear_key_head_dim") or int(0.75 * keys.count("hidden_size") / key_heads)
    rule = DeltaRule(
        key_heads=key_heads,
        value_heads=keys.optional("linear_num_value_heads") or heads,
        key_dim=key_dim,
        value_dim=keys.optional("linear_value_head_dim") or 2 * key_dim,
        kernel=keys.count("linear_conv_kernel_dim"),
        joined=False,
        apart=True,
    )
    attention, part = attention_of(keys, family, None), mlp_of(keys, family)
    assert isinstance(attention, Attention)
    attention = attention._replace(rotary=keys.says("rotary"))
    made = {
        "recurrent": Layer(rule, part, norm=family.norm),
        "attention": Layer(attention, part, "post", family.norm),
    }
    return tuple(made[kind] for kind in kinds)


_MAMBA = {"mamba": "recurrent", "mamba2": "recurrent", "linear_attention": "recurrent"}
_ATTENTION = {"attention": "attention", "full_attention": "attention"}


def state_space_of(keys: Keys, *, norm: bool = True) -> StateSpace:
    """A Mamba 2 mixer in Bamba's spelling; ``mamba_d_head`` may be left to follow from the heads."""
    width = keys.optional("mamba_d_ssm") or keys.count("mamba_expand") * keys.count("hidden_size")
    heads = keys.count("mamba_n_heads")
    if width % heads:
        raise keys.fail("mamba_n_heads", f"= {heads} does not divide the inner width {width}")
    head_dim = width // heads
    if keys.get("mamba_d_head") not in (None, "auto", head_dim):
        raise keys.fail(
            "mamba_d_head", f"= {shown(keys.get('mamba_d_head'))} times {heads} heads is not the inner width {width}"
        )
    groups = keys.count("mamba_n_groups")
    if heads % groups:
        raise keys.fail("mamba_n_groups", f"= {groups} does not divide the {heads} heads")
    return StateSpace(
        heads=heads,
        head_dim=head_dim,
        groups=groups,
        state=keys.count("mamba_d_state"),
        kernel=keys.count("mamba_d_conv"),
        chunk=keys.count("mamba_chunk_size"),
        bias=keys.says("mamba_proj_bias"),
        conv_bias=keys.says("mamba_conv_bias"),
        norm=norm,
    )


def mamba2(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Mixers only."""
    layer = Layer(state_space_of(keys), None, norm=family.norm, names=family.names, residual_fp32=keys.says("residual_in_fp32"))
    return (layer,) * layers


def granite(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Granite 4 and Bamba: attention in a few layers, Mamba 2 in the others, and the same feed-forward part in all."""
    kinds = kinds_of(keys, layers, _MAMBA | _ATTENTION) or ["recurrent"] * layers
    attention = attention_of(keys, family, None)
    if isinstance(attention, Attention) and "position_embedding_type" in family.defaults:
        attention = attention._replace(rotary=keys.get("position_embedding_type") == "rope")
    mixers: dict[str, Any] = {"attention": attention}
    if "recurrent" in kinds:
        mixers["recurrent"] = state_space_of(keys)
    if keys.optional("num_experts", least=0):
        part: Any = experts_of(keys, family)._replace(shared_fused=True)
    else:
        part = mlp_of(keys, family)
    return tuple(Layer(mixers[kind], part, norm=family.norm, names=family.names) for kind in kinds)


def falcon_h1(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Attention and Mamba 2 side by side in every layer."""
    attention = attention_of(keys, family, None)
    assert isinstance(attention, Attention)
    mixer = AttentionBesideStateSpace(attention, state_space_of(keys, norm=keys.says("mamba_rms_norm")))
    return (Layer(mixer, mlp_of(keys, family), norm=family.norm, names=family.names),) * layers


def nemotron_h(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """One thing a layer: Mamba 2, attention, an MLP or experts."""
    kinds = kinds_of(keys, layers, {**_MAMBA, **_ATTENTION, "mlp": "mlp", "moe": "moe"})
    made: dict[str, Layer] = {}
    for kind in dict.fromkeys(kinds):
        mixer: Any = None
        part: Any = None
        if kind == "recurrent":
            mixer = state_space_of(keys)
        elif kind == "attention":
            mixer = attention_of(keys, family, None)
        elif kind == "mlp":
            part = mlp_of(keys, family)
        else:
            part = experts_of(keys, family)._replace(
                shared_width=keys.count("moe_shared_expert_intermediate_size"),
                latent=keys.optional("moe_latent_size"),
                weights_fp32=True,
            )
        made[kind] = Layer(mixer, part, norm=family.norm, names=family.names)
    return tuple(made[kind] for kind in kinds)


def lfm2(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Short convolutions, and attention in some layers; LFM2-MoE has experts after its first layers."""
    kinds = kinds_of(keys, layers, {"conv": "recurrent", **_ATTENTION}) or ["attention"] * layers
    mixers: dict[str, Any] = {
        "attention": attention_of(keys, family, None),
        "recurrent": ShortConvolution(keys.count("hidden_size"), keys.count("conv_L_cache"), keys.says("conv_bias")),
    }
    sparse = sparse_layers(keys, family, layers)
    parts = {here: experts_of(keys, family) if here else mlp_of(keys, family) for here in dict.fromkeys(sparse)}
    return tuple(
        Layer(mixers[kind], parts[here], norm=family.norm, names=family.names) for kind, here in zip(kinds, sparse, strict=True)
    )


def selective_scan_of(keys: Keys, norms: Any) -> SelectiveScan:
    """A Mamba 1 mixer in Jamba's spelling; the rank of its step is a sixteenth of the hidden size unless it is given."""
    hidden, rank = keys.count("hidden_size"), keys.get("mamba_dt_rank")
    return SelectiveScan(
        width=keys.count("mamba_expand") * hidden,
        state=keys.count("mamba_d_state"),
        rank=-(-hidden // 16) if rank == "auto" else keys.count("mamba_dt_rank"),
        kernel=keys.count("mamba_d_conv"),
        bias=keys.says("mamba_proj_bias"),
        conv_bias=keys.says("mamba_conv_bias"),
        norms=norms,
    )


def mamba1(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Mixers only; Falcon-Mamba's has norms inside."""
    mixer = selective_scan_of(keys, "plain" if family.qk_norm else None)
    layer = Layer(mixer, None, norm=family.norm, names=family.names, residual_fp32=keys.says("residual_in_fp32"))
    return (layer,) * layers


def jamba(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Attention in one layer of ``attn_layer_period``, Mamba 1 in the others; experts in one of ``expert_layer_period``."""
    attention, scan = attention_of(keys, family, None), selective_scan_of(keys, "weights")
    period, offset = keys.count("attn_layer_period"), keys.optional("attn_layer_offset", least=0)
    sparse_period, sparse_offset = keys.count("expert_layer_period"), keys.optional("expert_layer_offset", least=0)
    dense = mlp_of(keys, family)
    sparse = experts_of(keys, family) if keys.count("num_experts") > 1 else dense
    return tuple(
        Layer(
            attention if depth % period == offset else scan,
            sparse if depth % sparse_period == sparse_offset else dense,
            norm=family.norm,
            names=family.names,
        )
        for depth in range(layers)
    )


def kimi_linear(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Kimi Delta Attention, and latent attention without positions in some layers."""
    kinds = kinds_of(keys, layers, {"linear_attention": "recurrent", "full_attention": "attention"})
    attention = attention_of(keys, family, None)
    assert isinstance(attention, LatentAttention)
    mixers: dict[str, Any] = {
        "attention": attention._replace(rotary=False),
        "recurrent": KimiDelta(
            heads=keys.count("linear_num_heads"),
            head_dim=keys.count("linear_head_dim"),
            kernel=keys.count("linear_conv_kernel_dim"),
        ),
    }
    sparse = sparse_layers(keys, family, layers)
    parts: dict[bool, Any] = {False: mlp_of(keys, family), True: experts_of(keys, family)._replace(weights_fp32=True)}
    return tuple(Layer(mixers[kind], parts[here], norm=family.norm) for kind, here in zip(kinds, sparse, strict=True))
