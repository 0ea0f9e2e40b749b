"""Which GPU gets which layers, against what transformers and llama.cpp do."""

from __future__ import annotations

import pytest

from advisor.job import Job
from advisor.memory import sharding
from advisor.memory.dealing import bounds, with_head
from advisor.workload import resolve

# Layers of each GPU as infer_auto_device_map of transformers 5.23 gives them for the models on the meta device, bf16, no limit.
DEALT = {
    ("qwen2-72b", 2): [40, 40],
    ("qwen2-72b", 3): [26, 29, 25],
    ("qwen2-72b", 4): [19, 22, 22, 17],
    ("qwen2-72b", 8): [9, 12, 12, 12, 12, 12, 11],  # the head has the eighth to itself
    ("llama-3-70b", 8): [9, 11, 11, 11, 11, 11, 11, 5],
    ("llama-3-8b", 2): [16, 16],
    ("llama-3-8b", 3): [10, 15, 7],
    ("llama-3-8b", 4): [7, 12, 12, 1],
    ("llama-3-8b", 8): [2, 7, 7, 7, 7, 2],
    ("qwen2-0.5b", 2): [17, 7],
    ("qwen2-0.5b", 4): [9, 15],
}


@pytest.mark.parametrize(("model", "gpus"), DEALT)
def test_a_device_map_is_uneven(model: str, gpus: int) -> None:
    """The GPUs between are the fullest: the first keeps room for the largest piece, and the last gets what is left."""
    w = resolve(Job(gpu="h200", infer=model, gpus=gpus, precision="bf16"))
    assert [end - start for start, end in bounds(w)] == DEALT[model, gpus]


def test_a_tied_head_is_where_the_embedding_is() -> None:
    """Qwen2 0.5B on two GPUs: lm_head on the first; an untied one on the last."""
    for model, where in (("qwen2-0.5b", 0), ("llama-3-8b", 1)):
        ranks = list(sharding.ranks(resolve(Job(gpu="h200", infer=model, gpus=2))))
        assert [rank.has_head for rank in ranks] == [place == where for place in range(2)]


def test_llama_cpp_counts_the_head_as_a_layer() -> None:
    """81 things over two equal cards: 41 layers, and 39 with the head."""
    assert with_head(80, 2) == ((0, 41), (41, 80))
    assert with_head(3, 4) == ((0, 1), (1, 2), (2, 3))
