"""DeBERTa's attention (arXiv 2006.03654), written with shadow operations after transformers 5.23.

Content meets content, and the keys and queries of distances. A table of distances has rows as a sequence has tokens: 2 × span of
them, or 2 for each token where the first DeBERTa cuts it. What it makes of them is copied for every sequence of the batch.
"""

from __future__ import annotations

from functools import lru_cache

from advisor.memory import operations as ops
from advisor.memory.convolution import copied, product
from advisor.memory.extent import NOTHING, Extent, add, times
from advisor.memory.net import Net, Recipe
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import FP32, HALF, Block, Parameter, Storage, Tape, Tensor, op, run_backward, turn
from advisor.mixers import Attention, Distances
from advisor.model import Model

INDEX = 8  # bytes of an int64
_POSITIONS: Extent = (0, 0, 0, 0, 1, 0)
_PAIRS: Extent = (0, 0, 1, 0, 0, 0)


def disentangled(net: Net, a: Attention, x: Tensor, hidden: int) -> Tensor:
    """Attention by the code of either generation: what its variables hold, they hold to its end."""
    out = joined(net, a, x) if a.fused else apart(net, a, x)
    return net.linear("o_proj", out, hidden, bias=a.out_bias)


def apart(net: Net, a: Attention, x: Tensor) -> Tensor:
    """DeBERTa v2 and v3 (modeling_deberta_v2.py, DisentangledSelfAttention)."""
    d, width, before = a.distances, a.query_width, net.added
    if d and d.shared:
        net.added = True  # to the gradient that the distances make, which comes first
    q_weight, k_weight = net.weight(ops.width_of(x) * width), net.weight(ops.width_of(x) * width)
    q = by_heads(net.linear("q_proj", x, width, bias=True, weight=q_weight))
    k = by_heads(net.linear("k_proj", x, width, bias=True, weight=k_weight))
    net.added = before
    v = by_heads(net.linear("v_proj", x, width, bias=True))
    scores = product(q, ops.scaled(k), times(_PAIRS, a.heads))
    beside = None
    if d:
        table = dropped_table(net, d)
        beside = by_distance(net, a, d, q, k, table, (q_weight, k_weight))
        scores = ops.plus(scores, beside)
    scores, _seen = masked(scores)
    return weighed(net, a, scores, v)


def by_distance(
    net: Net, a: Attention, d: Distances, q: Tensor, k: Tensor, table: Tensor, weights: tuple[Parameter, Parameter]
) -> Tensor:
    """Scores of distances for each pair: what queries make of keys, and keys of queries."""
    width = a.query_width
    queries = keys = None
    if d.shared:
        again = weights if net.tape.autocast else (None, None)  # autocast sums the gradients of its one copy
        queries = for_each(net, d, by_heads(net.linear("q_proj", table, width, bias=True, weight=again[0])))
        keys = for_each(net, d, by_heads(net.linear("k_proj", table, width, bias=True, weight=again[1])))
    else:
        if d.to_keys:
            keys = for_each(net, d, by_heads(net.linear("pos_key_proj", table, width, bias=True)))
        if d.to_queries:
            queries = for_each(net, d, by_heads(net.linear("pos_query_proj", table, width, bias=True)))
    scores = None
    if d.to_keys and keys:
        of_keys, _places = picked(a, met(net, a, d, q, keys))
        scores = with_scores(scores, ops.scaled(of_keys))
    if d.to_queries and queries:
        of_queries, _other_places = picked(a, met(net, a, d, k, queries))
        scores = with_scores(scores, ops.scaled(of_queries))
    assert scores
    return scores


