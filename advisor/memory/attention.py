"""Softmax attention by each kernel, and DeepSeek's latent attention, written with shadow operations.

Each function keeps the shape of the transformers code it stands for (modeling_llama.py and its relatives, 5.23),
down to which variable holds what until when, because that decides what is live at the peak.
"""

from advisor.memory import operations as ops
from advisor.memory.disentangled import disentangled
from advisor.memory.extent import NOTHING, Extent, add, times
from advisor.memory.net import Net
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, HALF, Tensor, op
from advisor.mixers import Attention, LatentAttention

INDEX = 8  # bytes of an int64


def attention(net: Net, a: Attention, x: Tensor, hidden: int, norm: str, memory: Tensor | None = None) -> Tensor:
    """``memory``: what a decoder attends to in place of its own tokens."""
    if a.disentangled:
        return disentangled(net, a, x, hidden)
    part = "" if memory is None else "cross."
    joined = a.fused or net.recipe.joined
    if joined:
        qkv = net.linear("qkv_proj", x, a.query_width + 2 * a.kv_width, bias=a.bias)
        if a.rotary and not net.recipe.joined and not a.fp32_rotary:
            q, k, v = ops.part(qkv, a.query_width), ops.part(qkv, a.kv_width), ops.part(qkv, a.kv_width)
        else:
            q, k, v = ops.split(qkv, [a.query_width, a.kv_width, a.kv_width])
        del qkv
        if a.copies_heads:
            k, v = ops.contiguous(k), ops.contiguous(v)
    else:
        q = net.linear(part + "q_proj", x, a.query_width * (2 if a.output_gate else 1), bias=a.bias)
        gate = None
        if a.output_gate:
            q, gate = ops.split(q, [a.query_width, a.query_width])
            gate = op([gate], gate.elements, gate.width, passes=True)  # every other piece of the projection, put side by side
        if a.head_by_head:
            q = ops.laid_out(ops.scaled(q))
        seen = x if memory is None else memory
        k = net.linear(part + "k_proj", seen, a.kv_width, bias=a.bias and not a.unbiased_keys)
        k = ops.laid_out(k) if a.head_by_head else k
        v = net.linear(part + "v_proj", seen, a.kv_width, bias=a.bias)
        v = ops.laid_out(v) if a.head_by_head else v
        del seen
    if a.qk_norm:
        head_norm = {"layer": "layer-plain", "none": "rms"}.get(norm, norm)
        per_head = a.qk_norm != "projection"
        q = net.norm(head_norm, q, a.heads if per_head else 1, a.head_dim if a.qk_norm == "head" else None)
        k = net.norm(head_norm, k, a.kv_heads if per_head else 1, a.head_dim if a.qk_norm == "head" else None)
    if a.rotary and a.fp32_rotary:
        q32, k32 = rotated_fp32(q), rotated_fp32(k)
        q, k = ops.to(q32, q.width), ops.to(k32, k.width)
        del q32, k32
    elif a.rotary:
        q, k = rotated(net, q), rotated(net, k)
    if a.causal or memory is not None:
        k, v = net.cached(k), net.cached(v)
    bias = net.bias if memory is None else net.cross_bias
    out = attend(net, a, q, k, v, own_bias(net, a, memory) if a.position_bias == "own" else bias)
    del bias
    if not joined and a.output_gate and gate is not None:
        out = ops.multiply(out, ops.sigmoid(gate))
    mixed = net.linear(part + "o_proj", out, hidden, bias=a.out_bias)
    if a.fp32_rotary:
        net.held = mixed  # ModernBertEncoderLayer names it attn_output
    return mixed


def own_bias(net: Net, a: Attention, memory: Tensor | None) -> Tensor:
    """UMT5: numbers for each head and distance that a layer makes for itself, whose places in its table are kept."""
    if memory is not None:
        return net.tape.tensor((0, 0, 0, a.heads * net.tape.others, 0, 0), net.recipe.weight)
    places = net.tape.tensor((0, 0, 0, 0, 1, 0), INDEX)
    table = net.weight(a.buckets * a.heads)
    return op([places], (0, 0, 0, 0, a.heads, 0), net.recipe.weight, [places], weight=table)


