"""Zamba's blocks of attention and an MLP that several layers share, and the embedding that all of them read.

A block's weights are there once, and so are their gradients: the last layer that uses it makes them, the layers before it add
to them, and the first one done they go where the others are. What is kept of activations is each layer's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.memory import operations as ops
from advisor.memory.attention import attend, rotated
from advisor.memory.extent import NOTHING, Extent, add, times
from advisor.memory.feed_forward import gated_halves, mlp
from advisor.memory.net import Net, Recipe
from advisor.memory.operations import per_token
from advisor.memory.parameters import block_adapters
from advisor.memory.shadow import Block, Tensor, op
from advisor.model import Layer, Model, SharedBlock


def shared_block(net: Net, block: SharedBlock, x: Tensor, hidden: int, norm: str) -> Tensor:
    """ZambaAttentionDecoderLayer and Zamba2AttentionDecoderLayer, and the layer's own matrix behind them."""
    assert net.embedding
    net.added = not block.last
    out = side_by_side(x, net.embedding)
    out = net.norm(norm, out)
    out = attended(net, block, out, hidden)
    out = net.norm(norm, out)
    out = fed(net, block, out, hidden)
    net.added = None
    handed = net.linear("linear", out, hidden)
    net.held = handed  # ZambaHybridLayer names it to the end
    return handed


def side_by_side(x: Tensor, embedding: Tensor) -> Tensor:
    """torch.cat, whose gradients are views into that of what it made."""
    both = op([x, embedding], per_token(2 * ops.width_of(x)), x.width)
    if both.node:
        both.node.splits = True
    return both


def attended(net: Net, block: SharedBlock, x: Tensor, hidden: int) -> Tensor:
    a = block.attention
    q, k, v = (
        net.linear(f"{part}_proj", x, out) for part, out in (("q", a.query_width), ("k", a.kv_width), ("v", a.kv_width))
    )
    if block.attention_rank:
        q, k, v = (ops.plus(whole, adapted(net, block, f"linear_{part}", x, hidden)) for part, whole in (("q", q), ("k", k), ("v", v)))
    if a.rotary:
        q, k = rotated(net, q), rotated(net, k)
    return net.linear("o_proj", attend(net, a, q, net.cached(k), net.cached(v)), hidden)


def fed(net: Net, block: SharedBlock, x: Tensor, hidden: int) -> Tensor:
    if not block.rank:
        return mlp(net, block.mlp, x, hidden)
    wide = net.linear("gate_up_proj", x, 2 * block.mlp.width, bias=block.mlp.bias)
    wide = ops.plus(wide, adapted(net, block, "gate_up", x, hidden))
    return gated_halves(net, block.mlp, wide, hidden)


def adapted(net: Net, block: SharedBlock, part: str, x: Tensor, hidden: int) -> Tensor:
    """One of the layer's own adapters, whose gradients are its own too."""
    name, rank, out = next(adapter for adapter in block_adapters(block, hidden) if adapter[0].startswith(part))
    added, net.added = net.added, None
    made = net.linear(f"{name}.1", net.linear(f"{name}.0", x, rank), out)
    net.added = added
    return made


# --- beside the layers -----------------------------------------------------------------------------------------------


def embedding_copy(recipe: Recipe, model: Model) -> Extent:
    """The copy of the embedding's rows that a variable holds through the whole forward pass."""
    there = any(layer.shared for layer in model.layers)
    return times(per_token(model.hidden), recipe.stream) if there else NOTHING


def beside_embedding(recipe: Recipe, model: Model, blocks: Sequence[Block], *, checkpointed: bool) -> list[Block]:
    """The layers with that copy beside them, which checkpointed layers keep, and in the backward pass its gradient: at first
    half of a tensor that the layer's input has the other half of, then a sum."""
    copy = embedding_copy(recipe, model)
    put: list[Block] = []
    sums = NOTHING
    for layer, block in zip(reversed(model.layers), reversed(blocks), strict=True):
        kept = copy if checkpointed else NOTHING
        put.append(block._replace(with_forward=copy, with_backward=add(kept, sums)))
        if layer.shared and (recipe.trainable or checkpointed):
            sums = copy if any(sums) else times(copy, 2)
    return put[::-1]
