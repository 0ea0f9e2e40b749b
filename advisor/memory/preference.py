"""What follows the layers when a model is not trained on the next token alone: log-probabilities of sequences, or one score of each.

Written like the heads of layers.py, after TRL 1.16 (trainer/utils.py, kernels/chunked_logprob.py, experimental/orpo and cpo) and
LLaMA-Factory 0.9.5 (train/dpo/trainer.py, train/trainer_utils.py). Of a prompt and its completion all tokens count: how many of them
are scored is not in the job.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

from advisor.memory import operations as ops
from advisor.memory.extent import NOTHING, Extent, add, less, times
from advisor.memory.layers import last_norm, logits_of
from advisor.memory.losses import as_loss
from advisor.memory.net import Net, Recipe, share
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import FP32, Block, Peak, Storage, Tape, Tensor, op, run_backward
from advisor.model import Model

# TRL's tiles of logits: tokens and columns of the vocabulary (TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE).
TILE_TOKENS, TILE_COLUMNS = 4096, 32768
STATISTICS = 7  # fp32 numbers that are kept of each token while the tiles go by; five of them stay


class Head(NamedTuple):
    """``kind`` of _HEADS; ``tile``: the buffer of one tile of logits, and casts for it."""

    kind: str
    tile: Extent = NOTHING


def tile(recipe: Recipe, model: Model, tokens: int) -> Extent:
    """A tile of logits in the computing type; autocast casts the rows and the columns that it is made of."""
    columns = 2 * TILE_COLUMNS * model.hidden if recipe.autocast and recipe.weight == FP32 else 0
    row = TILE_COLUMNS * recipe.compute + (2 * model.hidden if recipe.autocast and recipe.stream == FP32 else 0)
    whole = tokens >= TILE_TOKENS
    return (columns + (TILE_TOKENS * row if whole else 0), 0 if whole else row, 0, 0, 0, 0)


@lru_cache(maxsize=1024)
def pair_block(recipe: Recipe, model: Model, head: Head, adding: bool) -> Block:
    """The end of a training pass. ``kept_forward`` is what is there while a reference model runs."""
    tape = Tape(grad=True, autocast=recipe.autocast, accumulating=adding)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(share(model.hidden, recipe.parts)), recipe.stream, needs_grad=True)
    loss, held = _HEADS[head.kind](net, model, x, head.tile)
    forward = tape.take_peaks()
    node = loss.node
    del loss, x
    tape.casts.clear()
    beside_reference = tape.live
    del held
    tape.mark()
    tape.peaks.clear()
    kept = tape.live
    tape.arriving = Storage(tape, NOTHING)
    run_backward(tape, node)
    return Block(beside_reference, kept, as_loss(forward), as_loss(tape.take_peaks()), tape.gradients)


@lru_cache(maxsize=1024)
def silent_end(recipe: Recipe, model: Model, head: Head) -> tuple[Peak, ...]:
    """The same without gradients, on the states that go in."""
    tape = Tape(grad=False, autocast=recipe.autocast)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(share(model.hidden, recipe.parts)), recipe.stream)
    held = _HEADS[head.kind](net, model, x, head.tile)
    peaks = tape.take_peaks()
    del held
    states = times(per_token(share(model.hidden, recipe.parts)), recipe.stream)
    return tuple(peak._replace(loss=less(peak.live, states)) for peak in peaks)


Ending = tuple[Tensor, Tensor | None]  # the loss, and the logits that Python still holds


def _log_probs(net: Net, model: Model, x: Tensor, _: Extent) -> Ending:
    """LLaMA-Factory: logits in fp32, their log-softmax, of which one of each token is gathered."""
    logits = logits_of(net, model, last_norm(net, model, x))
    wide = ops.to(logits, FP32)
    del logits
    shifted = op([wide], wide.elements, FP32, view=True)
    normal = op([shifted], wide.elements, FP32, saves_output=True)
    del shifted
    return op([normal], per_token(1), FP32), wide


def _odds(net: Net, model: Model, x: Tensor, _: Extent, *, one: bool = False) -> Ending:
    """TRL's ORPO and CPO: the cross-entropy of the chosen half, and a kernel that keeps the logits and no softmax. The half is copied
    (``.contiguous()``) unless it is ``one`` sequence."""
    logits = logits_of(net, model, last_norm(net, model, x))
    half = per_token(model.vocab // 2)
    chosen = op([logits], half, logits.width, view=True)
    chosen = op([chosen], half, logits.width, view=one)
    normal = op([chosen], half, logits.width, saves_output=True)
    likelihood = op([normal], per_token(1), FP32)
    del chosen, normal
    shifted = op([logits], logits.elements, logits.width, view=True)
    picked = op([shifted], per_token(1), FP32, [logits])
    return ops.plus(likelihood, picked), logits


def _tiles(net: Net, model: Model, x: Tensor, tile: Extent) -> Ending:
    """TRL's fused head: the states of the scored tokens, a tile of logits at a time, in both directions; gradients summed in fp32."""
    hidden = last_norm(net, model, x)
    del x
    rows = op([op([hidden], hidden.elements, hidden.width, view=True)], hidden.elements, hidden.width)
    weight = net.weight(model.hidden * model.vocab)
    scratch = tile
    if rows.width != FP32:
        scratch = add(scratch, per_token(FP32 * model.hidden))
    if weight.trainable:
        cast = weight.width if weight.width != FP32 else 0
        scratch = add(scratch, (weight.elements * (FP32 + cast), 0, 0, 0, 0, 0))
    buffer = Storage(net.tape, add(tile, per_token(2 * FP32)))
    picked = op([rows], per_token(STATISTICS - 2), FP32, [rows], scratch=scratch, weight=weight)
    del buffer
    return picked, None


def _score(net: Net, model: Model, x: Tensor, _: Extent) -> Ending:
    """AutoModelForSequenceClassification: a number of each token, of which the last one's is taken."""
    hidden = last_norm(net, model, x)
    del x
    numbers = ops.linear(hidden, net.weight(model.hidden, trainable=True), 1)
    return op([numbers], per_sequence(1), numbers.width), None


_HEADS: dict[str, Callable[[Net, Model, Tensor, Extent], Ending]] = {
    "log-probs": _log_probs,
    "odds": _odds,
    "odds-of-one": partial(_odds, one=True),
    "tiles": _tiles,
    "score": _score,
}
