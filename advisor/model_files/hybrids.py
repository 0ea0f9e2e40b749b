"""Layers of several kinds in one model: recurrent mixers among attention, or in its place."""

from __future__ import annotations

from typing import Any

from advisor.model import DeltaRule, Layer
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
