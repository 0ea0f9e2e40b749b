"""The forward passes of whole decoder layers and of the head, written with shadow operations.

Each function keeps the shape of the transformers code it stands for (modeling_llama.py and its relatives, 5.23),
down to which variable holds what until when, because that decides what is live at the peak.
"""

from collections.abc import Callable

from advisor.memory import operations as ops
from advisor.memory import state_space
from advisor.memory.attention import attention, latent_attention
from advisor.memory.extent import times
from advisor.memory.feed_forward import experts, mlp, mlp_in, mlp_out, shares_tokens
from advisor.memory.net import Net
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, Tensor, op
from advisor.memory.shared_block import shared_block
from advisor.mixers import RECURRENT, Attention, AttentionBesideStateSpace, LatentAttention
from advisor.model import Experts, Layer, Mlp, Model

Branch = Callable[[Tensor], Tensor]


def layer_forward(net: Net, layer: Layer, x: Tensor, hidden: int, residual_dropout: float = 0.0) -> Tensor:
    """One decoder layer."""
    net.own_names = dict(layer.names)
    # The gradient of what is bounded lies as the stream does, channel by channel, and the last product takes a copy of it.
    clamped = net.recipe.clamped and layer.cross is None

    def mix(inner: Tensor) -> Tensor:
        out = net.scattered(mixed(net.gathered(inner, hidden)))
        drops = isinstance(layer.mixer, Attention) and layer.mixer.drops_output
        return ops.dropout(out, residual_dropout if drops else 0.0)

    def mixed(inner: Tensor) -> Tensor:
        if isinstance(layer.mixer, AttentionBesideStateSpace):
            return beside(net, layer.mixer, inner, hidden, layer.norm)
        if isinstance(layer.mixer, RECURRENT):
            return state_space.forward(net, layer.mixer, inner, hidden)
        if isinstance(layer.mixer, LatentAttention):
            return latent_attention(net, layer.mixer, inner, hidden)
        assert isinstance(layer.mixer, Attention)
        return attention(net, layer.mixer, inner, hidden, layer.norm)

    def look_back(inner: Tensor) -> Tensor:
        assert layer.cross
        return ops.dropout(attention(net, layer.cross, inner, hidden, layer.norm, net.memory), residual_dropout)

    def feed(inner: Tensor) -> Tensor:
        if isinstance(layer.feed_forward, Experts):
            if shares_tokens(net, layer.feed_forward) > 1:
                return experts(net, layer.feed_forward, inner, hidden)
            return net.scattered(experts(net, layer.feed_forward, net.gathered(inner, hidden), hidden))
        assert isinstance(layer.feed_forward, Mlp)
        fed = mlp(net, layer.feed_forward, net.gathered(inner, hidden), hidden)
        return ops.dropout(net.scattered(fed), residual_dropout)

    def widen(inner: Tensor) -> Tensor:
        assert isinstance(layer.feed_forward, Mlp)
        return mlp_in(net, layer.feed_forward, inner)

    def narrow(inner: Tensor) -> Tensor:
        assert isinstance(layer.feed_forward, Mlp)
        fed = ops.dropout(mlp_out(net, layer.feed_forward, inner, hidden), residual_dropout)
        return op([fed], fed.elements, fed.width, view=True) if clamped else fed

    def norm(inner: Tensor) -> Tensor:
        return net.norm(layer.norm, inner, weights=hidden)

    if layer.arrangement in ("parallel", "parallel2"):
        return _parallel(layer, x, mix, feed, norm)
    residual = ops.to(x, FP32) if layer.residual_fp32 else x
    steps = (widen, narrow) if layer.stepwise else (feed,)
    branches = (((mix,), layer.mixer), ((look_back,), layer.cross), (steps, layer.feed_forward))
    for branch, *rest in (branch for branch, there in branches if there):
        inner = ops.to(residual, net.recipe.weight) if layer.residual_fp32 else residual
        if layer.shared and branch is mix:
            inner = ops.plus(inner, shared_block(net, layer.shared, inner, hidden, layer.norm))
        if layer.arrangement in ("pre", "sandwich") or (layer.arrangement == "half" and branch is feed):
            inner = norm(inner)
        if layer.arrangement == "scaled":
            inner = residual = norm(inner)
        inner = branch(inner)
        for step in rest:
            inner = step(inner)
        if layer.arrangement == "scaled":
            residual, inner = ops.scaled(residual), ops.scaled(inner)
        if layer.arrangement in ("post", "sandwich"):
            inner = norm(inner)
        added = ops.plus(residual, inner)
        if layer.stepwise:
            inner = added
        residual = norm(added) if layer.arrangement == "after" else added
        del inner, added
    net.held = None
    if clamped:
        masks = times(residual.elements, 2)  # of what lies above the one bound and below the other, a byte each
        residual = op([residual], residual.elements, residual.width, [residual], scratch=masks)
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


def last_norm(net: Net, model: Model, x: Tensor) -> Tensor:
    """The states that the head takes."""
    hidden = net.norm(model.norm, x, weights=model.hidden) if model.final_norm else x
    return net.gathered(hidden, model.hidden)


def logits_of(net: Net, model: Model, hidden: Tensor, parts: int = 1) -> Tensor:
    """The head. ``parts``: ranks that have one of it each, and gather the logits."""
    logits = net.linear("lm_head", hidden, -(-model.vocab // parts), quantized=net.recipe.quantized_head)
    if parts > 1:
        logits = op([logits], per_token(model.vocab), logits.width)
    if model.logits_fp32 or net.recipe.outputs_fp32:
        logits = ops.to(logits, FP32)
    if model.logit_softcap:
        bent = ops.scaled(logits)
        bent = op([bent], bent.elements, bent.width, saves_output=True)
        logits = ops.scaled(bent)
    return logits


def head_forward(net: Net, model: Model, x: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
    """The logits and the cross-entropy over them: (loss, logits).

    transformers' ForCausalLMLoss: the logits in fp32, a log-softmax of them, the mean. Before 4.45 the logits became fp32 in the
    model, and the loss was over a copy of them without the last token; remote code of 2023 copied them as they were.
    """
    if model.ends:
        from advisor.memory.encoders import head

        return head(net, model, model.ends, x)
    hidden = last_norm(net, model, x)  # a name of the model's forward, and so there while the loss is computed
    del x
    logits = logits_of(net, model, hidden, parts)
    shifted = op([logits], logits.elements, logits.width) if net.recipe.shifted else logits
    wide = shifted if net.recipe.narrow_loss and not net.tape.autocast else ops.to(shifted, FP32)
    if net.recipe.fused:  # Megatron's cross-entropy makes the softmax, and then the gradient, where the fp32 logits are
        loss = op([wide], (1, 0, 0, 0, 0, 0), FP32, [wide])
        if loss.node:
            loss.node.in_place = True
        return loss, logits
    log_probabilities = op([wide], wide.elements, wide.width, saves_output=True)
    return op([log_probabilities], (1, 0, 0, 0, 0, 0), FP32, [log_probabilities]), logits
