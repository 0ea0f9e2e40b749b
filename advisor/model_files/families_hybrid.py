"""Models with recurrent layers; defaults and structure of transformers 5.23."""

from __future__ import annotations

from advisor.model_files import hybrids
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
}
