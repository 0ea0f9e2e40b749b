"""The end of a training step's forward pass: last norm, head and loss, all at once or a chunk of tokens at a time."""

from collections.abc import Iterable
from functools import lru_cache

from advisor.memory.extent import NOTHING, Extent, add, less, times
from advisor.memory.layers import head_forward, last_norm
from advisor.memory.net import Net, Recipe, share
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, HALF, Block, Peak, Storage, Tape, run_backward, turn
from advisor.model import Model


def end_block(recipe: Recipe, model: Model, holds_logits: bool, adding: bool, head_parts: int) -> Block:
    """By the recipe's loss. ``head_parts``: ranks that have a part of the head each."""
    if recipe.loss == "fused":
        return fused_loss_block(recipe, model, adding, head_parts)
    if recipe.loss == "chunks":
        return kept_chunks_block(recipe, model, holds_logits, adding)
    return loss_block(recipe, model, holds_logits, adding, head_parts)


@lru_cache(maxsize=1024)
def loss_block(recipe: Recipe, model: Model, holds_logits: bool, adding: bool, head_parts: int = 1) -> Block:
    """The last norm, the head and the loss over all logits at once."""
    tape = Tape(grad=True, autocast=recipe.autocast, accumulating=adding)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(share(model.hidden, recipe.parts)), recipe.stream, needs_grad=True)
    loss, logits = head_forward(net, model, x, head_parts)
    forward = tape.take_peaks()
    node = loss.node
    del loss, x
    held = logits if holds_logits else None
    del logits
    kept_forward, kept = turn(tape)
    tape.arriving = Storage(tape, NOTHING)
    run_backward(tape, node)
    backward = tape.take_peaks()
    del held
    after = held_logits(recipe, model) if holds_logits else NOTHING
    return Block(kept_forward, kept, as_loss(forward), as_loss(backward), tape.gradients, after)


