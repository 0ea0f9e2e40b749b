"""What observed sizes change in an estimate: factors on what is not certain, and an interval around what was seen.

Weights, optimizer state and caches follow from the shape of the model alone. Where a run needed something else than was
estimated, the difference is in what comes and goes: activations, gradients, temporaries, the loss. So they take the factor,
and a plan that makes them smaller makes the difference smaller by the same share.
"""

from __future__ import annotations

from typing import NamedTuple

from advisor.memory.runtime import Range, model_error
from advisor.workload import Workload

LEVELS = ("allocated", "reserved", "device")  # each holds the one before it
CERTAIN = frozenset(
    {"weights", "adapter-weights", "reference-weights", "kv-cache", "recurrent-state", "optimizer-state", "master-weights"}
)
OUTSIDE = "cuda-graphs"  # not in torch's allocator, so nothing that `allocated` could tell about
ONCE = 1.0

Errors = list[tuple[float, float]]  # bytes below and above, at 90 %


class Around(NamedTuple):
    """What lies around the tensors: the allocator's slack, the context, NCCL's buffers."""

    slack: Range
    context: Range
    nccl: Range


class Seen(NamedTuple):
    """The observed job: the outermost level that is known, how well (a share, at 90 %), and its corrected sizes in bytes."""

    level: str = ""
    error: float = 0.0
    allocated: int = 0
    slack: int = 0
    nccl: int = 0


class Correction(NamedTuple):
    """Factors on the bytes that come and go, on the allocator's slack and on what is outside of it; and what they stand on."""

    dynamic: float = ONCE
    slack: float = ONCE
    outside: float = ONCE
    seen: Seen = Seen()
    notes: tuple[str, ...] = ()

    def parts(self, parts: dict[str, int]) -> dict[str, int]:
        """The parts of a phase, corrected."""
        if self.dynamic == ONCE:
            return parts
        return {name: round(size * self.dynamic) if moves(name) else size for name, size in parts.items()}

    def around(self, around: Around) -> Around:
        """Slack, context and NCCL, corrected."""
        slack, context, nccl = around
        return Around(_times(slack, self.slack), _times(context, self.outside), _times(nccl, self.outside))

    def errors(self, w: Workload, allocated: int, around: Around) -> Errors:
        """Independent errors of a job's device bytes.

        What the observed job held is known by its digits; what this job holds more or less is as uncertain as any
        estimate of that size. Without an observation that is everything.
        """
        seen, (slack, context, nccl) = self.seen, around
        level = LEVELS.index(seen.level) if seen.level else -1
        known = (allocated, slack.point, context.point + nccl.point)[: level + 1]
        moved = abs(allocated - seen.allocated)
        below, above = model_error(w)
        return [
            (seen.error * sum(known), seen.error * sum(known)),
            (below * moved, above * moved),
            _spread(slack, 1.0 if level < 1 else _changed(slack.point, seen.slack)),
            _spread(context, 1.0 if level < 2 else 0.0),
            _spread(nccl, 1.0 if level < 2 else _changed(nccl.point, seen.nccl)),
        ]


NONE = Correction()


def moves(part: str) -> bool:
    """Whether a part of allocated memory takes the factor."""
    return part not in CERTAIN and part != OUTSIDE


def said(formula: str, factor: float) -> str:
    """A formula with the factor that an observation put on it."""
    return formula if factor == ONCE else f"({formula}) × {factor:.4g}: corrected by an observation"


def _times(of: Range, factor: float) -> Range:
    if factor == ONCE:
        return of
    low, point, high = (round(size * factor) for size in (of.low, of.point, of.high))
    return Range(point, low, high, said(of.formula, factor), of.source)


def _spread(of: Range, share: float) -> tuple[float, float]:
    return share * (of.point - of.low), share * (of.high - of.point)


def _changed(now: int, then: int) -> float:
    return min(1.0, abs(now - then) / now) if now else 0.0
