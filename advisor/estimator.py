"""From a workload to its estimate: the phases of the fullest rank, the highest of them, and what lies around the tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from advisor.memory import runtime, sharding
from advisor.memory.correction import NONE, Around, Correction, moves, said
from advisor.memory.optimizers import OPTIMIZERS
from advisor.memory.sharding import Rank
from advisor.results import PARTS, Estimate, Host, Origin, Part
from advisor.workload import Workload

Parts = dict[str, int]


def estimate_workload(w: Workload, correction: Correction = NONE) -> Estimate:
    """The memory of the workload, by the estimator that it names. Raises RequestError for what cannot be estimated."""
    if w.estimator != "detailed":
        from advisor.memory import handbook

        return handbook.estimate(w)
    if "layers" in w.offload and w.offload_layers is None:
        return _with_layers_away(w, correction)
    return _around(w, *fullest(w), correction)


def fullest(w: Workload) -> tuple[Rank, dict[str, Parts]]:
    """The rank that holds the most, and the parts of each of its phases."""
    phases = _phases_of(w.task)
    measured = [(rank, phases(w, rank)) for rank in sharding.ranks(w)]
    if len(measured) == 1:
        return measured[0]
    return max(measured, key=lambda pair: max(sum(parts.values()) for parts in pair[1].values()))


def _phases_of(task: str) -> Callable[[Workload, Rank], dict[str, Parts]]:
    """What works the task out; the other's modules are not loaded."""
    if task == "train":
        from advisor.memory import training

        return training.phases
    from advisor.memory import inference

    return inference.phases


def _with_layers_away(w: Workload, correction: Correction) -> Estimate:
    """As many layers in the host's memory as it takes to fit."""
    for away in range(len(w.model.layers) + 1):
        estimate = estimate_workload(w._replace(offload_layers=away), correction)
        if estimate.high_bytes <= w.usable_bytes:
            break  # more of them away would only burden the host
    return estimate


def _around(w: Workload, rank: Rank, phases: dict[str, Parts], correction: Correction) -> Estimate:
    workspace = runtime.workspace(w)
    phases = {phase: correction.parts(parts) for phase, parts in phases.items()}
    graphs = {phase: parts.get("cuda-graphs", 0) for phase, parts in phases.items()}  # in pools of their own: not "allocated"
    totals = {phase: sum(parts.values()) + workspace.point - graphs[phase] for phase, parts in phases.items()}
    peak = max(totals, key=lambda phase: totals[phase])
    allocated = totals[peak]
    around = correction.around(around_tensors(w, allocated, phases[peak]))
    slack, context, nccl = around
    device = allocated + graphs[peak] + slack.point + context.point + nccl.point
    low, high = runtime.interval(device, w.confidence, correction.errors(w, allocated, around))
    beside = {"cublas-workspace": workspace, "allocator-slack": slack, "cuda-context": context}
    sizes = {**phases[peak], **{name: each.point for name, each in beside.items()}}
    sizes["communication-buffers"] = sizes.get("communication-buffers", 0) + nccl.point
    found = Estimate(
        allocated_bytes=allocated,
        reserved_bytes=allocated + slack.point,
        device_bytes=device,
        low_bytes=low,
        high_bytes=high,
        fits=high <= w.usable_bytes,
        peak_phase=peak,
        phases=totals,
        parts=tuple(
            Part(
                name, sizes[name], _said(beside[name]) if name in beside else partial(_origin, name, w, rank, peak, correction)
            )
            for name in PARTS
            if sizes.get(name)
        ),
        notes=(*w.notes, *correction.notes),
        host=partial(_host, w) if _asks_for_host(w) else None,
    )
    return found if w.host_ram is None else found._replace(fits=holds(w, found))


def holds(w: Workload, found: Estimate) -> bool:
    """Whether card and machine have so much."""
    held = w.host_ram is None or found.host is None or found.host.bytes <= w.host_ram
    return found.high_bytes <= w.usable_bytes and held


def _asks_for_host(w: Workload) -> bool:
    """Whether the machine's own memory is limited, or something is moved or paged there."""
    return w.host_ram is not None or bool(w.offload) or (w.task == "train" and not OPTIMIZERS[w.optimizer].on_device)


def _host(w: Workload) -> Host:
    from advisor.memory.host import host

    return host(w)


def around_tensors(w: Workload, allocated: int, parts: Parts) -> Around:
    """What lies around ``allocated`` bytes of tensors that these are the parts of. A serving engine allocates its caches once."""
    for_good = ("weights", "kv-cache", "recurrent-state") if w.engine.serving else ("weights",)
    moving = allocated - sum(parts.get(name, 0) for name in for_good)
    return Around(runtime.slack(w, allocated, moving), runtime.context(w), runtime.nccl(w))


def _said(about: runtime.Range) -> Origin:
    return Origin(about.formula, about.source)


def _origin(name: str, w: Workload, rank: Rank, phase: str, correction: Correction) -> Origin:
    from advisor.memory import formulas

    formula, source = formulas.origin(name, w, rank, phase)
    return Origin(said(formula, correction.dynamic if moves(name) else 1.0), source)
