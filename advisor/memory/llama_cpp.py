"""llama.cpp, and Ollama, which runs it: the whole context's cache from the start, and a compute buffer for one micro-batch.

The buffer is what ggml-alloc.c lays out for the graph of one micro-batch over the full cache, all of it in fp32 but the mask. Its
three highest moments, for the graph of src/models/llama.cpp and its like, with holes that nothing fits:

* the head: the logits on the last states;
* a feed-forward part: the mask, three states (the layer's input, normed, and what attention made), gate, up and their product;
* attention without a flash kernel: the mask in fp32, two states, queries twice, keys, values, and all scores.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.memory.kv_cache import in_blocks
from advisor.memory.sharding import Rank
from advisor.mixers import Attention, LatentAttention
from advisor.model import Experts, Layer, Mlp
from advisor.workload import Workload

MICRO_BATCH = 512  # -ub
PADDING = 256  # cells that a cache is a multiple of (llama-context.cpp, GGML_PAD of n_ctx)
COPIES = 4  # of the graph's inputs where GPUs work in turn (ggml-backend.cpp, GGML_SCHED_MAX_COPIES)
SOURCE = "llama.cpp 0c1e5709 ggml/src/ggml-alloc.c, src/llama-graph.cpp (build_attn_mha, build_ffn, build_moe_ffn)"


class Buffer(NamedTuple):
    """The highest moment of the graph: bytes beside the logits, of the logits, and how the former come about."""

    beside: int
    logits: int
    text: str


def cells(layer: Layer, tokens: int) -> int:
    """Cells of a sequence's cache; a sliding layer has the window's and one micro-batch's (llama-kv-cache-iswa.cpp)."""
    window = layer.attention.window if layer.attention else None
    whole = in_blocks(tokens, PADDING)
    return whole if window is None else min(whole, in_blocks(window + MICRO_BATCH, PADDING))


def micro_batch(w: Workload) -> int:
    return min(MICRO_BATCH, w.batch * w.seq)  # no larger than the context that was asked for


def uses_flash(w: Workload) -> bool:
    """llama.cpp's own kernels run on every card; `eager` and `math` stand for -fa off."""
    asked = w.asked.attention or "auto"  # what w.attention made of it is what PyTorch could run
    return asked == "flash" or (asked not in ("eager", "math") and w.engine.flash_by_itself)


def buffer(w: Workload, rank: Rank) -> Buffer:
    tokens, hidden = micro_batch(w), rank.model.hidden
    inputs = _inputs(w, rank)
    moments = [_attention(w, rank, layer, inputs) for layer, _ in rank.model.kinds if layer.attention and not uses_flash(w)]
    moments += [_feed_forward(w, rank, layer, inputs) for layer, _ in rank.model.kinds]
    if rank.has_head:
        waiting = inputs if _copies(w) > 1 else 0
        text = f"{tokens:,} × {hidden:,} × 4 B" + (f" + {waiting:,} B" if waiting else "")
        states = tokens * hidden * 4
        moments.append(Buffer(states + waiting, tokens * rank.model.vocab * 4, f"{text}: the last states, normed"))
    return max(moments, key=lambda moment: moment.beside + moment.logits)


def _copies(w: Workload) -> int:
    return COPIES if w.deals_out_layers and w.gpus > 1 else 1


def _inputs(w: Workload, rank: Rank) -> int:
    """The masks, one for each length of cache, and where GPUs work in turn the states that come in, four times."""
    lengths = {cells(layer, w.seq) for layer, _ in rank.model.kinds if layer.attention}
    masks = sum(lengths) * micro_batch(w) * (2 if uses_flash(w) else 4)
    copies = _copies(w)
    return masks if copies == 1 else copies * (masks + micro_batch(w) * rank.model.hidden * 4)


def _feed_forward(w: Workload, rank: Rank, layer: Layer, inputs: int) -> Buffer:
    part = layer.feed_forward
    width = gated = 0
    if isinstance(part, Experts):
        width, gated = part.active * part.width, part.gated
    elif isinstance(part, Mlp):
        width, gated = part.width, part.gated
    if layer.recurrent:
        width = max(width, layer.recurrent.mixed_width)
    tensors = 3 if gated else 1  # an ungated activation works in place
    each = 3 * rank.model.hidden + tensors * width
    tokens = micro_batch(w)
    sizes = f"(3 × {rank.model.hidden:,} + {tensors} × {width:,})"
    text = f"{inputs:,} B + {tokens:,} × 4 B × {sizes}: masks, states and a feed-forward part at work, in fp32"
    return Buffer(inputs + 4 * tokens * each, 0, text)


def _attention(w: Workload, rank: Rank, layer: Layer, inputs: int) -> Buffer:
    mixer, tokens, hidden = layer.attention, micro_batch(w), rank.model.hidden
    if isinstance(mixer, LatentAttention):  # the latent vector is the key of every head
        queries, cached = mixer.heads * (mixer.kv_rank + mixer.rope_dim), mixer.kv_rank + mixer.rope_dim
    else:
        assert isinstance(mixer, Attention)
        queries, cached = mixer.query_width, 2 * mixer.kv_width
    scores = mixer.heads * cells(layer, w.seq)
    sizes = f"(2 × {hidden:,} + 2 × {queries:,} + {cached:,} + {scores:,})"
    text = f"{inputs:,} B + {tokens:,} × 4 B × {sizes}: masks, states, queries, keys, values and all scores, in fp32"
    return Buffer(inputs + 4 * tokens * (2 * hidden + 2 * queries + cached + scores), 0, text)


def parts(w: Workload, rank: Rank) -> dict[str, int]:
    highest = buffer(w, rank)
    return {"activations": highest.beside, "logits-and-loss": highest.logits}


def logits_text(w: Workload, rank: Rank) -> tuple[str, str]:
    return f"{micro_batch(w):,} × {rank.model.vocab:,} × 4 B: fp32 logits of one micro-batch", SOURCE
