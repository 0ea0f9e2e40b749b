"""transformers' generate, version by version, against published figures and its sources."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory import generate, sharding
from advisor.results import Estimate
from advisor.workload import resolve

GIB = 2**30


def estimated(gpu: str = "a100-80", **keys: Any) -> Estimate:
    return estimate_workload(resolve(Job(gpu=gpu, engine="transformers", attention="flash", **keys)))


def tables(model: str, version: str | None) -> int:
    w = resolve(Job(gpu="h200", infer=model, engine="transformers", engine_version=version))
    return generate.rotary_tables(w, next(sharding.ranks(w)))


@pytest.mark.parametrize(
    ("model", "with_tables", "without"),
    [("llama-2-7b", "4.40.2", "4.41"), ("mistral-7b-v0.3", "4.41.2", "4.42"), ("qwen2-7b", "4.44", "4.45"), ("mixtral-8x7b", "4.45", "4.46")],
)  # fmt: skip
def test_rotary_tables_end_with_a_version(model: str, with_tables: str, without: str) -> None:
    """Each attention layer had cosines and sines of all positions (modeling_*.py, _set_cos_sin_cache)."""
    assert tables(model, with_tables) > 0
    assert tables(model, without) == tables(model, None) == 0


def test_the_size_of_rotary_tables() -> None:
    """Qwen2 7B: 28 layers × 2 tables × 32,768 positions × 128 × 2 B, 0.4375 GiB."""
    assert tables("qwen2-7b", "4.38.2") == 28 * 2 * 32_768 * 128 * 2 == 0.4375 * GIB


@pytest.mark.parametrize(
    ("keys", "published"),
    [
        ({"prompt": 1, "quantization": "gptq-int4"}, 30.38),
        ({"prompt": 6144, "quantization": "gptq-int4"}, 35.67),
        ({"prompt": 30_720, "quantization": "gptq-int4"}, 58.01),
        ({"prompt": 1, "gpus": 2}, 110.29),
    ],
)
def test_experts_were_matrices_of_their_own(keys: dict[str, Any], published: float) -> None:
    """Qwen2-57B-A14B with transformers 4.38.2 (Qwen2 speed benchmark): 5,376 matrices in blocks of their own, within half a
    percent of the sum over the GPUs."""
    found = estimated(infer="qwen2-57b-a14b", engine_version="4.38.2", seq=keys["prompt"] + 2048, **keys)
    assert keys.get("gpus", 1) * found.allocated_bytes / GIB == pytest.approx(published, rel=0.005)


def test_latents_were_cached_head_by_head() -> None:
    """DeepSeek-V2-Lite: 16 heads of 192 and 128 a token in transformers 5.12, 576 in all since 5.17 (modeling_deepseek_v3.py)."""
    keys: dict[str, Any] = {"infer": "deepseek-v2-lite", "seq": 65_536, "prompt": 1}
    for version, elements in (("5.12.0", 16 * (192 + 128)), ("5.17.0", 576)):
        cached = next(x for x in estimated(engine_version=version, **keys).parts if x.name == "kv-cache")
        assert cached.bytes == 27 * elements * 2 * 65_536


def test_the_cache_is_shown_whole() -> None:
    """At the peak of a prefill the part is the cache of all tokens, prompt and output; the sum is that of the moment."""
    keys: dict[str, Any] = {"infer": "qwen3-0.6b", "prompt": 14_336, "engine_version": "4.51.3"}
    short, long = (estimated(seq=seq, **keys) for seq in (14_336, 16_384))
    assert short.peak_phase == long.peak_phase == "prefill"
    assert short.allocated_bytes == long.allocated_bytes
    cache = {x.name: x.bytes for x in long.parts}["kv-cache"]
    assert cache == 16_384 * 28 * 2 * 8 * 128 * 2


def test_a_quantized_cache_is_unpacked_layer_by_layer() -> None:
    """Llama 3.1 8B, 32 layers: decoding has one layer's keys and values in bf16, and once more with the newest token
    (cache_utils.py, QuantizedLayer.update): 4 of 64 parts of a bf16 cache beside half of it, where that has one key more."""
    keys: dict[str, Any] = {"infer": "llama-3.1-8b", "batch": 16, "seq": 8192, "prompt": 1}
    full, packed = (estimated(kv_precision=kind, **keys).phases["decode"] for kind in ("bf16", "fp8"))
    cache = 16 * 8192 * 32 * 2 * 1024 * 2
    assert full - packed == cache + cache // 64 - (cache // 2 + 4 * cache // 64)
