"""The estimate corrected by what was observed: of this very job, or of earlier ones of its kind.

The observed size of a job is a sum of layers: tensors, the allocator's slack around them (reserved), context and NCCL around
that (device). A layer whose inside was observed too is known exactly. Else the observation moves the outermost layer as far
as its own range goes, and what is left moves the next one: a surprise of gigabytes is never put down to the CUDA context.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from advisor.errors import RequestError
from advisor.estimator import around_tensors, estimate_workload, fullest
from advisor.job import Job, parsed
from advisor.memory.correction import CERTAIN, LEVELS, NONE, OUTSIDE, Correction, Seen, moves
from advisor.memory.runtime import Range, workspace
from advisor.results import Estimate
from advisor.vocabulary import KEYS
from advisor.workload import Workload, resolve

GIB = 2**30
DIGITS = 0.01  # what was seen is printed to three digits, and comes out again to about 1 % (at 90 %)
ENOUGH = 3  # earlier observations that say something about their spread
# Student's t, 95 % quantile, by degrees of freedom from 2: with few observations the true spread may be larger than theirs.
STUDENT = (2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
# Keys that say what a plan may do, not what the job is.
NOT_THE_JOB = ("keep", "max_gpus", "min_seq", "min_batch", "policy", "confidence", "observed", "observed_with")


class Observation(NamedTuple):
    """An earlier job, and the bytes that it was seen to take."""

    job: Job
    observed: dict[str, int]


class Past(NamedTuple):
    """Observed over estimated in earlier jobs of the same task and engine: the outermost size that enough of them have."""

    level: str
    centre: float
    error: float  # half the width of the 90 % interval of the next job, as a share
    jobs: int


def estimator(w: Workload, observations: Sequence[Observation] = ()) -> Callable[[Workload], Estimate]:
    """The estimator for ``w`` and for what a plan makes of it."""
    if w.observed:
        return partial(estimate_workload, correction=correction(w))
    if not observations or w.estimator != "detailed":
        return estimate_workload
    past = look_back(w, observations)
    if isinstance(past, str):
        return partial(estimate_workload, correction=NONE._replace(notes=(past,)))
    return lambda other: estimate_workload(other, _by_past(other, past))


def resolver(w: Workload) -> Callable[[Job], Workload]:
    """How a plan decides the jobs that it makes of ``w``: each keeps in ``observed_with`` what the observed one had instead."""
    was = w.to_dict()

    def decide(job: Job) -> Workload:
        names = [key.name for key in KEYS if key.name not in NOT_THE_JOB]
        other = {name: was[name] for name in names if getattr(job, name) != getattr(w.asked, name)}
        if not other:
            return resolve(job)
        kept = parsed("observed_with", {**other, **(w.observed_with or {})})
        return resolve(job.with_changes(observed_with=kept))

    return decide if w.observed else resolve


def correction(w: Workload) -> Correction:
    """What the job's own observation says. Raises RequestError where the job cannot have been seen like that."""
    seen = w.observed or {}
    base = observed_job(w)
    _refuse(base, seen)
    plain = estimate_workload(base)
    found = _derive(base, plain, seen, DIGITS)
    told = ", ".join(
        f"{name} {_gib(seen[name])} where {_gib(_level(plain, name))} was estimated" for name in LEVELS if name in seen
    )
    return found._replace(notes=(f"Corrected by what was observed: {told}; {_factors(found)}.",))


def observed_job(w: Workload) -> Workload:
    """The job as it was when it was observed."""
    return resolve(w.asked.with_changes(**(w.observed_with or {}), observed=None, observed_with=None))


def _factors(found: Correction) -> str:
    names = {"what comes and goes": found.dynamic, "the allocator's slack": found.slack, "context and NCCL": found.outside}
    changed = [f"{name} × {factor:.3g}" for name, factor in names.items() if abs(factor - 1) >= 0.0005]
    return ", ".join(changed) or "nothing changes but the interval"


def _refuse(w: Workload, seen: dict[str, int]) -> None:
    """What cannot be, or says nothing."""
    if w.estimator != "detailed":
        raise RequestError(f"observed: only the detailed estimator takes observations, not {w.estimator}")
    if w.engine.preallocates_kv and w.task == "infer":
        raise RequestError(
            f"observed: {w.engine.name} fills its share of the card, so its size does not tell what the job needs"
        )
    if "layers" in w.offload and w.offload_layers is None:
        raise RequestError("observed: say with --offload-layers how many layers were offloaded when it was observed")
    for name, size in seen.items():
        if size > w.gpu.total_bytes:
            raise RequestError(
                f"observed: {name} {_gib(size)} is more than {w.gpu.name} has, {_gib(w.gpu.total_bytes)};"
                " --observed-with gpu=NAME tells on which card it was seen"
            )
    inner = [(name, seen[name]) for name in LEVELS if name in seen]
    for (less, small), (more, large) in pairwise(inner):
        if small > large:
            raise RequestError(f"observed: {less} {_gib(small)} is part of {more} and cannot be more than its {_gib(large)}")


