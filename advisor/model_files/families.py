"""How each ``model_type`` writes its architecture: the facts that all its models share, and its configuration class's defaults.

One record a family, in Llama's spelling of the keys; ``aliases`` turns a family's own spelling into that. Defaults and structure
are those of transformers 5.23 (``models/*/configuration_*.py``, ``modeling_*.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from advisor.model import Arrangement, Norm

Rule = bool | str  # a fact of the whole family, or the key of the config that says so
QkNorm = Literal["head", "projection", "per-head"]

# Which layers see only a window, when the config has no ``layer_types``:
#   none        no layer
#   every       every layer, if ``sliding_window`` is set
#   pattern     all but each ``sliding_window_pattern``-th
#   from-max    those from ``max_window_layers`` on
#   below-max   every second one below ``max_window_layers``
Windows = Literal["none", "every", "pattern", "from-max", "below-max"]

# Which layers hold experts:
#   all         every layer
#   after-dense those from ``first_k_dense_replace`` on
#   step        each ``decoder_sparse_step``-th, save those in ``mlp_only_layers``
Sparse = Literal["all", "after-dense", "step"]


@dataclass(frozen=True)
class Family:
    """What the models of one ``model_type`` have in common."""

    defaults: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)  # keys that are understood at this value only
    harmless: frozenset[str] = frozenset()  # keys that look structural and change no weight
    norm: Norm = "rms"
    arrangement: Arrangement = "pre"
    qkv_bias: Rule = False
    out_bias: Rule = False
    qk_norm: QkNorm | None = None
    fused_qkv: bool = False
    latent: bool = False
    fp32_rotary: bool = False
    rotary: bool = True
    sinks: bool = False
    windows: Windows = "none"
    layer_types: bool = False  # the config may list what each layer sees
    gated: bool = True
    fused_mlp: bool = False
    mlp_bias: Rule = False
    positions: bool = False  # a learned position table of ``max_position_embeddings`` rows
    sparse: Sparse | None = None
    expert_width: str = "moe_intermediate_size"
    router_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False
    names: tuple[tuple[str, str], ...] = ()  # modules that transformers calls otherwise than in Llama


def like(family: Family, defaults: Mapping[str, Any], **changes: Any) -> Family:
    """The family with other defaults and some facts changed."""
    return replace(family, defaults={**family.defaults, **defaults}, **changes)


_LLAMA = Family(
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
    },
    qkv_bias="attention_bias",
    out_bias="attention_bias",
    mlp_bias="mlp_bias",
)
_MISTRAL = like(
    _LLAMA,
    {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
    windows="every",
)
_QWEN2 = like(
    _LLAMA,
    {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "layer_types": None,
    },
    qkv_bias=True,
    out_bias=False,
    mlp_bias=False,
    windows="from-max",
    layer_types=True,
)
_QWEN3 = like(_QWEN2, {"head_dim": 128}, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head")
_GEMMA = like(
    _LLAMA,
    {
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    norm="rms-gemma",
    mlp_bias=False,
)
_GEMMA2 = like(
    _GEMMA,
    {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
        "layer_types": None,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
    aliases={"hidden_activation": "hidden_act"},
    arrangement="sandwich",
    windows="pattern",
    layer_types=True,
)
_GEMMA3 = like(
    _GEMMA2,
    {
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
    },
    qk_norm="head",
)
_PHI3 = like(
    _LLAMA,
    {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "resid_pdrop": 0.0,
        "sliding_window": None,
    },
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
    fused_qkv=True,
    fused_mlp=True,
    windows="every",
)
_GPT2 = Family(
    defaults={
        "vocab_size": 50257,
        "hidden_size": 768,
        "intermediate_size": None,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "attention_dropout": 0.1,
        "resid_pdrop": 0.1,
    },
    aliases={
        "n_embd": "hidden_size",
        "n_inner": "intermediate_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "activation_function": "hidden_act",
        "attn_pdrop": "attention_dropout",
    },
    fixed={"add_cross_attention": False},
    norm="layer",
    qkv_bias=True,
    out_bias=True,
    fused_qkv=True,
    rotary=False,
    gated=False,
    mlp_bias=True,
    positions=True,
    names=(
        ("qkv_proj", "c_attn"),
        ("o_proj", "c_proj"),
        ("up_proj", "c_fc"),
        ("down_proj", "c_proj"),
        ("input_layernorm", "ln_1"),
        ("post_attention_layernorm", "ln_2"),
    ),
)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "phi3": _PHI3,
    "gpt2": _GPT2,
    "mixtral": like(
        _MISTRAL,
        {"sliding_window": None, "num_experts": 8, "num_experts_per_tok": 2},
        aliases={"num_local_experts": "num_experts"},
        sparse="all",
        expert_width="intermediate_size",
    ),
    "qwen3_moe": like(
        _QWEN3,
        {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 24,
            "num_key_value_heads": 4,
            "head_dim": None,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "decoder_sparse_step": 1,
            "mlp_only_layers": None,
        },
        aliases={"num_local_experts": "num_experts"},
        harmless=frozenset({"max_window_layers"}),
        windows="every",
        layer_types=False,
        sparse="step",
    ),
    "olmoe": like(
        _LLAMA,
        {
            "vocab_size": 50304,
            "hidden_size": 2048,
            "intermediate_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "max_position_embeddings": 4096,
            "num_experts": 64,
            "num_experts_per_tok": 8,
        },
        aliases={"num_local_experts": "num_experts"},
        mlp_bias=False,
        qk_norm="projection",
        sparse="all",
        expert_width="intermediate_size",
    ),
    "deepseek_v2": (
        _DEEPSEEK_V2 := like(
            _LLAMA,
            {
                "vocab_size": 102400,
                "num_experts": 64,
                "num_experts_per_tok": None,
                "moe_intermediate_size": 1407,
                "n_shared_experts": 2,
                "first_k_dense_replace": 0,
                "kv_lora_rank": 512,
                "q_lora_rank": 1536,
                "qk_nope_head_dim": 128,
                "qk_rope_head_dim": 64,
                "v_head_dim": 128,
            },
            aliases={"n_routed_experts": "num_experts"},
            fixed={"attention_bias": False, "mlp_bias": False, "moe_layer_freq": 1},
            harmless=frozenset({"head_dim", "qk_head_dim", "num_key_value_heads", "ep_size"}),
            latent=True,
            fp32_rotary=True,
            mlp_bias=False,
            sparse="after-dense",
        )
    ),
    "deepseek_v3": (
        _DEEPSEEK_V3 := like(
            _DEEPSEEK_V2,
            {
                "vocab_size": 129280,
                "hidden_size": 7168,
                "intermediate_size": 18432,
                "num_hidden_layers": 61,
                "num_attention_heads": 128,
                "max_position_embeddings": 4096,
                "num_experts": 256,
                "num_experts_per_tok": 8,
                "moe_intermediate_size": 2048,
                "n_shared_experts": 1,
                "first_k_dense_replace": 3,
            },
            aliases={"n_routed_experts": "num_experts", "num_local_experts": "num_experts"},
            # The multi-token-prediction layers are shipped with the checkpoint and loaded on demand only.
            harmless=_DEEPSEEK_V2.harmless | {"num_nextn_predict_layers", "num_mtp_layers"},
            fp32_rotary=False,
        )
    ),
}
