"""Serving or generating: the prefill and the decoding step, and what is there in each."""

from __future__ import annotations

from advisor.memory import loading
from advisor.memory.extent import Extent, less, size
from advisor.memory.formats import BYTES, FORMATS
from advisor.memory.kv_cache import cache_bytes, largest_layer, layer_bytes, token_elements
from advisor.memory.net import Recipe
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.passes import prefill_peaks
from advisor.memory.recipe import compute_width, recipe_of, storing
from advisor.memory.sharding import Rank
from advisor.memory.state_space import recurrent_bytes, recurrent_step
from advisor.memory.weights import largest_matrix, layer_sum, rank_sum
from advisor.model import Layer
from advisor.workload import Workload

Parts = dict[str, int]

# Tokens that a serving engine computes in one pass: vLLM's max_num_batched_tokens, SGLang's chunked prefill (8,192 on large cards).
CHUNK = 8192
MICRO_BATCH = 512  # llama.cpp -ub
SAMPLED_AT_ONCE = 256  # sequences whose logits a serving engine makes together


def phases(w: Workload, rank: Rank) -> dict[str, Parts]:
    """The parts of allocated memory in each phase on this rank, in bytes."""
    there = {"weights": rank_sum(rank, storing(w)).bytes - on_host(w, rank)}
    if w.quantization != "none" and FORMATS[w.quantization].buffer and not w.engine.serving:
        there["step-temporaries"] = largest_unpacked(w, rank) * BYTES["fp16"]  # one unpacked matrix, kept for good
    loads = loading.inference(w, rank, there).parts
    remembered = {"recurrent-state": w.batch * recurrent_bytes(rank.model, compute_width(w))}
    if w.engine.ggml:
        served = {**there, **remembered, **_llama_cpp(w, rank)}
        return {"load": loads, "prefill": served, "decode": served}
    if w.engine.serving:
        served = {**there, **remembered, **_serving(w, rank)}
        return {"load": loads, "prefill": served, "decode": {**served, "activations": 0}}
    held = {**there, **remembered}
    return {"load": loads, "prefill": {**held, **_prefill(w, rank)}, "decode": {**held, **_decode(w, rank)}}


def on_host(w: Workload, rank: Rank) -> int:
    """Weights of layers that wait in the host's memory, less one of them that is fetched to be computed."""
    away = layers_away(w, rank)
    fetched = 0 if w.engine.ggml else max(away, default=0)  # llama.cpp computes them where they are
    return sum(away) - fetched


