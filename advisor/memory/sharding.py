"""What one rank holds: the part of the model that tensor, pipeline and expert parallelism leave it, and ZeRO's shares."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from advisor.errors import RequestError
from advisor.model import (
    RECURRENT,
    Attention,
    AttentionBesideStateSpace,
    DeltaRule,
    Experts,
    KimiDelta,
    LatentAttention,
    Layer,
    Mlp,
    Model,
    Recurrent,
    SelectiveScan,
    ShortConvolution,
    StateSpace,
)
from advisor.workload import Workload


class Rank(NamedTuple):
    """One rank's part of the model, with the widths that are left to it; ``stage`` counts from 0."""

    model: Model
    embeds: bool = True
    has_head: bool = True
    stage: int = 0
    stages: int = 1


def ranks(w: Workload) -> Iterator[Rank]:
    """The ranks that can be the fullest: of a pipeline or a chain of devices the first, one between and the last."""
    stages = stage_count(w)
    local = narrowed(w.model, w.tp, w.ep)
    if stages == 1:
        yield whole_rank(local)
        return
    depth = len(local.layers)
    if stages > depth:
        raise RequestError(f"{w.model.name} has {depth} layers, which cannot be divided over {stages} GPUs")
    longest = math.ceil(depth / stages)
    for stage in sorted({0, 1, stages - 1} & set(range(stages))):
        # The fullest stage of its kind: the remainder goes to the first stages.
        count = longest if stage < depth % stages or depth % stages == 0 else depth // stages
        start = min(stage * longest, depth - count)
        part = local._replace(layers=local.layers[start : start + count], stored=None)
        yield Rank(part, embeds=stage == 0, has_head=stage == stages - 1, stage=stage, stages=stages)


@lru_cache(maxsize=256)
def whole_rank(model: Model) -> Rank:
    return Rank(model)


def stage_count(w: Workload) -> int:
    """Consecutive groups of layers, each on a GPU (or tensor-parallel group) of its own."""
    if w.task == "infer" and not w.engine.serving and w.tp == w.pp == 1:
        return w.gpus
    return w.pp


@lru_cache(maxsize=512)
def narrowed(model: Model, tp: int, ep: int = 1) -> Model:
    """The model as one tensor- and expert-parallel rank sees it: fewer heads, narrower feed-forward parts, a vocabulary shard."""
    if tp == ep == 1:
        return model
    layers = {layer: _narrowed_layer(layer, tp, ep, model.name) for layer, _ in model.kinds}
    return model._replace(
        vocab=math.ceil(model.vocab / tp),
        layers=tuple(layers[layer] for layer in model.layers),
        extra_parameters=model.extra_parameters,
        stored=None,
    )


def _narrowed_layer(layer: Layer, tp: int, ep: int, name: str) -> Layer:
    mixer, part = layer.mixer, layer.feed_forward
    if isinstance(mixer, AttentionBesideStateSpace):
        attention = _narrowed_layer(Layer(mixer.attention, None), tp, ep, name).attention
        state_space = narrowed_mixer(mixer.state_space, tp, name)
        assert isinstance(attention, Attention)
        assert isinstance(state_space, StateSpace)
        mixer = AttentionBesideStateSpace(attention, state_space)
    elif isinstance(mixer, Attention | LatentAttention):
        if mixer.heads % tp:
            raise RequestError(f"tp: {tp} does not divide the {mixer.heads} attention heads of {name}")
        mixer = mixer._replace(heads=mixer.heads // tp)
        if isinstance(mixer, Attention):
            mixer = mixer._replace(kv_heads=max(1, mixer.kv_heads // tp))  # replicated when there are fewer than ranks
    elif isinstance(mixer, RECURRENT):
        mixer = narrowed_mixer(mixer, tp, name)
    if isinstance(part, Mlp):
        part = part._replace(width=math.ceil(part.width / tp))
    elif isinstance(part, Experts):
        part = part._replace(
            total=math.ceil(part.total / ep),
            width=math.ceil(part.width / tp),
            shared_width=math.ceil(part.shared_width / tp),
        )
    return layer._replace(mixer=mixer, feed_forward=part)


def narrowed_mixer(mixer: Recurrent, tp: int, name: str) -> Recurrent:
    """A recurrent mixer with its heads divided, as serving engines shard it; its groups are replicated where they are fewer."""
    if mixer.shared_heads % tp:
        raise RequestError(f"tp: {tp} does not divide the {mixer.shared_heads} heads of {name}'s recurrent layers")
    if isinstance(mixer, DeltaRule):
        return mixer._replace(value_heads=mixer.value_heads // tp, key_heads=max(1, mixer.key_heads // tp))
    if isinstance(mixer, KimiDelta):
        return mixer._replace(heads=mixer.heads // tp)
    if isinstance(mixer, SelectiveScan | ShortConvolution):
        return mixer._replace(width=mixer.width // tp)
    return mixer._replace(heads=mixer.heads // tp, groups=max(1, mixer.groups // tp))


class Shares(NamedTuple):
    """The fractions (one over these numbers) of weights, gradients and optimizer state that one data-parallel rank keeps."""

    weights: int = 1
    gradients: int = 1
    states: int = 1


def zero_shares(stage: int, data_parallel: int) -> Shares:
    """ZeRO: stage 1 shards optimizer state, 2 gradients too, 3 weights too (arXiv 1910.02054)."""
    return Shares(
        weights=data_parallel if stage >= 3 else 1,
        gradients=data_parallel if stage >= 2 else 1,
        states=data_parallel if stage >= 1 else 1,
    )
