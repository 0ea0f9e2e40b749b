"""A job over other numbers of GPUs: how they divide the model, the sequences and the machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advisor.memory.sharding import undivided
from advisor.planning.abilities import abilities

if TYPE_CHECKING:
    from advisor.model import Model
    from advisor.workload import Workload

Changes = dict[str, Any]


def spread(w: Workload, gpus: int) -> Changes:
    """The job over so many GPUs, everything sharded; the batch of each stays, the steps of accumulation shrink.

    What the engine turns on by itself with several GPUs comes along.
    """
    changes = {"zero": 3, "accumulation": _accumulation(w, gpus // (w.tp * w.pp * w.cp)), **with_gpus(w, gpus)}
    if "accumulation" in w.keep:
        del changes["accumulation"]
    if gpus > 1 and abilities(w.engine.name).checkpoints_over_gpus:
        changes["checkpointing"] = "full"
    return {key: value for key, value in changes.items() if value != getattr(w, key)}


def _accumulation(w: Workload, ranks: int) -> int:
    """Micro-steps that keep the global batch on so many ranks, or the fewest by division that do not go below it."""
    if w.accumulation * w.data_parallel % ranks == 0:
        return w.accumulation * w.data_parallel // ranks
    fewer = [n for n in range(1, ranks // w.data_parallel + 1) if w.accumulation % n == 0]
    return w.accumulation // max(fewer)


def on_gpus(w: Workload, gpus: int) -> Changes | None:
    """The last remedy of its walk taken to so many GPUs at once; None where the model cannot be divided so far."""
    if w.task == "train":
        return spread(w, gpus) if gpus % (w.tp * w.pp * w.cp * w.ep) == 0 else None
    if w.deals_out_layers:
        return with_gpus(w, gpus)
    tp, pp = w.tp, w.pp
    while tp * pp < gpus:
        degrees = next_degrees(w.model, tp, pp)
        if degrees is None:
            return None
        tp, pp = degrees
    return {"tp": tp, "pp": pp, **with_gpus(w, gpus)}


def doublings(least: int, most: int) -> list[int]:
    """Twice as many, four times as many and so on; the last step goes to ``most``.

    >>> doublings(3, 16)
    [6, 12, 16]
    """
    counts = []
    while least < most:
        least = min(2 * least, most)
        counts.append(least)
    return counts


def with_gpus(w: Workload, gpus: int) -> Changes:
    """So many GPUs, and as many machines as hold them where the user counted the machines."""
    nodes = -(-gpus // w.gpu.per_node)
    return {"gpus": gpus, "nodes": nodes} if w.asked.nodes is not None and nodes > w.nodes else {"gpus": gpus}


def next_degrees(model: Model, tp: int, pp: int) -> tuple[int, int] | None:
    """Twice the GPUs for one copy: by tensor parallel where it divides the model's widths, else by pipeline parallel."""
    if not undivided(model, 2 * tp):
        return 2 * tp, pp
    return (tp, 2 * pp) if 2 * pp <= len(model.layers) else None


def divisors(*factors: int) -> set[int]:
    """The divisors of a product."""
    found = {1}
    for rest in factors:
        prime = 2
        while rest > 1:
            if prime * prime > rest:
                prime = rest
            if rest % prime == 0:
                rest //= prime
                found |= {divisor * prime for divisor in found}
            else:
                prime += 1
    return found
