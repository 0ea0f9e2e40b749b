"""GGUF metadata in the words of a Hugging Face config, so that one reader understands both.

Sources: gguf-py/gguf/constants.py for the keys, llama.cpp conversion scripts (convert_hf_to_gguf.py) for what they are made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advisor.errors import RequestError
from advisor.model import StoredTensor
from advisor.model_files.config import families
from advisor.model_files.files import shown
from advisor.vocabulary import QUANTIZATIONS

Values = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

# general.architecture -> model_type
ARCHITECTURES = {
    "apertus": "apertus", "arcee": "arcee", "baichuan": "llama", "bloom": "bloom", "cohere2": "cohere2", "command-r": "cohere",
    "deepseek2": "deepseek_v3", "dots1": "dots1", "ernie4_5": "ernie4_5", "ernie4_5-moe": "ernie4_5_moe", "exaone": "llama",
    "exaone4": "exaone4", "falcon": "falcon", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text", "glm4": "glm4",
    "glm4moe": "glm4_moe", "gpt-oss": "gpt_oss", "gpt2": "gpt2", "gptj": "gptj", "gptneox": "gpt_neox", "granite": "granite",
    "granitemoe": "granitemoe", "hunyuan-dense": "hunyuan_v1_dense", "internlm2": "llama", "llama": "llama",
    "minimax-m2": "minimax_m2", "mistral3": "mistral", "nemotron": "nemotron", "olmo": "olmo", "olmo2": "olmo2", "olmoe": "olmoe",
    "orion": "llama", "phi2": "phi", "phi3": "phi3", "phimoe": "phimoe", "qwen2": "qwen2", "qwen2moe": "qwen2_moe",
    "qwen2vl": "qwen2_vl_text", "qwen3": "qwen3", "qwen3moe": "qwen3_moe", "qwen3vl": "qwen3_vl_text",
    "qwen3vlmoe": "qwen3_vl_moe_text", "seed_oss": "seed_oss", "smollm3": "smollm3", "stablelm": "stablelm",
    "starcoder": "gpt_bigcode", "starcoder2": "starcoder2",
}  # fmt: skip
# Key behind the architecture's name -> Llama's spelling of a config's key. A family that does not know it does not get it.
KEYS = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window", "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank", "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping", "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts", "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "leading_dense_block_count": "first_k_dense_replace", "use_parallel_residual": "use_parallel_residual",
}  # fmt: skip
# Without these there is no model.
NEEDED = ("block_count", "embedding_length", "attention.head_count")
# What llama.cpp takes where the metadata are silent, and a family's configuration class might not.
SILENT = {"head_dim": None, "sliding_window": None, "n_shared_experts": 0, "first_k_dense_replace": 0}
WINDOW_OF_GEMMA2 = 4096  # llama.cpp's own default
# A key that a config of the family may have, and the tensor whose being there says so.
SAID_BY_TENSORS = {
    "attention_bias": "blk.0.attn_q.bias", "use_qkv_bias": "blk.0.attn_q.bias", "qkv_bias": "blk.0.attn_q.bias",
    "mlp_bias": "blk.0.ffn_up.bias", "use_bias": "blk.0.attn_output.bias", "use_qk_norm": "blk.0.attn_q_norm.weight",
    "qk_layernorm": "blk.0.attn_q_norm.weight",
}  # fmt: skip


def config_of(values: Values, stored: Sequence[StoredTensor], shapes: Shapes) -> dict[str, Any]:
    """A config for the model that the metadata and the tensors describe."""
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise RequestError(_unknown(architecture))
    given = {key: values[f"{architecture}.{key}"] for key in KEYS if f"{architecture}.{key}" in values}
    for key in NEEDED:
        if key not in given:
            raise RequestError(f"its metadata have no {architecture}.{key}")
    said = SILENT | {KEYS[key]: _one(key, value) for key, value in given.items()}
    said.setdefault("num_key_value_heads", said["num_attention_heads"])
    prediction = values.get(f"{architecture}.nextn_predict_layers")  # counted as blocks, and not loaded (TENSOR_SKIP)
    if isinstance(prediction, int) and isinstance(said["num_hidden_layers"], int):
        said["num_hidden_layers"] -= prediction
    if architecture == "gemma2" and said["sliding_window"] is None:
        said["sliding_window"] = WINDOW_OF_GEMMA2
    if "token_embd.weight" not in shapes:
        raise RequestError("it has no token_embd.weight: not a language model, or a part of one")
    said["vocab_size"] = shapes["token_embd.weight"][-1]
    said["tie_word_embeddings"] = "output.weight" not in shapes
    said |= {key: tensor in shapes for key, tensor in SAID_BY_TENSORS.items()}
    said |= _pattern(values.get(f"{architecture}.attention.sliding_window_pattern"))
    model_type = ARCHITECTURES[architecture]
    special = SPECIAL.get(architecture)
    if special:
        model_type, said = special(said, values, shapes)
    family = families()[model_type]
    if family.expert_width == "intermediate_size" and said.get("moe_intermediate_size"):
        said["intermediate_size"] = said["moe_intermediate_size"]
    own = {"num_kv_heads", "new_decoder_architecture", "multi_query"}
    known = {key: value for key, value in said.items() if key in family.defaults or key in own}
    return {**known, "model_type": model_type, "dtype": _dtype(stored)}


def _unknown(architecture: object) -> str:
    if architecture == "clip":
        return "it holds a vision tower; give the file of the language model"
    if not isinstance(architecture, str):
        return "its metadata has no general.architecture"
    return f"the architecture {shown(architecture)} of this GGUF file is not estimated yet; name the model, or its config.json"


def _one(key: str, value: Any) -> Any:
    """The value that all layers share."""
    if not isinstance(value, list):
        return value
    if not value or any(entry != value[0] for entry in value):
        raise RequestError(f"{key} differs from layer to layer, which is not estimated yet")
    return value[0]


def _pattern(value: object) -> dict[str, Any]:
    """Which layers see a window only: every n-th does not, or one flag a layer."""
    if isinstance(value, list):
        return {"layer_types": ["sliding_attention" if windowed else "full_attention" for windowed in value]}
    return {"sliding_window_pattern": value} if isinstance(value, int) else {}


Special = Callable[[dict[str, Any], Values, Shapes], tuple[str, dict[str, Any]]]


def _llama(said: dict[str, Any], values: Values, shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """Mistral and Mixtral are llamas in GGUF."""
    return ("mixtral" if said.get("num_experts") else "llama"), said


def _deepseek2(said: dict[str, Any], values: Values, shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """V2 and V3, which has sigmoid gates. Since 2025 the head lengths are those of the cache, and the true ones end in _mla."""

    def length(name: str) -> Any:
        return values.get(f"deepseek2.attention.{name}_length_mla", values.get(f"deepseek2.attention.{name}_length"))

    rope, key = values.get("deepseek2.rope.dimension_count"), length("key")
    if not isinstance(rope, int) or not isinstance(key, int):
        raise RequestError("deepseek2: the metadata lack rope.dimension_count or attention.key_length")
    said |= {"qk_rope_head_dim": rope, "qk_nope_head_dim": key - rope, "v_head_dim": length("value")}
    said.setdefault("q_lora_rank", None)
    return ("deepseek_v3" if values.get("deepseek2.expert_gating_func") == 2 else "deepseek_v2"), said


def _falcon(said: dict[str, Any], values: Values, shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """The second norm tells the newer decoder of Falcon-40B."""
    new = "blk.0.attn_norm_2.weight" in shapes
    heads = said.get("num_key_value_heads")
    return "falcon", said | {"new_decoder_architecture": new, "num_kv_heads": heads, "multi_query": not new and heads == 1}


def _starcoder(said: dict[str, Any], values: Values, shapes: Shapes) -> tuple[str, dict[str, Any]]:
    return "gpt_bigcode", said | {"multi_query": said.get("num_key_value_heads") == 1}


def _olmo2(said: dict[str, Any], values: Values, shapes: Shapes) -> tuple[str, dict[str, Any]]:
    return ("olmo3" if said.get("sliding_window") else "olmo2"), said


def _shared(said: dict[str, Any], values: Values, shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """Qwen2-MoE: the shared expert is as wide as its tensor where the metadata do not say it."""
    shape = shapes.get("blk.0.ffn_up_shexp.weight")
    if shape and len(shape) == 2:
        said.setdefault("shared_expert_intermediate_size", shape[1])
    return "qwen2_moe", said


SPECIAL: dict[str, Special] = {
    "llama": _llama,
    "deepseek2": _deepseek2,
    "falcon": _falcon,
    "starcoder": _starcoder,
    "olmo2": _olmo2,
    "qwen2moe": _shared,
}

_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def _main_type(stored: Sequence[StoredTensor]) -> str:
    """The type that most weights have."""
    elements = Counter[str]()
    for tensor in stored:
        elements[tensor.dtype] += tensor.elements
    return elements.most_common(1)[0][0] if elements else "F16"


def _dtype(stored: Sequence[StoredTensor]) -> str:
    """What is computed in: llama.cpp takes fp16 where the weights are quantized."""
    return _FLOATS.get(_main_type(stored), "float16")


# File types that a job has no name for, and the nearest that it has.
_NEAREST = {
    "q2_k_s": "q2_k", "iq3_xs": "iq3_xxs", "iq3_s": "iq3_m", "iq2_xs": "iq2_xxs", "iq2_s": "iq2_m", "iq1_s": "iq2_xxs",
    "iq1_m": "iq2_xxs", "tq1_0": "iq2_xxs", "tq2_0": "iq2_xxs", "q1_0": "iq2_xxs", "mxfp4_moe": "mxfp4",
    "q2_k": "q2_k", "q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m",
}  # fmt: skip
_SAME = ("mxfp4_moe", "q2_k", "q3_k", "q4_k", "q5_k")


def quantization_of(values: Values, stored: Sequence[StoredTensor]) -> tuple[str, str]:
    """The job's name of the file's type, by what most weights are if the metadata are silent; and a note where it is not the same."""
    from gguf.constants import LlamaFileType

    main = _main_type(stored)
    if main in _FLOATS:
        return "none", ""
    told = values.get("general.file_type")
    names = {int(kind): kind.name.lower().removeprefix("mostly_") for kind in LlamaFileType if kind != LlamaFileType.GUESSED}
    name = names.get(told, "") if isinstance(told, int) else ""
    if name not in QUANTIZATIONS and name not in _NEAREST:
        name = main.lower()
    if name in QUANTIZATIONS:
        return name, ""
    nearest = _NEAREST.get(name)
    if nearest is None:
        raise RequestError(f"weights of the type {shown(name)} are not estimated yet")
    note = "" if name in _SAME else f"The file's type {name} is called {nearest} here; its weights are counted as they are."
    return nearest, note
