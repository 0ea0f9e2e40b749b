"""The measuring harness: its jobs, its process, and the comparison. What needs torch runs where torch is."""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from advisor import Job, estimate
from advisor.memory.parameters import parameter_count
from advisor.references import find_model
from advisor.workload import resolve

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import measure
import measured_run

JOBS = measure.read(measure.JOBS)
H100 = {"name": "NVIDIA H100 80GB HBM3", "total_bytes": 85_017_493_504, "capability": "9.0", "context_bytes": 5 * 10**8}


def test_the_jobs_are_of_every_kind() -> None:
    """At least 60, none twice: training in full, LoRA and inference, both ways of checkpointing, optimizers, four caps, mixtures."""
    assert len({json.dumps(job, sort_keys=True) for job in JOBS}) == len(JOBS) >= 60
    caps = Counter(job["gpu"] for job in JOBS)
    assert min(caps[cap] for cap in ("16GB", "24GB", "40GB", "80GB")) >= 6
    kinds = Counter("infer" if "infer" in job else job.get("method", "full") for job in JOBS)
    assert min(kinds["full"], kinds["lora"], kinds["infer"]) >= 10
    assert {"none", "full"} <= {job.get("checkpointing") for job in JOBS}
    assert len({job.get("optimizer", "adamw") for job in JOBS}) >= 6
    counts = [parameter_count(find_model(job.get("train") or job["infer"])) for job in JOBS]
    assert min(counts) < 6e8
    assert sum(count > 6e9 for count in counts) >= 10
    assert sum("moe" in name or "-a" in name for job in JOBS for name in [job.get("train") or job["infer"]]) >= 6


@pytest.mark.parametrize("job", JOBS, ids=measure._label)
def test_the_harness_can_run_every_job_of_its_list(job: dict[str, Any]) -> None:
    """Its keys are a job's, the plain loop has all that it asks for, and it can be estimated."""
    task = measure.task_of(job, "cuda", tiny=False)
    assert measured_run.unsupported(resolve(Job(**task["job"]))) == ""
    assert task["config"]["model_type"]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"gpus": 2}, "gpus 2"),
        ({"method": "qlora"}, "quantization nf4"),
        ({"optimizer": "muon"}, "optimizer muon"),
        ({"checkpointing": "selective"}, "checkpointing selective"),
        ({"engine": "unsloth"}, "engine unsloth"),
    ],
)
def test_what_a_plain_loop_does_not_have_is_not_run_as_something_else(keys: dict[str, Any], why: str) -> None:
    """The reason is said."""
    job = {"gpu": "24GB", "train": "llama-3.2-1b", "engine": "transformers", "loss": "plain", **keys}
    assert why in measured_run.unsupported(resolve(Job(**job)))


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 1.96 GiB."), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (RuntimeError("CUDA error: out of memory"), "oom"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "error"),
        (measured_run.UnsupportedError("optimizer muon"), "unsupported"),
    ],
)
def test_out_of_memory_is_told_from_other_errors(problem: Exception, outcome: str) -> None:
    """Also where a library says it instead of torch."""
    assert measured_run.failure(problem) == outcome


def record(outcome: str, factor: float, **keys: Any) -> dict[str, Any]:
    """A run as its estimate on an H100 capped at 40 GB, times a factor."""
    job = {"gpu": "40GB", "train": "llama-3.2-1b", "batch": 2, "seq": 1024, "engine": "transformers", **keys}
    found = {"job": job, "outcome": outcome, "gpu": H100, "cap_bytes": 42_480_959_488, "error": {"text": "no memory"}}
    expected = measure.estimate_of(found)
    peaks = {name: round(factor * getattr(expected, field)) for name, field in measure.FIELDS.items()}
    small = dict.fromkeys(peaks, 1)
    return {**found, "phases": {"load": small, "forward": peaks, "step": small}}


def test_a_run_is_compared_with_the_estimate_of_the_card_it_ran_on() -> None:
    """Its context and kernels are the H100's, its budget the cap; the error is that of the highest phase."""
    row = measure.compare(record("ok", 1 / 1.1))
    assert isinstance(row, measure.Row)
    assert row.fits
    assert row.errors() == pytest.approx({"allocated": 0.1, "reserved": 0.1, "nvml": 0.1}, abs=1e-6)
    plain = estimate(gpu="h100-80", train="llama-3.2-1b", batch=2, seq=1024, engine="transformers")
    assert row.estimated["nvml"] == plain.device_bytes


def test_the_table_counts_what_was_wrong() -> None:
    """A run out of memory that was said to fit, one that ran and was not; the first has no error, for it was cut short."""
    rows = [
        measure.compare(record("oom", 1.0)),
        measure.compare(record("ok", 0.5, batch=64)),
        measure.compare(record("ok", 1.0)),
    ]
    text = "\n".join(measure.table([row for row in rows if isinstance(row, measure.Row)]))
    assert "allocated: 2 runs, absolute error: median 50.0%, 90th percentile 100.0%" in text
    assert "out of memory: 1 runs, of which 1 were said to fit; ran: 2, 1 said not to fit" in text


@pytest.mark.parametrize(
    ("change", "reason"), [({"gpu": None}, "nothing is measured"), ({"outcome": "timeout"}, "timeout: no memory")]
)
def test_what_was_not_measured_is_not_compared(change: dict[str, Any], reason: str) -> None:
    """With the reason."""
    assert reason in str(measure.compare({**record("ok", 1.0), **change}))


def test_a_process_that_takes_too_long_leaves_a_record() -> None:
    """So does every other end: nothing is lost from the file."""
    found = measure.measure(measure.task_of(JOBS[0], "cpu", tiny=True), timeout=0.001)
    assert (found["outcome"], found["phases"]) == ("timeout", {})
    assert found["job"]["train"]["model_type"] == "qwen2"


SLOW = [
    {"gpu": "16GB", "train": "llama-3.2-1b", "checkpointing": "full", "accumulation": 2},
    {"gpu": "16GB", "train": "granite-3.1-1b-a400m", "method": "lora", "lora_targets": "q_proj,v_proj", "optimizer": "sgd"},
    {"gpu": "16GB", "infer": "deepseek-v2-lite", "precision": "bf16"},
]


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, ("torch", "transformers", "peft"))), reason="torch, transformers and PEFT run the jobs"
)
@pytest.mark.parametrize("job", SLOW, ids=measure._label)
def test_the_whole_path_on_a_cpu(job: dict[str, Any]) -> None:
    """The real classes at the size of a toy: every phase is there, the parameters are those counted, and no figure is made up."""
    found = measure.measure(measure.task_of(job, "cpu", tiny=True), timeout=120)
    assert (found["outcome"], found["error"]) == ("ok", None)
    phases = ("load", "forward", "backward", "step") if "train" in job else ("load", "prefill", "decode")
    assert found["phases"] == {phase: {"allocated": None, "reserved": None, "nvml": None} for phase in phases}
    assert found["parameters"] == parameter_count(find_model(found["job"].get("train") or found["job"]["infer"]))
    assert found["versions"]["torch"]
    assert (found["gpu"], found["cap_bytes"]) == (None, None)
