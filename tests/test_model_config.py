"""A Hugging Face config.json becomes facts; what is not understood is refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.errors import RequestError
from advisor.memory.parameters import layer_weights, parameter_count
from advisor.mixers import Attention, LatentAttention
from advisor.model import Experts, Mlp, Model
from advisor.model_files.config import families, model_from_config
from advisor.model_files.families import NOT_YET, WRAPPERS

PUBLISHED = [
    json.loads(line) for line in Path(__file__).with_name("model_configs.jsonl").read_text(encoding="utf-8").splitlines()
]


def windows(model: Model) -> list[int | None]:
    """What each layer sees."""
    return [layer.mixer.window for layer in model.layers if isinstance(layer.mixer, Attention | LatentAttention)]


@pytest.mark.parametrize("row", [pytest.param(row, id=row["hf_id"]) for row in PUBLISHED])
def test_a_config_as_it_was_published_is_understood_whole(row: dict[str, Any]) -> None:
    """Every key of a real config is either read or known to change no weight; counts of the language model's real class."""
    assert parameter_count(model_from_config(row["config"], row["hf_id"])) == row["parameters"]


def test_what_a_config_leaves_out_has_the_class_default() -> None:
    """MistralConfig of transformers 5.23: 8 KV heads, a window of 4,096, head untied."""
    model = model_from_config({"model_type": "mistral", "hidden_size": 2048}, "m")
    assert model.layers[0].mixer == Attention(heads=32, kv_heads=8, head_dim=64, window=4096)
    assert (len(model.layers), model.tied, model.max_context) == (32, False, 131072)


def test_a_key_of_null_is_not_a_key_left_out() -> None:
    """Mistral v0.2 and later say ``"sliding_window": null``: no window."""
    assert windows(model_from_config({"model_type": "mistral", "sliding_window": None}, "m")) == [None] * 32


def test_qwen2_has_a_bias_on_q_k_and_v_only() -> None:
    """Qwen2Attention: three projections with a bias, o_proj without."""
    model = model_from_config({"model_type": "qwen2"}, "q")
    biases = {weight.name for weight in layer_weights(model.layers[0], model.hidden) if weight.kind == "bias"}
    assert biases == {"q_proj.bias", "k_proj.bias", "v_proj.bias"}


def test_qwen2_has_no_window_until_it_is_switched_on() -> None:
    """``use_sliding_window`` is off by default, ``max_window_layers`` are the first layers without a window."""
    assert set(windows(model_from_config({"model_type": "qwen2"}, "q"))) == {None}
    on = model_from_config({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 30}, "q")
    assert windows(on) == [None] * 30 + [4096] * 2


def test_gemma3_sees_everything_in_each_sixth_layer() -> None:
    """Gemma 3 report (arXiv 2503.19786): five local layers to one global layer."""
    model = model_from_config({"model_type": "gemma3_text", "num_hidden_layers": 12, "sliding_window": 512}, "g")
    assert windows(model) == ([512] * 5 + [None]) * 2
    assert model.layers[0].arrangement == "sandwich"
    assert model.layers[0].norm == "rms-gemma"


def test_layer_types_in_the_config_go_before_the_pattern() -> None:
    """Newer configs list what each layer sees."""
    kinds = ["full_attention", "sliding_attention"]
    model = model_from_config({"model_type": "gemma2", "num_hidden_layers": 2, "layer_types": kinds}, "g")
    assert windows(model) == [None, 4096]


def test_deepseek_v3_is_latent_attention_with_three_dense_layers_first() -> None:
    """DeepSeek-V3 report (arXiv 2412.19437): ranks 512 and 1536, 61 layers, 256 experts and a shared one."""
    model = model_from_config({"model_type": "deepseek_v3"}, "d")
    assert model.layers[0].mixer == LatentAttention(128, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128, query_rank=1536)
    assert [isinstance(layer.feed_forward, Mlp) for layer in model.layers] == [True] * 3 + [False] * 58
    assert model.layers[3].feed_forward == Experts(256, 8, 2048, shared_width=2048, router_fp32=True)


def test_multi_token_prediction_layers_are_not_part_of_the_model() -> None:
    """They are shipped beside it, and loaded for speculative decoding only."""
    with_them = model_from_config({"model_type": "deepseek_v3", "num_nextn_predict_layers": 1}, "d")
    assert parameter_count(with_them) == 671_026_404_352


