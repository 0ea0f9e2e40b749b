"""What one rank holds: the part of the model that tensor, pipeline and expert parallelism leave it, and ZeRO's shares."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from advisor.errors import RequestError
from advisor.memory.latest import latest
from advisor.mixers import (
    Attention,
    AttentionBesideStateSpace,
    DeltaRule,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    Mixer,
    SelectiveScan,
    ShortConvolution,
    StateSpace,
)
from advisor.model import Experts, Layer, Mlp, Model, SharedBlock, in_order
from advisor.workload import Workload


class Rank(NamedTuple):
    """One rank's part of the model, with the widths that are left to it; ``stage`` counts from 0."""

    model: Model
    embeds: bool = True
    has_head: bool = True
    stage: int = 0
    stages: int = 1
    head_parts: int = 1  # tensor-parallel ranks that an untied head is cut over, while the embedding is whole on each


def ranks(w: Workload) -> Iterator[Rank]:
    """The ranks that can be the fullest: of a pipeline or a chain of devices the first, one between and the last."""
    stages = w.gpus if w.deals_out_layers else w.pp
    local = narrowed(w.model, w.tp, w.ep, expert_tp(w), shard_rows(w))
    head_parts = w.tp if w.engine.vocabulary == "head" else 1
    if stages == 1:
        yield whole_rank(local, head_parts)
        return
    depth = len(local.layers)
    if stages > depth:
        raise RequestError(f"{w.model.name} has {depth} layers, which cannot be divided over {stages} GPUs")
    head_on_first = w.deals_out_layers and (w.engine.head_on_first or (w.engine.deals_out == "balanced" and w.model.tied))
    if w.deals_out_layers and w.engine.deals_out != "evenly":
        from advisor.memory.dealing import bounds

        dealt = bounds(w)
    else:
        dealt = tuple(stage_layers(depth, stages, stage, last_first=head_on_first) for stage in range(stages))
    last = len(dealt) - 1
    head_stage = 0 if head_on_first else last
    for stage in sorted({0, 1, last} & set(range(len(dealt)))):
        start, end = dealt[stage]
        yield Rank(
            _stage(local, start, end),
            embeds=stage == 0,
            has_head=stage == head_stage,
            stage=stage,
            stages=stages,
            head_parts=head_parts,
        )


@lru_cache(maxsize=1024)
def _stage(model: Model, start: int, end: int) -> Model:
    """The model with these layers alone: one object, of which everything else is worked out once."""
    return model._replace(layers=in_order(model.layers[start:end]), stored=None)


def stage_layers(depth: int, stages: int, stage: int, *, last_first: bool = False) -> tuple[int, int]:
    """The layers of a stage, from the first to before the end: those that remain go to the first stages, or to the last."""
    each, rest = divmod(depth, stages)
    longer = range(stages - rest, stages) if last_first else range(rest)

    def start(of: int) -> int:
        return each * of + sum(before in longer for before in range(of))

    return start(stage), start(stage + 1)


def shard_rows(w: Workload) -> int:
    """Rows of the embedding on one tensor-parallel rank, padded as the engine pads them."""
    parts, multiple = w.tp if w.engine.vocabulary == "sharded" else 1, w.engine.vocabulary_multiple
    return multiple * math.ceil(w.model.vocab / (multiple * parts))


@lru_cache(maxsize=256)
def whole_rank(model: Model, head_parts: int = 1) -> Rank:
    return Rank(model, head_parts=head_parts)


