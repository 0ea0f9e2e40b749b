"""What writing a checkpoint takes of the card beside what is there between steps.

A state dict refers to tensors and takes nothing. What is sharded is gathered and handed to the host piece by piece, so that the card
holds the largest piece whole at a time; the shards of the optimizer's state are written by their ranks as they are.
"""

from __future__ import annotations

from advisor.memory.loading import stacks_experts, whole_piece
from advisor.memory.net import Recipe
from advisor.memory.pieces import gates_and_ups
from advisor.memory.recipe import trains_fully
from advisor.memory.sharding import Rank
from advisor.workload import Workload

Parts = dict[str, int]


def beside(w: Workload, rank: Rank, recipe: Recipe) -> Parts:
    """The parts that come on top while the weights are written. Adapters are small, and taken to need nothing.

    DeepSpeed gathers module by module and FSDP 2 tensor by tensor, and both copy to the host. Experts that were made one tensor are
    taken apart for the file, all layers before the first is written: gate and up are copied, since each is every other block of rows
    (transformers 5.23 modeling_utils.py, save_pretrained; core_model_loading.py, Chunk).
    """
    if not trains_fully(w):
        return {}
    if w.zero == 3:
        return {"gathered-parameters": whole_piece(w, rank)}
    if w.zero == 0 and stacks_experts(w):
        return {"step-temporaries": gates_and_ups(rank, recipe.weight)}
    return {}
