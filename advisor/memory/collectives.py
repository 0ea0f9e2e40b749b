"""What data-parallel ranks divide between them, and what they gather and send for it. Sizes in bytes."""

from __future__ import annotations

from functools import lru_cache

from advisor.memory import trained
from advisor.memory.net import Recipe, share
from advisor.memory.parameters import layer_weights
from advisor.memory.recipe import storing, trains_fully
from advisor.memory.sharding import Rank, expert_tp
from advisor.memory.weights import Storing, held_outside, layer_sum, rank_sum
from advisor.workload import Workload

# Two buckets overlap while gradients are reduced (overlap_comm). Up to 1e9 parameters are gathered at once for stage 3, whose
# optimizer works through sub-groups of 1e9 (deepspeed.ai/docs/config-json).
BUCKETS = 2
LIVE_PARAMETERS = 10**9
SUB_GROUP = 10**9


def per_rank(w: Workload, rank: Rank, amount: int, ranks: int) -> int:
    """One rank's share of what ``ranks`` replicas divide, the fullest one's: partitions are padded to one size. Experts that are divided already are copied, and so divided
    further, over fewer ranks: those of a stage less those that hold other experts or other parts of them."""
    if ranks == 1 or w.ep == 1:
        return share(amount, ranks)
    experts = round(amount * _expert_share(rank))
    return share(amount - experts, ranks) + share(experts, w.gpus // (w.pp * w.ep * expert_tp(w)))


@lru_cache(maxsize=256)
def _expert_share(rank: Rank) -> float:
    """Which part of the rank's weights are experts."""
    model = rank.model
    experts = sum(
        many * sum(x.elements for x in layer_weights(layer, model.hidden) if x.kind == "expert") for layer, many in model.kinds
    )
    return experts / rank_sum(rank._replace(model=model.unstored), Storing("none", 1, blocks=False)).elements


def gathered(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Parameters that stage 3 has gathered for the layers at hand."""
    if w.zero < 3:
        return 0
    how = storing(w)._replace(width=recipe.weight)
    whole = rank_sum(rank, how).bytes
    if w.sharding == "deepspeed":
        return min(whole, LIVE_PARAMETERS * recipe.weight)
    # FSDP: the layer at work, the one that is prefetched, and the root unit with embedding and head.
    layers = max(layer_sum(x, rank.model.hidden, how).bytes for x, _ in rank.model.kinds)
    outside = [x.elements * recipe.weight for x in held_outside(rank)]
    if w.engine.ends_apart and trains_fully(w):
        return min(whole, layers + max(layers, *outside, 0))
    return min(whole, 2 * layers + sum(outside))


def buckets(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """Flat copies of gradients that are there all the time: DDP's are a second copy of all of them (gradient_as_bucket_view is
    off by default), ZeRO's are of a fixed size, whatever is trained. Megatron's are the buffers that the gradients are in (Megatron-LM
    d98e8a64, core/distributed/param_and_grad_buffer.py)."""
    if w.engine.fp32_gradients:
        return 0
    if w.zero == 0:
        return trained.gradient_bytes(w, rank, recipe) if w.replicas > 1 else 0
    return BUCKETS * w.engine.bucket_elements * recipe.weight if w.sharding == "deepspeed" and w.zero < 3 else 0


def unreduced(w: Workload, rank: Rank, recipe: Recipe) -> int:
    """FSDP's backward pass: a layer's gradients are whole until they are copied into the buffer that is reduced and scattered, and
    that of the layer before is there until then (torch.distributed.fsdp 2.13, foreach_reduce, reduce_scatter_states)."""
    if w.sharding != "fsdp" or w.zero < 2 or w.replicas == 1 or not trains_fully(w):
        return 0
    reduced = 4 if w.engine.reduces_in_fp32 else recipe.weight
    return max(
        sum(layer_sum(x, rank.model.hidden, Storing("none", width)).bytes for width in (recipe.weight, reduced))
        for x, _ in rank.model.kinds
    )
