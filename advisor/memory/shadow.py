"""A shadow of PyTorch: tensors that have a size and no data.

A layer's forward pass written with these operations allocates, keeps and frees what the real one does,
because it follows the same three rules:
  * a tensor lives as long as something refers to it: a Python variable, or a node of the autograd graph
    (this module lets CPython's reference counts do the counting, exactly as torch does);
  * an operation keeps for the backward pass what its derivative needs (derivatives.yaml of PyTorch);
  * the backward pass runs the nodes last to first, allocates each gradient as it comes, and frees what
    a node had kept once it has run.
So what autograd keeps of a layer is not a table of coefficients here: it follows from the layer's code.

Sizes are extents (see extent.py); what is measured is the live memory at its local peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from advisor.memory.extent import NOTHING, Extent, add, covers, less, times

FP32, HALF = 4, 2  # bytes per element


class Peak(NamedTuple):
    """Live memory at one moment: all of it, and how much of that is parameter gradients, and the logits and their loss."""

    live: Extent
    gradients: Extent = NOTHING
    loss: Extent = NOTHING


class Block(NamedTuple):
    """One layer's tensors; its peaks stand on what was live before its input came."""

    kept_forward: Extent  # live to the end of the forward pass
    kept: Extent  # live when the backward pass begins
    forward: tuple[Peak, ...]
    backward: tuple[Peak, ...]
    gradients: Extent  # of its parameters, left when its backward pass is done
    held: Extent = NOTHING  # what is still referred to when the backward pass is done, until the next forward pass is
    with_forward: Extent = NOTHING  # live beside it during its forward pass alone
    with_backward: Extent = NOTHING
    input: Extent = NOTHING  # what it was given, where nothing keeps that for the backward pass


class Tape:
    """Counts what is live, and remembers the graph. ``autocast``: the dtype (bytes) that matrix products are cast to."""

    def __init__(self, *, grad: bool, autocast: bool = False, accumulating: bool = False) -> None:
        self.grad = grad
        self.autocast = autocast
        self.accumulating = accumulating  # gradients exist already: new ones are added and dropped
        self.live: Extent = NOTHING
        self.gradients: Extent = NOTHING
        self.peaks: list[Peak] = []
        self.nodes: list[Node] = []
        self.casts: dict[int, Tensor] = {}  # autocast's cache of cast weights, by id of the parameter
        self.parameter_gradients: list[Storage] = []
        self.input_gradients: list[Storage] = []
        self.arriving: Storage | None = None  # the gradient that the backward pass starts with
        self.held: list[Storage] = []  # what nodes of the graph refer to beside what autograd saves and frees
        self.at_last_save: Extent = NOTHING
        self.last_save = 0  # how many peaks there were when something was last kept for backward
        self._rising = False
        self.outside = Storage(self, NOTHING)  # what is live anyway and counted elsewhere
        self.others = 0  # tokens of the other sequence in sight: what an encoder has read, or 1 for a sequence's first token
        self.rows: Extent = NOTHING  # of a table that is multiplied like a sequence

    def grow(self, extent: Extent) -> None:
        self.live = add(self.live, extent)
        self._rising = True

    def shrink(self, extent: Extent) -> None:
        if self._rising:
            self.mark()
        self.live = less(self.live, extent)

    def mark(self) -> None:
        """Remember the memory that is live now."""
        self.peaks.append(Peak(self.live, self.gradients))
        self._rising = False

    def take_peaks(self) -> tuple[Peak, ...]:
        """The peaks since the last call, without those that another one covers."""
        self.mark()
        peaks, self.peaks, self.last_save = self.peaks, [], 0
        return envelope(peaks)

    def tensor(self, elements: Extent, width: int, needs_grad: bool = False) -> Tensor:
        """A tensor that comes from outside: an input."""
        return Tensor(self, Storage(self, times(elements, width)), elements, width, needs_grad and self.grad, None)


def envelope(peaks: Sequence[Peak]) -> tuple[Peak, ...]:
    """The peaks that are the highest for some shape."""
    kept: list[Peak] = []
    for peak in peaks:
        for other in kept:
            if covers(other.live, peak.live):
                break
        else:
            kept = [other for other in kept if not covers(peak.live, other.live)]
            kept.append(peak)
    return tuple(kept)


class Storage:
    """Memory that lives until the last tensor or node lets go of it."""

    __slots__ = ("extent", "tape")

    def __init__(self, tape: Tape, extent: Extent) -> None:
        self.tape = tape
        self.extent = extent
        tape.grow(extent)

    def __del__(self) -> None:
        self.tape.shrink(self.extent)


class Parameter:
    """A weight. It is live all the time and counted elsewhere; its gradient is counted here.

    ``added``: whether its gradient is added to one that exists already; None: as the tape says. ``copied``: autocast has copied it
    in an earlier layer, and the gradients of all copies are summed there; the copy is the same one, or made again.
    """

    __slots__ = ("added", "copied", "elements", "trainable", "width")

    def __init__(
        self,
        elements: int,
        width: int,
        trainable: bool,
        added: bool | None = None,
        copied: Literal["same", "again"] | None = None,
    ) -> None:
        self.elements = elements
        self.width = width
        self.trainable = trainable
        self.added = added
        self.copied = copied


