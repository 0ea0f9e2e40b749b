"""What an encoder has around its layers, and how an encoder and a decoder follow each other.

Written with shadow operations after transformers 5.23 (modeling_bert.py, modeling_t5.py, modeling_bart.py and their relatives).
The decoder's extents count its own tokens; what the encoder holds comes in as bytes per sequence, since its tokens are as many
as the source has, whatever the decoder writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from advisor.memory import disentangled, sound
from advisor.memory import operations as ops
from advisor.memory.attention import INDEX
from advisor.memory.extent import NOTHING, Extent, add, times
from advisor.memory.net import Net, Recipe
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import FP32, Block, Peak, Storage, Tape, Tensor, op, run_backward
from advisor.mixers import Attention
from advisor.model import Ends, Layer, Model


def surround(net: Net, layer: Layer, hidden: int, others: int, *, checkpointed: bool = False) -> None:
    """What a layer sees beside its input, counted elsewhere: the encoder's states, and T5's numbers for the distances."""
    net.tape.others = others
    recipe = net.recipe
    if layer.cross:
        states = _outside(net.tape, per_sequence(others * hidden), recipe.stream, needs_grad=True)
        net.memory = op([states], states.elements, states.width, view=True, passes=True)  # where its gradients are summed
        if layer.cross.position_bias == "shared":
            zeros = (0, 0, 0, layer.cross.heads * others, 0, 0)
            net.cross_bias = _outside(net.tape, zeros, recipe.weight, needs_grad=checkpointed)
    mixer = layer.mixer
    if isinstance(mixer, Attention) and mixer.disentangled:
        disentangled.surround(net, mixer, hidden)
    if isinstance(mixer, Attention) and mixer.position_bias == "shared":
        net.bias = _outside(net.tape, (0, 0, 0, 0, mixer.heads, 0), recipe.weight, needs_grad=recipe.trainable)


def _outside(tape: Tape, elements: Extent, width: int, *, needs_grad: bool) -> Tensor:
    return Tensor(tape, tape.outside, elements, width, needs_grad and tape.grad, None)


# --- the ends --------------------------------------------------------------------------------------------------------


def embed(net: Net, model: Model, ends: Ends, *, graded: bool = False) -> tuple[Tensor, Tensor]:
    """What goes into the first layer, and what a variable holds to the end of the stack's pass: the table's rows of an
    encoder-decoder's input, else the same. ``graded``: frozen rows that ask for a gradient, so that checkpointed layers behind
    them have one to hand on (transformers enable_input_require_grads)."""
    width = model.embedding_width or model.hidden

    def rows(shape: Extent) -> Tensor:
        return op([net.tape.tensor(NOTHING, INDEX)], shape, net.recipe.weight, weight=net.weight(0))

    x = rows(per_token(width))
    if graded:
        x = op([net.tape.tensor(NOTHING, INDEX, needs_grad=True)], per_token(width), net.recipe.weight, saves_output=True)
    elif ends.scaled:  # within the embedding, and so before its output asks for a gradient
        x = ops.scaled(x)
    held = x if model.is_encoder_decoder else None
    if ends.token_types:
        x = ops.plus(x, rows(per_token(width)))
    if model.positions:
        x = ops.plus(x, rows(per_token(width) if model.is_encoder_decoder else (0, 0, 0, width, 0, 0)))
    if model.embedding_norm:
        x = net.norm(model.norm, x)
    if ends.masks_embedding:
        x = op([x], x.elements, x.width, [net.tape.tensor(per_token(1), x.width)])
    x = ops.dropout(x, ends.dropout if net.recipe.train else 0.0)
    if width != model.hidden:
        x = net.linear("project_in", x, model.hidden, bias=True)
    return x, x if held is None else held


def finish(net: Net, model: Model, ends: Ends, x: Tensor) -> Tensor:
    """The end of a stack."""
    if model.final_norm:
        x = net.norm(model.norm, x)
    return ops.dropout(x, ends.dropout if ends.final_dropout and net.recipe.train else 0.0)


def head(net: Net, model: Model, ends: Ends, x: Tensor, *, loss: bool = False) -> tuple[Tensor, Tensor]:
    """The end of the model: (loss, logits), where there are none the pooled or last states in their place."""
    x = finish(net, model, ends, x)
    if ends.head == "none":
        return x, x
    x = ops.dropout(x, ends.head_dropout if net.recipe.train else 0.0)
    if ends.head in ("sequence", "pooler"):
        net.tape.others = 1
        x = op([x], per_sequence(model.hidden), x.width, view=True)
    if ends.head in ("masked-lm", "sequence", "pooler"):
        width = model.embedding_width or model.hidden if ends.head == "masked-lm" else model.hidden
        x = ops.activation(net.linear(ends.dense, x, width, bias=ends.dense_bias), ends.dense_activation)
        if ends.dense_norm or ends.head == "masked-lm":
            x = net.norm("layer" if model.norm == "layer-written" else model.norm, x)
    if ends.head == "pooler":
        return x, x
    if ends.head == "causal-lm" and ends.scaled_head:
        x = ops.scaled(x)
    outputs = model.vocab if model.has_lm_head else ends.labels
    logits = net.linear("lm_head", x, outputs, bias=ends.head != "causal-lm", quantized=False)
    if ends.logits_bias:
        logits = op([logits], logits.elements, max(logits.width, net.recipe.weight), passes=True)
    if not (net.recipe.train or loss):
        return logits, logits
    wide = ops.to(logits, FP32) if ends.loss_fp32 or net.recipe.autocast else logits
    log_probabilities = op([wide], wide.elements, wide.width, saves_output=True)
    return op([log_probabilities], (1, 0, 0, 0, 0, 0), FP32, [log_probabilities]), logits


# --- around the stacks -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def embedding_block(recipe: Recipe, model: Model, *, last: bool, tied: bool, checkpointed: bool = False) -> Block:
    """Embedding, its norm and its dropout. ``last``: the backward pass ends here, in an encoder's.

    The table's gradient is as large as the table; where one waits already, the new one is added to it out of place, in a third.
    """
    assert model.ends
    if last and model.ends.audio:
        return sound.block(recipe, model, model.ends.audio, checkpointed=checkpointed)
    tape = Tape(grad=recipe.train, autocast=recipe.autocast)
    graded = checkpointed and not recipe.trainable
    x, held = embed(Net(tape, recipe), model, model.ends, graded=graded)
    forward = tape.take_peaks()
    node, output, holds, held_is_input = x.node, x.storage.extent, held.storage.extent, held is x
    if model.is_encoder_decoder and model.positions:
        holds = times(holds, 1 if graded else 2)  # BART's rows of its position table are as many, and held as well
    if held_is_input and recipe.train and (checkpointed or (recipe.trainable and not recipe.autocast)):
        holds = NOTHING  # the first layer keeps it, and counts it
    del x, held
    tape.casts.clear()
    kept = tape.live
    tape.mark()
    tape.peaks.clear()
    tape.arriving = Storage(tape, output)
    run_backward(tape, node)
    within = tape.take_peaks()
    width = recipe.weight if recipe.trainable else 0
    table = width * model.vocab * (model.embedding_width or model.hidden)
    rows = model.positions + model.ends.token_types + model.ends.distances
    beside = width * rows * (model.embedding_width or model.hidden)
    waiting = tied or (last and model.is_encoder_decoder)
    made: Extent = ((2 if waiting else 1) * table + beside, 0, 0, 0, 0, 0)
    left: Extent = ((0 if waiting else table) + beside, 0, 0, 0, 0, 0)
    return Block(kept, kept, forward, (*within, Peak(add(made, output), made)), left, with_forward=holds)


@lru_cache(maxsize=256)
def memory_block(recipe: Recipe, model: Model, *, kept: bool = True) -> Block:
    """The end of the encoder; what it makes stays to the end of the decoder's forward pass, and if it is ``kept`` in a graph, of its
    backward pass."""
    assert model.ends
    tape = Tape(grad=recipe.train, autocast=recipe.autocast)
    x = tape.tensor(per_token(model.hidden), recipe.stream, needs_grad=True)
    made = finish(Net(tape, recipe), model, model.ends, x)
    forward = tape.take_peaks()
    node, output = made.node, made.storage.extent
    del x
    to_the_end = tape.live
    tape.arriving = Storage(tape, output)
    del made
    left = to_the_end if kept else add(tape.live, times(output, -1))
    run_backward(tape, node)
    return Block(to_the_end, left, forward, tape.take_peaks(), tape.gradients)


class Shared(NamedTuple):
    """What the layers of one stack share, as extents."""

    transient: Extent  # in the stack's forward pass only
    kept: Extent  # to the end of its backward pass
    sums: Extent  # in its backward pass: gradients that later layers have sent
    states: Extent  # of these, that of what the encoder has made
    listed: bool = False  # every layer's input is held in its forward pass, to be returned


def shared(recipe: Recipe, layer: Layer, hidden: int, others: int, *, checkpointed: bool) -> Shared:
    """T5's numbers for the distances, with their places in the table; masks; for a decoder the gradient of what it looks back to.

    A checkpointed layer keeps whatever it is given. An SDPA kernel keeps the zeros of cross-attention.
    """
    transient, kept, sums, states = NOTHING, NOTHING, NOTHING, NOTHING
    mixer = layer.mixer
    if isinstance(mixer, Attention) and mixer.position_bias == "shared":
        numbers: Extent = (0, 0, 0, 0, mixer.heads * recipe.weight, 0)
        kept = add(kept, (0, 0, 0, 0, INDEX, 0) if recipe.train else NOTHING)
        transient, kept = (transient, add(kept, numbers)) if checkpointed else (add(transient, numbers), kept)
        sums = add(sums, numbers if recipe.trainable else NOTHING)
    listed = isinstance(mixer, Attention) and mixer.disentangled
    if isinstance(mixer, Attention) and listed:
        given, sums = disentangled.shared(recipe, mixer, hidden)
        transient, kept = (transient, given) if checkpointed else (given, kept)
    if isinstance(mixer, Attention) and mixer.causal and recipe.kernel == "eager":
        mask: Extent = (0, 0, 0, 0, recipe.compute, 0)
        transient, kept = (transient, add(kept, mask)) if checkpointed else (add(transient, mask), kept)
    if layer.cross:
        states = times(per_sequence(others * hidden), recipe.stream)
        sums = add(sums, states)
        if layer.cross.position_bias == "shared":
            zeros: Extent = (0, 0, 0, layer.cross.heads * others * recipe.weight, 0, 0)
            held = checkpointed or (recipe.train and recipe.kernel != "eager")
            transient, kept = (transient, add(kept, zeros)) if held else (add(transient, zeros), kept)
    return Shared(transient, kept, sums, states, listed)


def stack(blocks: Sequence[Block], start: Block, about: Shared) -> list[Block]:
    """A stack's embedding and layers, with what they share beside them: the first layer holds what is kept."""
    transient = add(about.transient, start.with_forward)
    put = [start._replace(with_forward=NOTHING, with_backward=about.states)]
    for depth, block in enumerate(blocks):
        first, last = depth == 0, depth == len(blocks) - 1
        if about.listed and depth > 1:
            transient = add(transient, blocks[depth - 1].input)
        put.append(
            block._replace(
                kept_forward=add(block.kept_forward, about.kept) if first else block.kept_forward,
                kept=add(block.kept, about.kept) if first else block.kept,
                with_forward=add(transient, about.kept) if first else transient,
                with_backward=add(block.with_backward, add(NOTHING if last else about.sums, about.kept if first else NOTHING)),
            )
        )
    return put


def with_convolution(recipe: Recipe, model: Model, layers: Sequence[Block], *, checkpointed: bool) -> list[Block]:
    """DeBERTa's behind its first layer, beside which the gradient of the embedding waits that it has made."""
    graded = recipe.trainable or checkpointed
    waits = times(per_token(model.hidden), recipe.stream if graded else 0)
    convolution = disentangled.convolution_block(recipe, model, graded=graded)
    return [layers[0]._replace(with_backward=waits), convolution, *layers[1:]]


def at_length(block: Block, length: int) -> Block:
    """The block for sequences of that length: bytes, and bytes per sequence."""

    def fixed(x: Extent) -> Extent:
        return (x[0] + length * x[3] + length * length * x[4], 0, 0, 0, 0, x[5] + length * x[1] + length * length * x[2])

    def peaks(before: tuple[Peak, ...]) -> tuple[Peak, ...]:
        return tuple(Peak(fixed(peak.live), fixed(peak.gradients), fixed(peak.loss)) for peak in before)

    return Block(
        fixed(block.kept_forward),
        fixed(block.kept),
        peaks(block.forward),
        peaks(block.backward),
        fixed(block.gradients),
        fixed(block.held),
        fixed(block.with_forward),
        fixed(block.with_backward),
    )
