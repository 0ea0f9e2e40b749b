"""What recurrent mixers are made of, and the short convolution that is one by itself (LFM2)."""

from __future__ import annotations

from advisor.memory import operations as ops
from advisor.memory.extent import NOTHING, Extent, add
from advisor.memory.net import Net
from advisor.memory.operations import per_sequence, per_token, width_of
from advisor.memory.shadow import HALF, Tensor, op
from advisor.mixers import ShortConvolution


def copied(x: Tensor) -> Tensor:
    """A clone, or a reshape of a view that cannot stay one."""
    return op([x], x.elements, x.width, passes=True)


def convolved(net: Net, x: Tensor, kernel: int, bias: bool) -> Tensor:
    """A causal convolution over each channel, padded by kernel − 1 tokens that are cut off again."""
    channels = width_of(x)
    weight = net.weight(channels * (kernel + bias))
    if net.tape.autocast:
        x = ops.to(x, HALF)
    padded = op([x], add(per_token(channels), per_sequence((kernel - 1) * channels)), x.width, [x], weight=weight)
    return op([padded], per_token(channels), x.width, view=True)


def product(a: Tensor, b: Tensor, elements: Extent, scratch: Extent = NOTHING) -> Tensor:
    """A batched matrix product of activations; autocast makes it 16-bit."""
    if a.tape.autocast:
        a, b = ops.to(a, HALF), ops.to(b, HALF)
    return op([a, b], elements, a.width, [a, b], scratch=scratch)


def exponential(x: Tensor) -> Tensor:
    return op([x], x.elements, x.width, saves_output=True)


def summed(x: Tensor, elements: Extent) -> Tensor:
    """A sum over one dimension. The gradient is the output's, shown many times: a view."""
    result = op([x], elements, x.width)
    if result.node is not None:
        result.node.inputs = [(producer, NOTHING) for producer, _ in result.node.inputs]
    return result


def filled(x: Tensor) -> Tensor:
    """masked_fill or an addition of constants: new, nothing kept that grows."""
    return op([x], x.elements, x.width)


def short_convolution(net: Net, c: ShortConvolution, x: Tensor, hidden: int) -> Tensor:
    """Lfm2ShortConv: one part of the projection gates what goes into the convolution, another what comes out."""
    before, after, inner = ops.split(net.linear("in_proj", x, 3 * c.width, bias=c.bias), [c.width] * 3)
    inner = ops.multiply(before, inner)
    net.remembered(per_sequence(c.mixed_width * c.kernel), inner.width)
    inner = convolved(net, inner, c.kernel, c.bias)
    return net.linear("out_proj", ops.multiply(after, inner), hidden, bias=c.bias)
