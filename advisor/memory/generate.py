"""transformers' generate, and what works like it: the whole prompt in one pass, then a token at a time."""

from __future__ import annotations

from advisor.engines import version_at_least
from advisor.memory.extent import Extent, less, size
from advisor.memory.formats import FORMATS, KV_BYTES_PER_32
from advisor.memory.kv_cache import cache_bytes, largest_layer, token_elements
from advisor.memory.net import Recipe
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.passes import prefill_peaks
from advisor.memory.recipe import compute_width, recipe_of
from advisor.memory.sharding import Rank
from advisor.memory.state_space import recurrent_bytes, recurrent_step
from advisor.memory.weights import largest_matrix
from advisor.mixers import Attention
from advisor.workload import Workload

# Families whose attention layers each kept a table of cosines and one of sines for all positions, and the version that ended it
# (modeling_*.py of 4.38.2, 4.40.2, 4.41.2, 4.42.4, 4.44.2, 4.45.0, RotaryEmbedding._set_cos_sin_cache, in the model's type).
ROTARY_TABLES = {
    "llama": "4.41",
    "mistral": "4.42",
    "qwen2": "4.45",
    "qwen2_moe": "4.45",
    "starcoder2": "4.45",
    "mixtral": "4.46",
}
# Their rows are config.json's max_position_embeddings: 32,768 in the instruction-tuned checkpoints of the time (Mistral 7B v0.2
# and v0.3, Mixtral 8x7B, Qwen1.5, Qwen2). A base model's context can be longer than what its tuned sibling says.
ROTARY_ROWS = 32768


def rotary_tables(w: Workload, rank: Rank) -> int:
    """Bytes of the tables that old transformers kept in each attention layer."""
    until = ROTARY_TABLES.get(rank.model.model_type)
    if until is None or w.engine.name != "transformers" or version_at_least(w.engine_version, until):
        return 0
    rows = min(rank.model.max_context or 2048, ROTARY_ROWS)
    widths = sum(many * x.mixer.head_dim for x, many in rank.model.kinds if isinstance(x.mixer, Attention))
    return 2 * rows * widths * compute_width(w)


def held(w: Workload, cache: int, rank: Rank, tokens: int) -> int:
    """The cache, or of one that is offloaded the layer at work and the next (transformers' OffloadedCache)."""
    if "kv" not in w.offload:
        return cache
    return min(
        cache, 2 * largest_layer(rank.model, w.batch, tokens, w.kv_precision, whole=True, expanded=w.engine.expands_latents)
    )


def prefill(w: Workload, rank: Rank) -> dict[str, int]:
    """The whole prompt in one pass, the logits of its last token only.

    The cache is shown as it will be when all tokens are there, and the rest of the moment's memory without what is still to come.
    """
    there = held(w, prompt_cache(w, rank), rank, w.prompt)
    highest = all_logits_are_highest(w, rank)
    working = w.batch * w.prompt * rank.model.hidden * recipe_of(w).stream if highest else _working(w, rank)
    working += 0 if highest else unpacked_layer(w, rank, w.prompt)
    logits = _all_logits(w, rank) if highest else last_logits(w, rank)
    coming = min(working, still_to_come(w, rank))
    return {"kv-cache": there + coming, "activations": working - coming, "logits-and-loss": logits}


def unpacked_layer(w: Workload, rank: Rank, tokens: int) -> int:
    """Keys and values of the layer at work as they are computed with, where the cache holds them in fewer bits."""
    computed = w.precision.removesuffix("-mixed")  # a training job that generates (GRPO)
    if KV_BYTES_PER_32[w.kv_precision] >= KV_BYTES_PER_32[computed]:
        return 0
    return largest_layer(rank.model, w.batch, tokens, computed, whole=True, expanded=w.engine.expands_latents)


def prompt_cache(w: Workload, rank: Rank) -> int:
    return cache_bytes(rank.model, w.batch, w.prompt, w.kv_precision, whole=True, expanded=w.engine.expands_latents)


def still_to_come(w: Workload, rank: Rank) -> int:
    """Bytes that the cache is to grow by after the prompt."""
    if "kv" in w.offload:
        return 0
    whole = cache_bytes(rank.model, w.batch, w.seq, w.kv_precision, expanded=w.engine.expands_latents)
    return max(0, whole - prompt_cache(w, rank))


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


def decode(w: Workload, rank: Rank) -> dict[str, int]:
    """The last step: a cache of all tokens, and one layer's keys twice, old and appended to (DynamicCache concatenates)."""
    expanded = w.engine.expands_latents
    cache = cache_bytes(rank.model, w.batch, w.seq, w.kv_precision, expanded=expanded)
    cache = held(w, cache, rank, w.seq)
    copied = largest_layer(rank.model, w.batch, w.seq, w.kv_precision, expanded=expanded) // 2
    copied = 2 * unpacked_layer(w, rank, w.seq) or copied  # unpacked, and put together with the newest (QuantizedLayer.update)
    if makes_all_logits(w):
        copied = cache  # and kept the cache of the step before, tuple by tuple, until the step was done
    copied = max(copied, w.batch * recurrent_step(rank.model, compute_width(w)))
    unpacked = 0
    if w.quantization != "none" and FORMATS[w.quantization].unpacks:
        unpacked = largest_unpacked(w, rank) * recipe_of(w).unpacked
    return {"kv-cache": cache, "activations": copied + unpacked, "logits-and-loss": last_logits(w, rank)}


def largest_unpacked(w: Workload, rank: Rank) -> int:
    """Elements of the largest matrix as it is unpacked."""
    head = rank.model.vocab * rank.model.hidden if recipe_of(w).quantized_head and rank.has_head else 0
    return max(head, largest_matrix(w.model if w.engine.unpacks_whole else rank.model))


def last_logits(w: Workload, rank: Rank) -> int:
    """Logits of one token a sequence; a soft-cap makes a copy."""
    if not rank.has_head:
        return 0
    return w.batch * rank.model.vocab * compute_width(w) * (2 if rank.model.logit_softcap else 1)


def logits_text(w: Workload, rank: Rank, phase: str) -> tuple[str, str]:
    vocab, width = rank.model.vocab, compute_width(w)
    if phase == "prefill" and all_logits_are_highest(w, rank):
        return (
            f"{w.batch * w.prompt:,} × {vocab:,} × {width + 4} B: the prompt's logits, and in fp32",
            "transformers before 4.45",
        )
    copies = 2 if rank.model.logit_softcap else 1
    return f"{w.batch:,} × {vocab:,} × {width * copies} B: logits of each sequence's last token", "transformers generate"
