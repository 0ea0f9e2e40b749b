"""A budget as a bar of text: one letter a part, an edge where the card ends."""

from __future__ import annotations

from collections.abc import Iterable

from advisor.results import Part

LETTERS = {
    "weights": "W", "adapter-weights": "w", "reference-weights": "r", "kv-cache": "K", "recurrent-state": "R", "gradients": "G", "optimizer-state": "O",
    "master-weights": "M", "activations": "A", "logits-and-loss": "L", "step-temporaries": "T", "gathered-parameters": "P",
    "communication-buffers": "B", "cublas-workspace": "U", "allocator-slack": "S", "cuda-graphs": "g", "cuda-context": "C",
    "model": "W", "input-data": "I", "system-overhead": "S", "safety-margin": "m",
}  # fmt: skip
EDGE, FREE = "|", "·"


def letter(name: str) -> str:
    """The letter of a part."""
    return LETTERS.get(name, "?")


def bar(parts: Iterable[Part], usable: int, scale: int, cells: int) -> str:
    """The parts on so many cells for ``scale`` bytes, and the card's edge as a cell of its own.

    >>> bar([Part("weights", 6), Part("activations", 4)], usable=5, scale=10, cells=10)
    'WWWWW|WAAAA'
    >>> bar([Part("weights", 6)], usable=10, scale=10, cells=10)
    'WWWWWW····|'
    """
    filled, ends = "", 0
    for part in parts:
        ends += part.bytes
        filled += letter(part.name) * (round(ends * cells / scale) - len(filled))
    edge = min(cells, max(1, round(usable * cells / scale)))
    inside = filled[:edge] + FREE * (edge - len(filled))
    return inside + EDGE + filled[edge:]
