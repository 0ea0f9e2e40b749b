"""What one rank of several holds."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.parameters import parameter_count
from advisor.memory.recipe import recipe_of
from advisor.memory.sharding import narrowed, ranks, zero_shares
from advisor.memory.weights import held_outside
from advisor.mixers import Attention
from advisor.references import find_model
from advisor.workload import Workload, resolve


def workload(**keys: Any) -> Workload:
    return resolve(Job(**{"gpu": "h100-80", **keys}))


def test_a_tensor_parallel_rank_has_its_share_of_every_matrix() -> None:
    """Eight ranks of Llama-3.1 70B: 8 query heads and 1 KV head each, an eighth of the width and of the vocabulary."""
    whole = find_model("llama-3.1-70b")
    rank = narrowed(whole, 8)
    mixer = rank.layers[0].mixer
    assert isinstance(mixer, Attention)
    assert (mixer.heads, mixer.kv_heads, rank.vocab, rank.hidden) == (8, 1, 128_256 // 8, 8192)
    assert parameter_count(rank) == pytest.approx(parameter_count(whole) / 8, rel=1e-3)


def test_kv_heads_are_repeated_where_there_are_too_few() -> None:
    """Qwen2.5 72B has 8 KV heads: on 16 ranks (64 heads) each keeps one."""
    mixer = narrowed(find_model("qwen2.5-72b"), 16).layers[0].mixer
    assert isinstance(mixer, Attention)
    assert mixer.kv_heads == 1


def test_experts_are_divided_by_expert_parallel() -> None:
    """Mixtral's eight experts on four ranks: two each, and all of everything else."""
    part = narrowed(find_model("mixtral-8x7b"), 1, ep=4).layers[0].feed_forward
    assert getattr(part, "total", None) == 2


def test_devices_in_a_chain_share_the_layers() -> None:
    """transformers on three GPUs: 10, 15 and 7 of Llama's 32 layers, the embedding on the first, the head on the last."""
    chain = list(ranks(workload(infer="llama-3.1-8b", gpus=3)))
    assert [len(rank.model.layers) for rank in chain] == [10, 15, 7]
    outside = [{weight.name for weight in held_outside(rank)} for rank in chain]
    assert outside == [{"embed_tokens"}, set(), {"norm", "lm_head"}]


def test_a_tied_head_on_another_device_is_a_copy() -> None:
    """Llama-3.2 1B ties head and embedding; apart, as llama.cpp has them, both devices hold the table."""
    first, last = ranks(workload(infer="llama-3.2-1b", engine="llama.cpp", gpus=2))
    assert "embed_tokens" in {weight.name for weight in held_outside(first)}
    assert "lm_head" in {weight.name for weight in held_outside(last)}


def test_more_devices_than_layers_are_refused() -> None:
    """Sixteen layers cannot be dealt out to twenty GPUs."""
    with pytest.raises(RequestError, match="16 layers"):
        list(ranks(workload(infer="llama-3.2-1b", gpus=20)))


@pytest.mark.parametrize(("stage", "shares"), [(0, (1, 1, 1)), (1, (1, 1, 8)), (2, (1, 8, 8)), (3, (8, 8, 8))])
def test_zero_stages(stage: int, shares: tuple[int, int, int]) -> None:
    """Stage 1 divides the optimizer's state, 2 the gradients too, 3 the weights too (arXiv 1910.02054)."""
    assert zero_shares(stage, 8) == shares


@pytest.mark.parametrize("sharding", ["deepspeed", "fsdp"])
def test_sharded_qlora_is_16_bit_throughout(sharding: str) -> None:
    """Llama-2 70B in nf4 on two cards, PEFT's published runs: 36.6 GB with ZeRO-3, 35.6 GB with FSDP (docs/source/accelerate);
    with fp32 norms, embeddings and residual stream, as one card has them, it would be 42 GiB."""
    keys = {
        "train": "llama-2-70b",
        "gpus": 2,
        "gpu": "80GB",
        "method": "qlora",
        "batch": 2,
        "checkpointing": "full",
        "lora_rank": 8,
    }
    sharded = workload(**keys, zero=3, sharding=sharding)
    assert (recipe_of(sharded).stream, recipe_of(workload(**keys)).stream) == (2, 4)
    assert estimate_workload(sharded).device_bytes == pytest.approx(36e9, rel=0.06)
