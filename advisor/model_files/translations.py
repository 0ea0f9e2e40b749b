"""Configs that need more than other key names to be read in Llama's spelling.

Each function takes a config whose plain aliases are replaced already, and returns it with what is missing filled in. It is lenient:
what it does not understand it leaves for the reader to refuse.
"""

from __future__ import annotations

from typing import Any

Keys = dict[str, Any]


def falcon(config: Keys) -> Keys:
    """``multi_query`` and ``new_decoder_architecture`` decide the KV heads and the norms (FalconAttention, FalconDecoderLayer)."""
    new = config.get("new_decoder_architecture") is True
    heads = config.get("num_kv_heads") if new or config.get("multi_query") is False else 1
    norms = config.get("num_ln_in_parallel_attn") or (2 if new else 1)
    parallel = "parallel2" if norms == 2 else "parallel"
    return config | {
        "num_key_value_heads": heads,
        "arrangement": "pre" if config.get("parallel_attn") is False else parallel,
    }


def gpt_neox(config: Keys) -> Keys:
    """Attention and MLP run side by side unless ``use_parallel_residual`` is off."""
    return config | {"arrangement": "pre" if config.get("use_parallel_residual") is False else "parallel2"}


def stablelm(config: Keys) -> Keys:
    """With ``use_parallel_residual`` one norm serves both branches."""
    return config | {"arrangement": "parallel" if config.get("use_parallel_residual") is True else "pre"}


def gpt_neo(config: Keys) -> Keys:
    """``attention_types`` [[["global", "local"], 12]] is a list of layers written short."""
    kinds = config.get("attention_layers")
    if kinds is None:
        kinds = []
        for item in _list(config.get("attention_types")):
            if isinstance(item, list) and len(item) == 2 and isinstance(item[0], list) and isinstance(item[1], int):
                kinds += item[0] * min(item[1], 4096)
    names = {"global": "full_attention", "local": "sliding_attention"}
    return config | {"layer_types": [names.get(kind, kind) if isinstance(kind, str) else kind for kind in _list(kinds)]}


def gpt_bigcode(config: Keys) -> Keys:
    """StarCoder: one KV head under ``multi_query``."""
    return config | {"num_key_value_heads": None if config.get("multi_query") is False else 1}


def opt(config: Keys) -> Keys:
    """OPT-350m norms after each branch, has no last norm and embeddings narrower than its layers."""
    before = config.get("do_layer_norm_before") is not False
    return config | {
        "arrangement": "pre" if before else "post",
        "final_norm": before and config.get("_remove_final_layer_norm") is not True,
        "word_embed_proj_dim": config.get("word_embed_proj_dim") or config.get("hidden_size"),
    }


def mpt(config: Keys) -> Keys:
    """MPT keeps attention settings in an object."""
    inner = _object(config.get("attn_config"))
    return config | {
        "num_key_value_heads": inner.get("kv_n_heads"),
        "attention_dropout": inner.get("attn_pdrop") or 0.0,
        "qk_ln": inner.get("qk_ln") or False,
    }


def dbrx(config: Keys) -> Keys:
    """DBRX keeps attention and expert settings in objects; defaults of DbrxAttentionConfig and DbrxFFNConfig."""
    attention, experts = _object(config.get("attn_config")), _object(config.get("ffn_config"))
    return config | {
        "num_key_value_heads": attention.get("kv_n_heads", 1),
        "attention_dropout": attention.get("attn_pdrop", 0.0),
        "num_experts": experts.get("moe_num_experts", 4),
        "num_experts_per_tok": experts.get("moe_top_k", 1),
        "moe_intermediate_size": experts.get("ffn_hidden_size", 3584),
    }


def qwen(config: Keys) -> Keys:
    """The first Qwen counts gate and up together in ``intermediate_size``."""
    both = config.get("intermediate_size")
    return config | {"intermediate_size": both // 2 if isinstance(both, int) and both % 2 == 0 else both}


def chatglm(config: Keys) -> Keys:
    """ChatGLM 2 and 3: KV heads are the groups of ``multi_query_attention``."""
    grouped = config.get("multi_query_attention") is True
    return config | {"num_key_value_heads": config.get("multi_query_group_num") if grouped else None}


def granite_hybrid(config: Keys) -> Keys:
    """Granite 4 without experts has its MLP where the others have the shared expert."""
    if config.get("num_experts"):
        return config
    return config | {
        "intermediate_size": config.get("shared_expert_intermediate_size"),
        "shared_expert_intermediate_size": None,
    }


_NEMOTRON = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}


def nemotron_h(config: Keys) -> Keys:
    """``hybrid_override_pattern`` has a letter for each layer, and says how many there are."""
    kinds, pattern = config.get("layer_types"), config.get("hybrid_override_pattern")
    if kinds is None and isinstance(pattern, str):
        kinds = [_NEMOTRON.get(letter, letter) for letter in pattern[:4096]]
    return config | {
        "layer_types": kinds,
        "num_hidden_layers": len(kinds) if isinstance(kinds, list) else None,
        "mamba_d_ssm": _whole(config.get("mamba_n_heads")) * _whole(config.get("mamba_head_dim")) or None,
    }


