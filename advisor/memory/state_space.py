"""The forward passes of recurrent mixers, written with shadow operations, and the state that each keeps of a sequence.

They follow the PyTorch code of transformers 5.23 that runs where mamba-ssm, causal-conv1d and flash-linear-attention are not
installed (torch_chunk_gated_delta_rule, mamba2_chunk_scan and their relatives): in chunks, in fp32. The kernels of those
packages keep less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advisor.memory import operations as ops
from advisor.memory.extent import Extent, add, times
from advisor.memory.operations import per_sequence, per_token, width_of
from advisor.memory.shadow import FP32, HALF, Tensor, op
from advisor.model import DeltaRule, Model, Recurrent, StateSpace

if TYPE_CHECKING:
    from advisor.memory.layers import Net

DELTA_CHUNK = 64  # tokens: chunk_size of torch_chunk_gated_delta_rule


def forward(net: Net, mixer: Recurrent, x: Tensor, hidden: int) -> Tensor:
    if isinstance(mixer, DeltaRule):
        return delta_rule(net, mixer, x, hidden)
    return mamba2(net, mixer, x, hidden)


# --- what they are made of -------------------------------------------------------------------------------------------


def copied(x: Tensor) -> Tensor:
    """A clone, or a reshape of a view that cannot stay one."""
    return op([x], x.elements, x.width, passes=True)


def convolved(net: Net, x: Tensor, kernel: int, bias: bool) -> Tensor:
    """A causal convolution over each channel, padded by kernel − 1 tokens that are cut off again, and SiLU."""
    channels = width_of(x)
    weight = net.weight(channels * (kernel + bias))
    if net.tape.autocast:
        x = ops.to(x, HALF)
    padded = op([x], add(per_token(channels), per_sequence((kernel - 1) * channels)), x.width, [x], weight=weight)
    cut = op([padded], per_token(channels), x.width, view=True)
    del padded
    return ops.activation(cut, "silu")


def product(a: Tensor, b: Tensor, elements: Extent, scratch: Extent = (0, 0, 0, 0, 0, 0)) -> Tensor:
    """A batched matrix product of activations; autocast makes it 16-bit."""
    if a.tape.autocast:
        a, b = ops.to(a, HALF), ops.to(b, HALF)
    return op([a, b], elements, a.width, [a, b], scratch=scratch)


def contraction(a: Tensor, b: Tensor, elements: Extent, copies: str) -> Tensor:
    """torch.einsum: a batched product of operands laid out for it, which copies those that are not (``copies``: ab, a, b);
    the backward pass lays out the gradient."""
    if a.tape.autocast:
        a, b = ops.to(a, HALF), ops.to(b, HALF)
    a, b = copied(a) if "a" in copies else a, copied(b) if "b" in copies else b
    return op([a, b], elements, a.width, [a, b], scratch=times(elements, a.width))


def exponential(x: Tensor) -> Tensor:
    return op([x], x.elements, x.width, saves_output=True)


def filled(x: Tensor) -> Tensor:
    """masked_fill or an addition of constants: new, nothing kept that grows."""
    return op([x], x.elements, x.width)


def sums_between(x: Tensor, elements: Extent) -> Tensor:
    """segment_sum: each position's column spread over a square, masked, summed up and masked again."""
    spread = op([x], elements, x.width)
    summed = op([spread], elements, x.width, scratch=times(elements, 2 * x.width))  # its derivative turns it round twice
    return filled(summed)


# --- the gated delta rule --------------------------------------------------------------------------------------------


