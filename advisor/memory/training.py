"""One training step: the phases that it goes through, and what is there in each."""

from __future__ import annotations

from collections.abc import Iterable

from advisor.memory import collectives, loading, optimizers, reference, saving, trained
from advisor.memory.collectives import per_rank
from advisor.memory.extent import NOTHING, size
from advisor.memory.formats import BYTES
from advisor.memory.losses import held_logits
from advisor.memory.net import Recipe, share
from advisor.memory.offload import moved
from advisor.memory.passes import Passes, beside_logits, stored_block, training_passes
from advisor.memory.recipe import deepspeed_masters, keeps_masters, recipe_of, storing, trains_fully
from advisor.memory.shadow import Peak
from advisor.memory.sharding import Rank, shares_of
from advisor.memory.weights import rank_sum
from advisor.model import Layer
from advisor.workload import Workload

Parts = dict[str, int]


def phases(w: Workload, rank: Rank) -> dict[str, Parts]:
    """The parts of allocated memory in each phase of a step on this rank, in bytes."""
    recipe = recipe_of(w)
    gradients = _kept_share(w, rank, trained.gradient_bytes(w, rank, recipe))
    always = standing(w, rank, recipe)
    forgotten = trained.forgotten_gradient_bytes(w, rank)
    steady = {**always, "gradients": always.get("gradients", 0) + forgotten}
    summed = whole_gradients(w, rank, recipe) if reduces_late(w) else gradients
    there = {**steady, "gradients": forgotten + summed} if keeps_gradients(w) else dict(steady)
    passes = _passes(w, rank, recipe)
    around = {"gathered-parameters": collectives.gathered(w, rank, recipe)}
    if w.sharding == "deepspeed":
        there |= around  # its live parameters are there in the step as well
    backward = {**there, **around}
    backward["communication-buffers"] = there["communication-buffers"] + collectives.unreduced(w, rank, recipe)
    found = {
        "load": loading.training(w, rank, recipe, always).parts,
        "forward": _pass_parts(w, rank, recipe, {**there, **around}, passes.forward, in_flight(w, rank, passes)),
        "backward": _pass_parts(w, rank, recipe, backward, passes.backward, beside_backward(w, rank, recipe, passes)),
    }
    if w.optimizer != "none":
        found["step"] = _step(w, rank, recipe, there, forgotten + gradients)
    found["eval"] = _pass_parts(w, rank, recipe, {**steady, **around}, evaluation(w, rank, recipe), 0)
    if w.objective == "grpo":
        from advisor.memory import completions

        found["decode"] = {**steady, **completions.beside(w, rank, recipe)}
    found["save"] = {**steady, **saving.beside(w, rank, recipe)}
    return found


def keeps_gradients(w: Workload) -> bool:
    """Whether gradients are there in the forward pass: those of earlier micro-steps, or buffers that stand."""
    return w.accumulation > 1 or stands(w)


def stands(w: Workload) -> bool:
    """Whether gradients have buffers that are there between steps too: Megatron's, and the flat partition that DeepSpeed's stage 3
    sets up once (zero/stage3.py, grad_partitions_flat_buffer)."""
    return w.engine.fp32_gradients or (deepspeed_masters(w) and w.zero == 3)


def reduces_late(w: Workload) -> bool:
    """Whether gradients of all micro-steps but the last are summed as they are, whole (no_sync, set_requires_gradient_sync)."""
    sharded = w.sharding == "fsdp" and w.zero > 1 and w.data_parallel > 1
    return w.engine.reduces_late and sharded and w.accumulation > 1 and "gradients" not in moved(w)