def bamba(config: Keys) -> Keys:
    """``attn_layer_indices`` lists the layers with attention."""
    layers, attention = config.get("num_hidden_layers"), _list(config.get("attn_layer_indices"))
    kinds = ["full_attention" if layer in attention else "linear_attention" for layer in range(min(_whole(layers), 4096))]
    return config | {"layer_types": kinds}


def hunyuan(config: Keys) -> Keys:
    """Hunyuan lists one value for each layer where all are the same."""
    return {
        key: _same(value) if key in ("num_experts_per_tok", "num_shared_expert") else value for key, value in config.items()
    }


def ernie(config: Keys) -> Keys:
    """ERNIE 4.5 lists values for text and vision; the text's are the first."""
    keys = ("num_experts", "moe_intermediate_size", "moe_layer_start_index", "moe_layer_end_index")
    return {key: value[0] if key in keys and isinstance(value, list) and value else value for key, value in config.items()}


def llama4(config: Keys) -> Keys:
    """``no_rope_layers`` has a 1 for a layer that sees one chunk only; ``moe_layers`` lists the layers with experts."""
    ropes, sparse = _list(config.get("no_rope_layers")), config.get("moe_layers")
    layers = config.get("num_hidden_layers")
    if ropes and config.get("layer_types") is None:
        config = config | {"layer_types": ["chunked_attention" if rope else "full_attention" for rope in ropes]}
    if isinstance(sparse, list) and isinstance(layers, int) and layers <= 4096:
        config = config | {"mlp_layer_types": ["sparse" if layer in sparse else "dense" for layer in range(layers)]}
    return config


def lfm2(config: Keys) -> Keys:
    """``block_auto_adjust_ff_dim`` makes the MLP two thirds as wide as it says, rounded up to ``block_multiple_of`` (Lfm2MLP)."""
    layers, attention, width = config.get("num_hidden_layers"), config.get("full_attn_idxs"), config.get("intermediate_size")
    if config.get("layer_types") is None and isinstance(attention, list):
        kinds = ["full_attention" if layer in attention else "conv" for layer in range(min(_whole(layers), 4096))]
        config = config | {"layer_types": kinds}
    if config.get("block_auto_adjust_ff_dim") is False or not _whole(width):
        return config
    narrow, factor, multiple = (
        int(2 * _whole(width) / 3),
        config.get("block_ffn_dim_multiplier"),
        config.get("block_multiple_of"),
    )
    if isinstance(factor, int | float) and _whole(multiple) > 0:
        narrow = -(-int(factor * narrow) // _whole(multiple)) * _whole(multiple)
    return config | {"intermediate_size": narrow}


def t5(config: Keys) -> Keys:
    """``feed_forward_proj`` names the activation, and whether the MLP is gated; plain "gated-gelu" is GPT's (T5Config)."""
    named, classes = config.get("feed_forward_proj"), _list(config.get("architectures"))
    gate, _, act = str(named).rpartition("-")
    return config | {
        "hidden_act": "gelu_new" if named == "gated-gelu" else act,
        "gated": gate == "gated",
        "encoder_only": any(str(name).endswith("EncoderModel") for name in classes),
    }


def kimi_linear(config: Keys) -> Keys:
    """``linear_attn_config`` has the sizes of the recurrent layers, and lists which layers are which, counted from 1."""
    inner, layers = _object(config.get("linear_attn_config")), min(_whole(config.get("num_hidden_layers")), 4096)
    names = {"head_dim": "linear_head_dim", "num_heads": "linear_num_heads", "short_conv_kernel_size": "linear_conv_kernel_dim"}
    config = config | {name: inner[key] for key, name in names.items() if key in inner}
    if config.get("layer_types") is None:
        attention = _list(inner.get("full_attn_layers")) if inner else [layer + 1 for layer in range(4, layers, 4)]
        kinds = ["full_attention" if layer + 1 in attention else "linear_attention" for layer in range(layers)]
        config = config | {"layer_types": kinds}
    return config


def minimax(config: Keys) -> Keys:
    """The first checkpoints have a list ``attn_type_list`` with a 1 for softmax attention."""
    kinds = config.get("attn_type_list")
    if config.get("layer_types") is None and isinstance(kinds, list):
        config = config | {"layer_types": ["full_attention" if kind == 1 else "linear_attention" for kind in kinds]}
    return config


def olmo_hybrid(config: Keys) -> Keys:
    """``rope_parameters`` whose theta is null: no positions at all, as the published model has it (OlmoHybridModel)."""
    rope = config.get("rope_parameters")
    return config | {"rotary": not isinstance(rope, dict) or rope.get("rope_theta", 0) is not None}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _object(value: object) -> Keys:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _same(value: object) -> object:
    """The value that all entries of a list share."""
    return value[0] if isinstance(value, list) and value and all(entry == value[0] for entry in value) else value
