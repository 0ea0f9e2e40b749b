"""What serving engines set aside, against their logs and sources."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog import find_engine
from advisor.job import Job
from advisor.memory import inference, serving, sharding
from advisor.memory.sharding import Rank
from advisor.workload import Workload, resolve

GIB = 2**30


def job(gpu: str = "h100-80", infer: str = "llama-3-8b", engine: str = "vllm", **keys: Any) -> tuple[Workload, Rank]:
    w = resolve(Job(gpu=gpu, infer=infer, engine=engine, **keys))
    return w, next(sharding.ranks(w))


def profile(**keys: Any) -> float:
    """GiB of vLLM's profile: activations, the sampler's tensors and the workspace of cuBLAS."""
    found = serving.parts(*job(**keys))
    return (found["activations"] + found.get("logits-and-loss", 0) + 8_519_680) / GIB


@pytest.mark.parametrize("tp", [1, 2])
def test_the_sampler_is_the_profile_of_a_wide_vocabulary(tp: int) -> None:
    """Llama 3 8B, 8,192 tokens and 256 sequences: "PyTorch activation peak memory takes 1.26GiB" on one GPU and on two, since each
    gathers all logits (vLLM pull request 10511)."""
    assert profile(engine_version="0.6", seq=8192, tp=tp) == pytest.approx(1.26, rel=0.025)


def test_the_layers_are_the_profile_of_one_sequence() -> None:
    """Qwen3 4B, 10,000 tokens, max_num_seqs 1: 0.74 GiB in a public log of vLLM 0.8 (V0)."""
    w, rank = job("rtx-2060-12", "qwen3-4b", engine_version="0.7", seq=10_000, precision="fp16")
    assert (serving.working_bytes(w, rank) + 8_519_680) / GIB == pytest.approx(0.74, abs=0.01)


@pytest.mark.parametrize(
    ("model", "tp", "tokens", "logged"),
    [
        ("qwen3-4b", 1, 1394 * 16, 3.06),  # blocks × 16 in a public README
        ("llama-3.1-8b", 1, 1353 * 16, 2.64),  # a Colab notebook
        ("qwq-32b", 4, 46_611, 2.84),  # SGLang on four L4: K and V of 64 layers
    ],
)
def test_pools_of_logs(model: str, tp: int, tokens: int, logged: float) -> None:
    """The tokens that a log counts take the bytes that it prints."""
    w, rank = job(infer=model, engine="sglang", tp=tp, seq=tokens)
    assert inference.cache(w, rank) / GIB == pytest.approx(logged, abs=0.006)


@pytest.mark.parametrize(
    ("gpu", "version", "chunk", "sequences"),
    [
        ("b200", None, 16384, 1024),
        ("h100-80", None, 8192, 1024),
        ("h200", "0.20", 8192, 1024),
        ("a100-80", None, 2048, 256),
        ("a100-80", "0.8.5", 8192, 1024),
        ("rtx-4090", None, 2048, 256),
        ("rtx-4090", "0.6.3", 8192, 256),
        ("v100-32", "0.2", 8192, 256),
    ],
)
def test_vllm_profiles_by_card_and_version(gpu: str, version: str | None, chunk: int, sequences: int) -> None:
    """get_batch_defaults of vLLM 0.33.0, 0.20.0 and 0.8.5; before them whole prompts, here of 8,192 tokens."""
    w, _ = job(gpu, seq=8192, engine_version=version)
    assert (serving.chunk_tokens(w), serving.sampled(w)) == (chunk, sequences)


def test_long_prompts_came_in_chunks_first() -> None:
    """vLLM 0.6.3 computed up to 32,768 tokens in one pass, and longer contexts 512 at a time."""
    lengths = {
        seq: serving.chunk_tokens(job(infer="llama-3.1-8b", seq=seq, engine_version="0.6.3")[0]) for seq in (32_768, 65_536)
    }
    assert lengths == {32_768: 32_768, 65_536: 512}


def test_a_larger_batch_is_sampled_whole() -> None:
    """More sequences than vLLM's default are admitted only with --max-num-seqs, and then profiled."""
    assert serving.sampled(job("rtx-4090", batch=300)[0]) == 300


def test_the_share_of_the_card_by_version() -> None:
    """0.9 of the total up to vLLM 0.17, 0.92 from 0.20 on (config/cache.py)."""
    assert [find_engine("vllm", version).reserves.memory_fraction for version in ("0.2", "0.11.0", "0.17.0", "0.20.0", None)] == [
        0.9, 0.9, 0.9, 0.92, 0.92]  # fmt: skip


def test_caches_come_in_blocks() -> None:
    """1,000 tokens take 63 blocks of 16 in vLLM, 32 of 32 in TensorRT-LLM, and 1,000 slots in SGLang."""
    held = {}
    for engine in ("vllm", "tensorrt-llm", "sglang"):
        w, rank = job(engine=engine, seq=1000)
        held[engine] = inference.cache(w, rank) // (32 * 2 * 1024 * 2)
    assert held == {"vllm": 1008, "tensorrt-llm": 1024, "sglang": 1000}


def test_sliding_layers_by_engine() -> None:
    """Gemma 3 4B over 32,768 tokens: a layer that slides over 1,024 has room for them and a chunk in vLLM, for four fifths of all in
    SGLang, and for all in old vLLM."""
    tokens = {}
    for engine, version in (("vllm", None), ("vllm", "0.8"), ("sglang", None)):
        w, rank = job(infer="gemma-3-4b", engine=engine, engine_version=version, seq=32_768)
        sliding = next(x for x in rank.model.layers if x.attention and x.attention.window)
        tokens[engine, version] = serving.held_tokens(w, sliding, 32_768)
    assert tokens == {("vllm", None): 9216 + 16, ("vllm", "0.8"): 32_768, ("sglang", None): 26_215}


@pytest.mark.parametrize(
    ("model", "engine", "width"),
    [
        ("falcon-mamba-7b", "vllm", 2),
        ("falcon-mamba-7b", "sglang", 4),
        ("nemotron-nano-9b-v2", "vllm", 4),
        ("kimi-linear-48b-a3b", "vllm", 4),
    ],
)
def test_states_by_engine(model: str, engine: str, width: int) -> None:
    """vLLM keeps states in the model's type but for Nemotron-H and Kimi (mamba_utils.py, config.py), SGLang in fp32; neither keeps
    the input of a convolution that falls out next."""
    w, rank = job(infer=model, engine=engine)
    mixers = [x.recurrent for x in rank.model.layers if x.recurrent]
    expected = sum(x.mixed_width * (x.kernel - 1) * 2 + x.state_elements * width for x in mixers)
    assert inference.states_bytes(w, rank) == expected


def test_sglang_leaves_headroom() -> None:
    """H100: 512 + 1.5 × 8,192 + 1,024 ÷ 8 + 2 × 256 MiB, 13.1 GiB (memory_hook.py); a note says so."""
    w, _ = job(engine="sglang")
    assert serving.headroom(w.gpu, w.engine.reserves, 1) == (512 + 12_288 + 128 + 512) * 2**20
    assert any("leaves 13.1 GiB" in note for note in w.notes)
    assert not any("leaves" in note for note in job(engine="vllm")[0].notes)
