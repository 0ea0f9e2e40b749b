"""From a diagnosis to a plan: the job of the log, its estimate corrected by what the log observed, and the steps from the remedy
that the diagnosis names first."""

from __future__ import annotations

from typing import Any

from advisor.errors import RequestError
from advisor.results import Plan
from advisor.triage.diagnosis import Diagnosis
from advisor.triage.facts import device
from advisor.triage.settings import ONLY_TRAIN, sold_as

# The rule of a plan that does what a remedy says.
RULES = {
    "reduce_batch": "I1", "lower_max_num_seqs": "I1", "fewer_slots": "I1",
    "reduce_seq": "I2", "lower_max_model_len": "I2", "lower_ctx": "I2",
    "quantize_weights": "I3", "smaller_quant": "I3", "fp16_load": "I3",
    "split_model": "I4", "tensor_split": "I4",
    "grad_checkpointing": "T1", "reduce_micro_batch_grad_accum": "T2", "zero_or_fsdp": "T3", "light_optimizer": "T4",
    "mixed_precision": "T5", "multi_gpu": "T6",
}  # fmt: skip
PLANNED = ("capacity", "kv-cache", "fragmentation", "limit", "other-process", "leak", "misreport")
TASKS = ("train", "infer")
# Guessed from the log, and given up where the job does not accept them.
SOFT = ("free", "engine", "quantization", "gpus", "lora_rank", "accumulation", "batch", "seq", "tp", "memory_fraction")


def with_plan(found: Diagnosis, given: dict[str, Any]) -> Diagnosis:
    """The diagnosis with a plan for the job that the user and the log tell, or with what is to be told for one.

    Raises RequestError where what the user gave is wrong; what the log tells is left out where it is.
    """
    if not found.found:
        return found
    if found.cause not in PLANNED:
        return found._replace(notes=(*found.notes, *(["No plan: the card's memory is not the matter."] if given else [])))
    job, asked = _job(found, given)
    if asked:
        return found._replace(notes=(*found.notes, *asked))
    plan, notes = _planned(found, job, given)
    return found._replace(plan=plan, notes=(*found.notes, *notes))


