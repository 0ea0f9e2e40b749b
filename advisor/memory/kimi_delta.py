"""Kimi Delta Attention, written with shadow operations (chunk_kimi_delta_attention of transformers 5.23).

Each pair of positions in a chunk has a decay for each channel of the key: tensors of chunk × head_dim numbers a token and head.
"""

from __future__ import annotations

from advisor.memory import operations as ops
from advisor.memory.convolution import convolved, copied, exponential, filled, product, summed
from advisor.memory.extent import less, times
from advisor.memory.net import Net
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import FP32, Tensor, op
from advisor.mixers import KimiDelta

CHUNK = 64  # tokens
# The loop over a chunk's rows clones row i and the square before it, and keeps both.
KEPT_BY_ROWS = sum(i + i * i for i in range(1, CHUNK)) // CHUNK


def kimi_delta(net: Net, k: KimiDelta, x: Tensor, hidden: int) -> Tensor:
    """KimiLinearDeltaAttention."""
    mixed = ops.joined([net.linear(name, x, k.width) for name in ("q_proj", "k_proj", "v_proj")])
    net.remembered(per_sequence(k.mixed_width * k.kernel), mixed.width)
    mixed = ops.activation(convolved(net, mixed, k.kernel, bias=False), "silu")
    query, key, value = ops.split(mixed, [k.width] * 3)
    decay = forget_gate(net, k, x)
    beta = ops.sigmoid(net.linear("b_proj", x, k.heads))
    core = chunked(net, k, [query, key, value, beta, decay])
    net.remembered(per_sequence(k.state_elements), FP32)
    gate = net.linear("g_b_proj", net.linear("g_a_proj", x, k.head_dim), k.width)
    return net.linear("o_proj", gated(net, k, core, gate), hidden)


def forget_gate(net: Net, k: KimiDelta, x: Tensor) -> Tensor:
    """−exp(A) × softplus, written out as log(1 + exp) with a bound."""
    raw = net.linear("forget_gate.f_b_proj", net.linear("forget_gate.f_a_proj", x, k.head_dim), k.width)
    raw = op([ops.to(raw, FP32)], raw.elements, FP32, weight=net.weight(k.width))
    more = filled(exponential(raw))
    soft = op([more], raw.elements, FP32, [more])
    del more
    bound = net.tape.tensor(raw.elements, 1)
    soft = op([raw, soft], raw.elements, FP32, [bound])
    return ops.multiply_weight(soft, net.weight(k.heads))


def gated(net: Net, k: KimiDelta, x: Tensor, gate: Tensor) -> Tensor:
    """KimiLinearRMSNormGated: an RMS norm over each head, in fp32, times a sigmoid."""
    normal = ops.multiply_weight(ops.normalised(ops.to(x, FP32), k.heads), net.weight(k.head_dim))
    return ops.to(ops.multiply(normal, ops.sigmoid(ops.to(gate, FP32))), x.width)


def chunked(net: Net, k: KimiDelta, parts: list[Tensor]) -> Tensor:
    """chunk_kimi_delta_attention."""
    width = parts[0].width
    every, square = per_token(k.heads * CHUNK * k.head_dim), per_token(k.heads * CHUNK)
    query, key, value, beta, decay = [ops.to(copied(part), FP32) for part in parts]
    query, key = ops.unit_rows(query, k.heads), ops.unit_rows(key, k.heads)
    query = ops.scaled(filled(query))
    key, value, decay, beta = filled(key), filled(value), filled(decay), filled(beta)
    v_beta, k_beta = ops.multiply_rows(value, beta), ops.multiply_rows(key, beta)
    decay = op([decay], decay.elements, FP32, scratch=times(decay.elements, 2 * FP32))
    between = exponential(filled(op([decay, decay], every, FP32)))
    pairs = op([k_beta, key], every, FP32, [k_beta, key], scratch=times(every, 2 * FP32))
    system = summed(ops.multiply(pairs, between), square)
    del pairs
    system = by_rows(k, filled(filled(system)))
    value = product(system, v_beta, value.elements)
    k_decayed = product(system, ops.multiply(k_beta, exponential(decay)), key.elements)
    out = net.tape.tensor(value.elements, FP32)
    out = scanned(k, out, [value, k_decayed, query, key, decay, between])
    return ops.to(copied(out), width)


def by_rows(k: KimiDelta, system: Tensor) -> Tensor:
    """Forward substitution, row by row in place."""
    kept = [system.tape.tensor(per_token(k.heads * KEPT_BY_ROWS), FP32)] if system.tape.grad else []
    done = op([system], system.elements, FP32, kept, view=True, scratch=times(system.elements, 2 * FP32))
    del kept
    return filled(done)


def scanned(k: KimiDelta, out: Tensor, inputs: list[Tensor]) -> Tensor:
    """The loop over the chunks, as one operation: of each it keeps the products of queries and keys by channel, both decayed
    on their way, the scores, the corrected values and the state. Gradients of slices are added up out of place, once the last
    chunk's products are gone."""
    between = inputs[-1]
    kept = [*inputs]
    if out.tape.grad:
        wide = [out.tape.tensor(out.elements, FP32) for _ in range(5)]
        scores = out.tape.tensor(per_token(k.heads * CHUNK), FP32)
        state = out.tape.tensor(per_token(k.state_elements // CHUNK), FP32)
        kept += [out.tape.tensor(between.elements, FP32), *wide, scores, state]
    last_chunk = per_sequence(k.width * CHUNK * CHUNK)
    return op(
        [out, *inputs], out.elements, FP32, kept, scratch=times(less(times(between.elements, 2), last_chunk), FP32), view=True
    )
