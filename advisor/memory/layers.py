"""The forward passes of decoder layers and of the head, written with shadow operations.

Each function keeps the shape of the transformers code it stands for (modeling_llama.py and its relatives, 5.23),
down to which variable holds what until when, because that decides what is live at the peak.
"""

from collections.abc import Callable
from typing import NamedTuple

from advisor.memory import operations as ops
from advisor.memory import state_space
from advisor.memory.extent import Extent
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, HALF, Parameter, Tape, Tensor, op
from advisor.memory.weights import expert_rank
from advisor.model import RECURRENT, Attention, AttentionBesideStateSpace, Experts, LatentAttention, Layer, Mlp, Model

INDEX = 8  # bytes of an int64

Branch = Callable[[Tensor], Tensor]


class Recipe(NamedTuple):
    """How a model is run, as far as its tensors depend on it. Widths are bytes per element."""

    train: bool
    weight: int = HALF  # weights that are not quantized
    compute: int = HALF
    stream: int = HALF  # the residual stream, which has the embedding's type
    autocast: bool = False
    trainable: bool = True  # the base weights; False under LoRA
    quantized: bool = False  # linear weights are unpacked for each product
    rank: int = 0  # of the adapters; 0: none
    targets: frozenset[str] = frozenset()
    adapter: int = FP32
    dropout: bool = False  # before the adapters
    kernel: str = "flash"
    masked: bool = False  # sliding layers take an explicit mask, which no flash kernel accepts
    fused_loss: bool = False  # the loss is computed chunk by chunk, never over all logits at once
    caches: bool = False  # keys and values go to a cache


class Net:
    """A tape and the recipe: makes the linear layers, with their adapters, and the norms."""

    def __init__(self, tape: Tape, recipe: Recipe) -> None:
        self.tape = tape
        self.recipe = recipe
        self.cache: list[Tensor] = []
        self.own_names: dict[str, str] = {}  # what the family calls its modules, where that is not Llama's name
        self._weights: list[Parameter] = []  # autocast's cache knows weights by identity: keep them

    def weight(self, elements: int, trainable: bool | None = None) -> Parameter:
        made = Parameter(elements, self.recipe.weight, self.recipe.trainable if trainable is None else trainable)
        self._weights.append(made)
        return made

    def linear(self, name: str, x: Tensor, out: int, *, bias: bool = False, quantized: bool = True) -> Tensor:
        """A linear layer by its module name, and its adapter when the name is a target."""
        recipe = self.recipe
        weight = self.weight(ops.width_of(x) * out)
        if recipe.quantized and quantized:
            result = ops.dequantized_linear(x, weight, out, recipe.compute)
        else:
            result = ops.linear(x, weight, out, self.weight(out) if bias else None)
        return self._adapted(x, result, out) if recipe.rank and self._is_target(name) else result

    def _is_target(self, name: str) -> bool:
        return self.own_names.get(name, name).rsplit(".", 1)[-1] in self.recipe.targets

    def _adapted(self, x: Tensor, result: Tensor, out: int) -> Tensor:
        """PEFT's lora.Linear: result + B(A(dropout(x))) × scaling, in the adapters' type, cast back at the end."""
        recipe = self.recipe
        width = result.width
        down = Parameter(ops.width_of(x) * recipe.rank, recipe.adapter, True)
        up = Parameter(recipe.rank * out, recipe.adapter, True)
        self._weights += [down, up]
        x = ops.dropout(ops.to(x, recipe.adapter), 0.1 if recipe.dropout else 0.0)
        delta = ops.scaled(ops.linear(ops.linear(x, down, recipe.rank), up, out))
        return ops.to(ops.plus(result, delta), width)

    def norm(self, kind: str, x: Tensor, rows: int = 1, weights: int | None = None) -> Tensor:
        """A norm over each of ``rows`` vectors of a token."""
        elements = weights or ops.width_of(x)
        if kind == "none":
            return ops.to(ops.layer_norm(ops.to(x, FP32), None, None), x.width)
        weight = self.weight(elements)
        if kind == "layer":
            return ops.layer_norm(x, weight, self.weight(elements))
        if kind == "layer-plain":
            return ops.layer_norm(x, weight, None)
        if kind == "layer-fp32":
            return ops.centred_norm(x, weight, rows)
        if kind == "rms-gemma":
            return ops.gemma_norm(x, weight, rows)
        return ops.rms_norm(x, weight, rows, fp32_weight=kind == "rms-fp32")

    def remembered(self, elements: Extent, width: int) -> None:
        """A recurrent state: a tensor of its own in the cache."""
        if self.recipe.caches:
            self.cache.append(self.tape.tensor(elements, width))

    def cached(self, x: Tensor) -> Tensor:
        """Appended to the cache: a new tensor that stays."""
        if not self.recipe.caches:
            return x
        kept = op([x], x.elements, x.width)
        self.cache.append(kept)
        return kept


