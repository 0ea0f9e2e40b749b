"""KV caches as transformers 5.23 stores them."""

from __future__ import annotations

import pytest

from advisor.memory.kv_cache import cache_bytes
from advisor.references import find_model


@pytest.mark.parametrize(
    ("model", "tokens", "expected"),
    [
        ("llama-2-7b", 4096, 2 * 32 * 4096 * 2 * 4096),  # MHA: 2 GiB
        ("llama-3.1-8b", 8192, 2 * 32 * 8 * 128 * 2 * 8192),  # GQA, 8 of 32 heads: 1 GiB
        ("qwen2.5-7b", 1000, 57_344 * 1000),  # 56 KiB a token
        ("deepseek-v2-lite", 1000, 27 * (512 + 64) * 2 * 1000),  # MLA: 1,152 B a token and layer
        ("deepseek-v3", 1000, 61 * (512 + 64) * 2 * 1000),
        ("mistral-7b-v0.1", 8192, 2 * 32 * 1024 * 2 * 4095),  # a window of 4,096 keeps 4,095 between steps
        ("gemma-3-1b", 4096, 2 * 256 * 2 * (4 * 4096 + 22 * 511)),  # 22 of 26 layers slide over 512
    ],
)
def test_the_cache_of_one_sequence(model: str, tokens: int, expected: int) -> None:
    """16-bit keys and values (or latents) of every layer, windows applied."""
    assert cache_bytes(find_model(model), 1, tokens, "bf16") == expected


def test_right_after_a_prefill_windows_are_not_cut_yet() -> None:
    """Mistral 7B keeps the whole 8,192-token prompt, 1 GiB, until the first decoded token."""
    assert cache_bytes(find_model("mistral-7b-v0.1"), 1, 8192, "bf16", whole=True) == 2**30


def test_formats_of_the_cache() -> None:
    """fp8 halves it; llama.cpp's q8_0 takes 34 bytes for 32 elements."""
    model = find_model("llama-3.1-8b")
    full = cache_bytes(model, 4, 4096, "fp16")
    assert cache_bytes(model, 4, 4096, "fp8") == full // 2
    assert cache_bytes(model, 4, 4096, "q8_0") == full * 34 // 64