def test_qwen3_moe_can_keep_dense_layers() -> None:
    """``mlp_only_layers`` and ``decoder_sparse_step`` say which."""
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    parts = [type(layer.feed_forward) for layer in model_from_config(config, "q").layers]
    assert parts == [Mlp, Experts, Mlp, Mlp]


def test_llama4_sees_chunks_in_three_layers_of_four() -> None:
    """A chunk of 8,192 tokens bounds the cache as a window does."""
    model = model_from_config({"model_type": "llama4_text", "num_hidden_layers": 4}, "l")
    assert windows(model) == [8192, 8192, 8192, None]


def test_falcon_7b_has_one_kv_head_and_parallel_branches() -> None:
    """Multi-query attention, one norm for both branches; the newer architecture has groups and two norms."""
    old = model_from_config({"model_type": "falcon"}, "f").layers[0]
    new_keys = {"hidden_size": 8192, "num_attention_heads": 128, "new_decoder_architecture": True, "num_kv_heads": 8}
    new = model_from_config({"model_type": "falcon", **new_keys}, "f").layers[0]
    assert (old.mixer.kv_heads, old.arrangement) == (1, "parallel")  # type: ignore[union-attr]
    assert (new.mixer.kv_heads, new.arrangement) == (8, "parallel2")  # type: ignore[union-attr]


def test_opt_350m_has_narrow_embeddings_and_no_last_norm() -> None:
    """facebook/opt-350m: 331,196,416 parameters, projections of 512 to 1,024 around the layers."""
    config = {
        "model_type": "opt",
        "hidden_size": 1024,
        "ffn_dim": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "word_embed_proj_dim": 512,
        "do_layer_norm_before": False,
    }
    model = model_from_config(config, "opt-350m")
    assert (model.embedding_width, model.final_norm) == (512, False)
    assert parameter_count(model) == 331_196_416


def test_a_multimodal_config_holds_a_language_model() -> None:
    """Its towers come on top: counted when their size is known, said when it is not."""
    part = {"hidden_size": 2560, "num_hidden_layers": 34, "num_attention_heads": 8, "intermediate_size": 10240}
    config: dict[str, Any] = {"model_type": "gemma3", "text_config": part, "vision_config": {"hidden_size": 1152}}
    model = model_from_config(config, "gemma-3-4b")
    assert (model.model_type, model.tied, model.extra_parameters) == ("gemma3_text", True, 0)
    assert any("towers" in note for note in model.notes)
    known = model_from_config({**config, "extra_parameters": 419_816_304}, "gemma-3-4b")
    assert parameter_count(known) == 4_300_079_472


def test_the_keys_of_qwen_vl_may_stand_on_top() -> None:
    """Qwen2.5-VL was published without a text_config."""
    model = model_from_config(
        {"model_type": "qwen2_5_vl", "hidden_size": 2048, "num_attention_heads": 16, "vision_config": {}}, "q"
    )
    assert (model.model_type, model.hidden) == ("qwen2_5_vl_text", 2048)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (None, "none"),
        ({"quant_method": "gptq", "bits": 4}, "gptq-int4"),
        ({"quant_method": "gptq", "bits": 8}, "gptq-int8"),
        ({"quant_method": "awq", "bits": 4}, "awq-int4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "nf4-dq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 4}}}},
            "int4",
        ),
    ],
)
def test_a_published_quantization_has_our_name(settings: dict[str, Any] | None, name: str) -> None:
    """``quantization_config`` as transformers writes it."""
    assert model_from_config({"model_type": "llama", "quantization_config": settings}, "l").quantization == name


@pytest.mark.parametrize(("key", "value", "dtype"), [("dtype", "bfloat16", "bf16"), ("torch_dtype", "float16", "fp16")])
def test_the_dtype_is_the_published_one(key: str, value: str, dtype: str) -> None:
    """transformers 5 writes ``dtype``, older ones ``torch_dtype``."""
    assert model_from_config({"model_type": "llama", key: value}, "l").dtype == dtype


