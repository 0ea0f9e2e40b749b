"""Feed-forward parts, dense and as mixtures of experts, written with shadow operations.

Each function keeps the shape of the transformers code it stands for (modeling_llama.py and its relatives, 5.23),
down to which variable holds what until when, because that decides what is live at the peak.
"""

from advisor.memory import operations as ops
from advisor.memory.net import Net
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, Parameter, Tensor, op
from advisor.memory.weights import expert_rank
from advisor.model import Experts, Mlp

INDEX = 8  # bytes of an int64


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