def joined(net: Net, a: Attention, x: Tensor) -> Tensor:
    """The first DeBERTa (modeling_deberta.py): one projection, biases of their own for queries and values, and a copy of whatever
    goes into a product of four dimensions."""
    width, d = a.query_width, a.distances
    q, k, v = ops.split(net.linear("qkv_proj", x, 3 * width), [width] * 3)
    wide = max(q.width, net.recipe.weight)
    q = op([q], q.elements, wide, passes=True, weight=net.weight(width))
    v = op([v], v.elements, wide, passes=True, weight=net.weight(width))
    q = ops.scaled(q)
    scores = product(flat(q), flat(k), times(_PAIRS, a.heads))
    beside = None
    if d:
        table = dropped_table(net, d)
        table = op([table], times(net.tape.rows, ops.width_of(x)), table.width, view=True)
        beside = by_cut_distance(net, a, d, q, k, table)
        scores = ops.plus(scores, beside)
    scores, _seen = masked(scores)
    return weighed(net, a, scores, v)


def by_cut_distance(net: Net, a: Attention, d: Distances, q: Tensor, k: Tensor, table: Tensor) -> Tensor:
    """The same as the first DeBERTa goes about it."""
    scores = None
    if d.to_keys:
        keys = net.linear("pos_key_proj", table, a.query_width)
        of_keys, _places = picked(a, met(net, a, d, flat(q), for_each(net, d, keys)))
        scores = with_scores(scores, of_keys)
    if d.to_queries:
        queries = ops.scaled(net.linear("pos_query_proj", table, a.query_width, bias=True))
        of_queries, _other_places = picked(a, met(net, a, d, flat(k), for_each(net, d, queries)))
        scores = with_scores(scores, of_queries)
    assert scores
    return scores


def dropped_table(net: Net, d: Distances) -> Tensor:
    """The table of distances, behind a dropout of the layer's own."""
    assert net.distances
    return ops.dropout(net.distances, d.dropout if net.recipe.train else 0.0)


def rows_of(recipe: Recipe, d: Distances) -> Extent:
    """Rows of the table that meet a sequence."""
    return (0, 0, 0, 2, 0, 0) if recipe.cuts_distances else (2 * d.span, 0, 0, 0, 0, 0)


def by_heads(x: Tensor) -> Tensor:
    """Laid out anew, head by head; the gradient is laid out back."""
    return op([x], x.elements, x.width)


def flat(x: Tensor) -> Tensor:
    """What a product of matrices makes of a view that it cannot take as it is: a copy."""
    return copied(ops.to(x, HALF) if x.tape.autocast else x)


def for_each(net: Net, d: Distances, table: Tensor) -> Tensor:
    """A copy of a table for each sequence."""
    width = ops.width_of(table)
    elements = per_token(2 * width) if net.recipe.cuts_distances else per_sequence(2 * d.span * width)
    return op([ops.to(table, HALF) if table.tape.autocast else table], elements, HALF if table.tape.autocast else table.width)


def met(net: Net, a: Attention, d: Distances, content: Tensor, table: Tensor) -> Tensor:
    """Scores of content with every distance. Either side is kept for the other's gradient; a frozen table has none."""
    elements = times(_PAIRS, 2 * a.heads) if net.recipe.cuts_distances else per_token(2 * d.span * a.heads)
    if content.tape.autocast:
        content, table = ops.to(content, HALF), ops.to(table, HALF)
    saves = [x for x, other in ((content, table), (table, content)) if other.needs_grad]
    return op([content, table], elements, content.width, saves)


def picked(a: Attention, met: Tensor) -> tuple[Tensor, Tensor]:
    """Each pair takes the score of its own distance (gather keeps what it picks from, and the places)."""
    shifted = met.tape.tensor(_POSITIONS, INDEX)
    places = met.tape.tensor(_POSITIONS, INDEX)
    del shifted
    return op([met], times(_PAIRS, a.heads), met.width, [met, places]), places


def with_scores(scores: Tensor | None, more: Tensor) -> Tensor:
    """0 + the first, a new tensor; the second is added in place."""
    if scores is None:
        return op([more], more.elements, more.width, passes=True)
    return op([scores, more], more.elements, more.width, view=True, passes=True)


