"""The operations that language models are made of, as shadows: what each allocates and what its derivative keeps.

What is saved follows PyTorch's derivatives.yaml; how the modules are put together follows transformers 5.23.
Widths are bytes per element; ``w`` counts elements per token.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.memory.extent import NOTHING, Extent, add, times
from advisor.memory.shadow import FP32, HALF, Parameter, Storage, Tensor, op


def per_token(w: int) -> Extent:
    return (0, w, 0, 0, 0, 0)


def per_sequence(w: int) -> Extent:
    return (0, 0, 0, 0, 0, w)


def width_of(x: Tensor) -> int:
    """Elements per token; of a tensor over the tape's other tokens, per one of those; of a table, per row."""
    if x.tape.rows != NOTHING and not x.elements[1] and not x.elements[5]:
        return max(x.elements) // max(x.tape.rows)
    return x.elements[1] or x.elements[5] // max(1, x.tape.others)


def spread(x: Tensor, w: int) -> Extent:
    """``w`` elements for each token, or row, that x has."""
    if x.tape.rows != NOTHING and not x.elements[1] and not x.elements[5]:
        return times(x.tape.rows, w)
    return per_token(w) if x.elements[1] or not x.tape.others else per_sequence(w * x.tape.others)


# --- elementwise -----------------------------------------------------------------------------------------------------


def to(x: Tensor, width: int) -> Tensor:
    """A cast; nothing happens when the tensor has the type already."""
    return x if x.width == width else op([x], x.elements, width)


def view(x: Tensor) -> Tensor:
    return op([x], x.elements, x.width, view=True, passes=True)


def contiguous(x: Tensor) -> Tensor:
    """A copy of a view into something larger; anything else as it is."""
    return x if x.storage.extent == times(x.elements, x.width) else op([x], x.elements, x.width)


def laid_out(x: Tensor) -> Tensor:
    """The same laid out otherwise, in both directions: the gradient is a copy too."""
    return op([x], x.elements, x.width)


def scaled(x: Tensor) -> Tensor:
    """Times a number, or minus: a new tensor, nothing kept."""
    return op([x], x.elements, x.width)


def plus(a: Tensor, b: Tensor) -> Tensor:
    """a + b of one size; the wider type wins."""
    return op([a, b], a.elements, max(a.width, b.width), passes=True)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a × b of one size: each keeps the other for its derivative."""
    saves = [x for x, other in ((a, b), (b, a)) if other.needs_grad]
    return op([a, b], a.elements, max(a.width, b.width), saves)


def multiply_rows(x: Tensor, factor: Tensor) -> Tensor:
    """x × a column of one number per row. The column's gradient is summed from a product as large as x."""
    saves = [t for t, other in ((x, factor), (factor, x)) if other.needs_grad]
    scratch = times(x.elements, x.width) if factor.needs_grad else (0, 0, 0, 0, 0, 0)
    return op([x, factor], x.elements, max(x.width, factor.width), saves, scratch=scratch)


def multiply_weight(x: Tensor, weight: Parameter) -> Tensor:
    """x × a vector of weights."""
    width = max(x.width, weight.width)
    saves = [x] if weight.trainable else []
    scratch = times(x.elements, width) if weight.trainable else (0, 0, 0, 0, 0, 0)
    return op([x], x.elements, width, saves, scratch=scratch, weight=weight)


def sigmoid(x: Tensor) -> Tensor:
    return op([x], x.elements, x.width, saves_output=True)


def activation(x: Tensor, kind: str) -> Tensor:
    """SiLU, ReLU and the built-in GELUs keep their input (ReLU its output); `gelu-new` is written out in Python."""
    if kind == "gelu-new":  # 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
        half = scaled(x)
        base = to(x, FP32) if x.tape.autocast else x  # autocast takes powers in fp32
        cube = scaled(op([base], base.elements, base.width, [base]))
        del base
        inner = plus(x, cube)
        del cube
        inner = scaled(inner)
        bend = op([inner], inner.elements, inner.width, saves_output=True)
        del inner
        risen = scaled(bend)
        del bend
        return multiply(half, risen)
    if kind == "xielu":
        return _xielu(x)
    if kind == "relu2":
        kept = op([x], x.elements, x.width, saves_output=True)
        return op([kept], kept.elements, kept.width, [kept])
    if kind == "relu":
        return op([x], x.elements, x.width, saves_output=True)
    if kind == "tanh":
        return op([x], x.elements, x.width, saves_output=True)
    return op([x], x.elements, x.width, [x])


