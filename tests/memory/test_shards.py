"""Shards against explicit ones: what each rank of a small world holds, dealt out by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from advisor.job import Job
from advisor.memory.collectives import per_rank
from advisor.memory.parameters import layer_weights, parameter_count
from advisor.memory.sharding import narrowed, ranks, stage_layers
from advisor.memory.training import in_flight_count
from advisor.memory.weights import Storing, held_outside, rank_sum
from advisor.model import Model
from advisor.references import find_model
from advisor.workload import Workload, resolve

PLAIN = Storing("none", 1, blocks=False)


def workload(**keys: Any) -> Workload:
    return resolve(Job(**{"gpu": "h100-80", **keys}))


def llama(heads: int, kv_heads: int, width: int, vocab: int, layers: int = 2) -> dict[str, Any]:
    return {"model_type": "llama", "hidden_size": 64 * heads, "head_dim": 64, "intermediate_size": width, "vocab_size": vocab,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "tie_word_embeddings": False, "torch_dtype": "bfloat16"}  # fmt: skip


def cut(rows: int, parts: int) -> list[int]:
    """Rows of each part, as torch.chunk and torch.tensor_split deal them out: the first ones are the longest."""
    return [rows // parts + (part < rows % parts) for part in range(parts)]


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.integers(1, 40), st.integers(1000, 1100))
def test_a_tensor_parallel_layer_is_its_shards(tp: int, kv_heads: int, width: int, vocab: int) -> None:
    """Columns of queries, gate and up, rows of the output and down projections; each KV head at least once on some rank, whole on each."""
    heads, head, hidden = 8, 64, 512
    model = find_model(llama(heads, kv_heads, 8 * width, vocab))
    part = narrowed(model, tp).layers[0]
    kv_here = -(-kv_heads // tp)  # one is copied where there are fewer than ranks
    shards = hidden * head * (heads // tp) * 2 + 2 * hidden * head * kv_here + 3 * hidden * (8 * width // tp)
    found = sum(weight.elements for weight in layer_weights(part, hidden) if weight.kind == "linear")
    assert found == shards
    whole = sum(weight.elements for weight in layer_weights(model.layers[0], hidden) if weight.kind == "linear")
    assert tp * found >= whole
    assert (tp * found == whole) is (kv_heads >= tp)


@given(st.sampled_from(["vllm", "megatron", "transformers", "litgpt"]), st.sampled_from([2, 4, 8]), st.integers(1000, 60_000))
def test_the_vocabulary_on_each_rank(engine: str, tp: int, vocab: int) -> None:
    """vLLM shards embedding and head, Megatron pads them to 128 × tp rows first, transformers cuts the head alone, LitGPT neither."""
    task = "train" if engine == "megatron" else "infer"
    w = workload(**{task: llama(8, 8, 512, vocab)}, engine=engine, tp=tp, precision="bf16")
    (rank,) = ranks(w)
    rows = {weight.name: weight.rows for weight in held_outside(rank) if weight.cols > 1}
    longest = cut(vocab, tp)[0]
    padded = 128 * tp * -(-vocab // (128 * tp)) // tp
    assert (
        rows
        == {
            "vllm": {"embed_tokens": longest, "lm_head": longest},
            "megatron": {"embed_tokens": padded, "lm_head": padded},
            "transformers": {"embed_tokens": vocab, "lm_head": longest},
            "litgpt": {"embed_tokens": vocab, "lm_head": vocab},
        }[engine]
    )


def test_a_tied_head_is_not_cut_where_the_embedding_is_whole() -> None:
    """OPT-13B by DeepSpeed's AutoTP: 12.23 GiB on each of two cards, 6.36 on each of four (automatic-tensor-parallelism.md)."""
    sizes = [rank_sum(next(ranks(workload(infer="opt-13b", tp=tp))), Storing("none", 2, blocks=False)).bytes for tp in (2, 4)]
    assert [round(size / 2**30, 2) for size in sizes] == [12.22, 6.36]


@given(st.integers(1, 100), st.integers(1, 16), st.booleans())
def test_stages_share_out_the_layers(depth: int, stages: int, last_first: bool) -> None:
    """Each layer once, in order, and no stage has two more than another."""
    if stages > depth:
        return
    bounds = [stage_layers(depth, stages, stage, last_first=last_first) for stage in range(stages)]
    assert [layer for start, end in bounds for layer in range(start, end)] == list(range(depth))
    lengths = [end - start for start, end in bounds]
    assert lengths == sorted(cut(depth, stages), reverse=not last_first)


