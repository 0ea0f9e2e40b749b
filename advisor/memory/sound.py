"""The start of an encoder of sound, written with shadow operations after transformers 5.23 (modeling_whisper.py, WhisperEncoder).

Its tokens are positions; a frame of the spectrogram is half of one.
"""

from __future__ import annotations

from functools import lru_cache

from advisor.memory import operations as ops
from advisor.memory.attention import INDEX
from advisor.memory.extent import NOTHING, Extent
from advisor.memory.net import Net, Recipe
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, HALF, Block, Storage, Tape, Tensor, op, run_backward, turn
from advisor.model import Audio, Model

FRAMES = 2  # of a position
KERNEL = 3  # frames


@lru_cache(maxsize=256)
def block(recipe: Recipe, model: Model, audio: Audio, *, checkpointed: bool = False) -> Block:
    """The convolutions and the positions. The spectrogram stays in the caller's hands throughout."""
    assert model.ends
    tape = Tape(grad=recipe.train, autocast=recipe.autocast)
    net = Net(tape, recipe)
    spectrogram = tape.tensor(per_token(FRAMES * audio.bins), recipe.stream)
    others = [tape.tensor(spectrogram.elements, recipe.stream) for _ in range(spectrograms(recipe) - 1)]
    features = _features(net, audio, model.hidden, spectrogram, graded=checkpointed and not recipe.trainable)
    table = tape.tensor((0, 0, 0, model.hidden, 0, 0), recipe.weight)
    x = op([features], features.elements, max(features.width, table.width), passes=True)
    del table
    x = ops.dropout(x, model.ends.dropout if recipe.train else 0.0)
    forward = tape.take_peaks()
    node, output, held = x.node, x.storage.extent, features.storage.extent  # a variable's to the end of the stack's pass
    del x, features
    kept_forward, kept = turn(tape)
    tape.arriving = Storage(tape, output)
    run_backward(tape, node)
    backward = tape.take_peaks()
    del spectrogram, others
    return Block(kept_forward, kept, forward, backward, tape.gradients, with_forward=held)


def _features(net: Net, audio: Audio, hidden: int, x: Tensor, *, graded: bool) -> Tensor:
    """``graded``: what the first convolution makes asks for a gradient although its weights are frozen, so that checkpointed layers
    behind it have one to hand on (transformers enable_input_require_grads)."""
    x = _convolved(net, x, audio.bins, hidden, FRAMES)
    if graded:
        asks = net.tape.tensor(NOTHING, INDEX, needs_grad=True)
        x = op([asks], x.elements, x.width, saves_output=True)
    x = ops.activation(x, "gelu")
    return ops.activation(_convolved(net, x, hidden, hidden, 1), "gelu")


def _convolved(net: Net, x: Tensor, channels: int, out: int, frames: int) -> Tensor:
    """A convolution keeps its input and its weight whatever is trained (derivatives.yaml, convolution)."""
    elements: Extent = per_token(frames * out)
    weight, bias = net.weight(KERNEL * channels * out), net.weight(out)
    if net.tape.autocast:
        x = ops.to(x, HALF)
        if weight.width == FP32:
            copy = ops.cast_weight(x, weight)
            return op([x, copy], elements, HALF, [x, copy], weight=bias)
    return op([x], elements, x.width, [x], weight=ops.joined_weights(weight, bias))


def spectrograms(recipe: Recipe) -> int:
    """How often it is there: ``generate`` copies the window at hand out of what it is given (generation_whisper.py,
    _get_input_segment)."""
    return 2 if recipe.caches else 1


def heard(recipe: Recipe, audio: Audio) -> int:
    """Elements of the spectrograms of one sequence."""
    return spectrograms(recipe) * audio.positions * FRAMES * audio.bins
