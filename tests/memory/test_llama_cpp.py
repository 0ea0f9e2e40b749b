"""llama.cpp's buffers, against its logs and against what it lays out itself."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.job import Job
from advisor.memory import inference, llama_cpp, sharding
from advisor.memory.sharding import Rank
from advisor.workload import Workload, resolve

MIB = 2**20


def job(infer: str, **keys: Any) -> tuple[Workload, Rank]:
    w = resolve(Job(gpu="h200", infer=infer, engine="llama.cpp", precision="fp16", **keys))
    return w, next(sharding.ranks(w))


def compute(infer: str, **keys: Any) -> float:
    return sum(llama_cpp.parts(*job(infer, **keys)).values()) / MIB


def test_compute_buffers_of_logs() -> None:
    """Pythia 2.8B, 2,048 tokens, build 4823: 162.00 MiB (ggml-ci); Qwen2.5 3B: 300.75 MiB, logits and one state."""
    assert compute("pythia-2.8b", seq=2048, engine_version="4823") == 162
    assert compute("qwen2.5-3b", seq=4096) == 300.75


# MiB that llama.cpp 0c1e5709 itself lays out for models of these shapes, without allocating (no_alloc, CPU build), less the input
# embeddings, which another buffer holds when there is a GPU: with flash attention and without, at 4,096 and 16,384 tokens.
LAID_OUT = {
    "llama-2-7b": (92.51, 312.01, 104.51, 1104.01),
    "llama-3-8b": (258.50, 300.01, 258.50, 1092.01),
    "mistral-7b-v0.3": (112.01, 300.01, 124.01, 1092.01),
    "llama-2-70b": (220.01, 588.01, 232.01, 2148.01),
    "qwen3-4b": (301.75, 301.75, 301.75, 1086.01),
    "gemma-2-9b": (507.00, 507.00, 507.00, 599.01),
    "gemma-3-4b": (522.13, 517.13, 517.13, 517.13),
    "mixtral-8x7b": (196.01, 300.01, 208.01, 1092.01),
    "qwen3-30b-a3b": (300.75, 300.75, 300.75, 1082.01),
}


@pytest.mark.parametrize("model", LAID_OUT)
def test_the_buffer_is_what_ggml_lays_out(model: str) -> None:
    """Dense models, mixtures and sliding ones: within 1.4 %, and most to the hundredth of a MiB."""
    found = [compute(model, seq=seq, attention=kernel) for seq in (4096, 16_384) for kernel in ("auto", "eager")]
    assert found == pytest.approx(LAID_OUT[model], rel=0.014)


@pytest.mark.parametrize(
    ("model", "keys", "mib"),
    [
        ("mistral-7b-v0.3", {"seq": 4096, "kv_precision": "q8_0"}, 272),
        ("mistral-7b-v0.3", {"seq": 4096, "batch": 4}, 2048),
        ("gemma-3-4b", {"seq": 4096}, 254),
        ("gemma-3-4b", {"seq": 4096, "batch": 4}, 1016),
        ("gemma-3-4b", {"seq": 16_384, "kv_precision": "q8_0"}, 262.4375),
        ("gemma-2-9b", {"seq": 16_384}, 3444),
        ("deepseek-v2-lite", {"seq": 16_384}, 486),
        ("llama-2-7b", {"seq": 300}, 256),  # 512 cells
    ],
)
def test_the_cache_is_what_ggml_lays_out(model: str, keys: dict[str, Any], mib: float) -> None:
    """Cells in 256s, sliding layers with a micro-batch more, latents once, in each type (llama.cpp 0c1e5709, no_alloc)."""
    assert inference.cache(*job(model, **keys)) / MIB == mib


def test_states_are_fp32() -> None:
    """Falcon Mamba: 3 of the convolution's 4 inputs and the state, all in fp32 (llama-hparams.cpp, n_embd_r and n_embd_s)."""
    w, rank = job("falcon-mamba-7b")
    assert inference.states_bytes(w, rank) == 64 * (8192 * 3 * 4 + 8192 * 16 * 4)


def test_gpus_in_turn_hold_their_inputs_four_times() -> None:
    """Command-R 35B on two GPUs without flash attention: 672.01 MiB in a log (pull request 6122), 5 % less than here."""
    assert compute("command-r-35b", seq=4096, gpus=2, engine_version="2400") == pytest.approx(672.01, rel=0.05)
