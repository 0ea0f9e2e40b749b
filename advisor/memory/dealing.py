"""How engines deal a model's layers out over GPUs that work in turn: which layers go to which."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from advisor.memory.parameters import outer_weights
from advisor.memory.recipe import storing
from advisor.memory.weights import Storing, layer_sum, tensor_bytes
from advisor.model import Model
from advisor.workload import Workload


def bounds(w: Workload) -> tuple[tuple[int, int], ...]:
    """The layers of each GPU that has any, from the first to before the end. The head goes with the last of them."""
    if w.engine.deals_out == "balanced":
        return balanced(w.model, storing(w), w.gpus)
    return with_head(len(w.model.layers), w.gpus)


@lru_cache(maxsize=256)
def balanced(model: Model, how: Storing, gpus: int) -> tuple[tuple[int, int], ...]:
    """device_map="auto": every GPU but the last may take its share of the model and 1.25 times its largest piece, the first less by
    what may still have to be fetched; they are filled one after the other (transformers 5.23 integrations/accelerate.py,
    get_balanced_memory and infer_auto_device_map)."""
    layers = [layer_sum(layer, model.hidden, how).bytes for layer in model.layers]
    outer = {x.kind: tensor_bytes(x, how) for x in outer_weights(model) if x.kind in ("embedding", "head")}
    share = (sum(layers) + sum(outer.values())) // gpus + int(1.25 * max(*layers, *outer.values()))
    starts, used = [0], outer["embedding"]
    limit = share - max(*layers, outer.get("head", 0))
    for index, size in enumerate(layers):
        if used + size > limit and len(starts) < gpus and index > starts[-1]:
            starts, used, limit = [*starts, index], 0, share
        used += size
    return tuple(pairwise((*starts, len(layers))))


@lru_cache(maxsize=256)
def with_head(depth: int, gpus: int) -> tuple[tuple[int, int], ...]:
    """llama.cpp: the head counts as one more layer, and equal cards get equal parts of them (llama-model.cpp, tensor_split)."""
    ends = [min(depth, -(-(depth + 1) * part // gpus)) for part in range(1, gpus + 1)]
    return tuple((start, end) for start, end in pairwise((0, *ends)) if end > start)