def layers_away(w: Workload, rank: Rank) -> list[int]:
    """The sizes of the layers of this rank that the host holds, the largest first."""
    if "layers" not in w.offload or not w.offload_layers:
        return []
    how = storing(w)
    sizes = sorted((layer_sum(layer, rank.model.hidden, how).bytes for layer in rank.model.layers), reverse=True)
    return sizes[: w.offload_layers // rank.stages]


def _held(w: Workload, cache: int, rank: Rank, tokens: int) -> int:
    """The cache, or of one that is offloaded the layer at work and the next (transformers' OffloadedCache)."""
    if "kv" not in w.offload:
        return cache
    return min(cache, 2 * largest_layer(rank.model, w.batch, tokens, w.kv_precision, whole=True))


def _prefill(w: Workload, rank: Rank) -> Parts:
    """transformers' generate: the whole prompt in one pass, the logits of its last token only."""
    recipe = recipe_of(w)
    cache = cache_bytes(rank.model, w.batch, w.prompt, w.kv_precision, whole=True)
    cache = _held(w, cache, rank, w.prompt)
    if all_logits_are_highest(w, rank):
        states = w.batch * w.prompt * rank.model.hidden * recipe.stream
        return {"kv-cache": cache, "activations": states, "logits-and-loss": _all_logits(w, rank)}
    return {"kv-cache": cache, "activations": _working(w, rank), "logits-and-loss": _last_logits(w, rank)}


def _working(w: Workload, rank: Rank) -> int:
    return size(working_extent(recipe_of(w), rank, w.batch, w.prompt), w.batch, w.prompt)


def _all_logits(w: Workload, rank: Rank) -> int:
    return w.batch * w.prompt * rank.model.vocab * (compute_width(w) + 4)


def all_logits_are_highest(w: Workload, rank: Rank) -> bool:
    """Whether a prefill stands highest with the whole prompt's logits: they come when the layers are done, beside the states."""
    return makes_all_logits(w) and rank.has_head and _all_logits(w, rank) > _working(w, rank)


def makes_all_logits(w: Workload) -> bool:
    """transformers before 4.45 made the whole prompt's logits, and a copy of them in fp32 (num_logits_to_keep came then)."""
    return w.engine.all_logits


def working_extent(recipe: Recipe, rank: Rank, batch: int, seq: int) -> Extent:
    """What the highest moment of a prefill has beside the cache."""
    peak = max(prefill_peaks(recipe, rank), key=lambda peak: size(peak.live, batch, seq))
    cached = recipe.compute * sum(many * token_elements(layer) for layer, many in rank.model.kinds)
    return less(less(peak.live, per_token(cached)), per_sequence(recurrent_bytes(rank.model, recipe.compute)))


def _decode(w: Workload, rank: Rank) -> Parts:
    """The last step: a cache of all tokens, and one layer's keys twice, old and appended to (DynamicCache concatenates)."""
    cache = cache_bytes(rank.model, w.batch, w.seq, w.kv_precision)
    cache = _held(w, cache, rank, w.seq)
    copied = largest_layer(rank.model, w.batch, w.seq, w.kv_precision) // 2
    if makes_all_logits(w):
        copied = cache  # and kept the cache of the step before, tuple by tuple, until the step was done
    copied = max(copied, w.batch * recurrent_step(rank.model, compute_width(w)))
    unpacked = 0
    if w.quantization != "none" and FORMATS[w.quantization].unpacks:
        unpacked = largest_unpacked(w, rank) * BYTES["fp16"]
    return {"kv-cache": cache, "activations": copied + unpacked, "logits-and-loss": _last_logits(w, rank)}


def largest_unpacked(w: Workload, rank: Rank) -> int:
    """Elements of the largest matrix as it is unpacked."""
    return largest_matrix(w.model if w.engine.unpacks_whole else rank.model)


def _last_logits(w: Workload, rank: Rank) -> int:
    """Logits of one token a sequence; a soft-cap makes a copy."""
    if not rank.has_head:
        return 0
    return w.batch * rank.model.vocab * compute_width(w) * (2 if rank.model.logit_softcap else 1)


def chunk_tokens(w: Workload) -> int:
    return min(w.batch * w.prompt, CHUNK)


def _serving(w: Workload, rank: Rank) -> Parts:
    """A serving engine: a paged cache, the prompt in chunks, fp32 logits of the sequences that are sampled together."""
    recipe = recipe_of(w)
    tokens = chunk_tokens(w)
    logits = min(w.batch, SAMPLED_AT_ONCE) * rank.model.vocab * (compute_width(w) + 4) if rank.has_head else 0
    return {
        "kv-cache": cache_bytes(rank.model, w.batch, w.seq, w.kv_precision),
        "activations": size(working_extent(recipe, rank, 1, tokens), 1, tokens),
        "logits-and-loss": logits,
        "cuda-graphs": w.engine.graphs_bytes,
    }


def logits_text(w: Workload, rank: Rank, phase: str) -> tuple[str, str]:
    """The arithmetic of the logits, and who makes them so."""
    vocab, width = rank.model.vocab, compute_width(w)
    if w.engine.ggml:
        return f"{min(MICRO_BATCH, w.prompt):,} × {vocab:,} × 4 B: fp32 logits of one micro-batch", "llama.cpp -ub 512"
    if w.engine.serving:
        sampled = min(w.batch, SAMPLED_AT_ONCE)
        return (
            f"{sampled:,} × {vocab:,} × {width + 4} B: logits of what is sampled together, and in fp32",
            "the sampler's tensors",
        )
    if phase == "prefill" and all_logits_are_highest(w, rank):
        return (
            f"{w.batch * w.prompt:,} × {vocab:,} × {width + 4} B: the prompt's logits, and in fp32",
            "transformers before 4.45",
        )
    copies = 2 if rank.model.logit_softcap else 1
    return f"{w.batch:,} × {vocab:,} × {width * copies} B: logits of each sequence's last token", "transformers generate"


def _llama_cpp(w: Workload, rank: Rank) -> Parts:
    """llama.cpp: the whole context's cache from the start, and a compute buffer for one micro-batch with fp32 logits.

    Sliding layers hold the window and one micro-batch more.
    """
    tokens = min(MICRO_BATCH, w.prompt)
    cache = sum(many * layer_bytes(x, w.batch, cells(x, w.seq), w.kv_precision) for x, many in rank.model.kinds)
    logits = tokens * rank.model.vocab * 4 if rank.has_head else 0
    return {
        "kv-cache": 0 if "kv" in w.offload else cache,  # --no-kv-offload: cache and attention stay on the CPU
        "activations": tokens * 4 * (3 * _widest(rank) + 2 * rank.model.hidden),
        "logits-and-loss": logits,
    }


def compute_buffer_text(w: Workload, rank: Rank) -> str:
    tokens = min(MICRO_BATCH, w.prompt)
    return f"{tokens:,} × 4 B × (3 × {_widest(rank):,} + 2 × {rank.model.hidden:,}): one layer at work, in fp32"


def _widest(rank: Rank) -> int:
    return max((getattr(layer.feed_forward, "width", 0) for layer, _ in rank.model.kinds), default=0)


def cells(layer: Layer, tokens: int) -> int:
    window = layer.attention.window if layer.attention else None
    return tokens if window is None else min(tokens, window + MICRO_BATCH)
