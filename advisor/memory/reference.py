"""Objectives in a training step: the head that they put in place of the next token's loss, and the model that they refer to."""

from __future__ import annotations

from advisor.memory.evaluation import no_grad_pass
from advisor.memory.extent import NOTHING, add, times
from advisor.memory.net import Recipe
from advisor.memory.operations import per_token
from advisor.memory.passes import Ending
from advisor.memory.preference import Head, pair_block, tile
from advisor.memory.recipe import compute_width, resident_width, storing
from advisor.memory.shadow import FP32, Peak, envelope
from advisor.memory.sharding import Rank
from advisor.memory.weights import rank_sum
from advisor.objectives import REFERRED, WHOLE_LOGITS
from advisor.workload import Workload


def head(w: Workload, rank: Rank, recipe: Recipe) -> Head | None:
    """What stands in place of the language model's loss; None where nothing does."""
    if w.objective == "lm":
        return None
    if w.objective == "reward":
        return Head("score")
    if w.objective in WHOLE_LOGITS and not w.engine.fp32_preferences:
        return Head("odds-of-one" if w.batch == 1 else "odds")
    if w.loss == "chunked":
        return Head("tiles", tile(recipe, rank.model, w.sequences * -(-w.seq // w.cp)))
    return Head("log-probs")


def ending(w: Workload, rank: Rank, recipe: Recipe, adding: bool) -> Ending | None:
    """The end of the pass, and the reference's pass after it."""
    own = head(w, rank, recipe)
    if own is None:
        return None
    referred = no_grad_pass(recipe_of_reference(w, recipe), rank, own) if w.objective in REFERRED else ()
    return Ending(pair_block(recipe, rank.model, own, adding), referred)


def evaluation(w: Workload, rank: Rank, recipe: Recipe) -> tuple[Peak, ...]:
    """The peaks of an evaluation: the model's pass, and the reference's beside the logits that LLaMA-Factory holds meanwhile."""
    own = head(w, rank, recipe)
    peaks = no_grad_pass(recipe, rank, own)
    if own is None or w.objective not in REFERRED:
        return peaks
    held = times(per_token(rank.model.vocab), FP32) if own.kind == "log-probs" and rank.has_head else NOTHING
    referred = no_grad_pass(recipe_of_reference(w, recipe), rank, own)
    return envelope([*peaks, *(Peak(add(x.live, held), loss=add(x.loss, held)) for x in referred)])


def is_held(w: Workload) -> bool:
    """Whether the reference is a second copy: adapters can be switched off instead (TRL 1.16 trainer/dpo_trainer.py)."""
    return w.objective in REFERRED and w.method == "full"


def width(w: Workload) -> int:
    """Bytes of an element of the reference: as the trained weights are, or as the engine loads what is not trained."""
    return compute_width(w) if w.engine.reference == "compute" else resident_width(w)


def weights(w: Workload, rank: Rank) -> int:
    return rank_sum(rank, storing(w)._replace(width=width(w))).bytes


def recipe_of_reference(w: Workload, recipe: Recipe) -> Recipe:
    """How the reference runs: without adapters, in its own type."""
    if w.method != "full":
        return recipe._replace(rank=0, targets=frozenset())
    if width(w) == recipe.weight:
        return recipe
    return recipe._replace(weight=width(w), stream=4 if w.model.residual_fp32 else width(w), autocast=False)
