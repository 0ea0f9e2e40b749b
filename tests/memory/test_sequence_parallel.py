"""Megatron's layers: what they keep under tensor and sequence parallel, and round the ring of context parallel."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.attention import attend
from advisor.memory.net import Net, Recipe
from advisor.memory.operations import per_token
from advisor.memory.passes import stored_block
from advisor.memory.recipe import recipe_of
from advisor.memory.shadow import Storage, Tape, run_backward
from advisor.memory.sharding import ranks
from advisor.mixers import Attention
from advisor.references import find_model
from advisor.workload import resolve

HIDDEN, HEADS, KV, WIDTH, HEAD = 8192, 64, 8, 28672, 128  # Llama-3 70B


def kept(**keys: Any) -> tuple[int, ...]:
    """What one layer keeps for the backward pass, as an extent."""
    w = resolve(Job(**{"gpu": "h100-80", "train": "llama-3-70b", "engine": "megatron", "tp": 1, "gpus": 8, **keys}))
    rank = next(ranks(w))
    return stored_block(recipe_of(w), rank.model.layers[0], rank.model.hidden, 0.0, False, False).kept


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_everything_a_layer_keeps_is_cut(tp: int) -> None:
    """Two norms' inputs and outputs, queries, keys, values, attention's output, gate and up, their product, in 16 bits: an even part
    of each (Korthikanti et al., arXiv 2205.05198: s b h (34 ÷ t) for GPT). A head's logsumexp and a row's norm are fp32."""
    q, kv = HEADS * HEAD, KV * HEAD
    whole = 2 * (4 * HIDDEN + 2 * q + 2 * kv + 3 * WIDTH)
    assert kept(tp=tp) == (0, whole // tp + 4 * HEADS // tp + 2 * 4, 0, 0, 0, 0)


def test_without_it_norms_and_their_inputs_are_whole() -> None:
    """s b h (10 + 24 ÷ t) there: transformers' plan leaves norms and residual stream whole on each of eight ranks; torchtitan's
    and torchtune's have SequenceParallel, with norms written out."""
    assert kept(tp=8, engine="transformers")[1] > 2 * kept(tp=8, engine="torchtitan")[1] > 2 * kept(tp=8)[1]


@pytest.mark.parametrize(("dropout", "bytes_"), [(0.0, 32), (0.1, 34)])
def test_the_gpt_layer_of_the_paper(dropout: float, bytes_: int) -> None:
    """GPT-2's with LayerNorm, GELU and biases keeps s b h (34 ÷ t), two of it dropout's masks; attention's scores are not kept, a
    logsumexp is (Korthikanti et al., arXiv 2205.05198, table 2)."""
    gpt = {"model_type": "gpt2", "n_embd": 1024, "n_layer": 2, "n_head": 16, "vocab_size": 1000, "n_positions": 1024}
    w = resolve(Job(gpu="h100-80", train=gpt, engine="megatron", tp=2, gpus=2))
    block = stored_block(recipe_of(w), next(ranks(w)).model.layers[0], 1024, dropout, False, False)
    assert block.kept[1] == pytest.approx(bytes_ * 1024 / 2, rel=0.01)


def test_a_mixture_sends_a_ranks_own_tokens() -> None:
    """Moonlight on two tensor-parallel ranks with experts dealt out: a layer keeps about half of what one rank alone would."""
    model = find_model("moonlight-16b-a3b")
    sizes = []
    for tp in (1, 2):
        w = resolve(Job(gpu="h100-80", train="moonlight-16b-a3b", engine="megatron", gpus=8, tp=tp, ep=8))
        layer = next(ranks(w)).model.layers[-1]
        sizes.append(stored_block(recipe_of(w), layer, model.hidden, 0.0, False, False).kept[1])
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.15)


def attended(recipe: Recipe) -> tuple[int, int, int]:
    """Attention alone, with heads of Llama-3.1 8B: bytes per token at its forward peak, kept, and at its backward peak."""
    tape = Tape(grad=True)
    q, k, v = (tape.tensor(per_token(width), 2, needs_grad=True) for width in (4096, 1024, 1024))
    out = attend(Net(tape, recipe), Attention(32, 8, 128), q, k, v)
    forward = max(peak.live[1] for peak in tape.take_peaks())
    kept, node = tape.live[1], out.node
    tape.arriving = Storage(tape, per_token(2 * 4096))
    del out
    run_backward(tape, node)
    return forward, kept, max(peak.live[1] for peak in tape.take_peaks())


def test_a_ring_has_the_next_block_on_its_way() -> None:
    """Context parallel: beside its own keys and values a rank has those of the next, and backward their gradient too; it keeps its
    own only (arXiv 2310.01889)."""
    ring = recipe_of(resolve(Job(gpu="h100-80", train="llama-3.1-8b", engine="megatron", gpus=8, cp=8)))
    assert ring.ring
    assert not recipe_of(resolve(Job(gpu="h100-80", train="llama-3.1-8b", engine="megatron", gpus=8))).ring
    block = 2 * 1024 * 2  # keys and values, bytes per token
    more = [ours - other for ours, other in zip(attended(ring), attended(ring._replace(ring=False)), strict=True)]
    assert more == [block, 0, 2 * block]


def test_logits_of_a_ring_are_of_its_own_tokens() -> None:
    """Eight ranks make an eighth of the logits each."""

    def loss(**keys: Any) -> int:
        found = estimate_workload(
            resolve(Job(gpu="h100-80", train="llama-3.2-1b", seq=32768, gpus=8, checkpointing="full", **keys))
        )
        return next(part.bytes for part in found.parts if part.name == "logits-and-loss")

    assert loss(cp=8) == pytest.approx(loss() / 8, rel=0.01)


def test_moonlight_on_eight_cards() -> None:
    """36.618 GB at most on any rank (Megatron-Bridge 067f987, perf-activation-recompute: TP 2, EP 8, no recomputation, the recipe's bf16
    moments and gradients); what it is made of follows from the shapes, nothing was fitted to it."""
    w = resolve(Job(gpu="h100-80", gpus=8, train="moonlight-16b-a3b", engine="megatron", tp=2, ep=8, seq=4096, optimizer="adamw-bf16",
                    zero=1))  # fmt: skip
    assert estimate_workload(w).allocated_bytes == pytest.approx(36_618_000_000, rel=0.025)


def test_bf16_moments() -> None:
    """Two bytes each instead of four beside fp32 masters; Megatron's gradients are bf16 with them (main_grads_dtype)."""
    keys: dict[str, Any] = {"gpu": "h100-80", "train": "llama-3.2-1b", "engine": "megatron", "checkpointing": "full"}
    parts = [
        {part.name: part.bytes for part in estimate_workload(resolve(Job(**keys, optimizer=name))).parts}
        for name in ("adamw-fused", "adamw-bf16")
    ]
    wide, narrow = parts
    assert wide["optimizer-state"] == 2 * narrow["optimizer-state"]
    assert wide["master-weights"] == narrow["master-weights"]
    assert narrow["gradients"] < 0.6 * wide["gradients"]