@given(st.integers(2, 8), st.integers(1, 20))
def test_a_pipeline_holds_the_whole_model(stages: int, layers: int) -> None:
    """Over the stages there are all layers, one embedding and one head; the first and the last are among those looked at."""
    layers = max(layers, stages)
    model = llama(8, 8, 512, 1000, layers)
    w = workload(train=model, engine="megatron", pp=stages)
    looked_at = {rank.stage: rank for rank in ranks(w)}
    assert {0, stages - 1} <= looked_at.keys()
    assert looked_at[0].embeds
    assert not looked_at[0].has_head
    assert looked_at[stages - 1].has_head
    assert max(len(rank.model.layers) for rank in looked_at.values()) == cut(layers, stages)[0]


def peak_of_1f1b(stages: int, stage: int, micro_batches: int) -> int:
    """Micro-batches that a stage holds at most, played through: it runs ahead by the stages behind it, then one forward, one back."""
    ahead = min(stages - stage - 1, micro_batches)
    held = most = ahead
    for _ in range(micro_batches - ahead):
        held += 1
        most = max(most, held)
        held -= 1
    return most


@given(st.integers(2, 8), st.integers(1, 20), st.data())
def test_micro_batches_in_flight(stages: int, micro_batches: int, data: st.DataObject) -> None:
    """Megatron-Core's schedule without interleaving (forward_backward_pipelining_without_interleaving)."""
    w = workload(train=llama(8, 8, 512, 1000, 8), engine="megatron", pp=stages, accumulation=micro_batches)
    rank = data.draw(st.sampled_from(list(ranks(w))))
    assert in_flight_count(w, rank) == max(1, peak_of_1f1b(stages, rank.stage, micro_batches))


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2]), st.integers(1, 10**6))
def test_zero_deals_out_every_element(data_parallel: int, cp: int, amount: int) -> None:
    """The fullest rank has the longest part; context-parallel ranks have the same weights and so share too."""
    w = workload(train="llama-3.2-1b", gpus=data_parallel * cp, cp=cp, zero=1)
    assert w.replicas == data_parallel * cp
    (rank,) = ranks(w)
    assert per_rank(w, rank, amount, w.replicas) == cut(amount, w.replicas)[0]


def experts_of(model: Model) -> int:
    return sum(
        weight.elements for layer in model.layers for weight in layer_weights(layer, model.hidden) if weight.kind == "expert"
    )


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2]))
def test_expert_parallel_ranks(ep: int, tp: int) -> None:
    """Experts are whole and dealt out, the rest is cut; the router knows all of them on every rank. Optimizer state of experts is
    shared by the ranks that have the same ones: 8 GPUs less the other experts' (Megatron-LM theoretical_memory_usage.py)."""
    w = workload(train="mixtral-8x7b", engine="megatron", gpus=8, tp=tp, ep=ep, zero=1)
    (rank,) = ranks(w)
    whole = find_model("mixtral-8x7b")
    expert_tp = tp if ep == 1 else 1
    assert experts_of(rank.model) * ep * expert_tp == experts_of(whole)
    router = [weight for weight in layer_weights(rank.model.layers[0], whole.hidden) if weight.kind == "router"]
    assert [weight.rows for weight in router] == [8]
    elements = rank_sum(rank, PLAIN).elements
    dense = elements - experts_of(rank.model)
    by_hand = dense / (8 // tp) + experts_of(rank.model) / (8 // (ep * expert_tp))
    assert abs(per_rank(w, rank, elements, w.replicas) - by_hand) <= 2


def test_uneven_experts() -> None:
    """Sixty experts on eight ranks: eight on the fullest."""
    part = narrowed(find_model("qwen1.5-moe-a2.7b"), 1, ep=8).layers[0].feed_forward
    assert (getattr(part, "total", None), getattr(part, "routed", None)) == (8, 60)
    assert parameter_count(narrowed(find_model("qwen1.5-moe-a2.7b"), 1, ep=8)) * 8 > parameter_count(
        find_model("qwen1.5-moe-a2.7b")
    )
