"""Realistic shapes of dense decoders of any size: between the Llama models of the catalogue, from 0.13 to 406 billion parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from math import ceil, log
from typing import Any, NamedTuple

# All of one architecture (`llama`): SmolLM2, Llama 3.2 and Llama 3.1. The two ends are as small and as large as it was published.
LADDER = ("smollm2-135m", "smollm2-360m", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b")
STEP = 0.01  # of the parameters, from one shape to the next; a layer more is often a larger step


class Shape(NamedTuple):
    """The sizes of a Llama."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int  # of the feed-forward part
    vocab: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Two matrices of queries and output, two of keys and values, three of the feed-forward part, and norms."""
        return self.layers * self.layer + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def layer(self) -> int:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (2 * queries + 2 * keys + 3 * self.width + 2)

    def config(self) -> dict[str, Any]:
        """As a config.json has it, so that ``advise(infer=shape.config())`` takes it; of a context that is no limit here."""
        return {
            "model_type": "llama",
            "_name_or_path": f"llama-shape-{self.parameters / 10**9:.3g}b",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.width,
            "vocab_size": self.vocab,
            "max_position_embeddings": 2**31,
            "tie_word_embeddings": self.tied,
            "dtype": "bfloat16",
        }


@cache
def shapes() -> tuple[Shape, ...]:
    """The published shapes and those between them, each with more parameters than the one before."""
    published = [_published(name) for name in LADDER]
    found = published[:1]
    for small, large in pairwise(published):
        between = (_between(small, large, place) for place in _places(small, large))
        for shape in (*(each for each in between if each.parameters < large.parameters), large):
            if shape.parameters > found[-1].parameters:
                found.append(shape)
    return tuple(found)


def firsts(ladder: Sequence[Shape]) -> list[int]:
    """The places where the width or the heads change. There the depth falls back, and with it the cache and the activations."""
    kinds = [(shape.hidden, shape.kv_heads, shape.head_dim) for shape in ladder]
    return [place for place in range(len(kinds)) if not place or kinds[place] != kinds[place - 1]]


def _published(name: str) -> Shape:
    from advisor import catalog

    config = catalog.model_config(name)
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=config["num_key_value_heads"],
        head_dim=hidden // heads,
        width=config["intermediate_size"],
        vocab=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
    )


def _places(small: Shape, large: Shape) -> list[float]:
    """Steps of ``STEP`` between two shapes, on the scale from 0 to 1 on which parameters grow evenly by factors."""
    count = ceil(log(large.parameters / small.parameters) / STEP)
    return [place / count for place in range(1, count)]


def _between(small: Shape, large: Shape, place: float) -> Shape:
    """The width by its own growth, in whole groups of heads; the depth from the parameters that are wanted."""
    near = small if place < 0.5 else large

    def grown(of: int, to: int) -> float:
        return of * float((to / of) ** place)

    group = near.kv_heads * near.head_dim
    hidden = max(group, round(grown(small.hidden, large.hidden) / group) * group)
    ratio = (small.width / small.hidden) ** (1 - place) * (large.width / large.hidden) ** place
    shape = near._replace(hidden=hidden, heads=hidden // near.head_dim, width=round(ratio * hidden / 256) * 256)
    without_layers = shape._replace(layers=0).parameters
    wanted = grown(small.parameters, large.parameters) - without_layers
    return shape._replace(layers=max(1, round(wanted / shape.layer)))
