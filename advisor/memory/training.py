"""One training step: the phases that it goes through, and what is there in each."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from advisor.errors import RequestError
from advisor.memory import optimizers
from advisor.memory.allocator import block
from advisor.memory.extent import size
from advisor.memory.formats import BYTES
from advisor.memory.layers import Recipe
from advisor.memory.parameters import Weight, layer_weights
from advisor.memory.passes import Passes, stored_block, training_passes
from advisor.memory.recipe import deepspeed_masters, recipe_of, resident_width, storing, trains_fully
from advisor.memory.shadow import Peak
from advisor.memory.sharding import Rank, Shares, zero_shares
from advisor.memory.weights import adapter_of, adapter_weights, held_outside, layer_sum, rank_sum
from advisor.workload import Workload

Parts = dict[str, int]

# DeepSpeed as the Hugging Face integration sets it up: two overlapping buckets of 2e8 elements for stages 1 and 2, up to 1e9
# parameters gathered at once for stage 3, whose optimizer works through sub-groups of 1e9 (deepspeed.ai/docs/config-json).
BUCKET, BUCKETS = 2 * 10**8, 2
LIVE_PARAMETERS = 10**9
SUB_GROUP = 10**9


def phases(w: Workload, rank: Rank) -> dict[str, Parts]:
    """The parts of allocated memory in each phase of a step on this rank, in bytes."""
    for kind in w.offload:
        if kind not in ("optimizer", "parameters"):
            raise RequestError(f"offload: {kind} is not estimated for training yet; optimizer and parameters are")
    recipe = recipe_of(w)._replace(fused_loss=w.loss == "chunked")
    shares = zero_shares(w.zero, w.data_parallel)
    there = _throughout(w, rank, recipe, shares)
    gradients = sum_gradients(w, rank, recipe) // shares.gradients
    adding = w.accumulation > 1
    if adding:
        there = {**there, "gradients": gradients}
    passes = _passes(w, rank, recipe, adding)
    found = {
        "load": {"weights": there["weights"]},
        "forward": _pass_parts(w, rank, there, passes.forward, passes, shares, 0),
        "backward": _pass_parts(w, rank, there, passes.backward, passes, shares, _recomputed_scores(w, rank, recipe)),
    }
    if w.optimizer != "none":
        found["step"] = _step(w, rank, recipe, there, gradients)
    return found


# --- there all the time ----------------------------------------------------------------------------------------------


def _throughout(w: Workload, rank: Rank, recipe: Recipe, shares: Shares) -> Parts:
    parts = {"weights": rank_sum(rank, storing(w)).bytes // shares.weights}
    if "parameters" in w.offload:
        parts["weights"] = 0
    if not trains_fully(w):
        parts["adapter-weights"] = _sum(rank, _adapters(w, recipe), recipe.adapter)
    if "optimizer" not in w.offload:
        parts["optimizer-state"] = _states(w, rank, recipe) // shares.states
        if deepspeed_masters(w):
            parts["master-weights"] = 4 * trained_elements(w, rank, recipe) // shares.states
    parts["gathered-parameters"] = _gathered(w, rank, recipe)
    parts["communication-buffers"] = _buckets(w, rank, recipe)
    return parts


Adapters = tuple[int, frozenset[str]]  # rank and targets


@lru_cache(maxsize=1024)
def _trained(rank: Rank, adapters: Adapters | None) -> tuple[Weight, ...]:
    model = rank.model
    if adapters is None:
        layers = (x for layer in model.layers for x in layer_weights(layer, model.hidden))
        return (*layers, *held_outside(rank))
    heads = [x for x in held_outside(rank) if x.name == "lm_head"] or [Weight("lm_head", model.vocab, model.hidden, "head")]
    of_head = adapter_of(heads[0], adapters[0]) if "lm_head" in adapters[1] and rank.has_head else ()
    return (*(x for layer in model.layers for x in adapter_weights(layer, model.hidden, *adapters)), *of_head)


def _adapters(w: Workload, recipe: Recipe) -> Adapters | None:
    return None if trains_fully(w) else (recipe.rank, recipe.targets)


def trained(w: Workload, rank: Rank) -> tuple[Weight, ...]:
    """The tensors that are trained on this rank: all weights, or the adapters."""
    return _trained(rank, _adapters(w, recipe_of(w)))


@lru_cache(maxsize=1024)
def _elements(rank: Rank, adapters: Adapters | None) -> int:
    return sum(x.elements for x in _trained(rank, adapters))


def trained_elements(w: Workload, rank: Rank, recipe: Recipe) -> int:
    return _elements(rank, _adapters(w, recipe))


def trained_width(w: Workload, recipe: Recipe) -> int:
    """Bytes of an element of what is trained, as it lies between steps."""
    return resident_width(w) if trains_fully(w) else recipe.adapter


@lru_cache(maxsize=1024)
def _sum(rank: Rank, adapters: Adapters | None, width: int) -> int:
    return sum(x.copies * block(x.rows * x.cols * width) for x in _trained(rank, adapters))


def sum_gradients(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Gradients have the type of what they belong to."""
    return _sum(rank, _adapters(w, recipe), trained_width(w, recipe))


@lru_cache(maxsize=1024)
def _sum_states(rank: Rank, adapters: Adapters | None, optimizer: str, width: int) -> int:
    return sum(optimizers.state_bytes(optimizer, x, width) for x in _trained(rank, adapters))


