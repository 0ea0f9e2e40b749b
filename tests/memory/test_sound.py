"""Whisper: an encoder of sound, whose length is the model's, before a decoder of tokens."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory import encoder_inference
from advisor.memory.kv_cache import cross_bytes
from advisor.memory.parameters import layer_weights, outer_weights, parameter_count
from advisor.memory.passes import keeps_memory
from advisor.memory.recipe import recipe_of
from advisor.memory.sharding import whole_rank
from advisor.results import Estimate
from advisor.workload import Workload, resolve

TINY: dict[str, Any] = {"model_type": "whisper"}  # transformers' defaults are those of openai/whisper-tiny


def workload(**keys: Any) -> Workload:
    return resolve(Job(gpu="h200", **keys))


def estimated(**keys: Any) -> Estimate:
    return estimate_workload(workload(**keys))


def test_the_convolutions_and_the_frozen_positions_are_the_encoders_own() -> None:
    """Shapes of WhisperForConditionalGeneration's state dict (transformers 5.23); a kernel of three frames is in the columns."""
    model = workload(train=TINY).model
    shapes = {weight.name: (weight.rows, weight.cols, weight.kind) for weight in outer_weights(model)}
    assert shapes["conv1"] == (384, 3 * 80, "other")
    assert shapes["conv2"] == (384, 3 * 384, "other")
    assert shapes["encoder.embed_positions"] == (1500, 384, "frozen")
    assert shapes["decoder.embed_positions"] == (448, 384, "embedding")
    assert "lm_head" not in shapes


def test_keys_have_no_bias() -> None:
    """WhisperAttention.k_proj, in self- and cross-attention."""
    model = workload(train=TINY).model
    names = {weight.name for weight in layer_weights(model.layers[-1], model.hidden)}
    assert {"q_proj.bias", "v_proj.bias", "encoder_attn.q_proj.bias", "encoder_attn.v_proj.bias"} <= names
    assert not {"k_proj.bias", "encoder_attn.k_proj.bias"} & names


def test_what_is_frozen_has_neither_gradient_nor_optimizer_state() -> None:
    """37,184,640 of whisper-tiny's 37,760,640 parameters ask for a gradient (the real class's requires_grad)."""
    parts = {part.name: part.bytes for part in estimated(train=TINY, precision="fp32", optimizer="adamw", batch=1, seq=8).parts}
    assert parts["weights"] >= 4 * 37_760_640
    assert parts["optimizer-state"] == pytest.approx(8 * 37_184_640, rel=1e-3)


def test_the_encoder_reads_as_many_positions_however_little_is_written() -> None:
    """30 s are 1,500 positions: the prefill's peak is the encoder's, whatever ``seq`` is."""
    short, long = (estimated(infer=TINY, precision="bf16", batch=8, seq=seq) for seq in (8, 448))
    assert short.phases["prefill"] == long.phases["prefill"]
    assert short.phases["decode"] < long.phases["decode"]


def test_a_longer_window_of_sound_costs_more() -> None:
    """``max_source_positions`` decides the encoder's length."""
    short, long = (
        estimated(train=TINY | {"max_source_positions": positions}, batch=4, seq=64).allocated_bytes
        for positions in (750, 1500)
    )
    assert short < long < 2 * short


def test_decoding_has_the_sound_the_states_and_both_caches() -> None:
    """Keys and values of 1,500 positions and of the tokens written, in four layers of 384; beside them states and spectrogram."""
    w = workload(infer=TINY, precision="bf16", batch=2, seq=100)
    parts = encoder_inference.phases(w, whole_rank(w.model))["decode"]
    assert parts["kv-cache"] == 2 * (1500 + 100) * 4 * 2 * 384 * 2
    assert cross_bytes(w.model, 2, w.source, "bf16") == 2 * 1500 * 4 * 2 * 384 * 2
    assert parts["activations"] >= 2 * (1500 * 384 + 2 * 3000 * 80) * 2  # generate copies the window at hand


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ({"precision": "bf16"}, True),
        ({"precision": "bf16-mixed"}, False),  # autocast keeps 16-bit copies
        ({"precision": "bf16", "method": "lora", "adapter_precision": "fp32"}, False),  # and adapters fp32 ones
        ({"precision": "bf16", "method": "lora", "adapter_precision": "bf16"}, True),
        ({"precision": "bf16", "method": "lora", "adapter_precision": "bf16", "lora_targets": ("fc1",)}, False),
    ],
)
def test_what_the_encoder_has_made_stays_for_backward_only_where_a_product_keeps_it(keys: dict[str, Any], kept: bool) -> None:
    """A decoder's layer that keeps copies in another type, or nothing, lets go of it after its forward pass."""
    w = workload(train=TINY, engine="transformers", **keys)
    assert keeps_memory(recipe_of(w), w.model.layers[-1], w.model.hidden, w.source) == kept


def test_fp16_keeps_what_is_bounded() -> None:
    """WhisperEncoderLayer clamps an fp16 stream: 4 layers × 1,500 × 384 numbers of 2 bytes a sequence more than in bf16."""
    bf16, fp16 = (
        estimated(train=TINY, engine="transformers", precision=precision, batch=16, seq=8, optimizer="none")
        for precision in ("bf16", "fp16")
    )
    assert fp16.allocated_bytes - bf16.allocated_bytes == 16 * 4 * 1500 * 384 * 2


def test_stacks_of_different_shape_count_as_the_real_class_does() -> None:
    """1,005,844 parameters of WhisperForConditionalGeneration in transformers 5.23, on torch's meta device."""
    config = TINY | {
        "d_model": 128,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 300,
        "decoder_ffn_dim": 200,
        "max_source_positions": 100,
        "max_target_positions": 64,
        "num_mel_bins": 20,
        "vocab_size": 1000,
    }
    assert parameter_count(workload(train=config).model) == 1_005_844
