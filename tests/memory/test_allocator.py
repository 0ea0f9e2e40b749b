"""PyTorch's caching allocator counts blocks (CUDACachingAllocator.cpp)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.memory.allocator import block

MIB = 2**20


@pytest.mark.parametrize(
    ("size", "counted"),
    [
        (1, 512),
        (513, 1024),
        (135 * MIB, 136 * MIB),  # a 13,824 × 5,120 bf16 matrix of Qwen2.5-14B
        (int(129.5 * MIB), 130 * MIB),  # 18,944 × 3,584 of Qwen2.5-7B
        (int(17.5 * MIB), 18 * MIB),  # an expert of Qwen2-57B-A14B: 5,376 of them are 2.6 GiB more than their tensors
        (int(10.5 * MIB), int(10.5 * MIB)),  # 1.5 MiB of a 12 MiB segment are left, enough to be split off
        (64 * MIB, 64 * MIB),
    ],
)
def test_blocks(size: int, counted: int) -> None:
    """Remainders of up to 1 MiB stay with the block; larger ones are split off."""
    assert block(size) == counted


@given(st.integers(1, 2**34))
def test_a_block_holds_its_tensor_and_little_more(size: int) -> None:
    """Never smaller than the tensor, never more than 1 MiB and 512 bytes larger."""
    assert size <= block(size) <= size + MIB + 512
