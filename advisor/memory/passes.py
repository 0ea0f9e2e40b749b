"""A training step and a prefill, put together from the shadows of their layers.

Each kind of layer is run once, alone. What it keeps and how high it rises are then added up over the depth of the
model: in the forward pass a layer stands on what the layers before it keep; in the backward pass on that and on the
gradients that the layers after it have left.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from advisor.memory import encoders, shared_block
from advisor.memory.extent import NOTHING, Extent, add, less, times, total
from advisor.memory.layers import layer_forward
from advisor.memory.losses import end_block
from advisor.memory.net import Net, Recipe, share
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import Block, Peak, Storage, Tape, envelope, run_backward, turn
from advisor.memory.sharding import Rank
from advisor.mixers import Attention
from advisor.model import Layer, Model


class Ending(NamedTuple):
    """What follows the layers instead of the next token's loss, and the peaks of a reference model that runs after the forward
    pass, on all that it has kept."""

    block: Block
    reference: tuple[Peak, ...] = ()


class Passes(NamedTuple):
    """The peaks of a model's two passes, above the weights and whatever else is there throughout."""

    forward: tuple[Peak, ...]
    backward: tuple[Peak, ...]
    kept: Extent  # what the forward pass leaves for the backward pass


@lru_cache(maxsize=4096)
def stored_block(
    recipe: Recipe, layer: Layer, hidden: int, dropout: float, first: bool, adding: bool, others: int = 0
) -> Block:
    """A layer that keeps its activations. ``first``: its input needs no gradient; ``adding``: gradients exist already;
    ``others``: tokens that an encoder has read for it."""
    tape = Tape(grad=recipe.train, autocast=recipe.autocast, accumulating=adding)
    net = Net(tape, recipe)
    surround(net, layer, hidden, others)
    x = tape.tensor(per_token(share(hidden, recipe.parts)), recipe.stream, needs_grad=not first)
    y = layer_forward(net, layer, x, hidden, dropout)
    forward = tape.take_peaks()
    node, output = y.node, y.storage.extent
    before = tape.live
    del x
    unkept = less(before, tape.live)
    del y
    kept_forward, kept = turn(tape)
    tape.arriving = Storage(tape, output)
    run_backward(tape, node)
    held = total(storage.extent for storage in set(tape.held))
    return Block(kept_forward, kept, forward, tape.take_peaks(), tape.gradients, held, input=unkept)


@lru_cache(maxsize=4096)
def recomputed_block(recipe: Recipe, layer: Layer, hidden: int, dropout: float, adding: bool, others: int = 0) -> Block:
    """A checkpointed layer: it keeps its input, and runs forward again when the backward pass comes to it."""
    forward, casts = unrecorded(recipe, layer, hidden, dropout, others)
    tape = Tape(grad=True, autocast=recipe.autocast, accumulating=adding)
    net = Net(tape, recipe)
    surround(net, layer, hidden, others, checkpointed=True)
    x = tape.tensor(per_token(share(hidden, recipe.parts)), recipe.stream, needs_grad=True)
    kept = tape.live
    tape.arriving = Storage(tape, times(per_token(share(hidden, recipe.parts)), recipe.stream))
    y = layer_forward(net, layer, x, hidden, dropout)
    # The recomputation stops at the last tensor that the backward pass asks for (torch.utils.checkpoint, early stop); what the
    # operation makes that keeps it is not made, and counted all the same where nothing is known of the gradient that has come.
    # A norm at the end keeps numbers that it makes beside its output.
    if layer.stepwise and not dropout and layer.arrangement != "after":
        recomputed = envelope(above(_sent_before(net, layer, hidden), [*tape.peaks[: tape.last_save], Peak(tape.at_last_save)]))
    else:
        recomputed = envelope(tape.peaks[: tape.last_save + 1])
    node = y.node
    del y, x
    tape.casts.clear()
    tape.peaks.clear()
    run_backward(tape, node)
    backward = envelope([*recomputed, *tape.take_peaks()])
    return Block(add(kept, casts), kept, forward, backward, tape.gradients)


