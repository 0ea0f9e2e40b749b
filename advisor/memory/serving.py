"""vLLM, SGLang, TGI and TensorRT-LLM: a paged cache, prompts in chunks, and what the start sets aside.

vLLM runs a full chunk and samples as many sequences as it admits before it hands out the cache; what that took stays set aside
whatever the job is. The others compute what comes.
"""

from __future__ import annotations

from advisor.engines import Reserves, Tiers
from advisor.hardware import Gpu
from advisor.memory.extent import size
from advisor.memory.generate import working_extent
from advisor.memory.kv_cache import in_blocks
from advisor.memory.recipe import compute_width, recipe_of
from advisor.memory.shadow import FP32
from advisor.memory.sharding import Rank
from advisor.mixers import KimiDelta
from advisor.model import Layer
from advisor.workload import Workload

GIB = 2**30


def tier(w: Workload, tiers: Tiers) -> int:
    """What this card gets; 0 where nothing is set aside."""
    modest = w.engine.reserves.modest
    return tiers[-1][1] if tiers and modest and modest in w.gpu.name else of_size(w.gpu, tiers)


def of_size(gpu: Gpu, tiers: Tiers) -> int:
    for least, value in tiers:
        if gpu.total_bytes >= least * GIB:
            return value
    return 0


def headroom(gpu: Gpu, habits: Reserves, ranks: int) -> int:
    """Bytes that SGLang leaves to activations and CUDA graphs when nobody sets --mem-fraction-static, but for its graphs of
    prefills (srt/arg_groups/memory_hook.py, handle_gpu_memory_settings): the rest is for weights and KV cache."""
    if not habits.graph_batch:
        return 0
    mib = 512 + 1.5 * max(of_size(gpu, habits.chunk), 2048) + ranks / 8 * 1024 + 2 * of_size(gpu, habits.graph_batch)
    return round(max(mib, 10 * 1024 if gpu.total_bytes > 60 * GIB else 0) * 2**20)


def chunk_tokens(w: Workload) -> int:
    """Tokens computed in one pass: those of the profile, or of the prompts that are there."""
    habits = w.engine.reserves
    tokens = tier(w, habits.chunk)
    if w.seq <= habits.whole_prompt:
        tokens = max(w.seq, 2048)  # max_num_batched_tokens without chunked prefill (SchedulerConfig)
    return tokens if habits.profiles else min(w.batch * w.prompt, tokens)


def sampled(w: Workload) -> int:
    """Sequences whose logits are made together."""
    return max(w.batch, tier(w, w.engine.reserves.sequences))


def sampler_bytes(w: Workload) -> int:
    """The sampler's tensors; tensor-parallel ranks gather the whole vocabulary first."""
    return sampled(w) * w.model.vocab * logit_bytes(w)


def logit_bytes(w: Workload) -> int:
    """Bytes of the sampler's tensors for one logit: fp32 models have two more than 16-bit ones."""
    return w.engine.reserves.logit_bytes + compute_width(w) - 2


def states_bytes(w: Workload) -> int:
    """The hidden states of a chunk, which are there while its logits are sampled."""
    return chunk_tokens(w) * w.model.hidden * compute_width(w)


def working_bytes(w: Workload, rank: Rank) -> int:
    tokens = chunk_tokens(w)
    return size(working_extent(recipe_of(w), rank, 1, tokens), 1, tokens)


def samples_highest(w: Workload, rank: Rank) -> bool:
    """Whether a pass stands highest when its layers are done, with the hidden states and the sampler's tensors."""
    return "logits-and-loss" in parts(w, rank)


def held_tokens(w: Workload, layer: Layer, tokens: int) -> int:
    """Tokens that a layer has room for, in whole blocks."""
    habits = w.engine.reserves
    window = layer.attention.window if layer.attention else None
    if window is None or habits.windows == "full":
        return in_blocks(tokens, habits.block)
    if habits.windows == "share":  # one pool for all sliding layers, where others do not slide
        slides = all(x.attention.window for x, _ in w.model.kinds if x.attention)
        return tokens if slides else -(-tokens * 4 // 5)  # SGLang's swa_full_tokens_ratio
    # Blocks of the window before a chunk, of the chunk, and one that the window begins in.
    room = in_blocks(min(tokens, window - 1 + tier(w, habits.chunk)), habits.block) + habits.block
    return min(room, in_blocks(tokens, habits.block))


def state_width(w: Workload) -> int:
    """Bytes of an element of a recurrent layer's state."""
    habits = w.engine.reserves
    kimi = any(isinstance(layer.recurrent, KimiDelta) for layer, _ in w.model.kinds)
    return FP32 if kimi or habits.state == "fp32" or w.model.model_type in habits.fp32_states else compute_width(w)


def parts(w: Workload, rank: Rank) -> dict[str, int]:
    """Beside weights and caches: the pass that stands highest, and the CUDA graphs."""
    graphs = {"cuda-graphs": w.engine.reserves.graphs_bytes}
    working, states, sampler = working_bytes(w, rank), states_bytes(w), sampler_bytes(w)
    if rank.has_head and states + sampler > working:
        return {"activations": states, "logits-and-loss": sampler, **graphs}
    return {"activations": working, **graphs}


def decoding(w: Workload, rank: Rank) -> dict[str, int]:
    logits = w.batch * w.model.vocab * logit_bytes(w) if rank.has_head else 0
    return {"logits-and-loss": logits, "cuda-graphs": w.engine.reserves.graphs_bytes}


def logits_text(w: Workload, phase: str) -> tuple[str, str]:
    many = w.batch if phase == "decode" else sampled(w)
    words = "logits of what is sampled together, in fp32, sorted or as probabilities"
    return f"{many:,} × {w.model.vocab:,} × {logit_bytes(w)} B: {words}", w.engine.reserves.source
