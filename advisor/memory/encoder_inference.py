"""One pass of an encoder, or what an encoder and a decoder do to generate: peaks of a forward pass, and two kinds of cache."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from advisor.memory import disentangled, encoders, sound
from advisor.memory.extent import NOTHING, Extent, add, less, size, times, total
from advisor.memory.kv_cache import cache_bytes, cross_bytes, largest_layer
from advisor.memory.losses import as_loss
from advisor.memory.net import Net, Recipe
from advisor.memory.operations import per_token
from advisor.memory.passes import above, cached_block, rotary_tables, unrecorded
from advisor.memory.recipe import recipe_of, storing
from advisor.memory.shadow import Block, Peak, Tape, envelope
from advisor.memory.sharding import Rank
from advisor.memory.weights import rank_sum
from advisor.model import Layer, Model
from advisor.workload import Workload

Parts = dict[str, int]


def phases(w: Workload, rank: Rank) -> dict[str, Parts]:
    """The parts of allocated memory in each phase; an encoder alone decodes nothing."""
    held = {"weights": rank_sum(rank, storing(w)).bytes}
    found = {"load": held, "prefill": {**held, **_reading(w, rank)}}
    if rank.model.is_encoder_decoder:
        found["decode"] = {**held, **_writing(w, rank)}
    return found


def _reading(w: Workload, rank: Rank) -> Parts:
    """The encoder's pass, or the decoder's first token when every layer's keys and values of the source have come, if that is
    higher."""
    recipe, model = recipe_of(w), rank.model
    peak = reading_peak(w, rank)
    parts = {"activations": size(peak.live, w.batch, _read(w)), "logits-and-loss": size(peak.loss, w.batch, _read(w))}
    parts["activations"] -= parts["logits-and-loss"]
    if not model.is_encoder_decoder:
        return parts
    cache = cross_bytes(model, w.batch, w.source, w.kv_precision) + cache_bytes(model, w.batch, 1, w.kv_precision)
    first = size(first_token_extent(recipe, model, w.source), w.batch, 1)
    states = size(states_extent(recipe, model, w.source), w.batch, 1)
    last = {"kv-cache": cache, "activations": max(first, states)}
    if last_logits(w, rank) > first - states:
        last = {"kv-cache": cache, "activations": states, "logits-and-loss": last_logits(w, rank)}
    return max(parts, last, key=lambda found: sum(found.values()))


def reading_peak(w: Workload, rank: Rank) -> Peak:
    return max(reading_peaks(recipe_of(w), rank.model), key=lambda peak: size(peak.live, w.batch, _read(w)))


def _read(w: Workload) -> int:
    """Tokens or positions of a sequence in the encoder."""
    return w.source or w.prompt


@lru_cache(maxsize=256)
def reading_peaks(recipe: Recipe, model: Model) -> tuple[Peak, ...]:
    """The peaks of an encoder's pass above the weights, and of the head behind it."""
    assert model.ends
    start = encoders.embedding_block(recipe, model, last=True, tied=False)
    shared = encoders.shared(recipe, model.layers[0], model.hidden, 0, checkpointed=False)
    around = total((rotary_tables(recipe, model), shared.transient, start.with_forward, start.kept))
    peaks = [*start.forward]
    if shared.listed:
        around = add(around, disentangled.listed(recipe, model.hidden, model.ends.encoder))
    for layer in dict.fromkeys(model.layers[: model.ends.encoder]):
        peaks += [Peak(add(around, peak.live)) for peak in cached_block(recipe, layer, model.hidden).forward]
    tape = Tape(grad=False)
    net = Net(tape, recipe)
    x = tape.tensor(per_token(model.hidden), recipe.stream)
    if model.is_encoder_decoder:
        x = encoders.finish(net, model, model.ends, x)
        return envelope([*peaks, *above(start.kept, tape.take_peaks())])
    _, out = encoders.head(net, model, model.ends, x)
    logits = out.storage.extent if model.has_lm_head else NOTHING
    last = tape.take_peaks()
    return envelope([*peaks, *(Peak(peak.live, loss=logits) for peak in last)])