def rotated_fp32(x: Tensor) -> Tensor:
    """The rotation on fp32 copies, one for each half of the sum (modeling_modernbert.py, apply_rotary_pos_emb)."""
    straight = op([ops.to(x, FP32)], x.elements, FP32)
    crossed = ops.to(x, FP32)
    crossed = op([op([crossed], per_token(ops.width_of(x) // 2), FP32), crossed], x.elements, FP32)
    crossed = op([crossed], x.elements, FP32)
    return ops.plus(straight, crossed)


def rotated(net: Net, x: Tensor) -> Tensor:
    """x cos + rotate_half(x) sin. The tables have the stream's type and need no gradient, so x itself is not kept."""
    width = max(x.width, net.recipe.stream)
    if net.recipe.fused or net.recipe.compiled:
        return op([x], x.elements, width)
    straight = op([x], x.elements, width)
    half = op([x], per_token(ops.width_of(x) // 2), x.width)
    crossed = op([half, x], x.elements, x.width)
    del half
    return ops.plus(straight, op([crossed], x.elements, width))


def attend(net: Net, a: Attention, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention by the recipe's kernel; the output is laid out for o_proj without a further copy."""
    kernel = net.recipe.kernel
    if bias is not None and kernel == "flash":
        kernel = "efficient"  # a bias is a mask with numbers, which no flash kernel takes
    sliding = a.window is not None and net.recipe.masked
    if sliding and kernel == "flash":
        kernel = "efficient"
    groups = a.heads // a.kv_heads
    value_width = ops.width_of(v) * groups
    if net.recipe.expands_keys and groups > 1:  # repeat_interleave, which copies a single head too
        k, v = repeated(k, groups, a.heads), repeated(v, groups, a.heads)
        groups = 1
    if kernel == "eager":
        return eager(net, a, q, repeated(k, groups, a.kv_heads), repeated(v, groups, a.kv_heads), bias)
    if net.tape.autocast:
        q, k, v = ops.to(q, HALF), ops.to(k, HALF), ops.to(v, HALF)
    if kernel != "flash":
        k, v = repeated(k, groups, a.kv_heads), repeated(v, groups, a.kv_heads)
    if kernel == "math":
        return math_attention(q, k, v, a.heads, a.dropout if net.recipe.train else 0.0)
    # Ring attention (arXiv 2310.01889): while a block is attended to, the next rank's arrives; backward its gradient travels too.
    arriving = [net.tape.tensor(x.elements, x.width) for x in (k, v)] if net.recipe.ring else []
    travelling = times(add(k.elements, v.elements), 2 * k.width) if net.recipe.ring else NOTHING
    saves = [q, k, v, net.tape.tensor(per_token(a.heads), FP32)]  # logsumexp
    if sliding:
        saves.append(net.tape.tensor(scores_of(1), q.width))  # additive mask, one per layer and sequence
    inputs = [q, k, v]
    if bias is not None:
        if k.elements[1]:  # a copy for each layer: with the causal mask in it, or laid out anew (sdpa_attention.py)
            bias = op([bias], bias.elements, q.width)
        inputs.append(op([bias], scores_of(a.heads, k), q.width, view=True))
        saves.append(bias)
    out = op(inputs, per_token(value_width), q.width, saves, saves_output=True, scratch=travelling)
    del arriving
    if (
        a.partial_rotary or a.head_by_head
    ) and kernel == "flash":  # the kernel's output is laid out like the queries, head by head: o_proj gets a copy
        return op([out], out.elements, out.width)
    return out


def repeated(x: Tensor, groups: int, heads: int) -> Tensor:
    """Keys or values copied to every query head; a view where there is nothing to copy, or a single head to show many times."""
    return x if groups == 1 else op([x], per_token(ops.width_of(x) * groups), x.width, view=heads == 1)


def scores_of(heads: int, k: Tensor | None = None) -> Extent:
    """A number for each head, query and key; the keys are as many as the queries unless ``k`` has its own length."""
    return per_token(heads * k.tape.others) if k is not None and not k.elements[1] else (0, 0, heads, 0, 0, 0)


def eager(net: Net, a: Attention, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """transformers' eager attention: scores in the computing type, softmax in fp32, weights cast back."""
    if net.tape.autocast:
        q, k, v = ops.to(q, HALF), ops.to(k, HALF), ops.to(v, HALF)
    q, k, v = (
        ops.contiguous(q),
        ops.contiguous(k),
        ops.contiguous(v),
    )  # matmul flattens batch and heads, which such views do not allow
    weights = ops.scaled(op([q, k], scores_of(a.heads, k), q.width, [q, k]))
    if bias is not None:
        shown = op([bias], weights.elements, bias.width, view=True)
        weights = op([weights, shown], weights.elements, max(weights.width, bias.width), passes=True)
        del shown
    if a.softcap:
        capped = ops.scaled(weights)
        capped = op([capped], capped.elements, capped.width, saves_output=True)
        weights = ops.scaled(capped)
        del capped
    if a.causal or (a.window and net.recipe.masked):
        weights = op([weights], weights.elements, weights.width, passes=True)  # + the mask
    if a.softmax_fp32 or net.tape.autocast:
        soft = op([ops.to(weights, FP32)], weights.elements, FP32, saves_output=True)
    else:
        soft = op([weights], weights.elements, weights.width, saves_output=True)
    weights = ops.to(soft, FP32 if soft.width == FP32 and not a.softmax_fp32 else q.width)
    del soft
    weights = ops.dropout(weights, a.dropout if net.recipe.train else 0.0)
    net.held = None if a.rotary else weights  # whose families' layers peak in their attention anyway
    weights = ops.to(weights, q.width)
    return op([weights, v], per_token(ops.width_of(v)), v.width, [weights, v])


def math_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, dropout: float = 0.0) -> Tensor:
    """SDPA's fallback: queries, keys and values in fp32, scaled copies of the first two, softmax in fp32."""
    width = q.width
    q32, k32, v32 = ops.scaled(ops.to(q, FP32)), ops.scaled(ops.to(k, FP32)), ops.to(v, FP32)
    scores = op([q32, k32], scores_of(heads, k), FP32, [q32, k32])
    soft = op([scores], scores.elements, FP32, saves_output=True)
    del scores
    soft = ops.dropout(soft, dropout)
    return ops.to(op([soft, v32], per_token(ops.width_of(v)), FP32, [soft, v32]), width)


def latent_attention(net: Net, a: LatentAttention, x: Tensor, hidden: int) -> Tensor:
    """DeepSeek's MLA: low-rank queries, one compressed vector for keys and values, expanded for the kernel."""
    head = a.nope_dim + a.rope_dim
    if a.query_rank is None:
        q = net.linear("q_proj", x, a.heads * head)
    else:
        q = net.linear("q_b_proj", net.norm("rms", net.linear("q_a_proj", x, a.query_rank)), a.heads * head)
    q_nope, q_rope = ops.split(q, [a.heads * a.nope_dim, a.heads * a.rope_dim])
    compressed = net.linear("kv_a_proj_with_mqa", x, a.kv_rank + a.rope_dim)
    latent, k_rope = ops.split(compressed, [a.kv_rank, a.rope_dim])
    latent = net.norm("rms", latent)
    if a.rotary:
        rotate = rotated_complex if a.fp32_rotary else rotated
        q_rope, k_rope = rotate(net, q_rope), rotate(net, k_rope)
    latent, k_rope = net.cached(latent), net.cached(k_rope)
    query = ops.joined([q_nope, q_rope]) if a.rotary else q
    key, value = expanded(net, a, latent, k_rope)
    kernel = "efficient" if net.recipe.kernel == "flash" else net.recipe.kernel  # flash needs one width for keys and values
    out = attend(Net(net.tape, net.recipe._replace(kernel=kernel)), Attention(a.heads, a.heads, head), query, key, value)
    return net.linear("o_proj", out, hidden)


def rotated_complex(net: Net, x: Tensor) -> Tensor:
    """DeepSeek-V2's rotation as complex numbers in fp32. The product keeps nothing that is not shared but the fp32 copy."""
    return ops.to(op([ops.to(x, FP32)], x.elements, FP32), x.width)


def expanded(net: Net, a: LatentAttention, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
    both = net.linear("kv_b_proj", latent, a.heads * (a.nope_dim + a.value_dim))
    nope, value = ops.split(both, [a.heads * a.nope_dim, a.heads * a.value_dim])
    key = op([nope, k_rope], per_token(a.heads * (a.nope_dim + a.rope_dim)), nope.width)
    return key, value
