"""Parameters are enumerated tensor by tensor, as transformers stores them."""

from __future__ import annotations

import pytest

from advisor.memory.parameters import active_parameters, layer_weights, outer_weights, parameter_count
from advisor.model_files.config import model_from_config


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({"model_type": "llama"}, 6_738_415_616),
        ({"model_type": "mistral"}, 7_241_732_096),
        ({"model_type": "gpt2"}, 124_439_808),
        ({"model_type": "gemma2"}, 2_614_341_888),
        ({"model_type": "phi3"}, 3_821_079_552),
        ({"model_type": "mixtral"}, 46_702_792_704),
        ({"model_type": "qwen3_moe"}, 15_350_731_776),
        ({"model_type": "deepseek_v3"}, 671_026_404_352),
    ],
)
def test_the_default_configuration_counts_as_the_real_class_does(config: dict, parameters: int) -> None:
    """Counts of the transformers 5.23 classes, made on torch's meta device from their default configurations."""
    assert parameter_count(model_from_config(config, "model")) == parameters


def test_a_llama_layer_has_seven_matrices_and_two_norms() -> None:
    """Llama-2 7B, as its safetensors index lists them."""
    model = model_from_config({"model_type": "llama"}, "llama")
    weights = layer_weights(model.layers[0], model.hidden)
    assert [(weight.name, weight.rows, weight.cols) for weight in weights] == [
        ("q_proj", 4096, 4096),
        ("k_proj", 4096, 4096),
        ("v_proj", 4096, 4096),
        ("o_proj", 4096, 4096),
        ("gate_proj", 11008, 4096),
        ("up_proj", 11008, 4096),
        ("down_proj", 4096, 11008),
        ("input_layernorm", 4096, 1),
        ("post_attention_layernorm", 4096, 1),
    ]
    assert [weight.name for weight in outer_weights(model)] == ["embed_tokens", "norm", "lm_head"]


def test_gpt2_keeps_its_own_module_names() -> None:
    """A LoRA target of GPT-2 is called c_attn, not q_proj."""
    model = model_from_config({"model_type": "gpt2"}, "gpt2")
    names = [weight.name for weight in layer_weights(model.layers[0], model.hidden)]
    assert names[:4] == ["c_attn", "c_attn.bias", "c_proj", "c_proj.bias"]
    assert "ln_1.bias" in names


def test_experts_are_one_tensor_and_most_of_them_idle() -> None:
    """Mixtral 8x7B: 46.7 billion parameters, 12.9 billion of them active (arXiv 2401.04088)."""
    model = model_from_config({"model_type": "mixtral"}, "mixtral")
    experts = [weight for weight in layer_weights(model.layers[0], model.hidden) if weight.kind == "expert"]
    assert [(weight.name, weight.rows, weight.cols) for weight in experts] == [
        ("experts.gate_up_proj", 8 * 2 * 14336, 4096),
        ("experts.down_proj", 8 * 4096, 14336),
    ]
    assert active_parameters(model) == 12_879_925_248


def test_a_dense_model_is_wholly_active() -> None:
    """Without experts every parameter takes part in every token."""
    model = model_from_config({"model_type": "qwen3"}, "qwen3")
    assert active_parameters(model) == parameter_count(model)


def test_a_tied_head_counts_once() -> None:
    """Tying saves one vocabulary-sized matrix."""
    tied, untied = (model_from_config({"model_type": "llama", "tie_word_embeddings": tie}, "m") for tie in (True, False))
    assert parameter_count(untied) - parameter_count(tied) == 32000 * 4096
