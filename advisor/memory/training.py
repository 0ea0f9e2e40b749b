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
from advisor.memory.weights import Storing, adapter_of, adapter_weights, held_outside, layer_sum, rank_sum
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
        if kind not in ("optimizer", "parameters", "activations"):
            raise RequestError(
                f"offload: {kind} are moved to the host for inference only; for training: optimizer, parameters, activations"
            )
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
        "forward": _pass_parts(w, rank, there, passes.forward, shares, in_flight(w, rank, passes)),
        "backward": _pass_parts(w, rank, there, passes.backward, shares, beside_backward(w, rank, recipe, passes)),
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
        parts["adapter-weights"] = trained_bytes(w, rank, recipe, recipe.adapter)
    if "optimizer" not in w.offload:
        parts["optimizer-state"] = state_bytes(w, rank, recipe) // shares.states
        if deepspeed_masters(w):
            parts["master-weights"] = 4 * trained_elements(w, rank, recipe) // shares.states
    parts["gathered-parameters"] = _gathered(w, rank, recipe)
    parts["communication-buffers"] = buckets(w, rank, recipe)
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


def trained_bytes(w: Workload, rank: Rank, recipe: Recipe, width: int) -> int:
    """What is trained, in blocks of ``width`` bytes an element."""
    return _sum(rank, _adapters(w, recipe), width)


def sum_gradients(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Gradients have the type of what they belong to."""
    return trained_bytes(w, rank, recipe, trained_width(w, recipe))


@lru_cache(maxsize=1024)
def _sum_states(rank: Rank, adapters: Adapters | None, optimizer: str, width: int) -> int:
    return sum(optimizers.state_bytes(optimizer, x, width) for x in _trained(rank, adapters))


def state_bytes(w: Workload, rank: Rank, recipe: Recipe) -> int:
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


def buckets(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Gradients on their way: DDP's buckets are a second copy of all of them (gradient_as_bucket_view is off by default),
    ZeRO's are of a fixed size, FSDP has one layer's."""
    if w.zero == 0:
        return sum_gradients(w, rank, recipe) if w.data_parallel > 1 else 0
    if w.sharding == "deepspeed" and w.zero < 3:
        return BUCKETS * min(BUCKET, trained_elements(w, rank, recipe)) * recipe.weight
    if w.sharding == "fsdp" and w.zero > 1 and w.data_parallel > 1 and trains_fully(w):
        # A layer's gradients are whole until they have been reduced and scattered.
        return max(layer_sum(x, rank.model.hidden, Storing("none", recipe.weight)).bytes for x, _ in rank.model.kinds)
    return 0


# --- the passes ------------------------------------------------------------------------------------------------------


def _passes(w: Workload, rank: Rank, recipe: Recipe, adding: bool) -> Passes:
    if w.checkpointing == "selective":
        recipe = recipe._replace(kernel=_fused_kernel(recipe))
    return training_passes(
        recipe,
        rank,
        checkpointed=w.checkpointing == "full",
        holds_logits=w.engine.holds_outputs,
        adding=adding,
        parked="activations" in w.offload,
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


def in_flight(w: Workload, rank: Rank, passes: Passes) -> int:
    """What other micro-batches keep on a pipeline stage: as many as there are stages after it (the 1F1B schedule)."""
    return (min(rank.stages - rank.stage, w.accumulation) - 1) * size(passes.kept, w.batch, local_seq(w))


def beside_backward(w: Workload, rank: Rank, recipe: Recipe, passes: Passes) -> int:
    return in_flight(w, rank, passes) + _recomputed_scores(w, rank, recipe)


def _pass_parts(w: Workload, rank: Rank, there: Parts, peaks: Iterable[Peak], shares: Shares, beside: int) -> Parts:
    """The highest of the peaks, split into gradients, the loss and the rest."""
    seq = local_seq(w)
    peak = highest(peaks, w.batch, seq, shares)
    gradients, loss = size(peak.gradients, w.batch, seq), size(peak.loss, w.batch, seq)
    return {
        **there,
        "gradients": there.get("gradients", 0) + gradients // shares.gradients,
        "activations": size(peak.live, w.batch, seq) - gradients - loss + beside,
        "logits-and-loss": loss,
    }


def highest(peaks: Iterable[Peak], batch: int, seq: int, shares: Shares) -> Peak:
    """The highest peak for this shape, when a rank keeps its share of the gradients only."""

    def height(peak: Peak) -> int:
        gradients = size(peak.gradients, batch, seq)
        return size(peak.live, batch, seq) - gradients + gradients // shares.gradients

    return max(peaks, key=height)


def peak_of(w: Workload, rank: Rank, phase: str) -> tuple[Peak, int]:
    """The moment of a pass that its figures are of, and what is there beside one micro-batch's tensors."""
    recipe = recipe_of(w)._replace(fused_loss=w.loss == "chunked")
    passes = _passes(w, rank, recipe, w.accumulation > 1)
    shares = zero_shares(w.zero, w.data_parallel)
    if phase == "forward":
        return highest(passes.forward, w.batch, local_seq(w), shares), in_flight(w, rank, passes)
    return highest(passes.backward, w.batch, local_seq(w), shares), beside_backward(w, rank, recipe, passes)


# --- the optimizer's step --------------------------------------------------------------------------------------------


def _step(w: Workload, rank: Rank, recipe: Recipe, there: Parts, gradients: int) -> Parts:
    parts = {**there, "gradients": gradients}
    if w.engine.holds_outputs and rank.has_head and w.loss == "plain":
        parts["logits-and-loss"] = w.batch * local_seq(w) * rank.model.vocab * recipe.stream
    if "optimizer" not in w.offload:
        parts["step-temporaries"] = step_temporaries(w, rank, recipe)
    return parts


def step_temporaries(w: Workload, rank: Rank, recipe: Recipe) -> int:
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
