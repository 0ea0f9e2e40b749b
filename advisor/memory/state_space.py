"""The forward passes of recurrent mixers, written with shadow operations, and the state that each keeps of a sequence.

They follow the PyTorch code of transformers 5.23 that runs where mamba-ssm, causal-conv1d and flash-linear-attention are not
installed (torch_chunk_gated_delta_rule, mamba2_chunk_scan and their relatives): in chunks, in fp32. The kernels of those
packages keep less.
"""

from __future__ import annotations

from advisor.memory import operations as ops
from advisor.memory.convolution import convolved, copied, exponential, filled, short_convolution
from advisor.memory.delta_rule import delta_rule
from advisor.memory.extent import Extent, add, times
from advisor.memory.kimi_delta import kimi_delta
from advisor.memory.lightning import lightning
from advisor.memory.net import Net
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import FP32, HALF, Tensor, op
from advisor.mixers import DeltaRule, KimiDelta, LightningAttention, Recurrent, SelectiveScan, StateSpace
from advisor.model import Model


def forward(net: Net, mixer: Recurrent, x: Tensor, hidden: int) -> Tensor:
    """A recurrent mixer of any kind."""
    if isinstance(mixer, DeltaRule):
        return delta_rule(net, mixer, x, hidden)
    if isinstance(mixer, KimiDelta):
        return kimi_delta(net, mixer, x, hidden)
    if isinstance(mixer, LightningAttention):
        return lightning(net, mixer, x, hidden)
    if isinstance(mixer, StateSpace):
        return mamba2(net, mixer, x, hidden)
    if isinstance(mixer, SelectiveScan):
        return mamba1(net, mixer, x, hidden)
    return short_convolution(net, mixer, x, hidden)


# --- Mamba 1 ---------------------------------------------------------------------------------------------------------


def mamba1(net: Net, m: SelectiveScan, x: Tensor, hidden: int) -> Tensor:
    """MambaMixer, and those of Falcon-Mamba and Jamba, which norm the step and B and C."""
    if m.heads > 1:
        return mamba1_in_heads(net, m, x, hidden)
    mixed, gate = ops.split(net.linear("in_proj", x, 2 * m.width, bias=m.bias), [m.width, m.width])
    net.remembered(per_sequence(m.mixed_width * m.kernel), mixed.width)
    mixed = ops.activation(convolved(net, mixed, m.kernel, m.conv_bias), "silu")
    step, b, c = ops.split(net.linear("x_proj", copied(mixed), m.rank + 2 * m.state), [m.rank, m.state, m.state])
    if m.norms:
        step, b, c = inner_norm(net, m, step), inner_norm(net, m, b), inner_norm(net, m, c)
    step = copied(net.linear("dt_proj", step, m.width))
    out = selective_scan(net, m, mixed, step, b, c, gate)
    net.remembered(per_sequence(m.width * m.state), FP32)
    return net.linear("out_proj", copied(ops.to(out, x.width)), hidden, bias=m.bias)


