"""Zamba's blocks of attention and an MLP that several layers share, and the embedding that all of them read.

A block's weights are there once, and so are their gradients: the last layer that uses it makes them, the layers before it add
to them, and the first one done they go where the others are. What is kept of activations is each layer's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.memory import operations as ops
from advisor.memory.attention import attend, rotated
from advisor.memory.extent import NOTHING, Extent, add, less, times
from advisor.memory.feed_forward import gated_halves, mlp
from advisor.memory.net import Net, Recipe
from advisor.memory.operations import per_token
from advisor.memory.parameters import block_adapters, module_weights, own_weights
from advisor.memory.shadow import HALF, Block, Tensor, op
from advisor.model import Layer, Model, SharedBlock


def surround(net: Net, layer: Layer, hidden: int, *, recomputed: bool) -> None:
    """The embedding, counted elsewhere."""
    if layer.shared:
        graded = net.tape.grad and (net.recipe.trainable or recomputed)
        net.embedding = Tensor(net.tape, net.tape.outside, per_token(hidden), net.recipe.stream, graded, None)
        net.recomputed = recomputed


def shared_block(net: Net, block: SharedBlock, x: Tensor, hidden: int, norm: str) -> Tensor:
    """ZambaAttentionDecoderLayer and Zamba2AttentionDecoderLayer, and the layer's own matrix behind them."""
    assert net.embedding
    if net.tape.autocast and not block.first:
        net.copied = "again" if net.recomputed else "same"
    net.added = None if block.first and block.last else not block.last
    out = side_by_side(x, net.embedding)
    out = net.norm(norm, out)
    out = attended(net, block, out, hidden)
    out = net.norm(norm, out)
    out = fed(net, block, out, hidden)
    net.added, net.copied = None, None
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
    q, k, v = (net.linear(f"{part}_proj", x, out) for part, out in (("q", a.query_width), ("k", a.kv_width), ("v", a.kv_width)))
    if block.attention_rank:
        q, k, v = (
            ops.plus(whole, adapted(net, block, f"linear_{part}", x, hidden)) for part, whole in (("q", q), ("k", k), ("v", v))
        )
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
    of_block = net.added, net.copied
    net.added, net.copied = None, None
    made = net.linear(f"{name}.1", net.linear(f"{name}.0", x, rank), out)
    net.added, net.copied = of_block
    return made


# --- beside the layers -----------------------------------------------------------------------------------------------


def embedding_copy(recipe: Recipe, model: Model) -> Extent:
    """The copy of the embedding's rows that a variable holds through the whole forward pass."""
    there = any(layer.shared for layer in model.layers)
    return times(per_token(model.hidden), recipe.stream) if there else NOTHING


def around(recipe: Recipe, model: Model, blocks: Sequence[Block], *, checkpointed: bool, adding: bool) -> list[Block]:
    """The layers with what is beside them: the embedding's copy, which checkpointed layers keep, and in the backward pass its
    gradient, at first half of a tensor that the layer's input has the other half of, then a sum.

    To autograd autocast copies a block's weights once, so that their gradients are summed in 16-bit until the first of its layers
    is done. Elsewhere the sums are the gradients, which are dropped then where earlier ones exist.
    """
    copy = embedding_copy(recipe, model)
    graded = recipe.trainable or checkpointed
    put: list[Block] = []
    gradient, sums = NOTHING, NOTHING
    for layer, block in zip(reversed(model.layers), reversed(blocks), strict=True):
        beside = add(add(gradient, sums), copy if checkpointed else NOTHING)
        left = block.gradients
        if layer.shared and graded:
            gradient = copy if any(gradient) else times(copy, 2)
        if layer.shared and recipe.trainable and not (layer.shared.first and layer.shared.last):
            copied, plain = shared_elements(layer, model.hidden, copied=recipe.autocast)
            turn = int(layer.shared.last) - int(layer.shared.first)
            sums = add(sums, (turn * HALF * copied, 0, 0, 0, 0, 0))
            if adding and layer.shared.first:
                left = less(left, (recipe.weight * plain, 0, 0, 0, 0, 0))
        put.append(block._replace(with_forward=copy, with_backward=beside, gradients=left))
    return put[::-1]


def shared_elements(layer: Layer, hidden: int, *, copied: bool) -> tuple[int, int]:
    """Elements of the weights that a layer has in common with others: those that autocast copies, where it does, and the rest."""
    own = set(own_weights(layer, hidden))
    both = [weight for weight in module_weights(layer, hidden) if weight not in own]
    matrices = sum(weight.elements for weight in both if weight.kind == "linear") if copied else 0
    return matrices, sum(weight.elements for weight in both) - matrices
