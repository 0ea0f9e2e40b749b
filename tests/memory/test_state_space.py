"""Recurrent layers: what they remember of a sequence, and what of it takes part in the weights."""

from __future__ import annotations

import pytest

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.kv_cache import cache_bytes
from advisor.memory.sharding import narrowed
from advisor.memory.state_space import recurrent_bytes
from advisor.memory.weights import linear_names
from advisor.mixers import DeltaRule, StateSpace
from advisor.references import find_model
from advisor.workload import resolve

FP32, BF16 = 4, 2


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # layers × (channels of the convolution × kernel in bf16 + heads × rows × columns in fp32)
        ("qwen3-next-80b-a3b", 36 * (8192 * 4 * BF16 + 32 * 128 * 128 * FP32)),
        ("nemotron-nano-9b-v2", 27 * ((10240 + 2 * 8 * 128) * 4 * BF16 + 128 * 80 * 128 * FP32)),
        ("granite-4.0-h-small", 36 * ((8192 + 2 * 128) * 4 * BF16 + 128 * 64 * 128 * FP32)),
        ("falcon-h1-0.5b", 36 * ((1536 + 2 * 128) * 4 * BF16 + 24 * 64 * 128 * FP32)),
        ("mamba-codestral-7b", 64 * ((8192 + 2 * 8 * 128) * 4 * BF16 + 128 * 64 * 128 * FP32)),
        ("falcon-mamba-7b", 64 * (8192 * 4 * BF16 + 8192 * 16 * FP32)),
        ("jamba-v0.1", 28 * (8192 * 4 * BF16 + 8192 * 16 * FP32)),
        ("kimi-linear-48b-a3b", 20 * (3 * 4096 * 4 * BF16 + 32 * 128 * 128 * FP32)),
        ("lfm2-1.2b", 10 * 2048 * 3 * BF16),
        ("zamba-7b", 76 * (7424 * 4 * BF16 + 7424 * 16 * FP32)),
        ("zamba2-2.7b", 54 * ((5120 + 2 * 64) * 4 * BF16 + 80 * 64 * 64 * FP32)),
        ("minimax-text-01", 70 * 64 * 128 * 128 * BF16),
        ("llama-3.1-8b", 0),
    ],
)
def test_the_state_of_one_sequence(model: str, expected: int) -> None:
    """transformers keeps the convolution's last inputs in the model's type and the state in fp32, MiniMax's in the model's type."""
    assert recurrent_bytes(find_model(model), BF16) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("qwen3-next-80b-a3b", 12 * 2 * 2 * 256 * BF16),
        ("nemotron-nano-9b-v2", 4 * 2 * 8 * 128 * BF16),
        ("granite-4.0-h-small", 4 * 2 * 8 * 128 * BF16),
        ("falcon-h1-0.5b", 36 * 2 * 2 * 64 * BF16),
        ("jamba-v0.1", 4 * 2 * 8 * 128 * BF16),
        ("kimi-linear-48b-a3b", 7 * (512 + 64) * BF16),
        ("minimax-text-01", 10 * 2 * 8 * 128 * BF16),
        ("mamba-2.8b", 0),
    ],
)
def test_only_attention_layers_cache_tokens(model: str, expected: int) -> None:
    """Bytes a token: 12 of Qwen3-Next's 48 layers, 4 of Nemotron's 56, all of Falcon-H1's."""
    assert cache_bytes(find_model(model), 1, 1, "bf16") == expected


def test_the_state_does_not_grow_with_the_sequence() -> None:
    """A prompt of 1,000 tokens and one of 30,000 leave the same state; a batch multiplies it."""
    sizes = {}
    for batch, prompt in ((1, 1000), (1, 30000), (3, 1000)):
        job = Job(
            gpu="h100-80", engine="transformers", infer="granite-4.0-h-micro", batch=batch, prompt=prompt, seq=prompt + 100
        )
        parts = {part.name: part.bytes for part in estimate_workload(resolve(job)).parts}
        sizes[batch, prompt] = parts["recurrent-state"]
    assert sizes[1, 1000] == sizes[1, 30000] == sizes[3, 1000] // 3


def test_heads_are_dealt_out_over_tensor_parallel_ranks() -> None:
    """Value heads and state-space heads are divided, as vLLM does; a degree that does not divide them is refused."""
    half = narrowed(find_model("qwen3-next-80b-a3b"), 2)
    assert {layer.mixer.value_heads for layer in half.layers if isinstance(layer.mixer, DeltaRule)} == {16}
    assert {
        x.heads for layer in narrowed(find_model("falcon-h1-7b"), 4).layers if isinstance(x := layer.recurrent, StateSpace)
    } == {6}
    with pytest.raises(RequestError, match="tp: 5 does not divide"):
        narrowed(find_model("mamba-codestral-7b"), 5)


def test_peft_refuses_the_last_projection_of_mamba() -> None:
    """`all-linear` leaves out_proj out where PEFT raises for it; the delta rule's may be adapted."""
    assert "out_proj" not in linear_names(find_model("nemotron-nano-9b-v2"))
    assert {"in_proj_qkvz", "in_proj_ba", "out_proj"} <= linear_names(find_model("qwen3-next-80b-a3b"))


def test_the_note_says_which_code_is_estimated() -> None:
    """transformers runs its own PyTorch code unless the kernels' packages are there, and that needs more."""
    notes = resolve(Job(gpu="h100-80", train="nemotron-nano-9b-v2")).notes
    assert any("mamba-ssm" in note for note in notes)