def _job(found: Diagnosis, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The keys of the job, and what is missing to make one, in words."""
    told = dict(found.settings or {})
    model = told.pop("model", None)
    asked: list[str] = []
    if any(task in given for task in TASKS):
        told = {key: value for key, value in told.items() if key not in TASKS}
    elif model or any(task in told and not _known_model(str(told[task])) for task in TASKS):
        name = model or next(str(told[task]) for task in TASKS if task in told)
        told = {key: value for key, value in told.items() if key not in TASKS}
        says = f"the log names {name}" if _known_model(name) else f"the log names {name}, which advise models does not list"
        asked.append(f"For a plan, say --train MODEL or --infer MODEL: {says}.")
    elif not any(task in told for task in TASKS):
        asked.append("For a plan, say --train MODEL or --infer MODEL: the log does not name the model.")
    gpu = given.get("gpu") or _card(found, told.pop("gpu", None))
    told.pop("gpu", None)
    if gpu is None:
        asked.append("For a plan, say --gpu CARD: the log does not tell its size.")
    job = {**_agreeing(told, given), **given, "gpu": gpu}
    if gpu and "free" not in given and (free := _free(found)) and _same_card(str(gpu), found.fields["total_capacity_bytes"]):
        job["free"] = str(free)
    return job, asked


def _same_card(gpu: str, total: int) -> bool:
    """Whether the log is of that card: another one, asked about, has another size."""
    from advisor import catalog

    return abs(catalog.find_gpu(gpu).usable_bytes - total) < 0.1 * total


def _agreeing(told: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the log tells without an engine that does not do the task that was given."""
    trains = "train" in given or "train" in told
    if told.get("engine") in ONLY_TRAIN and not trains:
        return {key: value for key, value in told.items() if key != "engine"}
    return told


def _known_model(name: str) -> bool:
    from advisor import catalog

    return catalog.is_model_name(name)


def _card(found: Diagnosis, name: object) -> str | None:
    """The card that the log names, or one of the size that it tells."""
    from advisor import catalog

    if isinstance(name, str):
        try:
            return catalog.find_gpu(name).slug
        except RequestError:
            pass
    total = found.fields.get("total_capacity_bytes")
    return sold_as(total) if total else None


def _free(found: Diagnosis) -> int | None:
    """What the job could have of the card: what the runtime saw of it, less what others held."""
    total = found.fields.get("total_capacity_bytes")
    if not total:
        return None
    others = device({**found.fields, "processes": found.fields.get("other_processes", ())}).outside
    return int(total - others) if total > others else None


def _planned(found: Diagnosis, job: dict[str, Any], given: dict[str, Any]) -> tuple[Plan | None, list[str]]:
    w = _accepted(job, [key for key in SOFT if key in job and key not in given])
    from advisor.calibration import estimator, resolver
    from advisor.planning.plan import plan as planned

    w, notes = _kv_cache_seen(found, w) if w.engine.preallocates_kv else _observed(found, w)
    first = tuple(dict.fromkeys(RULES[one.action] for one in found.remedies if one.action in RULES))
    plan = planned(w, estimator(w), resolver(w), first=first)
    if lacking := [f"--{key}" for key in ("batch", "seq") if key not in job]:
        taken = ", ".join(f"{key} {plan.job[key]:,}" for key in ("batch", "seq") if key not in job)
        notes.append(f"The log does not tell {' and '.join(lacking)}: the plan takes {taken}; say what they were.")
    if plan.verdict == "fits":
        notes.append("By the estimate the job fits this card: mend the cause that is named above, not its settings.")
    return plan, notes


def _accepted(job: dict[str, Any], soft: list[str]) -> Any:
    """The job decided, without what the log tells as far as it is not accepted."""
    from advisor.job import Job  # isort: split
    from advisor.estimator import estimate_workload
    from advisor.workload import resolve

    try:
        w = resolve(Job(**job))
        estimate_workload(w)
    except RequestError:
        if not soft:
            raise
        return _accepted({key: value for key, value in job.items() if key != soft[0]}, soft[1:])
    return w


def _kv_cache_seen(found: Diagnosis, w: Any) -> tuple[Any, list[str]]:
    """The job with the room that the engine itself found for the KV cache: it had measured the rest."""
    from advisor.estimator import estimate_workload
    from advisor.workload import resolve

    room = found.fields.get("kv_available_bytes", 0)
    if found.cause != "kv-cache" or room <= 0 or w.estimator != "detailed":
        return w, []
    estimate = estimate_workload(w)
    rest = estimate.device_bytes - sum(part.bytes for part in estimate.parts if part.name == "kv-cache")
    try:
        seen = resolve(w.asked.with_changes(free=rest + room))
    except RequestError:
        return w, []
    return seen, [f"The engine found {room / 2**30:.2f} GiB for the KV cache beside the rest: the plan is for as much."]


def _observed(found: Diagnosis, w: Any) -> tuple[Any, list[str]]:
    """The job with what the log saw of it, where that is more than the estimate: a failed job needs at least that much."""
    from advisor.estimator import estimate_workload
    from advisor.workload import resolve

    of = device(found.fields)
    if w.observed or not of.allocated or not of.tried or w.estimator != "detailed":
        return w, []
    needed = of.allocated + of.tried
    estimate = estimate_workload(w)
    figures = f"the log reached {needed / 2**30:.2f} GiB of tensors"
    if estimate.allocated_bytes >= needed:
        return w, [f"The estimate of {estimate.allocated_bytes / 2**30:.2f} GiB agrees: {figures} and had not ended."]
    try:
        seen = resolve(w.asked.with_changes(observed={"allocated": min(needed, w.gpu.total_bytes)}))
        from advisor.calibration import correction

        correction(seen)
    except RequestError as problem:
        return w, [f"Not corrected by the log, where {figures}: {problem}."]
    return seen, []
