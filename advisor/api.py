"""What the command does, from Python.

>>> advise(gpu="v100-16", infer="7b", quantization="int8").verdict
'fits'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.results import Estimate, Plan
from advisor.workload import Workload, resolve

if TYPE_CHECKING:
    from advisor.calibration import Observation
    from advisor.questions.largest import Largest
    from advisor.questions.limits import Limits
    from advisor.questions.which_gpu import Cards


def advise(job: Job | None = None, /, *, observations: Sequence[Observation] = (), **keys: Any) -> Plan:
    """Whether the job fits, and if not, the steps that make it fit.

    The job is a ``Job``, its keys, or both: ``advise(job, batch=8)`` is the job with another batch.
    ``advise --help`` tells what each key means. ``observations`` are earlier jobs and what they took.
    Raises RequestError for a wrong request.
    """
    from advisor.planning.plan import plan  # brings the rules and their engine, which an estimate has no need of

    w = resolve(_job(job, keys))
    return plan(w, _estimator(w, observations), _resolver(w))


def estimate(job: Job | None = None, /, *, observations: Sequence[Observation] = (), **keys: Any) -> Estimate:
    """The memory of the job as asked, in bytes on its fullest GPU; takes what ``advise`` takes."""
    w = resolve(_job(job, keys))
    return _estimator(w, observations)(w)


def largest(job: Job | None = None, /, *, observations: Sequence[Observation] = (), **keys: Any) -> Largest:
    """The largest model that the card holds, by task and number format; the job itself names no model.

    What the job leaves open of method, precision and quantization has a row each.
    """
    from advisor.questions.largest import largest as answer

    asked = _job(job, keys)
    for key in ("train", "infer"):
        if getattr(asked, key) is not None:
            raise RequestError(f"{key}: the model is what is looked for; leave --{key} away")
    if asked.gpu is None:
        raise RequestError("name the card with --gpu: a name of `advise gpus`, or a size such as 24GB")
    if asked.observed:
        raise RequestError("observed: what a job took tells of its own model; leave --observed away")
    return answer(asked, resolve, lambda w: _estimator(w, observations))


def limits(job: Job | None = None, /, *, observations: Sequence[Observation] = (), **keys: Any) -> Limits:
    """The largest batch at the job's length, the longest sequence at its batch, and the frontier between them."""
    from advisor.questions.limits import limits as answer

    w = resolve(_job(job, keys))
    return answer(w, _resolver(w), _estimator(w, observations))


def which_gpu(
    job: Job | None = None,
    /,
    *,
    vendor: str | None = None,
    family: str | None = None,
    memory: str | None = None,
    observations: Sequence[Observation] = (),
    **keys: Any,
) -> Cards:
    """The cards of the catalogue that hold the job, and how many of each up to ``max_gpus``; the job itself names no card.

    ``vendor``, ``family`` (an architecture) and ``memory`` (``24GB``, ``24GB+``, ``24GB-80GB``) leave others out.
    """
    from advisor import catalog
    from advisor.questions.which_gpu import LARGEST, filtered
    from advisor.questions.which_gpu import which_gpu as answer

    asked = _job(job, keys)
    if asked.gpu is not None:
        raise RequestError("gpu: the card is what is looked for; narrow it with --vendor, --family or --memory")
    cards = filtered(catalog.gpus(), vendor, family, memory)
    w = resolve(asked.with_changes(gpu=LARGEST))
    return answer(asked, cards, _resolver(w), _estimator(w, observations))


def _resolver(w: Workload) -> Callable[[Job], Workload]:
    """How jobs that are made of this one are decided."""
    if not w.observed:
        return resolve
    from advisor.calibration import resolver

    return resolver(w)


def _estimator(w: Workload, observations: Sequence[Observation]) -> Callable[[Workload], Estimate]:
    if not w.observed and not observations:
        return estimate_workload
    from advisor.calibration import estimator

    return estimator(w, observations)


def _job(job: object, keys: dict[str, Any]) -> Job:
    if job is None:
        return Job(**keys)
    if not isinstance(job, Job):
        raise RequestError(f"a Job or the keys of one, such as gpu='v100-16', train='7b'; not a {type(job).__name__}")
    return Job(**{**job.given(), **keys}) if keys else job