class Tensor:
    """``elements`` (an extent) of ``width`` bytes in a storage that views share."""

    __slots__ = ("elements", "kept_as", "needs_grad", "node", "storage", "tape", "width")

    def __init__(self, tape: Tape, storage: Storage, elements: Extent, width: int, needs_grad: bool, node: Node | None) -> None:
        self.tape = tape
        self.storage = storage
        self.elements = elements
        self.width = width
        self.needs_grad = needs_grad
        self.node = node
        self.kept_as: Tensor | None = None  # what is kept for backward in its place, where it is made again from that


class Node:
    """One operation in the autograd graph: where its gradients go, and what it keeps until it has run."""

    __slots__ = ("gathers", "grads", "in_place", "inputs", "passes", "saved", "splits", "temporaries", "weight")

    def __init__(self, inputs: Sequence[Tensor], saved: Sequence[Tensor], temporaries: Extent) -> None:
        self.inputs = [(x.node, times(x.elements, x.width)) for x in inputs if x.needs_grad]
        self.saved: list[Storage] = [(x.kept_as or x).storage for x in saved]
        self.temporaries = temporaries  # scratch of the backward operation
        for x in saved:
            if x.kept_as:
                self.temporaries = add(self.temporaries, times(x.elements, x.width))
        self.passes = False  # the gradient is handed on as it is (views, additions)
        self.splits = False  # the inputs' gradients are views of parts of it
        self.in_place = False  # the gradient is made in what was kept
        self.gathers = False  # several outputs: their gradients are kept side by side
        self.weight: Parameter | None = None
        self.grads: list[Storage] = []

    def receive(self, gradient: Storage) -> None:
        """A second gradient of one output makes a third tensor, their sum (the engine's input buffers add out of place)."""
        if self.gathers or not self.grads:
            self.grads.append(gradient)
        else:
            self.grads[0] = Storage(gradient.tape, gradient.extent)


def op(
    inputs: Sequence[Tensor],
    elements: Extent,
    width: int,
    saves: Sequence[Tensor] = (),
    *,
    saves_output: bool = False,
    scratch: Extent = NOTHING,
    view: bool = False,
    passes: bool = False,
    weight: Parameter | None = None,
) -> Tensor:
    """An operation: a new tensor (or a view of the first input) and, where a gradient is needed, its node.

    ``saves``: inputs that the derivative needs; ``scratch``: what the backward operation takes besides the gradients;
    ``passes``: each input's gradient is the output's; ``weight``: a parameter whose gradient the node makes.
    """
    tape = inputs[0].tape
    before = tape.live
    storage = inputs[0].storage if view else Storage(tape, times(elements, width))
    trains = weight is not None and weight.trainable
    needs_grad = tape.grad and (trains or any(x.needs_grad for x in inputs))
    result = Tensor(tape, storage, elements, width, needs_grad, None)
    if needs_grad:
        result.node = node = Node(inputs, saves, scratch)
        node.passes = passes
        node.weight = weight if trains else None
        if saves_output:
            node.saved.append(storage)
        if node.saved:
            tape.last_save = len(tape.peaks)
            tape.at_last_save = tape.live if saves_output else before
        tape.nodes.append(node)
    return result


def turn(tape: Tape) -> tuple[Extent, Extent]:
    """From the forward to the backward pass: what is kept to the end of the forward pass, and what is left when autocast
    lets go of its copies."""
    kept_forward = tape.live
    tape.casts.clear()
    tape.mark()
    tape.peaks.clear()
    return kept_forward, tape.live


def run_backward(tape: Tape, node: Node | None) -> None:
    """Run the graph from ``node``, whose output's gradient is ``tape.arriving``: last to first, as autograd does."""
    gradient, tape.arriving = tape.arriving, None
    if node is not None and gradient is not None:
        node.receive(gradient)
    del gradient
    while tape.nodes:
        _run(tape, tape.nodes.pop())


def _run(tape: Tape, node: Node) -> None:
    arrived, node.grads = node.grads, []
    if not arrived:
        return
    scratch = Storage(tape, node.temporaries) if node.temporaries != NOTHING else None
    made = [(producer, _gradient(tape, node, arrived[0], extent)) for producer, extent in node.inputs]
    del scratch
    if node.weight is not None:
        _accumulate(tape, node.weight)
    del arrived  # autograd releases both before a gradient is added to another (engine.cpp, evaluate_function)
    node.saved.clear()
    for producer, gradient in made:
        if producer is not None:
            producer.receive(gradient)
        else:
            tape.input_gradients.append(gradient)


def _gradient(tape: Tape, node: Node, arrived: Storage, extent: Extent) -> Storage:
    """An input's gradient: a new tensor, or one that is there already."""
    if node.in_place:
        return node.saved[0]
    if node.splits:
        return arrived
    return arrived if node.passes and extent == arrived.extent else Storage(tape, extent)


def _accumulate(tape: Tape, weight: Parameter) -> None:
    """A parameter's gradient: kept, or added to the one of an earlier micro-batch and let go."""
    extent: Extent = (weight.elements * weight.width, 0, 0, 0, 0, 0)
    gradient = Storage(tape, extent)
    if not (tape.accumulating if weight.added is None else weight.added):
        tape.gradients = add(tape.gradients, extent)
        tape.parameter_gradients.append(gradient)
