"""Real jobs on a real card, beside their estimates.

    python benchmarks/measure.py [JOBS] --out results.jsonl      run every job of a file, each in a process of its own
    python benchmarks/measure.py --compare results.jsonl         the estimate's error for every line
    python benchmarks/measure.py --device cpu --tiny             try the whole path without a card

A job line has the keys of a job; its `gpu` is the card that a larger one imitates: torch's allocator is capped there. It
needs torch with CUDA, transformers and PEFT, for some optimizers bitsandbytes, and for NVML's figures nvidia-ml-py; nothing
is downloaded. A run on the CPU measures nothing: its figures are null.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # a checkout that is not installed

from advisor import catalog, estimate  # noqa: E402
from advisor.errors import RequestError  # noqa: E402
from advisor.results import Estimate  # noqa: E402

JOBS = HERE / "measure_jobs.jsonl"
ENGINE = "transformers"  # a plain loop
GIB = 2**30
# A model of the same kind that a laptop runs in a second: keys of a configuration, where it has them, at most so large.
TINY = {
    "num_hidden_layers": 2, "n_layer": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "max_window_layers": 2, "max_position_embeddings": 2048,
}  # fmt: skip
TINY_LENGTH, TINY_DECODE, TINY_BATCH = 32, 4, 2
# What an estimate's fields are called in a record.
FIELDS = {"allocated": "allocated_bytes", "reserved": "reserved_bytes", "nvml": "device_bytes"}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def task_of(job: dict[str, Any], device: str, tiny: bool) -> dict[str, Any]:
    """What the process that runs a job is told."""
    job = {"engine": ENGINE, **job}
    kind = "train" if job.get("train") else "infer"
    config = job[kind] if isinstance(job[kind], dict) else catalog.model_config(job[kind])
    if tiny:
        config = shrunk(config)
        job = {**job, kind: config, "batch": min(TINY_BATCH, job.get("batch", 1)), "seq": TINY_LENGTH}
        if kind == "infer":
            job["prompt"] = TINY_LENGTH - TINY_DECODE
    return {"job": job, "config": config, "device": device, "tiny": tiny}


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration at the size of a toy; lists with an entry a layer keep as many."""
    layers = config.get("num_hidden_layers")
    small = {name: min(value, TINY[name]) if name in TINY else value for name, value in config.items() if value is not None}
    cut = {name: value[: TINY["num_hidden_layers"]] if isinstance(value, list) and len(value) == layers else value
           for name, value in small.items()}  # fmt: skip
    return {**cut, "pad_token_id": 0}  # the default of some classes is beyond a small vocabulary


def measure(task: dict[str, Any], timeout: float) -> dict[str, Any]:
    """The record of one run, whatever becomes of its process."""
    command = [sys.executable, str(HERE / "measured_run.py")]
    try:
        done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, timeout=timeout, check=False)
        out, error, killed = done.stdout, done.stderr, f"exit {done.returncode}: "
    except subprocess.TimeoutExpired as late:
        out, error, killed = _text(late.stdout), _text(late.stderr), ""
    lines = out.splitlines()
    record: dict[str, Any] = json.loads(lines[-1]) if lines else {"schema": 1, **task, "phases": {}, "error": None}
    record.pop("config", None)
    if record.get("outcome", "running") == "running":
        phase = (record.get("error") or {}).get("phase", "start")
        record["outcome"] = "crashed" if killed else "timeout"
        record["error"] = {
            "phase": f"after {phase}",
            "text": killed + error[-1000:] if killed else f"longer than {timeout:g} s",
        }
    return record


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


class Row(NamedTuple):
    """One measured run beside its estimate: sizes in bytes by the record's names."""

    label: str
    outcome: str
    fits: bool
    measured: dict[str, int]
    estimated: dict[str, int]

    def errors(self) -> dict[str, float]:
        return {name: self.estimated[name] / size - 1 for name, size in self.measured.items()}


