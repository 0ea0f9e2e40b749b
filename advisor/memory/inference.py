"""Serving or generating: the phases of each engine, and what is there in each."""

from __future__ import annotations

from advisor.memory import generate, llama_cpp, loading, serving
from advisor.memory.formats import BYTES, FORMATS
from advisor.memory.generate import largest_unpacked
from advisor.memory.kv_cache import kept_tokens, layer_bytes
from advisor.memory.recipe import compute_width, storing
from advisor.memory.shadow import FP32
from advisor.memory.sharding import Rank
from advisor.memory.state_space import recurrent_bytes
from advisor.memory.weights import layer_sum, rank_sum
from advisor.model import Layer
from advisor.workload import Workload

Parts = dict[str, int]


def phases(w: Workload, rank: Rank) -> dict[str, Parts]:
    """The parts of allocated memory in each phase on this rank, in bytes."""
    if rank.model.ends:
        from advisor.memory import encoder_inference

        return encoder_inference.phases(w, rank)
    there = {"weights": rank_sum(rank, storing(w)).bytes - on_host(w, rank), "step-temporaries": buffers(w, rank)}
    loads = loading.inference(w, rank, there).parts
    held = {**there, "recurrent-state": w.batch * states_bytes(w, rank)}
    if w.engine.ggml:
        served = {**held, "kv-cache": cache(w, rank), **llama_cpp.parts(w, rank)}
        return {"load": loads, "prefill": served, "decode": served}
    if w.engine.serving:
        held["kv-cache"] = cache(w, rank)
        return {
            "load": loads,
            "prefill": {**held, **serving.parts(w, rank)},
            "decode": {**held, **serving.decoding(w, rank)},
        }
    return {"load": loads, "prefill": {**held, **generate.prefill(w, rank)}, "decode": {**held, **generate.decode(w, rank)}}


def buffers(w: Workload, rank: Rank) -> int:
    """What is kept for good beside the weights: one unpacked matrix (AutoGPTQ), tables of old transformers."""
    return unpacking_buffer(w, rank) + generate.rotary_tables(w, rank)


def unpacking_buffer(w: Workload, rank: Rank) -> int:
    if w.quantization == "none" or not FORMATS[w.quantization].buffer or w.engine.serving:
        return 0
    return largest_unpacked(w, rank) * BYTES["fp16"]


def cache(w: Workload, rank: Rank) -> int:
    """The KV cache of an engine that has it in one piece, for all tokens from the start."""
    if w.engine.ggml and "kv" in w.offload:
        return 0  # --no-kv-offload: cache and attention stay on the CPU
    return sum(many * layer_bytes(x, w.batch, held_tokens(w, x, w.seq), w.kv_precision) for x, many in rank.model.kinds)


def held_tokens(w: Workload, layer: Layer, tokens: int) -> int:
    """Tokens of a sequence that a layer has in its cache, as the engine keeps it."""
    if w.engine.ggml:
        return llama_cpp.cells(layer, tokens)
    return serving.held_tokens(w, layer, tokens) if w.engine.serving else kept_tokens(layer, tokens)


def states_bytes(w: Workload, rank: Rank) -> int:
    """What the recurrent layers remember of one sequence. transformers has room for one input of the convolution more than it
    needs; llama.cpp's states are fp32 throughout (llama-model.cpp, llama_memory_recurrent)."""
    if w.engine.ggml:
        return recurrent_bytes(rank.model, FP32, dropped=1)
    if w.engine.serving:
        return recurrent_bytes(rank.model, compute_width(w), serving.state_width(w), dropped=1)
    return recurrent_bytes(rank.model, compute_width(w))


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


def logits_text(w: Workload, rank: Rank, phase: str) -> tuple[str, str]:
    """The arithmetic of the logits, and who makes them so."""
    if w.engine.ggml:
        return llama_cpp.logits_text(w, rank)
    return serving.logits_text(w, phase) if w.engine.serving else generate.logits_text(w, rank, phase)