def test_without_a_dtype_it_is_fp32_and_that_is_said() -> None:
    """PyTorch's own default."""
    model = model_from_config({"model_type": "llama"}, "l")
    assert model.dtype == "fp32"
    assert model.notes


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "no model_type"),
        ({"model_type": ["llama"]}, "no model_type"),
        ({"model_type": "lama"}, "nearest known is llama"),
        ({"model_type": "recurrent_gemma"}, "recurrent layers (recurrent_gemma) are not estimated yet"),
        ({"model_type": "pegasus"}, "encoder layers (pegasus) are not estimated yet"),
        ({"model_type": "llama", "num_local_experts": 8}, "num_local_experts = 8 is not understood"),
        ({"model_type": "llama", "sliding_window": 4096}, "sliding_window = 4096 is not understood"),
        ({"model_type": "mixtral", "n_shared_experts": 2}, "n_shared_experts = 2 is not understood"),
        ({"model_type": "gpt2", "n_layer": 0}, "n_layer must be between 1 and 2**40, not 0"),
        ({"model_type": "llama", "hidden_size": -1}, "hidden_size must be between"),
        ({"model_type": "llama", "hidden_size": True}, "hidden_size must be a whole number, not True"),
        ({"model_type": "llama", "hidden_size": 4096.0}, "hidden_size must be a whole number, not 4096.0"),
        ({"model_type": "llama", "vocab_size": 10**30}, "not a number beyond 2**40"),
        ({"model_type": "llama", "num_hidden_layers": 10**9}, "must be at most 4096"),
        ({"model_type": "llama", "hidden_size": 4097}, "not a multiple of the 32 attention heads"),
        ({"model_type": "llama", "num_key_value_heads": 5}, "does not divide the 32 attention heads"),
        ({"model_type": "llama", "hidden_act": "banana"}, "hidden_act = 'banana' is not known"),
        ({"model_type": "llama", "attention_bias": 1}, "attention_bias must be true or false"),
        ({"model_type": "gpt2", "attn_pdrop": math.nan}, "attn_pdrop must be between 0 and 1"),
        ({"model_type": "gpt2", "add_cross_attention": True}, "add_cross_attention = True is not estimated yet"),
        ({"model_type": "mixtral", "num_experts_per_tok": 9}, "more than the 8 experts"),
        ({"model_type": "gemma2", "layer_types": ["full_attention"]}, "one for each layer"),
        ({"model_type": "granitemoehybrid", "num_hidden_layers": 1, "layer_types": ["hyena"]}, "layer_types has 'hyena'"),
        ({"model_type": "gemma2", "num_hidden_layers": 1, "layer_types": ["conv"]}, "'conv', which is not estimated yet"),
        ({"model_type": "baichuan"}, "is missing from the config"),
        ({"model_type": "llama", "dtype": "float64"}, "'float64' is not one of"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "hqq"}}, "quantization 'hqq'"),
        ({"model_type": "gemma3", "text_config": 5}, "text_config must be an object"),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3"}}, "has a text_config itself"),
    ],
)
def test_what_is_not_understood_stops_in_one_line(config: dict[str, Any], says: str) -> None:
    """Unknown is refused, not guessed, and the line names the key as the config spells it."""
    with pytest.raises(RequestError) as caught:
        model_from_config(config, "model")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_structural_key_that_is_null_zero_or_empty_is_ignored() -> None:
    """Configs list what their model does not have: ``"num_local_experts": 0``."""
    assert model_from_config({"model_type": "llama", "num_local_experts": 0, "q_lora_rank": None, "pruned_heads": {}}, "l")


def test_a_model_type_is_computed_refused_or_unknown() -> None:
    """No name is in two tables."""
    assert not set(families()) & set(NOT_YET)
    assert not set(families()) & set(WRAPPERS)


KEYS = sorted({key for family in families().values() for key in (*family.defaults, *family.aliases, *family.fixed)})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([1, 2, 8, 64, 4096, 2**41]) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted({*families(), *WRAPPERS, *NOT_YET})) | st.text(max_size=10),
    st.dictionaries(
        st.sampled_from([*KEYS, "text_config", "quantization_config", "dtype", "n_other_heads"]), VALUES, max_size=6
    ),
)
def test_any_config_is_a_model_or_one_line(model_type: str, config: dict[str, Any]) -> None:
    """Hostile values end as a refusal, never as another error."""
    model, refusal = None, ""
    try:
        model = model_from_config({"model_type": model_type, **config}, "model")
    except RequestError as error:
        refusal = str(error)
    assert refusal if model is None else parameter_count(model) > 0
    assert "\n" not in refusal
