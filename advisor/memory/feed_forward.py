"""Feed-forward parts, dense and as mixtures of experts, written with shadow operations.

Each function keeps the shape of the transformers code it stands for (modeling_llama.py and its relatives, 5.23),
down to which variable holds what until when, because that decides what is live at the peak.
"""

from advisor.memory import operations as ops
from advisor.memory.net import Net, share
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, Parameter, Tensor, op
from advisor.memory.weights import expert_rank
from advisor.model import Experts, Mlp

INDEX = 8  # bytes of an int64


def mlp(net: Net, m: Mlp, x: Tensor, hidden: int, prefix: str = "") -> Tensor:
    if m.gated and net.recipe.fused:
        wide = net.linear(prefix + "gate_up_proj", x, 2 * m.width, bias=m.bias)
        return net.linear(prefix + "down_proj", op([wide], per_token(m.width), wide.width, [wide]), hidden, bias=m.bias)
    if not m.gated:
        wide = mlp_in(net, m, x, prefix)
        if net.holds_inner:
            net.held = wide
        return mlp_out(net, m, wide, hidden, prefix)
    if m.fused:
        return gated_halves(net, m, net.linear(prefix + "gate_up_proj", x, 2 * m.width, bias=m.bias), hidden, prefix)
    return net.linear(
        prefix + "down_proj",
        ops.dropout(gated_product(net, m, x, prefix), m.dropout if net.recipe.train else 0.0),
        hidden,
        bias=m.bias,
    )


def mlp_in(net: Net, m: Mlp, x: Tensor, prefix: str = "") -> Tensor:
    """The first of two matrices, and the activation."""
    activation = "gelu" if net.recipe.fused else m.activation  # a kernel that keeps its input
    return ops.activation(net.linear(prefix + "up_proj", x, m.width, bias=m.bias), activation)


def mlp_out(net: Net, m: Mlp, wide: Tensor, hidden: int, prefix: str = "") -> Tensor:
    """The second."""
    wide = ops.dropout(wide, m.dropout if net.recipe.train else 0.0)
    return net.linear(prefix + "down_proj", wide, hidden, bias=m.bias)


def gated_halves(net: Net, m: Mlp, wide: Tensor, hidden: int, prefix: str = "") -> Tensor:
    """What follows a matrix that makes gate and up together."""
    gate, up = ops.split(wide, [m.width, m.width])
    return net.linear(prefix + "down_proj", net.gated(gate, up, m.activation), hidden, bias=m.bias)


def gated_product(net: Net, m: Mlp, x: Tensor, prefix: str) -> Tensor:
    if net.recipe.compiled:
        gate = net.linear(prefix + "gate_proj", x, m.width, bias=m.bias)
        return net.gated(gate, net.linear(prefix + "up_proj", x, m.width, bias=m.bias), m.activation)
    return ops.multiply(
        ops.activation(net.linear(prefix + "gate_proj", x, m.width, bias=m.bias), m.activation),
        net.linear(prefix + "up_proj", x, m.width, bias=m.bias),
    )


def experts(net: Net, e: Experts, x: Tensor, hidden: int) -> Tensor:
    """transformers 5's grouped experts: each token copied to its experts, sorted by expert, two grouped products.

    ``x`` may be a rank's own tokens (sequence parallel): they go to the experts as they are, and to the shared ones, which are cut,
    together with the others'.
    """
    parts = shares_tokens(net, e)
    known = e.routed or e.total
    seen, router = x, net.weight(hidden * known)
    if e.router_fp32:
        seen, router = ops.to(x, FP32), Parameter(router.elements, FP32, router.trainable)
    routing = ops.to(ops.linear(seen, router, share(known, parts)), FP32)
    del seen
    routing = op([routing], routing.elements, FP32, saves_output=True)  # softmax
    picks = per_token(share(e.active, parts))
    chosen = op([routing], picks, FP32, [net.tape.tensor(picks, INDEX)])
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
    shared = mlp(net, beside, net.gathered(x, hidden) if parts > 1 else x, hidden, "shared_experts.")
    shared = net.scattered(shared) if parts > 1 else shared
    if e.shared_gate:
        gate = ops.activation(net.linear("shared_expert_gate", x, 1), "relu")
        shared = ops.multiply_rows(shared, gate)
    return ops.plus(routed, shared)


def shares_tokens(net: Net, e: Experts) -> int:
    """Ranks that share out the tokens which go to the experts."""
    return 1 if e.latent else net.recipe.routed_parts


def exchanged(net: Net, x: Tensor) -> Tensor:
    """Tokens at the ranks of their experts, as many as left where the load is even: received, then sorted by expert."""
    return op([op([x], x.elements, x.width)], x.elements, x.width) if net.recipe.exchanged else x


def routed_experts(net: Net, e: Experts, x: Tensor, chosen: Tensor, hidden: int) -> Tensor:
    copies, parts = e.active, shares_tokens(net, e)
    picks = per_token(share(copies, parts))
    order = net.tape.tensor(picks, INDEX)
    sources = net.tape.tensor(picks, INDEX)
    selected = op([x], per_token(share(copies * hidden, parts)), x.width, [sources])
    selected = exchanged(net, selected)
    sorted_weights = op([chosen], picks, chosen.width, [order])
    wide = 2 * e.width if e.gated else e.width
    out = grouped(net, "experts.gate_up_proj" if e.gated else "experts.up_proj", e, selected, hidden, wide)
    half = share(copies * e.width, parts)
    if net.recipe.fused:  # Megatron multiplies by the router's weights here, in the same kernel
        out = op([out, sorted_weights], per_token(half), out.width, [out, sorted_weights])
    elif e.gated:
        gate, up = ops.split(out, [half, half])
        del out
        out = net.gated(gate, up, "silu")
        del gate, up
    else:
        out = ops.activation(out, "relu2")
    out = exchanged(net, grouped(net, "experts.down_proj", e, out, e.width, hidden))
    weighted = out if net.recipe.fused else ops.multiply_rows(out, sorted_weights)
    back = net.tape.tensor(picks, INDEX)
    weighted = op([weighted], weighted.elements, weighted.width, [back])
    return ops.to(op([weighted], per_token(share(hidden, parts)), weighted.width), x.width)


def grouped(net: Net, name: str, e: Experts, x: Tensor, into: int, out: int) -> Tensor:
    """One product for all experts: keeps its input when the experts are trained.

    PEFT adds an adapter of experts to the weights themselves: a merged copy of all of them, and its gradient.
    """
    recipe = net.recipe
    weight = net.weight(e.total * into * out)
    width = per_token(share(e.active * out, shares_tokens(net, e)))
    if net.tape.autocast and weight.width == FP32:  # grouped_mm is not on autocast's list: the input goes to the weights' type
        x = ops.to(x, FP32)
    if recipe.rank and name in recipe.targets:
        rank = expert_rank(name, recipe.rank) * e.total
        adapter = Parameter(rank * (into + out), recipe.adapter, True)
        source = Tensor(net.tape, net.tape.outside, (weight.elements, 0, 0, 0, 0, 0), weight.width, False, None)
        merged = op([source], source.elements, weight.width, weight=adapter)
        return op([x, merged], width, x.width, [x, merged])
    return op([x], width, max(x.width, weight.width), [x] if weight.trainable else [], weight=weight)