def expert_tp(w: Workload) -> int:
    """Into how many parts an expert is cut. Serving engines deal experts out over the tensor-parallel ranks and leave them whole;
    in training those that are dealt out stay whole too: Megatron-Core's README recommends --expert-tensor-parallel-size 1, all
    recipes of Megatron-Bridge and ms-swift set it (Megatron-LM's own default is tp)."""
    if w.task == "infer":
        return max(1, w.tp // w.ep)
    return 1 if w.ep > 1 else w.tp


@lru_cache(maxsize=512)
def narrowed(model: Model, tp: int, ep: int = 1, expert_tp: int = 1, vocab: int | None = None) -> Model:
    """The model as one tensor- and expert-parallel rank sees it: fewer heads, narrower feed-forward parts, and ``vocab`` rows of
    the vocabulary (by default its share)."""
    rows = math.ceil(model.vocab / tp) if vocab is None else vocab
    if tp == ep == 1 and rows == model.vocab:
        return model
    why_not = undivided(model, tp)
    if why_not:
        raise RequestError(f"tp: {tp} does not divide {why_not} of {model.name}")
    layers = {layer: _narrowed_layer(layer, tp, ep, expert_tp) for layer, _ in model.kinds}
    return model._replace(vocab=rows, layers=tuple(layers[layer] for layer in model.layers), stored=None)


@lru_cache(maxsize=512)
def undivided(model: Model, degree: int) -> str:
    """What of the model cannot be cut in ``degree`` equal parts, in words; empty where everything can.

    Engines raise where it cannot (vLLM 0.33.0, config/model.py). Fewer KV heads than ranks are copied.
    """
    for layer, _ in model.kinds:
        heads = getattr(layer.attention, "heads", degree)
        kv_heads = getattr(layer.attention, "kv_heads", degree)
        if heads % degree:
            return f"the {heads} attention heads"
        if kv_heads % degree and degree % kv_heads:
            return f"the {kv_heads} key-value heads"
        if layer.recurrent and layer.recurrent.shared_heads % degree:
            return f"the {layer.recurrent.shared_heads} heads of the recurrent layers"
        part = layer.shared.mlp if layer.shared else layer.feed_forward
        for name in ("width", "shared_width", "beside"):
            width = getattr(part, name, 0)
            if width % degree:
                return f"the feed-forward width of {width:,}"
    return ""


def _narrowed_layer(layer: Layer, tp: int, ep: int, expert_tp: int) -> Layer:
    part = layer.feed_forward
    if isinstance(part, Mlp):
        part = part._replace(width=part.width // tp)
    elif isinstance(part, Experts):
        part = part._replace(
            total=math.ceil(part.total / ep),
            routed=part.total if ep > 1 else None,
            width=part.width // expert_tp,
            shared_width=part.shared_width // tp,
            beside=part.beside // tp,
        )
    return layer._replace(mixer=_narrowed_mixer(layer.mixer, tp), feed_forward=part, shared=_narrowed_block(layer.shared, tp))


def _narrowed_block(block: SharedBlock | None, tp: int) -> SharedBlock | None:
    if block is None:
        return None
    attention = _narrowed_mixer(block.attention, tp)
    assert isinstance(attention, Attention)
    return block._replace(attention=attention, mlp=block.mlp._replace(width=block.mlp.width // tp))


def _narrowed_mixer(mixer: Mixer | None, tp: int) -> Mixer | None:
    """A mixer with its heads divided; keys and groups are replicated where there are fewer of them than ranks."""
    if isinstance(mixer, AttentionBesideStateSpace):
        attention, state_space = (_narrowed_mixer(part, tp) for part in (mixer.attention, mixer.state_space))
        assert isinstance(attention, Attention)
        assert isinstance(state_space, StateSpace)
        return AttentionBesideStateSpace(attention, state_space)
    if isinstance(mixer, Attention):
        return mixer._replace(heads=mixer.heads // tp, kv_heads=max(1, mixer.kv_heads // tp))
    if isinstance(mixer, LatentAttention | KimiDelta | LightningAttention):
        return mixer._replace(heads=mixer.heads // tp)
    if isinstance(mixer, DeltaRule):
        return mixer._replace(value_heads=mixer.value_heads // tp, key_heads=max(1, mixer.key_heads // tp))
    if isinstance(mixer, SelectiveScan | ShortConvolution):
        return mixer._replace(width=mixer.width // tp)
    if isinstance(mixer, StateSpace):
        return mixer._replace(heads=mixer.heads // tp, groups=max(1, mixer.groups // tp))
    return mixer


class Shares(NamedTuple):
    """The fractions (one over these numbers) of weights, gradients and optimizer state that one data-parallel rank keeps."""

    weights: int = 1
    gradients: int = 1
    states: int = 1


@latest
def shares_of(w: Workload) -> Shares:
    """What one rank keeps of what its replicas divide."""
    return zero_shares(w.zero, w.replicas)


def zero_shares(stage: int, data_parallel: int) -> Shares:
    """ZeRO: stage 1 shards optimizer state, 2 gradients too, 3 weights too (arXiv 1910.02054)."""
    return Shares(
        weights=data_parallel if stage >= 3 else 1,
        gradients=data_parallel if stage >= 2 else 1,
        states=data_parallel if stage >= 1 else 1,
    )