def delta_rule(net: Net, d: DeltaRule, x: Tensor, hidden: int) -> Tensor:
    """Qwen3NextGatedDeltaNet and Qwen3_5GatedDeltaNet."""
    keys, values, heads = d.key_width, d.value_width, d.value_heads
    if d.joined:
        wide = net.linear("in_proj_qkvz", x, 2 * keys + 2 * values)
        scalars = net.linear("in_proj_ba", x, 2 * heads)
        q, k, v, z = ops.split(wide, [keys, keys, values, values])
        b, a = ops.split(scalars, [heads, heads])
        if heads > d.key_heads:
            v, z, b, a = copied(v), copied(z), copied(b), copied(a)
        q, k = copied(q), copied(k)
        mixed = ops.joined([q, k, v])
    else:
        mixed = net.linear("in_proj_qkv", x, d.mixed_width)
        z = net.linear("in_proj_z", x, values)
        b = net.linear("in_proj_b", x, heads)
        a = net.linear("in_proj_a", x, heads)
    net.remembered(per_sequence(d.mixed_width * d.kernel), mixed.width)
    mixed = convolved(net, mixed, d.kernel, bias=False)
    q, k, v = ops.split(mixed, [keys, keys, values])
    beta = ops.sigmoid(b)
    step = op([ops.to(a, FP32)], per_token(heads), FP32, weight=net.weight(heads))
    step = ops.multiply_weight(ops.activation(step, "silu"), net.weight(heads))
    core = chunked_delta_rule(net, d, [q, k, v, beta, step])
    net.remembered(per_sequence(heads * d.key_dim * d.value_dim), FP32)
    core = gated_by_rows(net, core, z, heads, d.value_dim)
    return net.linear("out_proj", core, hidden)


def gated_by_rows(net: Net, x: Tensor, gate: Tensor, rows: int, weights: int) -> Tensor:
    """Qwen3NextRMSNormGated: an RMS norm over each head, times SiLU of the gate in fp32."""
    normal = ops.rms_norm(x, net.weight(weights), rows)
    return ops.to(ops.multiply(normal, ops.activation(ops.to(gate, FP32), "silu")), x.width)


def chunked_delta_rule(net: Net, d: DeltaRule, parts: Sequence[Tensor]) -> Tensor:
    """torch_chunk_gated_delta_rule: products within each chunk, then a loop over the chunks that carries the state."""
    q, k, v, beta, step = parts
    heads, width = d.value_heads, v.width
    every = heads * d.key_dim
    square = per_token(heads * DELTA_CHUNK)
    if heads > d.key_heads:
        q, k = op([q], per_token(every), q.width), op([k], per_token(every), k.width)
    wide = [ops.to(part, FP32) for part in (q, k, v, beta, step)]
    q, k, v, beta, step = wide
    del wide
    q, k = unit_rows(q, heads), unit_rows(k, heads)
    q = ops.scaled(q)
    padded = [filled(part) for part in (q, k, v)]
    q, k, v = padded
    del padded
    beta, step = filled(beta), filled(step)
    v_beta = ops.multiply_rows(v, beta)
    k_beta = ops.multiply_rows(k, beta)
    decay = op([step], step.elements, FP32)
    between = op([decay], square, FP32)
    between = filled(between)
    between = exponential(between)
    system = ops.multiply(product(k_beta, k, square), between)
    inner = ops.multiply(product(q, k, square), between)
    decayed = ops.multiply_rows(k_beta, exponential(decay))
    new_values = solved(system, v_beta)
    k_decayed = solved(system, decayed)
    state = net.tape.tensor(per_sequence(heads * d.key_dim * d.value_dim), FP32)
    out = net.tape.tensor(v.elements, FP32)
    q = ops.multiply_rows(q, exponential(decay))
    k = ops.multiply_rows(k, exponential(decay))
    out = scanned(d, out, [new_values, k_decayed, q, k, inner])
    del state
    return ops.to(copied(out), width)


def unit_rows(x: Tensor, rows: int) -> Tensor:
    """l2norm: x over the root of its squares' sum."""
    square = op([x, x], x.elements, FP32, [x])
    total = op([square], per_token(rows), FP32)
    del square
    inverse = op([filled(total)], per_token(rows), FP32, saves_output=True)
    del total
    return ops.multiply_rows(x, inverse)