def mamba1_in_heads(net: Net, m: SelectiveScan, x: Tensor, hidden: int) -> Tensor:
    """ZambaMambaMixer: heads with projections of their own, scanned one after the other; all keep what they read."""
    projected = net.linear("in_proj", x, 2 * m.width, bias=m.bias)
    mixed, gate = (copied(half) for half in ops.split(projected, [m.width, m.width]))
    net.remembered(per_sequence(m.mixed_width * m.kernel), mixed.width)
    mixed = ops.activation(convolved(net, mixed, m.kernel, m.conv_bias), "silu")
    read = in_heads(net, copied(mixed), m.heads * (m.rank + 2 * m.state), m.width * (m.rank + 2 * m.state))
    step, b, c = ops.split(read, [m.heads * m.rank, m.heads * m.state, m.heads * m.state])
    step = in_heads(net, step, m.width, m.width * m.rank)
    head = m._replace(width=m.width // m.heads, heads=1)
    outs = []
    for _ in range(m.heads):
        outs.append(
            selective_scan(
                net,
                head,
                ops.part(mixed, head.width),
                ops.part(step, head.width),
                ops.part(b, m.state),
                ops.part(c, m.state),
                ops.part(gate, head.width),
            )
        )
    net.remembered(per_sequence(m.width * m.state), FP32)
    out = ops.joined(outs)
    del outs, projected
    return net.linear("out_proj", copied(ops.to(out, x.width)), hidden, bias=m.bias)


def in_heads(net: Net, x: Tensor, rows: int, elements: int) -> Tensor:
    """A batched product with each head's own matrix, copied for each sequence."""
    weight = net.weight(elements)
    if net.tape.autocast:
        x = ops.to(x, HALF)
    copies = net.tape.tensor(per_sequence(elements), x.width)
    saves = [copies, *([x] if weight.trainable else [])]
    return op([x], per_token(rows), x.width, saves, scratch=times(copies.elements, x.width), weight=weight)


def inner_norm(net: Net, m: SelectiveScan, x: Tensor) -> Tensor:
    if m.norms == "weights":
        return net.norm("rms", x)
    return ops.to(ops.normalised(ops.to(x, FP32)), x.width)


def selective_scan(net: Net, m: SelectiveScan, x: Tensor, step: Tensor, b: Tensor, c: Tensor, gate: Tensor) -> Tensor:
    """mamba_selective_scan: decays and inputs of every token and state, then a loop over the tokens, as one operation that
    keeps each token's state in fp32 and as it is read.

    Its backward pass writes a gradient as large as the whole for each token's slice and adds them up out of place.
    """
    every, size = per_token(m.width * m.state), per_token(4 * m.width * m.state)
    step = op([step], step.elements, step.width, weight=net.weight(m.width))
    step = ops.activation(step, "silu")  # softplus keeps its input too
    decay = exponential(op([step], every, FP32, [step], scratch=times(size, 2), weight=net.weight(m.width * m.state)))
    b = ops.to(b, FP32)
    spread = op([step, b], every, FP32, [step, b], scratch=times(size, 2))
    added = ops.multiply_rows(spread, ops.to(x, FP32))
    kept = [decay]
    if net.tape.grad:
        kept += [net.tape.tensor(every, FP32), net.tape.tensor(every, x.width)]
    tokens = net.tape.tensor(x.elements, x.width)
    out = op([decay, added, c], x.elements, x.width, kept, scratch=times(size, 2))
    weight = net.weight(m.width)
    skipped = op([x], x.elements, FP32, [x] if weight.trainable else [], weight=weight)
    out = ops.plus(out, skipped)
    del skipped
    out = ops.multiply(out, ops.activation(gate, "silu"))
    del tokens
    return out


# --- Mamba 2 ---------------------------------------------------------------------------------------------------------


def mamba2(net: Net, m: StateSpace, x: Tensor, hidden: int) -> Tensor:
    """The Mamba 2 mixer of Nemotron-H, Bamba, Granite 4-H, Zamba 2 and Falcon-H1."""
    grouped = m.groups * m.state
    projected = net.linear("in_proj", x, m.width + m.mixed_width + m.heads, bias=m.bias)
    if net.recipe.fused:
        return net.linear("out_proj", scanned_in_one(net, m, projected), hidden, bias=m.bias)
    gate, mixed, dt = ops.split(projected, [m.width, m.mixed_width, m.heads])
    net.remembered(per_sequence(m.mixed_width * m.kernel), mixed.width)
    mixed = ops.activation(convolved(net, mixed, m.kernel, m.conv_bias), "silu")
    inner, b, c = ops.split(mixed, [m.width, grouped, grouped])
    out = chunked_scan(net, m, inner, b, c, dt)
    net.remembered(per_sequence(m.width * m.state), FP32)
    out = gated_in_groups(net, m, out, gate) if m.norm else ops.multiply(out, ops.activation(gate, "silu"))
    return net.linear("out_proj", ops.to(out, x.width), hidden, bias=m.bias)


def scanned_in_one(net: Net, m: StateSpace, x: Tensor) -> Tensor:
    """mamba_split_conv1d_scan_combined: keeps the projection and what comes out before the gate, and makes the convolution's output
    and the chunks' states again in the backward pass (mamba_ssm ops/triton/ssd_combined.py)."""
    states = -(-m.width * m.state // m.chunk)
    scratch = add(times(per_token(m.mixed_width), x.width), times(per_token(states + 2 * m.heads + m.groups * m.chunk), FP32))
    working = net.tape.tensor(scratch, 1)
    scanned = net.tape.tensor(per_token(m.width), x.width)
    weight = net.weight((m.kernel + 1) * m.mixed_width + m.width * m.norm + 3 * m.heads)
    out = op([x], per_token(m.width), x.width, [x, scanned], scratch=times(scratch, 2), weight=weight)
    del working
    return out


def gated_in_groups(net: Net, m: StateSpace, x: Tensor, gate: Tensor) -> Tensor:
    """RMSNormGated: times SiLU of the gate in fp32, then an RMS norm over each group."""
    gated = ops.multiply(ops.to(x, FP32), ops.activation(ops.to(gate, FP32), "silu"))
    return ops.rms_norm(gated, net.weight(m.width), m.groups)


def contraction(a: Tensor, b: Tensor, elements: Extent, copies: str) -> Tensor:
    """torch.einsum: a batched product of operands laid out for it, which copies those that are not (``copies``: ab, a, b);
    the backward pass lays out the gradient."""
    if a.tape.autocast:
        a, b = ops.to(a, HALF), ops.to(b, HALF)
    a, b = copied(a) if "a" in copies else a, copied(b) if "b" in copies else b
    return op([a, b], elements, a.width, [a, b], scratch=times(elements, a.width))


def sums_between(x: Tensor, elements: Extent) -> Tensor:
    """segment_sum: each position's column spread over a square, masked, summed up and masked again."""
    spread = op([x], elements, x.width)
    summed = op([spread], elements, x.width, scratch=times(elements, 2 * x.width))  # its derivative turns it round twice
    return filled(summed)


def chunked_scan(net: Net, m: StateSpace, x: Tensor, b: Tensor, c: Tensor, dt: Tensor) -> Tensor:
    """mamba2_chunk_scan: within chunks as attention, between chunks through their states."""
    spread, square = per_token(m.heads * m.state), per_token(m.heads * m.chunk)
    states = per_token(-(-m.width * m.state // m.chunk))
    one_more = add(states, per_sequence(m.width * m.state))
    dt = op([dt], dt.elements, dt.width, weight=net.weight(m.heads))
    dt = ops.activation(dt, "silu")  # softplus keeps its input too
    dt = ops.activation(dt, "silu")  # and clamp
    x = ops.to(x, FP32)
    b = op([ops.to(b, FP32)], spread, FP32)
    c = op([ops.to(c, FP32)], spread, FP32)
    skipped = ops.multiply_weight(filled(x), net.weight(m.heads))
    x = ops.multiply_rows(x, ops.to(dt, FP32))
    a = ops.multiply_weight(ops.to(dt, FP32), net.weight(m.heads))
    chunks = [filled(part) for part in (x, a, b, c)]
    x, a, b, c = chunks
    del chunks
    total = op([a], a.elements, FP32)
    between = exponential(sums_between(a, square))
    scores = contraction(c, b, square, "ab")
    weights = ops.multiply(scores, between)
    diagonal = contraction(weights, x, x.elements, "b")
    decay = exponential(op([total], total.elements, FP32))
    decayed = ops.multiply_rows(b, decay)
    state = contraction(decayed, x, states, "ab")
    first = net.tape.tensor(per_sequence(m.width * m.state), FP32)
    state = op([state], one_more, state.width)
    carried = contraction(state, total, one_more, "a")
    carried = op([carried], states, carried.width, view=True)
    del state
    read = contraction(c, carried, x.elements, "ab")
    off = ops.multiply_rows(read, exponential(total))
    out = copied(ops.plus(diagonal, off))
    del first
    return ops.plus(out, skipped)


# --- the state -------------------------------------------------------------------------------------------------------


def state_bytes(mixer: Recurrent, width: int, state: int = FP32, dropped: int = 0) -> int:
    """Bytes that a mixer remembers of a sequence, whatever its length: the convolution's last inputs, less those ``dropped``, and
    the state, at ``width`` and ``state`` bytes an element; lightning attention's state is of the computing type (MiniMaxCache)."""
    state = width if isinstance(mixer, LightningAttention) else state
    return mixer.mixed_width * (mixer.kernel - dropped) * width + mixer.state_elements * state


def working_bytes(mixer: Recurrent, width: int) -> int:
    """What one decoding step makes beside a sequence's state: the state decayed, what is added to it, and their sum; Mamba
    also the decay and what goes into the addition, Mamba 2 in the computing type (mamba2_selective_state_update)."""
    tensors = {SelectiveScan: 5 * FP32, StateSpace: 3 * FP32 + 2 * width, LightningAttention: 3 * width}.get(
        type(mixer), 3 * FP32
    )
    return mixer.state_elements * tensors


def recurrent_bytes(model: Model, width: int, state: int = FP32, dropped: int = 0) -> int:
    """Bytes that all layers remember of a sequence."""
    return sum(many * state_bytes(layer.recurrent, width, state, dropped) for layer, many in model.kinds if layer.recurrent)


def recurrent_step(model: Model, width: int) -> int:
    """Bytes that the largest layer's decoding step makes for a sequence."""
    return max((working_bytes(layer.recurrent, width) for layer, _ in model.kinds if layer.recurrent), default=0)
