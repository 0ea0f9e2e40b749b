"""oom-advisor: how much GPU memory a job needs, and what to change until it fits.

>>> from advisor import advise
>>> advise(gpu="v100-16", train="7b").verdict
'fits-after-changes'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Diagnosis",
    "Estimate",
    "Job",
    "Plan",
    "RequestError",
    "advise",
    "diagnose",
    "estimate",
    "explain_oom",
    "largest",
    "limits",
    "which_gpu",
]

if TYPE_CHECKING:
    from advisor.api import advise, estimate, largest, limits, which_gpu
    from advisor.errors import RequestError
    from advisor.job import Job
    from advisor.results import Estimate, Plan
    from advisor.triage.diagnosis import Diagnosis, diagnose, explain_oom

_HOME = {
    "advise": "advisor.api",
    "estimate": "advisor.api",
    "largest": "advisor.api",
    "limits": "advisor.api",
    "which_gpu": "advisor.api",
    "Job": "advisor.job",
    "RequestError": "advisor.errors",
    "Estimate": "advisor.results",
    "Plan": "advisor.results",
    "Diagnosis": "advisor.triage.diagnosis",
    "diagnose": "advisor.triage.diagnosis",
    "explain_oom": "advisor.triage.diagnosis",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: `advise --help` needs none of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