# --- attention -------------------------------------------------------------------------------------------------------


def attention(net: Net, a: Attention, x: Tensor, hidden: int, norm: str) -> Tensor:
    if a.fused:
        qkv = net.linear("qkv_proj", x, a.query_width + 2 * a.kv_width, bias=a.bias)
        if a.rotary:
            q, k, v = ops.part(qkv, a.query_width), ops.part(qkv, a.kv_width), ops.part(qkv, a.kv_width)
        else:
            q, k, v = ops.split(qkv, [a.query_width, a.kv_width, a.kv_width])
        del qkv
        if a.copies_heads:
            k, v = ops.contiguous(k), ops.contiguous(v)
    else:
        q = net.linear("q_proj", x, a.query_width * (2 if a.output_gate else 1), bias=a.bias)
        gate = None
        if a.output_gate:
            q, gate = ops.split(q, [a.query_width, a.query_width])
            gate = op([gate], gate.elements, gate.width, passes=True)  # every other piece of the projection, put side by side
        k = net.linear("k_proj", x, a.kv_width, bias=a.bias)
        v = net.linear("v_proj", x, a.kv_width, bias=a.bias)
    if a.qk_norm:
        head_norm = {"layer": "layer-plain", "none": "rms"}.get(norm, norm)
        per_head = a.qk_norm != "projection"
        q = net.norm(head_norm, q, a.heads if per_head else 1, a.head_dim if a.qk_norm == "head" else None)
        k = net.norm(head_norm, k, a.kv_heads if per_head else 1, a.head_dim if a.qk_norm == "head" else None)
    if a.rotary:
        q, k = rotated(net, q), rotated(net, k)
    k, v = net.cached(k), net.cached(v)
    out = attend(net, a, q, k, v)
    if not a.fused and a.output_gate and gate is not None:
        out = ops.multiply(out, ops.sigmoid(gate))
    return net.linear("o_proj", out, hidden, bias=a.out_bias)