def solved(system: Tensor, right: Tensor) -> Tensor:
    """linalg.solve_triangular keeps the system and what it found."""
    return op([system, right], right.elements, FP32, [system], saves_output=True)


def scanned(d: DeltaRule, out: Tensor, inputs: list[Tensor]) -> Tensor:
    """The loop over the chunks, as one operation that fills ``out``: it keeps what it reads, the values that it corrects and
    each chunk's state.

    Its backward pass writes a gradient as large as the whole for each chunk's slice and adds them up out of place.
    """
    states = d.value_heads * d.key_dim * d.value_dim
    kept = [*inputs]
    if out.tape.grad:
        kept += [out.tape.tensor(out.elements, FP32), out.tape.tensor(per_token(-(-states // DELTA_CHUNK)), FP32)]
    largest = max((x.elements for x in inputs), key=lambda elements: elements[1])
    return op([out, *inputs], out.elements, FP32, kept, scratch=times(largest, 2 * FP32), view=True)


# --- Mamba 2 ---------------------------------------------------------------------------------------------------------


def mamba2(net: Net, m: StateSpace, x: Tensor, hidden: int) -> Tensor:
    """The Mamba 2 mixer of Nemotron-H, Bamba, Granite 4-H, Zamba 2 and Falcon-H1."""
    grouped = m.groups * m.state
    projected = net.linear("in_proj", x, m.width + m.mixed_width + m.heads, bias=m.bias)
    gate, mixed, dt = ops.split(projected, [m.width, m.mixed_width, m.heads])
    net.remembered(per_sequence(m.mixed_width * m.kernel), mixed.width)
    mixed = convolved(net, mixed, m.kernel, m.conv_bias)
    inner, b, c = ops.split(mixed, [m.width, grouped, grouped])
    out = chunked_scan(net, m, inner, b, c, dt)
    net.remembered(per_sequence(m.width * m.state), FP32)
    out = gated_in_groups(net, m, out, gate) if m.norm else ops.multiply(out, ops.activation(gate, "silu"))
    return net.linear("out_proj", ops.to(out, x.width), hidden, bias=m.bias)


def gated_in_groups(net: Net, m: StateSpace, x: Tensor, gate: Tensor) -> Tensor:
    """RMSNormGated: times SiLU of the gate in fp32, then an RMS norm over each group."""
    gated = ops.multiply(ops.to(x, FP32), ops.activation(ops.to(gate, FP32), "silu"))
    return ops.rms_norm(gated, net.weight(m.width), m.groups)


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


def state_bytes(mixer: Recurrent, width: int) -> int:
    """Bytes that a mixer remembers of a sequence, whatever its length: the convolution's last inputs in the computing type,
    and the state in fp32."""
    convolution = mixer.mixed_width * mixer.kernel * width
    if isinstance(mixer, DeltaRule):
        return convolution + mixer.value_heads * mixer.key_dim * mixer.value_dim * FP32
    return convolution + mixer.width * mixer.state * FP32


def working_bytes(mixer: Recurrent, width: int) -> int:
    """What one decoding step makes beside a sequence's state: the state decayed, what is added to it, and their sum; Mamba 2
    the decay too, and what is added in two steps of the computing type (mamba2_selective_state_update)."""
    if isinstance(mixer, DeltaRule):
        return 3 * mixer.value_heads * mixer.key_dim * mixer.value_dim * FP32
    return mixer.width * mixer.state * (3 * FP32 + 2 * width)


def recurrent_bytes(model: Model, width: int) -> int:
    """Bytes that all layers remember of a sequence."""
    return sum(many * state_bytes(layer.recurrent, width) for layer, many in model.kinds if layer.recurrent)


def recurrent_step(model: Model, width: int) -> int:
    """Bytes that the largest layer's decoding step makes for a sequence."""
    return max((working_bytes(layer.recurrent, width) for layer, _ in model.kinds if layer.recurrent), default=0)