def _xielu(x: Tensor) -> Tensor:
    """Apertus: αp x² + βx above zero, (exp(min(x, ε)) − 1 − x) αn + βx below, written out, with learned αp and αn."""
    above = multiply(op([x], x.elements, x.width, [x]), x)
    above = plus(above, scaled(x))
    small = op([op([x], x.elements, x.width, [x])], x.elements, x.width, saves_output=True)
    below = plus(small, x)
    del small
    below = plus(op([below], x.elements, x.width, [below]), scaled(x))
    return op([above, below], x.elements, x.width, [x.tape.tensor(x.elements, 1)])


def dropout(x: Tensor, p: float) -> Tensor:
    """Keeps a mask of one byte per element (native_dropout)."""
    if not p:
        return x
    mask = x.tape.tensor(x.elements, 1)
    return op([x], x.elements, x.width, [mask])


# --- norms -----------------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Parameter, rows: int = 1, *, fp32_weight: bool = False) -> Tensor:
    """Llama's: an fp32 copy, its square's mean, the quotient back in the input's type, times the weight.

    ``fp32_weight``: the weight is multiplied before the cast (OLMo 2, Cohere).
    ``rows``: normalised vectors per token (heads, for the query and key norms).
    """
    x32 = to(x, FP32)
    normal = normalised(x32, rows)
    if fp32_weight:
        del x32
        return to(multiply_weight(normal, weight), x.width)
    return multiply_weight(to(normal, x.width), weight)


def t5_norm(x: Tensor, weight: Parameter) -> Tensor:
    """T5's: the input as it is times the fp32 root of its variance, cast back, times the weight (modeling_t5.py, T5LayerNorm)."""
    inverse = inverse_deviation(to(x, FP32), 1)
    normal = multiply_rows(x, inverse)
    del inverse
    return multiply_weight(to(normal, weight.width), weight)


def gemma_norm(x: Tensor, weight: Parameter, rows: int = 1) -> Tensor:
    """Gemma's: fp32 all through, times (1 + weight), then back."""
    normal = normalised(to(x, FP32), rows)
    scaled_up = multiply_weight(normal, Parameter(weight.elements, FP32, weight.trainable))
    del normal
    return to(scaled_up, x.width)


def normalised(x32: Tensor, rows: int = 1) -> Tensor:
    return multiply_rows(x32, inverse_deviation(x32, rows))


def inverse_deviation(x32: Tensor, rows: int) -> Tensor:
    square = op(
        [x32], x32.elements, FP32, [x32], scratch=times(x32.elements, 2 * FP32)
    )  # its derivative takes a power and doubles it
    mean = op([square], per_token(rows), FP32)
    del square
    return op([mean], per_token(rows), FP32, saves_output=True)


def unit_rows(x: Tensor, rows: int) -> Tensor:
    """l2norm: x over the root of its squares' sum."""
    square = op([x, x], x.elements, FP32, [x])
    total = op([square], per_token(rows), FP32)
    del square
    inverse = op([scaled(total)], per_token(rows), FP32, saves_output=True)
    del total
    return multiply_rows(x, inverse)


def fused_norm(x: Tensor, weight: Parameter | None, rows: int = 1) -> Tensor:
    """One kernel: keeps its input and a reciprocal for each row (Transformer Engine's rmsnorm; what torch.compile makes of any)."""
    return op([x], x.elements, x.width, [x, x.tape.tensor(per_token(rows), FP32)], weight=weight)


def centred_norm(x: Tensor, weight: Parameter, rows: int = 1) -> Tensor:
    """Cohere's LayerNorm, written out in fp32: the difference to the mean is made twice, and both are kept."""
    x32 = to(x, FP32)
    mean = op([x32], per_token(rows), FP32)
    difference = op([x32, mean], x32.elements, FP32)
    squared = op([difference], x32.elements, FP32, [difference])
    del difference
    inverse = op([squared], per_token(rows), FP32, saves_output=True)
    del squared
    normal = multiply_rows(op([x32, mean], x32.elements, FP32), inverse)
    return to(multiply_weight(normal, weight), x.width)