def _states(w: Workload, rank: Rank, recipe: Recipe) -> int:
    if not optimizers.OPTIMIZERS[w.optimizer].on_device:
        return 0
    width = 4 if deepspeed_masters(w) else trained_width(w, recipe)
    return _sum_states(rank, _adapters(w, recipe), w.optimizer, width)


def _gathered(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Parameters that stage 3 has gathered for the layers at hand, and offloaded ones fetched back."""
    if w.zero < 3 and "parameters" not in w.offload:
        return 0
    how = storing(w)._replace(width=recipe.weight)
    whole = rank_sum(rank, how).bytes
    if w.sharding == "deepspeed":
        return min(whole, LIVE_PARAMETERS * recipe.weight)
    # FSDP: the layer at work, the one that is prefetched, and the root unit with embedding and head.
    layers = max(layer_sum(x, rank.model.hidden, how).bytes for x, _ in rank.model.kinds)
    root = sum(x.elements * recipe.weight for x in held_outside(rank))
    return min(whole, 2 * layers + root)


def _buckets(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Flat copies of gradients on their way: DDP's buckets are a second copy of all of them (gradient_as_bucket_view is off by
    default), ZeRO's are of a fixed size."""
    if w.zero == 0:
        return sum_gradients(w, rank, recipe) if w.data_parallel > 1 else 0
    if w.sharding == "deepspeed" and w.zero < 3:
        return BUCKETS * min(BUCKET, trained_elements(w, rank, recipe)) * recipe.weight
    return 0


# --- the passes ------------------------------------------------------------------------------------------------------


def _passes(w: Workload, rank: Rank, recipe: Recipe, adding: bool) -> Passes:
    if w.checkpointing == "selective":
        recipe = recipe._replace(kernel=_fused_kernel(recipe))
    return training_passes(
        recipe, rank, checkpointed=w.checkpointing == "full", holds_logits=w.engine.holds_outputs, adding=adding
    )


def _fused_kernel(recipe: Recipe) -> str:
    """Selective recomputation keeps what a fused kernel would and makes the scores again (Korthikanti et al., arXiv 2205.05198)."""
    return "efficient" if recipe.kernel in ("eager", "math") else recipe.kernel


def _recomputed_scores(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """What one layer's scores add when selective recomputation comes to it."""
    if w.checkpointing != "selective" or _fused_kernel(recipe) == recipe.kernel:
        return 0
    layer, hidden = rank.model.layers[0], rank.model.hidden
    with_scores = stored_block(recipe, layer, hidden, rank.model.residual_dropout, False, False).kept
    fused = recipe._replace(kernel=_fused_kernel(recipe))
    without = stored_block(fused, layer, hidden, rank.model.residual_dropout, False, False).kept
    return max(0, size(with_scores, w.batch, local_seq(w)) - size(without, w.batch, local_seq(w)))


def local_seq(w: Workload) -> int:
    """Tokens of a sequence on one context-parallel rank."""
    return -(-w.seq // w.cp)


def _pass_parts(
    w: Workload, rank: Rank, there: Parts, peaks: Iterable[Peak], passes: Passes, shares: Shares, extra: int
) -> Parts:
    """The highest of the peaks, split into gradients, the loss and the rest."""
    seq = local_seq(w)
    waiting = (min(rank.stages - rank.stage, w.accumulation) - 1) * size(passes.kept, w.batch, seq)  # 1F1B schedule
    best: Parts = {}
    for peak in peaks:
        live = size(peak.live, w.batch, seq)
        gradients = size(peak.gradients, w.batch, seq)
        loss = size(peak.loss, w.batch, seq)
        parts = {"gradients": gradients // shares.gradients, "activations": live - gradients - loss, "logits-and-loss": loss}
        if not best or sum(parts.values()) > sum(best.values()):
            best = parts
    best["activations"] += extra + waiting
    return {**there, **{name: there.get(name, 0) + many for name, many in best.items()}}


# --- the optimizer's step --------------------------------------------------------------------------------------------


def _step(w: Workload, rank: Rank, recipe: Recipe, there: Parts, gradients: int) -> Parts:
    parts = {**there, "gradients": gradients}
    if w.engine.holds_outputs and rank.has_head and w.loss == "plain":
        parts["logits-and-loss"] = w.batch * local_seq(w) * rank.model.vocab * recipe.stream
    if "optimizer" not in w.offload:
        parts["step-temporaries"] = _step_temporaries(w, rank, recipe)
    return parts


def _step_temporaries(w: Workload, rank: Rank, recipe: Recipe) -> int:
    shard = trained_elements(w, rank, recipe) // zero_shares(w.zero, w.data_parallel).states
    copies = optimizers.step_copy(w.optimizer)
    if deepspeed_masters(w):
        # The fp32 gradient of what is being stepped, and the optimizer's own copy of it.
        at_once = min(shard, SUB_GROUP) if w.zero == 3 else shard
        return 4 * at_once * (1 + (copies if w.zero == 3 else 0))
    if w.optimizer == "muon":
        widest = max((x.elements // x.copies for x in trained(w, rank) if x.kind in ("linear", "expert")), default=0)
        return 3 * BYTES["bf16"] * widest  # Newton–Schulz iterates in bf16
    return copies * trained_width(w, recipe) * shard