def rotated(net: Net, x: Tensor) -> Tensor:
    """x cos + rotate_half(x) sin. The tables have the stream's type and need no gradient, so x itself is not kept."""
    width = max(x.width, net.recipe.stream)
    straight = op([x], x.elements, width)
    half = op([x], per_token(ops.width_of(x) // 2), x.width)
    crossed = op([half, x], x.elements, x.width)
    del half
    return ops.plus(straight, op([crossed], x.elements, width))


def attend(net: Net, a: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention by the recipe's kernel; the output is laid out for o_proj without a further copy."""
    kernel = net.recipe.kernel
    sliding = a.window is not None and net.recipe.masked
    if sliding and kernel == "flash":
        kernel = "efficient"
    groups = a.heads // a.kv_heads
    value_width = ops.width_of(v) * groups
    if kernel == "eager":
        return eager(net, a, q, repeated(k, groups, a.kv_heads), repeated(v, groups, a.kv_heads))
    if net.tape.autocast:
        q, k, v = ops.to(q, HALF), ops.to(k, HALF), ops.to(v, HALF)
    if kernel != "flash":
        k, v = repeated(k, groups, a.kv_heads), repeated(v, groups, a.kv_heads)
    if kernel == "math":
        return math_attention(q, k, v, a.heads)
    saves = [q, k, v, net.tape.tensor(per_token(a.heads), FP32)]  # logsumexp
    if sliding:
        saves.append(net.tape.tensor(scores_of(1), q.width))  # additive mask, one per layer and sequence
    out = op([q, k, v], per_token(value_width), q.width, saves, saves_output=True)
    if (
        a.partial_rotary and kernel == "flash"
    ):  # the kernel's output is laid out like the queries, head by head: o_proj gets a copy
        return op([out], out.elements, out.width)
    return out


def repeated(x: Tensor, groups: int, heads: int) -> Tensor:
    """Keys or values copied to every query head; a view where there is nothing to copy, or a single head to show many times."""
    return x if groups == 1 else op([x], per_token(ops.width_of(x) * groups), x.width, view=heads == 1)


def scores_of(heads: int) -> Extent:
    return (0, 0, heads, 0, 0, 0)


def eager(net: Net, a: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """transformers' eager attention: scores in the computing type, softmax in fp32, weights cast back."""
    if net.tape.autocast:
        q, k, v = ops.to(q, HALF), ops.to(k, HALF), ops.to(v, HALF)
    q, k, v = (
        ops.contiguous(q),
        ops.contiguous(k),
        ops.contiguous(v),
    )  # matmul flattens batch and heads, which such views do not allow
    weights = ops.scaled(op([q, k], scores_of(a.heads), q.width, [q, k]))
    if a.softcap:
        capped = ops.scaled(weights)
        capped = op([capped], capped.elements, capped.width, saves_output=True)
        weights = ops.scaled(capped)
        del capped
    weights = op([weights], weights.elements, weights.width, passes=True)  # + the causal mask
    if a.softmax_fp32 or net.tape.autocast:
        soft = op([ops.to(weights, FP32)], weights.elements, FP32, saves_output=True)
    else:
        soft = op([weights], weights.elements, weights.width, saves_output=True)
    weights = ops.to(soft, FP32 if soft.width == FP32 and not a.softmax_fp32 else q.width)
    del soft
    weights = ops.to(ops.dropout(weights, a.dropout if net.recipe.train else 0.0), q.width)
    return op([weights, v], per_token(ops.width_of(v)), v.width, [weights, v])


def math_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """SDPA's fallback: queries, keys and values in fp32, scaled copies of the first two, softmax in fp32."""
    width = q.width
    q32, k32, v32 = ops.scaled(ops.to(q, FP32)), ops.scaled(ops.to(k, FP32)), ops.to(v, FP32)
    scores = op([q32, k32], scores_of(heads), FP32, [q32, k32])
    soft = op([scores], scores.elements, FP32, saves_output=True)
    del scores
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


# --- feed-forward ----------------------------------------------------------------------------------------------------


def mlp(net: Net, m: Mlp, x: Tensor, hidden: int, prefix: str = "") -> Tensor:
    if not m.gated:
        wide = ops.activation(net.linear(prefix + "up_proj", x, m.width, bias=m.bias), m.activation)
        return net.linear(prefix + "down_proj", wide, hidden, bias=m.bias)
    if m.fused:
        gate, up = ops.split(net.linear(prefix + "gate_up_proj", x, 2 * m.width, bias=m.bias), [m.width, m.width])
        up = ops.multiply(up, ops.activation(gate, m.activation))
        return net.linear(prefix + "down_proj", up, hidden, bias=m.bias)
    return net.linear(
        prefix + "down_proj",
        ops.multiply(
            ops.activation(net.linear(prefix + "gate_proj", x, m.width, bias=m.bias), m.activation),
            net.linear(prefix + "up_proj", x, m.width, bias=m.bias),
        ),
        hidden,
        bias=m.bias,
    )


def experts(net: Net, e: Experts, x: Tensor, hidden: int) -> Tensor:
    """transformers 5's grouped experts: each token copied to its experts, sorted by expert, two grouped products."""
    seen, router = x, net.weight(hidden * e.total)
    if e.router_fp32:
        seen, router = ops.to(x, FP32), Parameter(router.elements, FP32, router.trainable)
    routing = ops.to(ops.linear(seen, router, e.total), FP32)
    del seen
    routing = op([routing], routing.elements, FP32, saves_output=True)  # softmax
    chosen = op([routing], per_token(e.active), FP32, [net.tape.tensor(per_token(e.active), INDEX)])
    chosen = chosen if e.weights_fp32 else ops.to(chosen, x.width)
    if e.latent:
        narrow = net.linear("fc1_latent_proj", x, e.latent)
        routed = net.linear("fc2_latent_proj", routed_experts(net, e, narrow, chosen, e.latent), hidden)
        del narrow
    else:
        routed = routed_experts(net, e, x, chosen, hidden)
    if not e.shared_width:
        return routed
    beside = Mlp(e.shared_width, gated=e.gated, fused=e.shared_fused, activation="silu" if e.gated else "relu2")
    shared = mlp(net, beside, x, hidden, "shared_experts.")
    if e.shared_gate:
        gate = ops.activation(net.linear("shared_expert_gate", x, 1), "relu")
        shared = ops.multiply_rows(shared, gate)
    return ops.plus(routed, shared)


def routed_experts(net: Net, e: Experts, x: Tensor, chosen: Tensor, hidden: int) -> Tensor:
    copies = e.active
    order = net.tape.tensor(per_token(copies), INDEX)
    sources = net.tape.tensor(per_token(copies), INDEX)
    selected = op([x], per_token(copies * hidden), x.width, [sources])
    sorted_weights = op([chosen], per_token(copies), chosen.width, [order])
    wide = 2 * e.width if e.gated else e.width
    out = grouped(net, "experts.gate_up_proj" if e.gated else "experts.up_proj", e, selected, hidden, wide)
    if e.gated:
        gate, up = ops.split(out, [copies * e.width, copies * e.width])
        del out
        out = ops.multiply(ops.activation(gate, "silu"), up)
        del gate, up
    else:
        out = ops.activation(out, "relu2")
    out = grouped(net, "experts.down_proj", e, out, e.width, hidden)
    weighted = ops.multiply_rows(out, sorted_weights)
    back = net.tape.tensor(per_token(copies), INDEX)
    weighted = op([weighted], weighted.elements, weighted.width, [back])
    return ops.to(op([weighted], per_token(hidden), weighted.width), x.width)


def grouped(net: Net, name: str, e: Experts, x: Tensor, into: int, out: int) -> Tensor:
    """One product for all experts: keeps its input when the experts are trained.

    PEFT adds an adapter of experts to the weights themselves: a merged copy of all of them, and its gradient.
    """
    recipe = net.recipe
    weight = net.weight(e.total * into * out)
    width = per_token(e.active * out)
    if net.tape.autocast and weight.width == FP32:  # grouped_mm is not on autocast's list: the input goes to the weights' type
        x = ops.to(x, FP32)
    if recipe.rank and name in recipe.targets:
        rank = expert_rank(name, recipe.rank) * e.total
        adapter = Parameter(rank * (into + out), recipe.adapter, True)
        source = Tensor(net.tape, net.tape.outside, (weight.elements, 0, 0, 0, 0, 0), weight.width, False, None)
        merged = op([source], source.elements, weight.width, weight=adapter)
        return op([x, merged], width, x.width, [x, merged])
    return op([x], width, max(x.width, weight.width), [x] if weight.trainable else [], weight=weight)


# --- layers and the head ---------------------------------------------------------------------------------------------


def layer_forward(net: Net, layer: Layer, x: Tensor, hidden: int, residual_dropout: float = 0.0) -> Tensor:
    """One decoder layer."""
    net.own_names = dict(layer.names)

    def mix(inner: Tensor) -> Tensor:
        if isinstance(layer.mixer, AttentionBesideStateSpace):
            return beside(net, layer.mixer, inner, hidden, layer.norm)
        if isinstance(layer.mixer, RECURRENT):
            return state_space.forward(net, layer.mixer, inner, hidden)
        if isinstance(layer.mixer, LatentAttention):
            return latent_attention(net, layer.mixer, inner, hidden)
        assert isinstance(layer.mixer, Attention)
        return ops.dropout(attention(net, layer.mixer, inner, hidden, layer.norm), residual_dropout)

    def feed(inner: Tensor) -> Tensor:
        if isinstance(layer.feed_forward, Experts):
            return experts(net, layer.feed_forward, inner, hidden)
        assert isinstance(layer.feed_forward, Mlp)
        return ops.dropout(mlp(net, layer.feed_forward, inner, hidden), residual_dropout)

    def norm(inner: Tensor) -> Tensor:
        return net.norm(layer.norm, inner)

    if layer.arrangement in ("parallel", "parallel2"):
        return _parallel(layer, x, mix, feed, norm)
    residual = ops.to(x, FP32) if layer.residual_fp32 else x
    for branch in (*([mix] if layer.mixer else []), *([feed] if layer.feed_forward else [])):
        inner = ops.to(residual, net.recipe.weight) if layer.residual_fp32 else residual
        if layer.arrangement != "post":
            inner = norm(inner)
        inner = branch(inner)
        if layer.arrangement in ("post", "sandwich"):
            inner = norm(inner)
        residual = ops.plus(residual, inner)
        del inner
    return residual


def beside(net: Net, both: AttentionBesideStateSpace, x: Tensor, hidden: int, norm: str) -> Tensor:
    """Falcon-H1: what goes into each mixer and what comes out is multiplied by a number."""
    mixed = ops.scaled(state_space.forward(net, both.state_space, ops.scaled(x), hidden))
    attended = ops.scaled(attention(net, both.attention, ops.scaled(x), hidden, norm))
    return ops.plus(mixed, attended)


def _parallel(layer: Layer, x: Tensor, mix: Branch, feed: Branch, norm: Branch) -> Tensor:
    inner = norm(x)
    mixed = mix(inner)
    fed = feed(norm(x) if layer.arrangement == "parallel2" else inner)
    del inner
    return ops.plus(ops.plus(fed, mixed), x)


def head_forward(net: Net, model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """The last norm, the logits and the cross-entropy over them: (loss, logits).

    transformers' ForCausalLMLoss: the logits in fp32, a log-softmax of them, the mean.
    """
    hidden = net.norm(model.norm, x) if model.final_norm else x
    del x
    logits = net.linear("lm_head", hidden, model.vocab, quantized=False)
    if model.logits_fp32:
        logits = ops.to(logits, FP32)
    if model.logit_softcap:
        bent = ops.scaled(logits)
        bent = op([bent], bent.elements, bent.width, saves_output=True)
        logits = ops.scaled(bent)
        del bent
    wide = ops.to(logits, FP32)
    log_probabilities = op([wide], wide.elements, FP32, saves_output=True)
    return op([log_probabilities], (1, 0, 0, 0, 0, 0), FP32, [log_probabilities]), logits
