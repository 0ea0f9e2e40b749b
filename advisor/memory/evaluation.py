"""Evaluation during training: a forward pass that keeps nothing, and the loss of the whole batch.

The Trainer evaluates between two steps: weights, optimizer state and standing buffers are there, gradients are not (``zero_grad``
sets them to None). Of each batch it keeps the loss alone; with ``compute_metrics`` also the logits of the whole evaluation set, on
the card unless ``eval_accumulation_steps`` is set (transformers 5.23 trainer.py, evaluation_loop and prediction_step).
"""

from __future__ import annotations

from functools import lru_cache

from advisor.memory.extent import Extent, add, less, times
from advisor.memory.layers import head_forward, last_norm
from advisor.memory.losses import of_chunk
from advisor.memory.net import Net, Recipe, share
from advisor.memory.operations import per_token
from advisor.memory.passes import above, ends, rotary_tables, unrecorded
from advisor.memory.preference import Head, silent_end
from advisor.memory.shadow import FP32, Peak, Storage, Tape, envelope
from advisor.memory.sharding import Rank
from advisor.model import Model


@lru_cache(maxsize=1024)
def no_grad_pass(recipe: Recipe, rank: Rank, head: Head | None = None) -> tuple[Peak, ...]:
    """The peaks of a forward pass without gradients and without dropout, above the weights and whatever else is there. No ``head``
    is the language model's, with its loss."""
    recipe = recipe._replace(train=False, dropout=False)
    model = rank.model
    shared = rotary_tables(recipe, model)
    level = add(
        shared, times(per_token(share(model.hidden, recipe.parts)), recipe.stream)
    )  # the first layer's input stays to the last layer
    casts: Extent = (0, 0, 0, 0, 0, 0)
    peaks: list[Peak] = []
    at = ends(model)
    inside = recipe.before_head
    for depth, layer in enumerate(model.layers):
        forward, copies = unrecorded(inside, layer, model.hidden, 0.0)
        if depth in at:
            peaks += above(add(level, casts), forward)
        casts = add(casts, copies)
    if rank.has_head:
        end = silent_end(recipe, model, head) if head else _loss_of(recipe, model)
        peaks += above(add(shared, casts), end)
    return envelope(peaks)


@lru_cache(maxsize=1024)
def _loss_of(recipe: Recipe, model: Model) -> tuple[Peak, ...]:
    """The head and the loss: all logits, their fp32 copy and its log-softmax; or a chunk of them beside the gradient of the states,
    which Liger allocates in any case (fused_linear_cross_entropy.py, grad_input)."""
    tape = Tape(grad=False, autocast=recipe.autocast)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(share(model.hidden, recipe.parts)), recipe.stream)
    if recipe.loss == "fused":
        hidden = last_norm(net, model, x)
        del x
        made = Storage(tape, hidden.storage.extent)
        Storage(tape, per_token(-(-10 * model.vocab // -(-model.vocab // model.hidden))))
        peaks = tape.take_peaks()
        del made
    elif recipe.loss == "chunks" and recipe.chunks:  # LitGPT's validate makes all logits at once
        made = Storage(tape, times(per_token(model.vocab), recipe.stream))
        if not recipe.compiled:
            Storage(tape, of_chunk(recipe, times(per_token(model.vocab), 2 * FP32)))
        peaks = tape.take_peaks()
        del made
    else:
        held = head_forward(net, model, x)
        peaks = tape.take_peaks()
        del held
    states = times(per_token(share(model.hidden, recipe.parts)), recipe.stream)
    return tuple(peak._replace(loss=less(peak.live, states)) for peak in peaks)