def _sent_before(net: Net, layer: Layer, hidden: int) -> Extent:
    """What is made of the arriving gradient before the first kept tensor is asked for: where the last matrix has an adapter, the
    gradient of what that adds, scaled, and another for the matrix itself where their types differ."""
    recipe = net.recipe
    bounded = recipe.clamped and layer.cross is None  # which asks for what it has kept at once
    if bounded or not (recipe.rank and net.is_target("down_proj")):
        return NOTHING
    apart = not recipe.autocast and recipe.adapter != recipe.stream
    width = recipe.compute if recipe.autocast else recipe.adapter + (recipe.stream if apart else 0)
    return times(per_token(hidden), width)


@lru_cache(maxsize=4096)
def unrecorded(recipe: Recipe, layer: Layer, hidden: int, dropout: float, others: int = 0) -> tuple[tuple[Peak, ...], Extent]:
    """A forward pass that keeps nothing but its input: the peaks, and autocast's copies of the weights."""
    tape = Tape(grad=False, autocast=recipe.autocast)
    net = Net(tape, recipe)
    surround(net, layer, hidden, others)
    x = tape.tensor(per_token(share(hidden, recipe.parts)), recipe.stream)
    y = layer_forward(net, layer, x, hidden, dropout)
    peaks = tape.take_peaks()
    del y, x
    return peaks, tape.live


@lru_cache(maxsize=256)
def keeps_memory(recipe: Recipe, layer: Layer, hidden: int, others: int) -> bool:
    """Whether the graph of a decoder's layer holds what the encoder has made, and not just copies in another type."""
    tape = Tape(grad=recipe.train, autocast=recipe.autocast)
    net = Net(tape, recipe)
    surround(net, layer, hidden, others)
    states = net.memory = tape.tensor(per_sequence(others * hidden), recipe.stream, needs_grad=True)
    made = layer_forward(net, layer, tape.tensor(per_token(hidden), recipe.stream, needs_grad=True), hidden)
    return made.node is not None and any(storage is states.storage for node in tape.nodes for storage in node.saved)


@lru_cache(maxsize=1024)
def cached_block(recipe: Recipe, layer: Layer, hidden: int, others: int = 0) -> Block:
    """A layer of a prefill: what it keeps is its part of the KV cache."""
    tape = Tape(grad=False)
    net = Net(tape, recipe)
    surround(net, layer, hidden, others)
    x = tape.tensor(per_token(share(hidden, recipe.parts)), recipe.stream)
    y = layer_forward(net, layer, x, hidden)
    peaks = tape.take_peaks()
    del y, x
    return Block(tape.live, tape.live, peaks, (), NOTHING)


def surround(net: Net, layer: Layer, hidden: int, others: int, *, checkpointed: bool = False) -> None:
    """What a layer sees beside its input."""
    encoders.surround(net, layer, hidden, others, checkpointed=checkpointed)
    shared_block.surround(net, layer, hidden, recomputed=checkpointed)


def embedding_peak(recipe: Recipe, model: Model, *, tied: bool) -> Peak:
    """The very end of the backward pass: the embedding's gradient, beside that of its rows.

    A tied head's gradient has waited in the engine's buffer and is counted with the head's; the two are added out of place.
    """
    table = model.vocab * (model.embedding_width or model.hidden)
    tables = 2 * table if tied else table
    gradient: Extent = ((tables + model.positions * model.hidden) * recipe.weight if recipe.trainable else 0, 0, 0, 0, 0, 0)
    return Peak(add(gradient, times(per_token(share(model.hidden, recipe.parts)), recipe.stream)), gradient)


