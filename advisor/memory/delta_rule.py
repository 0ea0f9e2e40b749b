"""The gated delta rule, written with shadow operations (torch_chunk_gated_delta_rule of transformers 5.23)."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.memory import operations as ops
from advisor.memory.convolution import convolved, copied, exponential, filled, product
from advisor.memory.extent import times
from advisor.memory.net import Net
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import FP32, HALF, Tensor, op
from advisor.mixers import DeltaRule

CHUNK = 64  # tokens


def delta_rule(net: Net, d: DeltaRule, x: Tensor, hidden: int) -> Tensor:
    """Qwen3NextGatedDeltaNet and Qwen3_5GatedDeltaNet."""
    if d.apart:
        return delta_rule_apart(net, d, x, hidden)
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
    q, k, v = short(net, d, mixed)
    del mixed
    beta = ops.sigmoid(b)
    core = chunked_delta_rule(net, d, [q, k, v, beta, decay_of(net, d, a)])
    net.remembered(per_sequence(d.state_elements), FP32)
    core = gated_by_rows(net, core, z, heads, d.value_dim)
    return net.linear("out_proj", core, hidden)


def delta_rule_apart(net: Net, d: DeltaRule, x: Tensor, hidden: int) -> Tensor:
    """OlmoHybridGatedDeltaNet; the gate is made last."""
    widths = (("q_proj", d.key_width), ("k_proj", d.key_width), ("v_proj", d.value_width))
    q, k, v = short(net, d, ops.joined([net.linear(name, x, width) for name, width in widths]))
    beta = ops.scaled(ops.sigmoid(net.linear("b_proj", x, d.value_heads)))
    step = decay_of(net, d, net.linear("a_proj", x, d.value_heads))
    core = chunked_delta_rule(net, d, [q, k, v, beta, step])
    net.remembered(per_sequence(d.state_elements), FP32)
    core = gated_by_rows(net, core, net.linear("g_proj", x, d.value_width), d.value_heads, d.value_dim)
    return net.linear("o_proj", core, hidden)


def short(net: Net, d: DeltaRule, mixed: Tensor) -> list[Tensor]:
    """Queries, keys and values behind the short convolution."""
    net.remembered(per_sequence(d.mixed_width * d.kernel), mixed.width)
    mixed = ops.activation(convolved(net, mixed, d.kernel, bias=False), "silu")
    return ops.split(mixed, [d.key_width, d.key_width, d.value_width])


def decay_of(net: Net, d: DeltaRule, a: Tensor) -> Tensor:
    step = op([ops.to(a, FP32)], per_token(d.value_heads), FP32, weight=net.weight(d.value_heads))
    return ops.multiply_weight(ops.activation(step, "silu"), net.weight(d.value_heads))


def gated_by_rows(net: Net, x: Tensor, gate: Tensor, rows: int, weights: int) -> Tensor:
    """Qwen3NextRMSNormGated: an RMS norm over each head, times SiLU of the gate in fp32."""
    normal = ops.rms_norm(x, net.weight(weights), rows)
    return ops.to(ops.multiply(normal, ops.activation(ops.to(gate, FP32), "silu")), x.width)


def chunked_delta_rule(net: Net, d: DeltaRule, parts: Sequence[Tensor]) -> Tensor:
    """torch_chunk_gated_delta_rule: products within each chunk, then a loop over the chunks that carries the state."""
    q, k, v, beta, step = parts
    heads, width = d.value_heads, v.width
    every = heads * d.key_dim
    square = per_token(heads * CHUNK)
    if heads > d.key_heads:
        q, k = op([q], per_token(every), q.width), op([k], per_token(every), k.width)
    wide = [ops.to(part, FP32) for part in (q, k, v, beta, step)]
    q, k, v, beta, step = wide
    del wide
    q, k = ops.unit_rows(q, heads), ops.unit_rows(k, heads)
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
    out = copied(out)
    return ops.to(out, width)


def solved(system: Tensor, right: Tensor) -> Tensor:
    """linalg.solve_triangular keeps the system and what it found."""
    return op([system, right], right.elements, FP32, [system], saves_output=True)


def scanned(d: DeltaRule, out: Tensor, inputs: list[Tensor]) -> Tensor:
    """The loop over the chunks, as one operation that fills ``out``: it keeps what it reads, the values that it corrects and
    each chunk's state.

    Its backward pass writes a gradient as large as the whole for each chunk's slice and adds them up out of place.
    """
    states = per_token(-(-d.state_elements // CHUNK))
    kept = [*inputs]
    if out.tape.grad:
        kept = kept_by_loop(d, out) if out.tape.autocast else [*inputs, out.tape.tensor(out.elements, FP32)]
        kept.append(out.tape.tensor(states, FP32))
    largest = max((x.elements for x in inputs), key=lambda elements: elements[1])
    return op([out, *inputs], out.elements, FP32, kept, scratch=times(largest, 2 * FP32), view=True)


def kept_by_loop(d: DeltaRule, out: Tensor) -> list[Tensor]:
    """Under autocast a 16-bit copy of each factor of a product, of values and states for each of two."""
    rows = d.value_heads * (3 * d.key_dim + CHUNK + 2 * d.value_dim) + 2 * -(-d.state_elements // CHUNK)
    return [out.tape.tensor(per_token(rows), HALF)]
