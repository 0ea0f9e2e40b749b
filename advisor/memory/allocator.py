"""How PyTorch's caching allocator counts: blocks, not tensors (c10/cuda/CUDACachingAllocator.cpp)."""

from __future__ import annotations

from functools import lru_cache

MIB = 2**20
SMALLEST = 512  # kMinBlockSize
LARGE = 10 * MIB  # kMinLargeAlloc: from here on a request gets a segment of its own
SEGMENT = 20 * MIB  # kLargeBuffer: what requests between 1 and 10 MiB share
ROUND = 2 * MIB  # kRoundLarge
KEPT = MIB  # kSmallSize: a remainder up to this is not split off, and counts as allocated


@lru_cache(maxsize=16384)
def block(size: int) -> int:
    """Bytes that ``memory_allocated`` grows by when a tensor of ``size`` bytes comes.

    Up to 1 MiB the request rounded to 512 B; from 10 MiB on a segment rounded to 2 MiB, whose remainder stays with
    the block if it is at most 1 MiB; between the two, requests share 20 MiB segments, and the last one in a segment takes
    such a remainder: its share is spread over them.
    """
    size = -(-size // SMALLEST) * SMALLEST
    if size <= KEPT:
        return size
    if size >= LARGE:
        segment = -(-size // ROUND) * ROUND
        return segment if segment - size <= KEPT else size
    fitting = SEGMENT // size
    remainder = SEGMENT - fitting * size
    return size + remainder // fitting if remainder <= KEPT else size