def compare(record: dict[str, Any]) -> Row | str:
    """The run beside its estimate on the card that it ran on, capped as it was; or why they cannot be compared."""
    label = _label(record["job"])
    if record["outcome"] not in ("ok", "oom"):
        return f"{label}: {record['outcome']}: {(record.get('error') or {}).get('text', '')[:100]}"
    if not record.get("gpu"):
        return f"{label}: ran on the CPU, where nothing is measured"
    try:
        found = estimate_of(record)
    except RequestError as refusal:
        return f"{label}: not estimated: {refusal}"
    phases = record["phases"].values()
    peaks = {name: max((phase[name] for phase in phases if phase.get(name)), default=0) for name in FIELDS}
    # Out of memory, the peak is the cap and no measurement of what the job needs.
    measured = {name: size for name, size in peaks.items() if size and record["outcome"] == "ok"}
    return Row(label, record["outcome"], found.fits, measured, {name: getattr(found, field) for name, field in FIELDS.items()})


def estimate_of(record: dict[str, Any]) -> Estimate:
    job = {**record["job"], "free": record["cap_bytes"]}
    name = record["gpu"]["name"]
    try:
        job["gpu"] = catalog.find_gpu(name).slug
    except RequestError:  # not in the catalogue: the card that it imitated stands for it
        return estimate(**job)
    job["free"] = min(job["free"], catalog.find_gpu(name).total_bytes)
    return estimate(**job)


def _label(job: dict[str, Any]) -> str:
    kind = "train" if job.get("train") else "infer"
    model = job[kind] if isinstance(job[kind], str) else job[kind].get("model_type", "model")
    shown = ("method", "optimizer", "checkpointing", "precision", "attention")
    rest = [str(job[name]) for name in shown if job.get(name) not in (None, "full", "none")]
    checkpointed = ["checkpointed"] if job.get("checkpointing") == "full" else []
    length = f"{job.get('batch', 1)}×{job.get('seq', '')}"
    return " ".join([kind, model, length, *rest, *checkpointed, f"on {job.get('gpu', '')}"])


def table(rows: Sequence[Row]) -> list[str]:
    """A line a run, then the errors over all of them and the verdicts that were wrong."""
    lines = [f"{'run':72} {'outcome':8} {'fits':5} " + " ".join(f"{name:>18}" for name in FIELDS)]
    for row in rows:
        errors = row.errors()
        cells = [f"{row.measured[name] / GIB:8.2f} {errors[name]:+8.1%}" if name in errors else "" for name in FIELDS]
        lines.append(
            f"{row.label:72} {row.outcome:8} {'yes' if row.fits else 'no':5} " + " ".join(f"{cell:>18}" for cell in cells)
        )
    for name in FIELDS:
        errors_of = sorted(abs(row.errors()[name]) for row in rows if name in row.measured)
        if errors_of:
            worst = errors_of[min(len(errors_of) - 1, int(0.9 * len(errors_of)))]
            lines.append(
                f"{name}: {len(errors_of)} runs, absolute error: median {median(errors_of):.1%}, 90th percentile {worst:.1%}"
            )
    wrong = sum(row.fits and row.outcome == "oom" for row in rows)
    missed = sum(not row.fits and row.outcome == "ok" for row in rows)
    oom = sum(row.outcome == "oom" for row in rows)
    lines.append(
        f"out of memory: {oom} runs, of which {wrong} were said to fit; ran: {len(rows) - oom}, {missed} said not to fit"
    )
    return lines


def _compare(path: Path) -> None:
    found = [compare(record) for record in read(path)]
    rows = [row for row in found if isinstance(row, Row)]
    print("\n".join(table(rows) if rows else ["nothing was measured"]))
    for reason in (row for row in found if isinstance(row, str)):
        print(f"not compared: {reason}")


def _measure(jobs: Iterable[dict[str, Any]], arguments: argparse.Namespace) -> None:
    with open(arguments.out, "a", encoding="utf-8") if arguments.out else sys.stdout as stream:
        for job in jobs:
            record = measure(task_of(job, arguments.device, arguments.tiny), arguments.timeout)
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            if arguments.out:
                print(f"{record['outcome']:11} {_label(job)}", file=sys.stderr)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="?", type=Path, default=JOBS)
    parser.add_argument("--out", help="add the records to this file")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="no run: compare the records of this file")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models and lengths at the size of a toy")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one job")
    parser.add_argument("--first", type=int, help="only so many jobs")
    arguments = parser.parse_args(words)
    if arguments.compare:
        return _compare(arguments.compare)
    return _measure(read(arguments.jobs)[: arguments.first], arguments)


if __name__ == "__main__":
    main()