@lru_cache(maxsize=1024)
def fused_loss_block(recipe: Recipe, model: Model, adding: bool, head_parts: int = 1) -> Block:
    """The same, a chunk of tokens at a time, as Liger's fused linear cross-entropy does (fused_linear_cross_entropy.py).

    The chunks are as many as the vocabulary is wider than the hidden size. Each makes 16-bit logits, their fp32 copy and its
    gradient in place, 10 bytes an element with the scratch; the gradients of the hidden states and of the head are made in the
    forward pass and kept.
    """
    tape = Tape(grad=True, autocast=recipe.autocast, accumulating=adding)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(share(model.hidden, recipe.parts)), recipe.stream, needs_grad=True)
    hidden = last_norm(net, model, x)
    del x
    rows = -(-model.vocab // head_parts)
    head: Extent = (model.hidden * rows * recipe.weight if recipe.trainable else 0, 0, 0, 0, 0, 0)
    made = [Storage(tape, hidden.storage.extent), Storage(tape, head)]
    chunks = -(-model.vocab // model.hidden)
    Storage(tape, per_token(-(-10 * model.vocab // chunks)))
    forward = tape.take_peaks()
    node = hidden.node
    del hidden
    kept = tape.live
    tape.arriving = made[0]
    tape.gradients = add(tape.gradients, NOTHING if adding else head)
    if adding:
        made.clear()
    else:
        del made[0]
    run_backward(tape, node)
    return Block(kept, kept, as_loss(forward), as_loss(tape.take_peaks()), tape.gradients)


@lru_cache(maxsize=1024)
def kept_chunks_block(recipe: Recipe, model: Model, holds_logits: bool, adding: bool) -> Block:
    """Logits and cross-entropy a chunk at a time, and those of all chunks kept: what is saved is the gradients of all but one.

    LitGPT (model.py, lm_head_chunk_size; utils.py, chunked_cross_entropy) and torchtune (CEWithChunkedOutputLoss).
    """
    tape = Tape(grad=True, autocast=recipe.autocast, accumulating=adding)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(model.hidden), recipe.stream, needs_grad=True)
    hidden = last_norm(net, model, x)
    del x
    width = HALF if recipe.autocast else recipe.stream
    capped, widened = bool(model.logit_softcap), recipe.outputs_fp32 and width < FP32
    of_head, of_its_derivative, gradient = head_of_chunk(recipe, model)
    live = {"logits": _logits(tape, model, width)}
    if capped:
        live["tanh"] = _logits(tape, model, width)  # keeps its output
    Storage(tape, of_chunk(recipe, of_head))
    returned = "outputs" if widened else "logits"
    if widened:
        live["outputs"] = _logits(tape, model, FP32)
        del live["logits"]
    forward = tape.take_peaks()
    # The loop calls the loss when the model has returned: what was left of the step before is gone by then.
    one = times(per_token(model.vocab), FP32)
    if recipe.compiled:  # the softmax is made again from the logits, the fp32 in between stays in registers
        kept = tape.live
        Storage(tape, of_chunk(recipe, times(per_token(model.vocab), width)))
    else:
        live["log-softmax"] = _logits(tape, model, FP32)
        if not widened and width < FP32:
            Storage(tape, of_chunk(recipe, one))  # a chunk in fp32
        kept = tape.live
        if not holds_logits:
            live.pop(returned)
        Storage(tape, of_chunk(recipe, times(one, 2)))  # the log-softmax's gradients, of its output and its input
    if not adding:
        live["gradients"] = Storage(tape, gradient)
        tape.gradients = gradient
    Storage(tape, of_chunk(recipe, of_its_derivative))
    live.pop(returned if recipe.compiled else "log-softmax")
    node, states = hidden.node, hidden.storage.extent
    del hidden
    tape.arriving = Storage(tape, states)
    run_backward(tape, node)
    held = held_logits(recipe, model) if holds_logits else NOTHING
    return Block(kept, kept, as_loss(forward), as_loss(tape.take_peaks()), tape.gradients, held)


def _logits(tape: Tape, model: Model, width: int) -> Storage:
    return Storage(tape, times(per_token(model.vocab), width))


def head_of_chunk(recipe: Recipe, model: Model) -> tuple[Extent, Extent, Extent]:
    """What a chunk's logits take for a moment beside themselves and the hidden states, what their derivative does, and the
    gradients that stay."""
    tape = Tape(grad=True, autocast=recipe.autocast)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(model.hidden), recipe.stream, needs_grad=True)
    base = tape.live
    logits = net.linear("lm_head", x, model.vocab, quantized=recipe.quantized_head)
    node, extent = logits.node, logits.storage.extent
    forward = less(less(max((peak.live for peak in tape.take_peaks()), key=_weight), base), extent)
    del logits
    kept = tape.live
    tape.arriving = Storage(tape, extent)
    run_backward(tape, node)
    backward = less(max((peak.live for peak in tape.take_peaks()), key=_weight), kept)
    return forward, less(backward, tape.gradients), tape.gradients


def _weight(extent: Extent) -> int:
    """For a few hundred tokens: which of two moments is the higher one."""
    return extent[0] + 512 * extent[1]


def of_chunk(recipe: Recipe, extent: Extent) -> Extent:
    """What belongs to all tokens, for those of one chunk."""
    constant, tokens = extent[:2]
    if recipe.chunk_tokens:
        return (constant, 0, 0, 0, 0, tokens * recipe.chunk_tokens)
    return (constant, -(-tokens // recipe.chunks), 0, 0, 0, 0)


def as_loss(peaks: Iterable[Peak]) -> tuple[Peak, ...]:
    return tuple(peak._replace(loss=less(peak.live, peak.gradients)) for peak in peaks)


def held_logits(recipe: Recipe, model: Model) -> Extent:
    """The logits, where the training loop still has the model's outputs in a variable."""
    if not model.has_lm_head:
        return NOTHING
    if model.ends and model.ends.logits_bias:
        return times(per_token(model.vocab), recipe.weight)  # the buffer that is added has the weights' type
    width = FP32 if model.logits_fp32 or recipe.outputs_fp32 else HALF if recipe.autocast else recipe.stream
    return times(per_token(model.vocab), width)
