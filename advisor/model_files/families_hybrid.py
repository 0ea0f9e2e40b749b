"""Models with recurrent layers; defaults and structure of transformers 5.23."""

from __future__ import annotations

from advisor.model_files import hybrids, translations
from advisor.model_files.families import Family, like
from advisor.model_files.families_dense import LLAMA

_NOTE = (
    "Recurrent layers are estimated as transformers' own PyTorch code runs them; "
    "the kernels of mamba-ssm, causal-conv1d and flash-linear-attention need less."
)
_SHARED_EXPERT = tuple((f"shared_experts.{part}_proj", f"shared_expert.{part}_proj") for part in ("gate", "up", "down"))

_QWEN3_5 = like(
    LLAMA,
    {
        "vocab_size": 248320,
        "intermediate_size": 12288,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "layer_types": None,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    },
    norm="rms-gemma",
    qk_norm="head",
    mlp_bias=False,
    partial_rotary=True,
    output_gate=True,
    harmless=frozenset({"mtp_num_hidden_layers"}),  # multi-token-prediction layers are loaded on demand only
    layers=hybrids.qwen3_5,
    note=_NOTE,
)
_QWEN3_5_MOE = like(
    _QWEN3_5,
    {
        "hidden_size": 2048,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    },
    sparse="all",
    shared_gate=True,
    names=_SHARED_EXPERT,
)

_BAMBA = like(
    LLAMA,
    {
        "vocab_size": 128000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262144,
        "layer_types": None,
        "attn_layer_indices": None,
        "mamba_n_heads": 128,
        "mamba_d_head": "auto",
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_chunk_size": 256,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "mamba_d_ssm": None,
    },
    translate=translations.bamba,
    layers=hybrids.granite,
    note=_NOTE,
    harmless=frozenset({"mamba_d_head", "mamba_n_heads", "mamba_chunk_size"}),  # of a model whose layers are all attention
    names=(("mixer.norm", "mamba.norm"),),
)
_MAMBA_2 = {
    "num_heads": "mamba_n_heads",
    "head_dim": "mamba_d_head",
    "n_groups": "mamba_n_groups",
    "state_size": "mamba_d_state",
    "conv_kernel": "mamba_d_conv",
    "expand": "mamba_expand",
    "chunk_size": "mamba_chunk_size",
    "use_bias": "mamba_proj_bias",
    "use_conv_bias": "mamba_conv_bias",
}

HYBRID: dict[str, Family] = {
    "qwen3_5_text": _QWEN3_5,
    "qwen3_5_moe_text": _QWEN3_5_MOE,
    "qwen3_next": like(
        _QWEN3_5_MOE,
        {
            "vocab_size": 151936,
            "intermediate_size": 5632,
            "num_hidden_layers": 48,
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "decoder_sparse_step": 1,
            "mlp_only_layers": None,
        },
        sparse="step",
        layers=hybrids.qwen3_next,
    ),
    "bamba": _BAMBA,
    "granitemoehybrid": like(
        _BAMBA,
        {
            "vocab_size": 32000,
            "intermediate_size": 11008,
            "num_key_value_heads": None,
            "max_position_embeddings": 2048,
            "moe_intermediate_size": 11008,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "shared_expert_intermediate_size": 1024,
            "position_embedding_type": None,
        },
        aliases={
            "layers_block_type": "layer_types",
            "num_local_experts": "num_experts",
            "intermediate_size": "moe_intermediate_size",
            "shared_intermediate_size": "shared_expert_intermediate_size",
        },
        translate=translations.granite_hybrid,
        mlp_bias=False,
        fused_mlp=True,
        names=(
            ("gate_up_proj", "shared_mlp.input_linear"),
            ("down_proj", "shared_mlp.output_linear"),
            ("shared_experts.gate_up_proj", "shared_mlp.input_linear"),
            ("shared_experts.down_proj", "shared_mlp.output_linear"),
            ("mixer.norm", "mamba.norm"),
        ),
    ),
    "falcon_h1": like(
        _BAMBA,
        {
            "max_position_embeddings": 8192,
            "mamba_d_ssm": 1024,
            "mamba_rms_norm": False,
            "projectors_bias": False,
        },
        fixed={"projectors_bias": False},
        translate=None,
        layers=hybrids.falcon_h1,
    ),
    "mamba2": like(
        _BAMBA,
        {
            "vocab_size": 32768,
            "num_hidden_layers": 64,
            "mamba_n_groups": 8,
            "mamba_d_state": 128,
            "mamba_d_head": 64,
            "residual_in_fp32": True,
            "max_position_embeddings": None,
        },
        aliases=_MAMBA_2,
        translate=None,
        layers=hybrids.mamba2,
        logits_fp32=True,
        harmless=frozenset({"time_step_rank"}),
    ),
    "nemotron_h": like(
        _BAMBA,
        {
            "vocab_size": 131072,
            "intermediate_size": 21504,
            "head_dim": 128,
            "hidden_act": "relu2",
            "max_position_embeddings": 4096,
            "mamba_n_groups": 8,
            "mamba_d_state": 128,
            "mamba_chunk_size": 128,
            "mamba_head_dim": 64,
            "hybrid_override_pattern": None,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 7688,
            "moe_shared_expert_intermediate_size": 7688,
            "moe_latent_size": None,
        },
        aliases={
            **{key: name for key, name in _MAMBA_2.items() if key not in ("num_heads", "head_dim", "state_size")},
            "mamba_num_heads": "mamba_n_heads",
            "ssm_state_size": "mamba_d_state",
            "layers_block_type": "layer_types",
            "n_routed_experts": "num_experts",
            "mlp_hidden_act": "hidden_act",
        },
        fixed={"residual_in_fp32": False, "sliding_window": None},
        translate=translations.nemotron_h,
        norm="rms-fp32",
        gated=False,
        rotary=False,
        router_fp32=True,
        qkv_bias=False,
        out_bias=False,
        layers=hybrids.nemotron_h,
        logits_fp32=True,
        harmless=frozenset({"num_nextn_predict_layers", "n_shared_experts", "mamba_head_dim"}),
    ),
}
