"""What the advisor answers with: an estimate, a step, a plan. All sizes are bytes."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple

# The parts of a budget, in the order they are shown.
PARTS = ("weights", "adapter-weights", "reference-weights", "kv-cache", "recurrent-state", "gradients", "optimizer-state",
         "master-weights",
         "activations", "logits-and-loss", "step-temporaries", "gathered-parameters", "communication-buffers",
         "cublas-workspace", "allocator-slack", "cuda-graphs", "cuda-context")  # fmt: skip


class Origin(NamedTuple):
    """Where a part's bytes come from: the arithmetic with its numbers put in, and who says so."""

    formula: str
    source: str


class Part(NamedTuple):
    """One named part of the memory at the peak.

    ``origin`` may be a function without arguments, called only when the text is shown: a search makes thousands of
    estimates and reads none of it.
    """

    name: str
    bytes: int
    origin: Origin | Callable[[], Origin] = Origin("", "")

    @property
    def formula(self) -> str:
        return self._said().formula

    @property
    def source(self) -> str:
        return self._said().source

    def _said(self) -> Origin:
        return self.origin if isinstance(self.origin, Origin) else self.origin()

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "bytes": self.bytes, **self._said()._asdict()}


class Host(NamedTuple):
    """What the job needs of one machine's own memory, in bytes: the parts of the phase that needs the most: `load`, `run` or `save`."""

    phase: str
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "phase": self.phase, "parts": [part.to_dict() for part in self.parts]}


class _Estimate(NamedTuple):
    allocated_bytes: int
    reserved_bytes: int
    device_bytes: int
    low_bytes: int
    high_bytes: int
    fits: bool
    peak_phase: str | None
    phases: dict[str, int]
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    host: Host | Callable[[], Host] | None = None


class Estimate(_Estimate):
    """The memory of one job on its fullest GPU, in bytes.

    ``allocated`` is torch's ``max_memory_allocated``, ``reserved`` its ``max_memory_reserved``,
    ``device`` what nvidia-smi shows for the process; ``low`` and ``high`` bound ``device``.
    ``parts`` add up to ``device`` at ``peak_phase``; ``phases`` are the allocated peaks. ``host`` is there where something
    is offloaded or the host's memory is limited.
    """

    @cached_property
    def host(self) -> Host | None:
        """Made with a function, it is worked out when it is asked for: a search needs it of few of its estimates."""
        host = super().host
        return host() if callable(host) else host

    def to_dict(self) -> dict[str, Any]:
        return {
            "allocated_bytes": self.allocated_bytes,
            "reserved_bytes": self.reserved_bytes,
            "device_bytes": self.device_bytes,
            "low_bytes": self.low_bytes,
            "high_bytes": self.high_bytes,
            "fits": self.fits,
            "peak_phase": self.peak_phase,
            "phases": dict(self.phases),
            "parts": [part.to_dict() for part in self.parts],
            "host": self.host and self.host.to_dict(),
        }


class Cost(NamedTuple):
    """What a step costs: a factor on the time per sample (1.2 is 20 % slower), quality, and hardware.

    ``changes_result``: training learns something else than before, beyond the rounding of the same arithmetic.
    """

    speed_low: float = 1.0
    speed_high: float = 1.0
    speed_source: str = ""
    quality: Literal["none", "small", "real"] = "none"
    gpus: int = 0
    host_bytes: int = 0
    changes_result: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "speed": {"low": self.speed_low, "high": self.speed_high, "source": self.speed_source},
            "quality": self.quality,
            "changes_result": self.changes_result,
            "hardware": {"gpus": self.gpus, "host_bytes": self.host_bytes},
        }


class _Step(NamedTuple):
    rule: str
    name: str
    title: str
    change: dict[str, tuple[Any, Any]]
    before_bytes: int
    after_bytes: int
    cost: Cost
    why: str
    how: dict[str, str] | Callable[[], dict[str, str]]
    needed: bool = True
    because: tuple[str, ...] = ()  # the facts that made the rule fire
    source: tuple[str, ...] = ()  # of the rule


class Step(_Step):
    """One remedy applied: the keys it changed, and the device bytes before and after."""

    @cached_property
    def how(self) -> dict[str, str]:
        """Texts by framework. Made with a function, they are put together when they are shown."""
        how = super().how
        return how() if callable(how) else how

    @property
    def saved_bytes(self) -> int:
        return self.before_bytes - self.after_bytes

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "name": self.name,
            "title": self.title,
            "change": {key: list(pair) for key, pair in self.change.items()},
            "before_bytes": self.before_bytes,
            "after_bytes": self.after_bytes,
            "saved_bytes": self.saved_bytes,
            "cost": self.cost.to_dict(),
            "why": self.why,
            "how": dict(self.how),
            "needed": self.needed,
            "because": list(self.because),
            "source": list(self.source),
        }


class Skip(NamedTuple):
    """A rule that the walk came to and did not apply, with the reason."""

    rule: str
    name: str
    reason: str


class Final(NamedTuple):
    """The settings that a plan ends with, and their estimate."""

    job: dict[str, Any]
    estimate: Estimate


class Route(NamedTuple):
    """Another way to make the job fit: its steps, where they lead, and what they cost together."""

    name: str
    steps: tuple[Step, ...]
    final: Final
    cost: Cost

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "steps": [step.to_dict() for step in self.steps],
            "final": {"job": self.final.job, "estimate": self.final.estimate.to_dict()},
            "cost": self.cost.to_dict(),
        }


class Plan(NamedTuple):
    """The answer to one request."""

    verdict: Literal["fits", "fits-after-changes", "does-not-fit"]
    job: dict[str, Any]  # every key, resolved
    asked: dict[str, Any]  # the keys that the user gave
    gpu: dict[str, Any]
    model: dict[str, Any]
    total_bytes: int
    usable_bytes: int
    initial: Estimate
    steps: tuple[Step, ...] = ()
    skipped: tuple[Skip, ...] = ()
    final: Final | None = None
    alternatives: tuple[Route, ...] = ()
    missing: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return {"fits": 0, "fits-after-changes": 1, "does-not-fit": 3}[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "verdict": self.verdict,
            "job": self.job,
            "gpu": self.gpu,
            "model": self.model,
            "budget": {"total_bytes": self.total_bytes, "usable_bytes": self.usable_bytes},
            "initial": self.initial.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "skipped": [skip._asdict() for skip in self.skipped],
            "final": self.final and {"job": self.final.job, "estimate": self.final.estimate.to_dict()},
            "alternatives": [route.to_dict() for route in self.alternatives],
            "missing": self.missing,
            "notes": list(self.notes),
        }

    def _repr_markdown_(self) -> str:
        from advisor.render.markdown import render

        return render(self)
