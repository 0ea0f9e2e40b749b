"""Zamba and Zamba 2: Mamba layers, and before some of them a block of attention and an MLP whose weights they share.

Defaults and structure are those of transformers 5.23 (models/zamba, models/zamba2).
"""

from __future__ import annotations

from typing import Any

from advisor.mixers import Attention, Recurrent
from advisor.model import Layer, SharedBlock, in_order
from advisor.model_files.config import attention_of, mlp_of
from advisor.model_files.families import Family, like
from advisor.model_files.families_hybrid import HYBRID
from advisor.model_files.hybrids import kinds_of, selective_scan_of, state_space_of
from advisor.model_files.keys import Keys

_KINDS = {"mamba": "mamba", "linear_attention": "mamba", "hybrid": "hybrid"}
_MOST_LAYERS = 4096


def _shared(keys: Keys, family: Family, mixer: Recurrent, layers: int) -> tuple[Layer, ...]:
    """The layers' blocks in turn: the first, the second, the first again."""
    kinds, blocks = kinds_of(keys, layers, _KINDS), keys.count("num_mem_blocks")
    attention = attention_of(keys, family, None)
    assert isinstance(attention, Attention)
    block = SharedBlock(
        attention=attention._replace(rotary=keys.says("use_mem_rope")),
        mlp=mlp_of(keys, family),
        rank=keys.optional("adapter_rank") or 0,
        attention_rank=keys.count("adapter_rank") if keys.says("use_shared_attention_adapter") else 0,
    )
    plain = Layer(mixer, None, norm=family.norm, names=family.names)
    made: list[Layer] = []
    for kind in kinds:
        before = sum(layer.shared is not None for layer in made)
        made.append(plain._replace(shared=block._replace(number=before % blocks)) if kind == "hybrid" else plain)
    return in_order(made)


def zamba(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    scan = selective_scan_of(keys, None)
    heads = keys.count("n_mamba_heads")
    if scan.width % heads:
        raise keys.fail("n_mamba_heads", f"= {heads} does not divide the inner width {scan.width}")
    return _shared(keys, family, scan._replace(heads=heads), layers)


def zamba2(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    return _shared(keys, family, state_space_of(keys), layers)


def _kinds(config: dict[str, Any]) -> dict[str, Any]:
    """``layers_block_type`` may be left to the class, and so may the heads' size: two hidden sizes over all heads."""
    layers, hidden, heads = (config.get(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    if config.get("head_dim") is None and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        config = config | {"head_dim": 2 * hidden // heads}
    if config.get("intermediate_size") is None and isinstance(hidden, int):
        config = config | {"intermediate_size": 4 * hidden}
    if config.get("layer_types") is not None or not isinstance(layers, int):
        return config
    period, offset = config.get("attn_layer_period"), config.get("attn_layer_offset")
    if isinstance(period, int) and period > 0:
        rest = ["hybrid" if i % period == offset else "mamba" for i in range(min(layers, _MOST_LAYERS) - 3)]
        return config | {"layer_types": ["mamba", "mamba", "hybrid", *rest]}
    hybrids = {*range(6, 43, 6), 47, 51}  # Zamba2Config's own list, of 54 layers
    return config | {"layer_types": ["hybrid" if layer in hybrids else "mamba" for layer in range(54)]}


_NAMES = (
    ("shared.input_layernorm", "input_layernorm"),
    ("shared.pre_ff_layernorm", "pre_ff_layernorm"),
    ("mixer.norm", "mamba.norm"),
)
_MAMBA = {
    "layers_block_type": "layer_types",
    "attention_head_dim": "head_dim",
    "add_bias_linear": "mamba_proj_bias",
    "mamba_ngroups": "mamba_n_groups",
    "chunk_size": "mamba_chunk_size",
    "mamba_headdim": "mamba_d_head",
}
_ZAMBA = like(
    HYBRID["jamba"],
    {
        "vocab_size": 32000,
        "hidden_size": 3712,
        "intermediate_size": 14848,
        "num_hidden_layers": 76,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": None,
        "hidden_act": "gelu",
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "layer_types": None,
        "n_mamba_heads": 2,
        "num_mem_blocks": 1,
        "use_mem_rope": False,
        "adapter_rank": None,
        "use_shared_attention_adapter": False,
        "attn_layer_period": 6,
        "attn_layer_offset": 4,
    },
    aliases=_MAMBA,
    translate=_kinds,
    layers=zamba,
    sparse=None,
    # attention_hidden_size is two hidden sizes in every model; the next three follow from other keys or change nothing.
    harmless=frozenset({"attention_hidden_size", "ffn_hidden_size", "attn_layer_period", "attn_layer_offset"}),
    names=_NAMES,
)

ZAMBA: dict[str, Family] = {
    "zamba": _ZAMBA,
    "zamba2": like(
        _ZAMBA,
        {
            "hidden_size": 2560,
            "intermediate_size": None,
            "num_hidden_layers": 54,
            "num_attention_heads": 32,
            "num_key_value_heads": None,
            "mamba_n_heads": 8,
            "mamba_d_state": 64,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 256,
            "adapter_rank": 128,
            "attn_layer_period": None,
        },
        aliases={**_MAMBA, "n_mamba_heads": "mamba_n_heads"},
        fixed={"mamba_proj_bias": False, "use_long_context": False},
        fused_mlp=True,
        layers=zamba2,
    ),
}