def rotary_tables(recipe: Recipe, model: Model) -> Extent:
    """cos and sin of every position, in the stream's type, shared by all layers."""
    widths = {
        part.head_dim if isinstance(part, Attention) else part.rope_dim
        for layer, _ in model.kinds
        if (part := layer.attention) and getattr(part, "rotary", True)
    }
    tables = 2 * max(widths, default=0) * recipe.stream
    masks = 0
    if model.ends:  # one pair for each window; masks are the stacks'
        tables *= len({layer.attention.window for layer, _ in model.kinds if layer.attention})
    elif recipe.kernel == "eager":  # one additive causal mask for each kind of window
        masks = recipe.compute * len({layer.attention.window for layer, _ in model.kinds if layer.attention})
    return (0, 0, 0, tables, masks, 0)


@lru_cache(maxsize=4096)
def training_passes(
    recipe: Recipe,
    rank: Rank,
    *,
    checkpointed: bool,
    holds_logits: bool,
    adding: bool,
    parked: bool = False,
    ending: Ending | None = None,
    others: int = 0,
) -> Passes:
    """The forward and backward pass of one micro-batch, after the first step (optimizer state is counted elsewhere).

    ``parked``: what layers keep waits in the host's memory, save for one layer's on its way. ``others``: tokens of a sequence that
    an encoder reads, where a decoder follows it.
    """
    blocks = blocks_of(recipe, rank, checkpointed, adding, others)
    shared = rotary_tables(recipe, rank.model)
    if parked:
        shared = add(shared, max((block.kept for block in blocks), key=lambda kept: kept[1:3]))
        blocks = [block._replace(kept=NOTHING, kept_forward=NOTHING) for block in blocks]
    end = Block(NOTHING, NOTHING, (), (), NOTHING)
    if rank.has_head and ending:
        end = ending.block
    elif rank.has_head:
        end = end_block(recipe, rank.model, holds_logits, adding, _cut(rank))

    at = ends(rank.model) if rank.model.ends is None else set(range(len(blocks)))
    runs = _runs(blocks, at)
    forward: list[Peak] = []
    level = total([shared, *(times(block.held, many) for block, many, _ in runs)])
    for block, many, seen in runs:
        if seen:
            forward += above(add(level, block.with_forward), block.forward)
        level = add(level, times(block.kept_forward, many))
    forward += above(level, end.forward)

    kept = total([shared, *(times(block.kept, many) for block, many, _ in runs)])
    if ending:
        forward += above(add(kept, end.kept_forward), ending.reference)
    gradients = end.gradients
    tied = rank.model.tied and rank.model.has_lm_head and rank.embeds and rank.has_head
    if adding and tied and recipe.trainable:  # the head's gradient waits for the embedding's
        width = rank.model.embedding_width or rank.model.hidden
        gradients = (rank.model.vocab * width * recipe.weight, 0, 0, 0, 0, 0)
    at_loss = above(kept, end.backward)
    backward: list[Peak] = []
    level = kept
    for block, many, seen in reversed(runs):
        level = less(level, times(block.kept, many))
        if seen:
            backward += above(add(level, block.with_backward), block.backward, gradients)
        level = add(level, times(block.held, many))
        gradients = add(gradients, times(block.gradients, many))
    if rank.embeds and rank.model.ends is None:
        backward += above(level, [embedding_peak(recipe, rank.model, tied=tied)], gradients)
    # The outputs and the graph of a step go when the next one's come, and so are there in its forward pass too.
    return Passes(
        envelope(beside_logits(forward, end.held)),
        envelope([*at_loss, *beside_logits(backward, end.held)]),
        add(kept, end.kept),
    )


def _runs(blocks: Sequence[Block], at: set[int]) -> list[tuple[Block, int, bool]]:
    """The layers from first to last: each whose peaks are looked at by itself, and those between them that are alike together."""
    runs: list[tuple[Block, int, bool]] = []
    for depth, block in enumerate(blocks):
        seen = depth in at
        if runs and not seen and not runs[-1][2] and runs[-1][0] is block:
            runs[-1] = block, runs[-1][1] + 1, False
        else:
            runs.append((block, 1, seen))
    return runs


def beside_logits(peaks: Iterable[Peak], held: Extent) -> list[Peak]:
    return [Peak(add(live, held), gradients, add(loss, held)) for live, gradients, loss in peaks]