def _derive(w: Workload, plain: Estimate, seen: dict[str, int], error: float, *, least: bool = False) -> Correction:
    """The factors with which the estimate has the sizes that were seen. ``least``: tensors that are certain stay at the least."""
    _, phases = fullest(w)
    peak = phases[plain.peak_phase or ""]
    graphs = peak.get(OUTSIDE, 0)
    bare = around_tensors(w, plain.allocated_bytes, peak)
    allocated = seen.get("allocated")
    reserved = seen.get("reserved")
    slack_at = bare if allocated is None else around_tensors(w, allocated, peak)
    tensors = plain.allocated_bytes if allocated is None else allocated
    outside = bare.context.point + bare.nccl.point
    if "device" in seen:
        inside = reserved if reserved is not None else tensors + slack_at.slack.point
        outside = seen["device"] - inside - graphs
        if reserved is None:
            outside = _within(outside, bare.context, bare.nccl)
            reserved = seen["device"] - outside - graphs
        if outside < 0:
            raise RequestError(f"observed: device less reserved leaves nothing for the {_gib(graphs)} of CUDA graphs")
    slack = slack_at.slack.point
    if reserved is not None:
        slack = reserved - tensors
        if allocated is None:
            slack = _slack_within(w, reserved, tensors, peak)
        tensors = reserved - slack
    if slack < 0:
        raise RequestError(f"observed: device {_gib(seen['device'])} leaves no room for context and slack around allocated")
    dynamic = _dynamic(w, phases, tensors, least)
    corrected = {phase: Correction(dynamic).parts(parts) for phase, parts in phases.items()}
    here = max(corrected.values(), key=_in_allocator)
    held = _in_allocator(here) + workspace(w).point
    around = around_tensors(w, held, here)
    found = Correction(
        dynamic,
        _factor(slack, around.slack.point, "slack", w) if reserved is not None else 1.0,
        _factor(outside, around.context.point + around.nccl.point, "context", w) if "device" in seen else 1.0,
    )
    after = found.around(around)
    level = next(name for name in reversed(LEVELS) if name in seen)
    return found._replace(seen=Seen(level, error, held, after.slack.point, after.nccl.point))


def _in_allocator(parts: dict[str, int]) -> int:
    return sum(parts.values()) - parts.get(OUTSIDE, 0)


def _dynamic(w: Workload, phases: dict[str, dict[str, int]], tensors: int, least: bool) -> float:
    """The factor on what comes and goes with which the highest phase has ``tensors`` bytes.

    The highest of certain + factor × moving reaches them where the first phase does.
    """
    beside = workspace(w).point
    factors = []
    for phase, parts in phases.items():
        moving = sum(size for name, size in parts.items() if moves(name))
        certain = sum(size for name, size in parts.items() if name in CERTAIN) + beside
        if tensors < certain and not least:
            held = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if name in CERTAIN and size)
            raise RequestError(
                f"observed: {_gib(tensors)} of tensors are less than what this job holds for certain in its {phase} phase"
                f" ({held}); was it another job?"
            )
        if moving:
            factors.append(max(0, tensors - certain) / moving)
    return min(factors, default=1.0)


def _within(size: int, *ranges: Range) -> int:
    return min(max(size, sum(of.low for of in ranges)), sum(of.high for of in ranges))


def _slack_within(w: Workload, reserved: int, expected: int, parts: dict[str, int]) -> int:
    """The slack of ``reserved`` bytes: what is more than the expected tensors, as far as the range of the tensors left goes."""
    tensors = expected
    for _ in range(8):  # the range is a small share of the tensors, so this settles at once
        around = around_tensors(w, tensors, parts)
        tensors = reserved - _within(reserved - expected, around.slack)
    return reserved - tensors


def _factor(seen: int, estimated: int, what: str, w: Workload) -> float:
    if estimated:
        return seen / estimated
    if seen:
        raise RequestError(f"observed: there is no {what} of that kind with {w.engine.name} on {w.gpu.name}; give device alone")
    return 1.0


def look_back(w: Workload, observations: Sequence[Observation]) -> Past | str:
    """What earlier jobs of the same task and engine say; or, in words, why they say nothing."""
    ratios: dict[str, list[float]] = {name: [] for name in LEVELS}
    for job, seen in observations:
        other = resolve(job)
        if (other.task, other.engine.name) == (w.task, w.engine.name):
            plain = estimate_workload(other)
            for name, size in seen.items():
                ratios[name].append(size / _level(plain, name))
    level = next((name for name in reversed(LEVELS) if len(ratios[name]) >= ENOUGH), None)
    if level is None:
        most = max(len(each) for each in ratios.values())
        does = "training" if w.task == "train" else "inference"
        return f"Observations of {does} with {w.engine.name}: {most} of the {ENOUGH} that it takes to correct an estimate."
    from statistics import mean, stdev

    found = ratios[level]
    student = STUDENT[min(len(found) - 1, len(STUDENT) + 1) - 2]
    error = student * stdev(found) * math.sqrt(1 + 1 / len(found))
    return Past(level, mean(found), max(DIGITS, error), len(found))


def _by_past(w: Workload, past: Past) -> Correction:
    plain = estimate_workload(w)
    expected = {past.level: round(past.centre * _level(plain, past.level))}
    note = (
        f"{past.jobs} earlier observations: {past.level} is {past.centre:.3f} × the estimate, and the next one within"
        f" {past.error:.1%} of that in 9 of 10 runs."
    )
    return _derive(w, plain, expected, past.error, least=True)._replace(notes=(note,))


def _level(estimate: Estimate, name: str) -> int:
    size: Any = getattr(estimate, f"{name}_bytes")
    return int(size)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