def written_norm(x: Tensor, weight: Parameter, bias: Parameter) -> Tensor:
    """DebertaLayerNorm: the difference to the mean is made twice, and both are kept; weight and bias come after the cast back.

    The derivative of the division makes three tensors as large as x (FunctionsManual.cpp, div_tensor_other_grad). What the product
    with the weight keeps is kept before it is made: a recomputation ends there, and does not make it.
    """
    x32 = to(x, FP32)
    mean = op([x32], spread(x, 1), FP32)
    difference = op([x32, mean], x32.elements, FP32)
    squared = op([difference], x32.elements, FP32, [difference])
    del difference
    variance = op([squared], spread(x, 1), FP32)
    del squared
    root = op([variance], variance.elements, FP32, saves_output=True)
    difference = op([x32, mean], x32.elements, FP32)
    normal = op([difference, root], x32.elements, FP32, [difference, root], scratch=times(x32.elements, 3 * FP32))
    del difference, x32
    normal = to(normal, x.width)
    width, scratch = max(x.width, weight.width), times(x.elements, x.width) if weight.trainable else NOTHING
    kept = normal if weight.trainable else x.tape.tensor(NOTHING, width)  # or the weight
    normal = op([normal], x.elements, width, [kept], scratch=scratch, view=True, weight=weight)
    del kept
    x.tape.mark()
    normal = op([normal], x.elements, width, passes=True)
    return op([normal], x.elements, width, passes=True, weight=bias)


def layer_norm(x: Tensor, weight: Parameter | None, bias: Parameter | None) -> Tensor:
    """The fused one: keeps its input, and mean and reciprocal deviation in fp32. Autocast runs it in fp32."""
    x = to(x, FP32) if x.tape.autocast else x
    moments = x.tape.tensor(spread(x, 2), FP32)
    return op([x], x.elements, x.width, [x, moments], weight=joined_weights(weight, bias))


def joined_weights(*weights: Parameter | None) -> Parameter | None:
    """One parameter as large as several that one node makes the gradients of."""
    real = [w for w in weights if w is not None]
    return Parameter(sum(w.elements for w in real), real[0].width, real[0].trainable, real[0].added) if real else None


# --- products --------------------------------------------------------------------------------------------------------


def cast_weight(x: Tensor, weight: Parameter) -> Tensor:
    """Autocast's 16-bit copy of a weight, made once per forward pass and kept to its end (and by the graph)."""
    tape = x.tape
    cached = tape.casts.get(id(weight))
    if cached is None:
        source = Tensor(tape, tape.outside, (weight.elements, 0, 0, 0, 0, 0), weight.width, False, None)
        if weight.copied:
            there = tape.outside if weight.copied == "same" else Storage(tape, times(source.elements, HALF))
            return Tensor(tape, there, source.elements, HALF, weight.trainable and tape.grad, None)
        sums = Parameter(weight.elements, weight.width, weight.trainable)  # gradients of a copy are summed before they get here
        cached = op([source], source.elements, HALF, weight=sums)
        tape.casts[id(weight)] = cached
    return cached


def linear(x: Tensor, weight: Parameter, out: int, bias: Parameter | None = None) -> Tensor:
    """x W (+ b): keeps x for the weight's gradient, and the weight for x's (a copy of it under autocast)."""
    saves = [x] if weight.trainable else []
    if x.tape.autocast and (x.width == FP32 or weight.width == FP32):
        x = to(x, HALF)
        saves = [x] if weight.trainable else []
        if weight.width == FP32:
            copy = cast_weight(x, weight)
            return op([x, copy], spread(x, out), HALF, [*saves, copy] if x.needs_grad else saves, weight=bias)
    return op([x], spread(x, out), max(x.width, weight.width), saves, weight=joined_weights(weight, bias))


def dequantized_linear(
    x: Tensor, weight: Parameter, out: int, compute: int, unpacked: int = HALF, *, holds: bool = False
) -> Tensor:
    """A frozen quantized weight: unpacked for each product, in both directions. ``unpacked``: bytes an element for that;
    ``holds``: the graph's node refers to the input, and lets go of it only with the graph."""
    elements: Extent = (weight.elements, 0, 0, 0, 0, 0)
    narrow = to(x, compute)
    copy = x.tape.tensor(elements, max(unpacked, compute))
    result = op([narrow], spread(x, out), compute, scratch=times(elements, max(unpacked, compute)))
    if holds and x.tape.grad:
        x.tape.held.append(narrow.storage)
    del copy, narrow
    return to(result, x.width)


def split(x: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Views of parts of x; the backward pass puts their gradients together again."""
    first = op([x], per_token(widths[0]), x.width, view=True)
    if first.node is not None:
        first.node.gathers = True
    rest = [Tensor(x.tape, x.storage, per_token(w), x.width, first.needs_grad, first.node) for w in widths[1:]]
    return [first, *rest]


def part(x: Tensor, w: int) -> Tensor:
    """A slice: a view whose gradient is scattered into a new tensor as large as x."""
    return op([x], per_token(w), x.width, view=True)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """A concatenation: a new tensor; gradients of the parts are views of its own."""
    elements = parts[0].elements
    for x in parts[1:]:
        elements = add(elements, x.elements)
    return op(parts, elements, max(x.width for x in parts))