def whole_gradients(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """All gradients of a rank, in the type that the passes make them in."""
    return trained.elements(w, rank, recipe) * (recipe.weight if trains_fully(w) else recipe.adapter)


def _kept_share(w: Workload, rank: Rank, gradients: int) -> int:
    return 0 if "gradients" in moved(w) else per_rank(w, rank, gradients, shares_of(w).gradients)


# --- there all the time ----------------------------------------------------------------------------------------------


def standing(w: Workload, rank: Rank, recipe: Recipe) -> Parts:
    """What is there between steps as well."""
    parts = _throughout(w, rank, recipe)
    if stands(w):
        parts["gradients"] = _kept_share(w, rank, trained.gradient_bytes(w, rank, recipe))
    return parts


def _throughout(w: Workload, rank: Rank, recipe: Recipe) -> Parts:
    shares, away = shares_of(w), moved(w)
    parts = {"weights": 0}
    if "parameters" not in away:
        parts["weights"] = per_rank(w, rank, rank_sum(rank, storing(w)).bytes, shares.weights)
    if not trains_fully(w):
        parts["adapter-weights"] = share(trained.in_blocks(w, rank, recipe, recipe.adapter), shares.weights)
    if reference.is_held(w):
        parts["reference-weights"] = per_rank(w, rank, reference.weights(w, rank), shares.weights)
    if "optimizer" not in away:
        parts["optimizer-state"] = per_rank(w, rank, trained.state_bytes(w, rank, recipe), shares.states)
        if keeps_masters(w):
            parts["master-weights"] = per_rank(w, rank, 4 * trained.elements(w, rank, recipe), shares.states)
    parts["communication-buffers"] = collectives.buckets(w, rank, recipe)
    return parts


# --- the passes ------------------------------------------------------------------------------------------------------


def _passes(w: Workload, rank: Rank, recipe: Recipe) -> Passes:
    if w.checkpointing == "selective":
        recipe = recipe._replace(kernel=_fused_kernel(recipe))
    return training_passes(
        recipe,
        rank,
        checkpointed=w.checkpointing == "full",
        holds_logits=holds_logits(w),
        adding=keeps_gradients(w),
        parked="activations" in moved(w),
        ending=reference.ending(w, rank, recipe, keeps_gradients(w)),
        others=w.source,
    )


def _fused_kernel(recipe: Recipe) -> str:
    """Selective recomputation keeps what a fused kernel would and makes the scores again (Korthikanti et al., arXiv 2205.05198)."""
    return "efficient" if recipe.kernel in ("eager", "math") else recipe.kernel


def _recomputed_scores(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """What the scores of the layer that has most of them add when selective recomputation comes to it."""
    if w.checkpointing != "selective" or recipe.kernel == _fused_kernel(recipe):
        return 0
    fused = recipe._replace(kernel=_fused_kernel(recipe))

    def kept(how: Recipe, layer: Layer) -> int:
        block = stored_block(how, layer, rank.model.hidden, rank.model.residual_dropout, False, False, w.source)
        return size(block.kept, w.sequences, local_seq(w))

    return max(0, *(kept(recipe, layer) - kept(fused, layer) for layer, _ in rank.model.kinds))


def local_seq(w: Workload) -> int:
    """Tokens of a sequence on one context-parallel rank."""
    return share(w.length, w.cp)


def evaluation(w: Workload, rank: Rank, recipe: Recipe) -> Iterable[Peak]:
    """The peaks of an evaluation's pass. A loop that holds its outputs has those of the last step meanwhile."""
    if rank.model.ends:
        from advisor.memory import encoder_inference

        peaks = encoder_inference.silent_peaks(recipe, rank.model, w.source)
    else:
        peaks = reference.evaluation(w, rank, recipe)
    return (
        beside_logits(peaks, held_logits(recipe, rank.model))
        if holds_logits(w) and rank.has_head and rank.model.has_lm_head
        else peaks
    )


def in_flight(w: Workload, rank: Rank, passes: Passes) -> int:
    """What other micro-batches keep on a pipeline stage: as many as there are stages after it (the 1F1B schedule)."""
    others = in_flight_count(w, rank) - 1
    return others * size(passes.kept, w.sequences, local_seq(w)) if others else 0


def holds_logits(w: Workload) -> bool:
    """Whether the loop still has the logits of the step before."""
    return w.engine.holds_outputs and w.objective == "lm" and recipe_of(w).loss != "fused"


def in_flight_count(w: Workload, rank: Rank) -> int:
    return min(rank.stages - rank.stage, w.accumulation)


def beside_backward(w: Workload, rank: Rank, recipe: Recipe, passes: Passes) -> int:
    return in_flight(w, rank, passes) + _recomputed_scores(w, rank, recipe)


def kept_gradients(w: Workload, recipe: Recipe, gradients: int) -> int:
    """What a rank keeps of ``gradients`` bytes that a pass has made: its share, in the type that they are reduced to."""
    if "gradients" in moved(w):
        return 0
    if reduces_late(w):
        return gradients
    if w.sharding == "fsdp" and w.zero > 1:
        gradients = gradients * trained.gradient_width(w, recipe) // (recipe.weight if trains_fully(w) else recipe.adapter)
    return share(gradients, shares_of(w).gradients)


def _pass_parts(w: Workload, rank: Rank, recipe: Recipe, there: Parts, peaks: Iterable[Peak], beside: int) -> Parts:
    """The highest of the peaks, split into gradients, the loss and the rest."""
    batch, seq = w.sequences, local_seq(w)
    peak = highest(w, recipe, peaks)
    gradients, loss = size(peak.gradients, batch, seq), size(peak.loss, batch, seq)
    return {
        **there,
        "gradients": there.get("gradients", 0) + kept_gradients(w, recipe, gradients),
        "activations": size(peak.live, batch, seq) - gradients - loss + beside,
        "logits-and-loss": loss,
    }


def highest(w: Workload, recipe: Recipe, peaks: Iterable[Peak]) -> Peak:
    """The highest peak for this shape, when a rank keeps its share of the gradients only."""
    batch, seq = w.sequences, local_seq(w)
    if w.zero < 2 and not w.offload:  # its share is all of them
        return max(peaks, key=lambda peak: size(peak.live, batch, seq))

    def height(peak: Peak) -> int:
        live = size(peak.live, batch, seq)
        if peak.gradients == NOTHING:
            return live
        gradients = size(peak.gradients, batch, seq)
        return live - gradients + kept_gradients(w, recipe, gradients)

    return max(peaks, key=height)


def peak_of(w: Workload, rank: Rank, phase: str) -> tuple[Peak, int]:
    """The moment of a pass that its figures are of, and what is there beside one micro-batch's tensors."""
    recipe = recipe_of(w)
    passes = _passes(w, rank, recipe)
    if phase == "forward":
        return highest(w, recipe, passes.forward), in_flight(w, rank, passes)
    if phase == "eval":
        return highest(w, recipe, evaluation(w, rank, recipe)), 0
    return highest(w, recipe, passes.backward), beside_backward(w, rank, recipe, passes)


# --- the optimizer's step --------------------------------------------------------------------------------------------


def _step(w: Workload, rank: Rank, recipe: Recipe, there: Parts, gradients: int) -> Parts:
    parts = {**there, "gradients": gradients}
    if holds_logits(w) and rank.has_head and rank.model.has_lm_head:
        parts["logits-and-loss"] = size(held_logits(recipe, rank.model), w.sequences, local_seq(w))
    if "optimizer" not in moved(w):
        parts["step-temporaries"] = step_temporaries(w, rank, recipe)
    return parts


def step_temporaries(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """What the step takes for a moment: fp32 gradients where masters are stepped, the optimizer's own copies."""
    shard = per_rank(w, rank, trained.elements(w, rank, recipe), shares_of(w).states)
    copies = 0 if w.engine.fused_step and w.optimizer == "adamw" else optimizers.step_copy(w.optimizer)
    if keeps_masters(w):
        at_once = min(shard, collectives.SUB_GROUP) if w.zero == 3 else shard
        made = 0 if w.engine.fp32_gradients else 1
        return 4 * at_once * (made + (copies if w.zero == 3 else 0))
    if w.optimizer == "muon":
        return 3 * BYTES["bf16"] * trained.widest_matrix(w, rank, recipe)  # Newton–Schulz iterates in bf16
    return copies * trained.width(w, recipe) * shard