def _cut(rank: Rank) -> int:
    """Parts of the head; one that is tied to a whole embedding is whole."""
    return 1 if rank.model.tied else rank.head_parts


@lru_cache(maxsize=256)
def ends(model: Model) -> set[int]:
    """The first and the last layer of each kind. Between them what is kept falls as evenly as the gradients rise (or the other
    way round), so that no layer between them stands higher than both."""
    first = {layer: depth for depth, layer in reversed(list(enumerate(model.layers)))}
    last = {layer: depth for depth, layer in enumerate(model.layers)}
    return {*first.values(), *last.values()}


def blocks_of(recipe: Recipe, rank: Rank, checkpointed: bool, adding: bool, others: int) -> list[Block]:
    model, dropout, recipe = rank.model, rank.model.residual_dropout, recipe.before_head
    if checkpointed:
        made = {layer: recomputed_block(recipe, layer, model.hidden, dropout, adding, others) for layer, _ in model.kinds}
    else:
        made = {layer: stored_block(recipe, layer, model.hidden, dropout, False, adding, others) for layer, _ in model.kinds}
    layers = [made[layer] for layer in model.layers]
    if not checkpointed and not recipe.trainable:
        for depth in (0, model.ends.encoder) if model.ends else (0,):
            if depth < len(layers):
                layers[depth] = stored_block(recipe, model.layers[depth], model.hidden, dropout, True, adding, others)
    if any(layer.shared for layer in model.layers):
        return shared_block.around(recipe, model, layers, checkpointed=checkpointed, adding=adding)
    return _stacked(recipe, rank, layers, others, checkpointed=checkpointed) if model.ends else layers


def _stacked(recipe: Recipe, rank: Rank, layers: list[Block], others: int, *, checkpointed: bool) -> list[Block]:
    """The layers of an encoder, or of an encoder and the decoder behind it, with their embeddings."""
    model = rank.model
    assert model.ends
    depth, tied = model.ends.encoder, model.tied and model.has_lm_head

    def around(layer: Layer) -> encoders.Shared:
        return encoders.shared(recipe, layer, model.hidden, others, checkpointed=checkpointed)

    start = encoders.embedding_block(recipe, model, last=True, tied=tied, checkpointed=checkpointed)
    if model.ends.convolution:
        layers = encoders.with_convolution(recipe, model, layers, checkpointed=checkpointed)
        depth += 1
    first = encoders.stack(layers[:depth], start, around(model.layers[0]))
    if not model.is_encoder_decoder:
        return first
    kept = checkpointed or keeps_memory(recipe, model.layers[depth], model.hidden, others)
    first = [encoders.at_length(block, others) for block in (*first, encoders.memory_block(recipe, model, kept=kept))]
    start = encoders.embedding_block(recipe, model, last=False, tied=tied, checkpointed=checkpointed)
    return [*first, *encoders.stack(layers[depth:], start, around(model.layers[depth]))]


def above(level: Extent, peaks: Iterable[Peak], gradients: Extent = NOTHING) -> list[Peak]:
    level = add(level, gradients)
    return [Peak(add(level, peak.live), add(gradients, peak.gradients), peak.loss) for peak in peaks]


@lru_cache(maxsize=1024)
def prefill_peaks(recipe: Recipe, rank: Rank) -> tuple[Peak, ...]:
    """A prefill's peaks above the weights; what is live throughout is the input's embedding and the rotary tables."""
    level = add(rotary_tables(recipe, rank.model), times(per_token(rank.model.hidden), recipe.stream))
    level = add(level, shared_block.embedding_copy(recipe, rank.model))
    peaks: list[Peak] = []
    at = ends(rank.model)
    for depth, layer in enumerate(rank.model.layers):
        block = cached_block(recipe, layer, rank.model.hidden)
        if depth in at:
            peaks += above(level, block.forward)
        level = add(level, block.kept)
    return envelope([*peaks, *above(level, [Peak(times(per_token(rank.model.hidden), 2 * recipe.stream))])])
