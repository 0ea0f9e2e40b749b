"""Families whose code is not in transformers: what decides the shape has to be in the config."""

from __future__ import annotations

from advisor.model_files import translations
from advisor.model_files.families import Family, like
from advisor.model_files.families_dense import LLAMA, MISTRAL, NO_BIAS, QWEN2

_ROUTED = {"n_routed_experts": "num_experts", "num_local_experts": "num_experts"}
_LOCAL = {"num_local_experts": "num_experts"}
_REQUIRED = {
    "vocab_size": None,
    "hidden_size": None,
    "intermediate_size": None,
    "num_hidden_layers": None,
    "num_attention_heads": None,
}

REMOTE: dict[str, Family] = {
    "qwen": like(
        LLAMA,
        _REQUIRED,
        aliases={"seq_length": "max_position_embeddings", "kv_channels": "head_dim", "attn_dropout_prob": "attention_dropout"},
        translate=translations.qwen,
        fixed={"no_bias": True},
        shifted_loss=True,  # modeling_qwen.py, QWenLMHeadModel.forward
        qkv_bias=True,
        out_bias=False,
        mlp_bias=False,
        fused_qkv=True,
        names=(
            ("qkv_proj", "c_attn"),
            ("o_proj", "c_proj"),
            ("gate_proj", "w2"),
            ("up_proj", "w1"),
            ("down_proj", "c_proj"),
            ("input_layernorm", "ln_1"),
            ("post_attention_layernorm", "ln_2"),
        ),
    ),
    "mimo": like(QWEN2, {**_REQUIRED, "head_dim": None}, harmless=frozenset({"num_nextn_predict_layers"})),
    "internlm": like(LLAMA, _REQUIRED, aliases={"bias": "attention_bias"}, mlp_bias=False),
    "internlm2": like(
        LLAMA,
        _REQUIRED,
        aliases={"bias": "attention_bias"},
        mlp_bias=False,
        fused_qkv=True,
        names=(
            ("qkv_proj", "wqkv"),
            ("o_proj", "wo"),
            ("gate_proj", "w1"),
            ("up_proj", "w3"),
            ("down_proj", "w2"),
            ("input_layernorm", "attention_norm"),
            ("post_attention_layernorm", "ffn_norm"),
        ),
    ),
    "internlm3": like(
        LLAMA,
        {
            "vocab_size": 128512,
            "intermediate_size": 10240,
            "num_hidden_layers": 48,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 32768,
        },
        aliases={"qkv_bias": "attention_bias", "bias": "mlp_bias"},
        out_bias="mlp_bias",
    ),
    "baichuan": like(
        LLAMA,
        _REQUIRED,
        aliases={"model_max_length": "max_position_embeddings"},
        fused_qkv=True,
        names=(("qkv_proj", "W_pack"),),
        **NO_BIAS,
    ),
    "minicpm": like(
        LLAMA,
        {**_REQUIRED, "tie_word_embeddings": True},
        mlp_bias=False,
    ),
    "exaone": like(
        LLAMA,
        _REQUIRED,
        aliases={"num_layers": "num_hidden_layers", "activation_function": "hidden_act"},
        **NO_BIAS,
    ),
    "chatglm": like(
        LLAMA,
        {**_REQUIRED, "add_qkv_bias": False, "add_bias_linear": False, "resid_pdrop": 0.0},
        aliases={
            "num_layers": "num_hidden_layers",
            "ffn_hidden_size": "intermediate_size",
            "padded_vocab_size": "vocab_size",
            "kv_channels": "head_dim",
            "seq_length": "max_position_embeddings",
            "hidden_dropout": "resid_pdrop",
        },
        translate=translations.chatglm,
        fixed={"rmsnorm": True, "apply_residual_connection_post_layernorm": False, "post_layer_norm": True},
        qkv_bias="add_qkv_bias",
        out_bias="add_bias_linear",
        mlp_bias="add_bias_linear",
        fused_qkv=True,
        fused_mlp=True,
        names=(
            ("qkv_proj", "query_key_value"),
            ("o_proj", "dense"),
            ("gate_up_proj", "dense_h_to_4h"),
            ("down_proj", "dense_4h_to_h"),
        ),
    ),
    "deepseek": like(
        LLAMA,
        {
            **_REQUIRED,
            "num_experts": None,
            "num_experts_per_tok": None,
            "moe_intermediate_size": None,
            "n_shared_experts": None,
            "first_k_dense_replace": 0,
        },
        aliases=_ROUTED,
        fixed={"moe_layer_freq": 1},
        mlp_bias=False,
        sparse="after-dense",
    ),
    "arctic": like(
        MISTRAL,
        {
            **_REQUIRED,
            "sliding_window": None,
            "num_experts": None,
            "num_experts_per_tok": None,
        },
        aliases=_LOCAL,
        fixed={"moe_layer_frequency": 1, "use_residual": True, "parallel_attn_mlp_res": True},
        sparse="all",
        expert_width="intermediate_size",
        beside="hidden_size",
    ),
    "grok-1": like(
        MISTRAL,
        {
            **_REQUIRED,
            "hidden_act": "gelu",
            "sliding_window": None,
            "tie_word_embeddings": True,
            "num_experts": None,
            "num_experts_per_tok": None,
        },
        aliases=_LOCAL,
        arrangement="sandwich",
        windows="none",
        sparse="all",
        expert_width="intermediate_size",
    ),
}
