"""The shadow of PyTorch: what lives, what is kept, what a backward pass frees."""

from __future__ import annotations

from advisor.memory import operations as ops
from advisor.memory.extent import NOTHING
from advisor.memory.operations import per_token
from advisor.memory.shadow import Parameter, Peak, Storage, Tape, envelope, run_backward


def test_a_tensor_lives_as_long_as_it_is_held() -> None:
    """Without a graph a result that nobody holds is gone at once."""
    tape = Tape(grad=False)
    x = tape.tensor(per_token(10), 2)
    ops.scaled(x)
    assert tape.live == per_token(20)
    del x
    assert tape.live == NOTHING


def test_the_peak_sees_what_is_gone_again() -> None:
    """A temporary of the same size doubles the peak and not what is left."""
    tape = Tape(grad=False)
    x = tape.tensor(per_token(10), 2)
    ops.scaled(x)
    assert [peak.live for peak in tape.take_peaks()] == [per_token(40)]


def test_a_product_keeps_its_input_for_the_weight() -> None:
    """A trained matrix keeps its input; a frozen one does not."""
    for trainable, kept in ((True, per_token(20)), (False, NOTHING)):
        tape = Tape(grad=True)
        x = tape.tensor(per_token(10), 2, needs_grad=True)
        y = ops.linear(x, Parameter(50, 2, trainable), 5)
        del x
        assert tape.live == (0, kept[1] + 10, 0, 0, 0, 0)
        del y


def test_a_backward_pass_leaves_gradients_and_nothing_else() -> None:
    """What the graph had kept is freed; the weight's gradient and the input's stay."""
    tape = Tape(grad=True)
    x = tape.tensor(per_token(10), 2, needs_grad=True)
    y = ops.linear(x, Parameter(50, 2, True), 5)
    node = y.node
    del x, y
    tape.arriving = Storage(tape, per_token(10))
    run_backward(tape, node)
    assert tape.live == (100, 20, 0, 0, 0, 0)
    assert tape.gradients == (100, 0, 0, 0, 0, 0)


def test_views_take_nothing() -> None:
    """The parts of a split share its memory, and it lives until the last of them is gone."""
    tape = Tape(grad=False)
    x = tape.tensor(per_token(10), 2)
    first, second = ops.split(x, [4, 6])
    del x, first
    assert tape.live == per_token(20)
    del second
    assert tape.live == NOTHING


def test_an_envelope_keeps_what_can_be_highest() -> None:
    """A peak that another one covers for every shape is dropped; two that cross are both kept."""
    low, high, other = Peak((1, 5, 0, 0, 0, 0)), Peak((1, 6, 0, 0, 0, 0)), Peak((9, 0, 0, 0, 0, 0))
    assert set(envelope([low, high, other])) == {high, other}