@lru_cache(maxsize=256)
def silent_peaks(recipe: Recipe, model: Model, source: int) -> tuple[Peak, ...]:
    """An evaluation's pass during training: nothing is kept, and the loss is computed."""
    assert model.ends
    read = recipe._replace(train=False, dropout=False)

    def stack(layers: tuple[Layer, ...], others: int, *, last: bool = False) -> tuple[list[Peak], Extent]:
        """The peaks, and autocast's copies."""
        start = encoders.embedding_block(read, model, last=last, tied=False)
        about = encoders.shared(read, layers[0], model.hidden, others, checkpointed=False)
        around = total((about.transient, about.kept, rotary_tables(read, model), start.with_forward, start.kept))
        if about.listed:
            around = add(around, disentangled.listed(read, model.hidden, len(layers)))
        copies = less(start.kept_forward, start.kept)
        peaks: list[Peak] = []
        for layer, many in Counter(layers).items():
            found, made = unrecorded(read, layer, model.hidden, 0.0, others)
            peaks += above(total((around, copies, times(made, many - 1))), found)
            copies = add(copies, times(made, many))
        return peaks, copies

    peaks, held = stack(model.layers[: model.ends.encoder], 0, last=True)
    if model.is_encoder_decoder:
        first = Block(NOTHING, NOTHING, tuple(peaks), (), NOTHING)
        held = add(held, states_extent(read, model, source))
        written, copies = stack(model.layers[model.ends.encoder :], source)
        peaks = [*encoders.at_length(first, source).forward, *above(held, written)]
        held = add(held, copies)
    tape = Tape(grad=False, autocast=recipe.autocast)
    x = tape.tensor(per_token(model.hidden), recipe.stream)
    encoders.head(Net(tape, read), model, model.ends, x, loss=True)
    end = tape.take_peaks()
    return envelope([*peaks, *above(held, as_loss(end))])


def first_token_extent(recipe: Recipe, model: Model, source: int) -> Extent:
    """What the decoder's first token has beside the caches: the encoder's states, and the last layer at work."""
    assert model.ends
    layer = model.layers[-1]
    block = cached_block(recipe, layer, model.hidden, source)
    rise = max(block.forward, key=lambda peak: size(peak.live, 1, 1))
    return add(states_extent(recipe, model, source), add(rise.live, times(block.kept, -1)))


def states_extent(recipe: Recipe, model: Model, source: int) -> Extent:
    """What the encoder has made, which is held as long as there is something to generate, and the sound that it has read."""
    assert model.ends
    heard = sound.heard(recipe, model.ends.audio) if model.ends.audio else 0
    return (0, 0, 0, 0, 0, (source * model.hidden + heard) * recipe.stream)


def _writing(w: Workload, rank: Rank) -> Parts:
    """The last token: both caches and the encoder's states; beside them one layer's own keys, old and appended to, or the logits
    when all layers are done."""
    cross = cross_bytes(rank.model, w.batch, w.source, w.kv_precision)
    own = cache_bytes(rank.model, w.batch, w.length, w.kv_precision)
    copied = largest_layer(rank.model, w.batch, w.length, w.kv_precision) // 2
    states = size(states_extent(recipe_of(w), rank.model, w.source), w.batch, 1)
    logits = last_logits(w, rank)
    if logits > copied:
        return {"kv-cache": cross + own, "activations": states, "logits-and-loss": logits}
    return {"kv-cache": cross + own, "activations": states + copied}


def last_logits(w: Workload, rank: Rank) -> int:
    """Logits of one token a sequence, twice where a bias is added."""
    assert rank.model.ends
    return w.batch * rank.model.vocab * recipe_of(w).compute * (2 if rank.model.ends.logits_bias else 1)


def kv_text(w: Workload, rank: Rank, phase: str) -> str:
    """The arithmetic of both caches."""
    tokens = 1 if phase == "prefill" else w.length
    own = cache_bytes(rank.model, w.batch, tokens, w.kv_precision)
    cross = cross_bytes(rank.model, w.batch, w.source, w.kv_precision)
    read = "positions heard" if rank.model.ends and rank.model.ends.audio else "tokens read"
    return f"{cross:,} B + {own:,} B: keys and values of the {w.source:,} {read}, and of the {tokens:,} written"


def activations_text(w: Workload, rank: Rank, phase: str) -> str:
    parts = phases(w, rank)[phase]
    held = parts["activations"]
    if phase == "decode":
        return f"{held:,} B: what the encoder has made, and one layer's own keys, old and appended to, if they are the most"
    if parts.get("kv-cache"):
        return f"{held:,} B: what the encoder has made, and the first token in the decoder's last layer"
    return f"{held:,} B: one layer of the encoder at work, beside the embedding"


def logits_text(w: Workload, rank: Rank) -> tuple[str, str]:
    if rank.model.is_encoder_decoder:
        copies = recipe_of(w).compute * (2 if rank.model.ends and rank.model.ends.logits_bias else 1)
        text = f"{w.batch:,} × {rank.model.vocab:,} × {copies} B: logits of each sequence's last token"
        return text, "transformers generate"
    width = recipe_of(w).compute
    return f"{w.batch * w.prompt:,} × {rank.model.vocab:,} × {width} B: logits of every token", "transformers 5.23 ForMaskedLM"
