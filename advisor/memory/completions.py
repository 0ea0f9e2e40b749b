"""GRPO's completions: the model in training generates them itself, all sequences of an optimizer step at once.

TRL 1.16 trainer/grpo_trainer.py (a generation batch is per_device_train_batch_size × steps_per_generation, which is the accumulation)
and models/utils.py (unwrap_model_for_generation gathers what ZeRO-3 has partitioned).
"""

from __future__ import annotations

from advisor.memory import generate
from advisor.memory.net import Recipe
from advisor.memory.recipe import storing
from advisor.memory.sharding import Rank
from advisor.memory.weights import rank_sum
from advisor.workload import Workload

Parts = dict[str, int]


def as_inference(w: Workload) -> Workload:
    """The generation as a job of its own."""
    return w._replace(task="infer", batch=w.batch * w.accumulation, precision=w.precision.removesuffix("-mixed"))


def beside(w: Workload, rank: Rank, recipe: Recipe) -> Parts:
    """What the last token of a generation takes, beside what is there between steps."""
    parts = generate.decode(as_inference(w), rank)
    if w.zero == 3 and w.sharding == "deepspeed":
        parts["gathered-parameters"] = rank_sum(rank, storing(w)._replace(width=recipe.weight)).bytes
    return parts