def masked(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores without those of padding, and the mask that a variable holds; its opposite is kept."""
    seen = scores.tape.tensor(_PAIRS, 1)
    unseen = scores.tape.tensor(_PAIRS, 1)
    return op([scores], scores.elements, scores.width, [unseen]), seen


def weighed(net: Net, a: Attention, scores: Tensor, v: Tensor) -> Tensor:
    """Softmax in the scores' type, which is fp32 under autocast; what it weighs is laid out for o_proj."""
    wide = ops.to(scores, FP32) if scores.tape.autocast else scores
    weights = op([wide], wide.elements, wide.width, saves_output=True)
    del wide
    weights = ops.dropout(weights, a.dropout if net.recipe.train else 0.0)
    out = product(weights, flat(v) if a.fused else v, per_token(a.query_width))
    return op([out], out.elements, out.width)


# --- around the layers -----------------------------------------------------------------------------------------------


def surround(net: Net, a: Attention, hidden: int) -> None:
    """A layer is given the table of distances."""
    d, tape = a.distances, net.tape
    net.holds_inner = True
    if d:
        tape.rows = rows_of(net.recipe, d)
        table: Extent = (2 * d.span * hidden, 0, 0, 0, 0, 0)
        net.distances = Tensor(tape, tape.outside, table, net.recipe.stream, net.recipe.trainable and tape.grad, None)


def shared(recipe: Recipe, a: Attention, hidden: int) -> tuple[Extent, Extent]:
    """What all layers are given, as extents: the mask of each pair in whole numbers, since tokenizers make it so, its distance, and
    the norm of the table; and the gradient of that."""
    table: Extent = (2 * a.distances.span * hidden * recipe.stream, 0, 0, 0, 0, 0) if a.distances else NOTHING
    given: Extent = (0, 0, INDEX, 0, INDEX if a.distances else 0, 0)
    return given if a.fused else add(given, table), table if recipe.trainable else NOTHING


def listed(recipe: Recipe, hidden: int, depth: int) -> Extent:
    """The states that a list holds beside the first and those that the last of ``depth`` layers works on, where nothing else does."""
    return times(per_token(hidden), recipe.stream * max(0, depth - 2))


@lru_cache(maxsize=256)
def convolution_block(recipe: Recipe, model: Model, *, graded: bool) -> Block:
    """ConvLayer of v2 xlarge: the embedding goes through it, and is added to what the first layer has made. It is never run again.

    ``graded``: the embedding has a gradient.
    """
    assert model.ends
    assert model.ends.convolution
    shape, width = model.ends.convolution, model.hidden
    tape = Tape(grad=recipe.train, autocast=recipe.autocast)
    net = Net(tape, recipe)
    embedded = Tensor(tape, tape.outside, per_token(width), recipe.stream, graded and tape.grad, None)
    x = tape.tensor(per_token(width), recipe.stream, needs_grad=True)
    out = by_heads(embedded)
    weight, bias = net.weight(width * width // shape.groups * shape.kernel), net.weight(width)
    if tape.autocast:
        out, copy = ops.to(out, HALF), ops.cast_weight(out, weight)
        out = op([out, copy], out.elements, HALF, [out, copy], weight=bias)
    else:
        out = op(
            [out], out.elements, out.width, [out], weight=Parameter(weight.elements + width, weight.width, weight.trainable)
        )
    out = by_heads(out)
    out = op([out], out.elements, out.width, view=True)
    out = ops.activation(ops.dropout(out, model.residual_dropout if recipe.train else 0.0), shape.activation)
    inner = ops.plus(x, out)
    y = net.norm(model.norm, inner)
    y = op([y], y.elements, y.width)
    forward = tape.take_peaks()
    node, output = y.node, y.storage.extent
    del x, y, out, inner
    kept_forward, kept = turn(tape)
    tape.arriving = Storage(tape, output)
    run_backward(tape, node)
    return Block(kept_forward, kept, forward, tape.take_peaks(), tape.gradients)
