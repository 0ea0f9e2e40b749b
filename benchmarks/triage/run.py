"""How well, and how fast, logs of jobs that ran out of memory are read.

    python benchmarks/triage/run.py LABELS.jsonl [LOGS] [-v] [--half 0|1]
    python benchmarks/triage/run.py --speed [MEGABYTES]

A label is a JSON line: `id` (the log is LOGS/<id>.log, by default beside the labels in oom-logs/), `fields`, `phase` with
`phase_in_log`, `root_cause` with `cause_decidable_from_log`, and `right_remedies` in their order, each with an `action`.
Fields are right within 0.5 %, a remedy is where the first one is among the label's first two. `--half` takes one half of the
labels, by the hash of the id, so that what was developed on one half can be tried on the other.

The speed is of a generated log whose lines are harmless but for the last one. No test looks at a clock.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

from advisor.triage.diagnosis import Diagnosis, diagnose_stream

CAUSES = {
    "real_overflow": {"capacity"}, "fragmentation": {"fragmentation"}, "other_process": {"other-process"},
    "leak_growth": {"leak"}, "limit_below_capacity": {"limit"}, "kv_too_small": {"kv-cache"}, "host_ram": {"host-memory"},
    "not_device_memory": {"not-memory"}, "benign": {"benign"}, "misreport": {"misreport", "unknown"},
}  # fmt: skip
TOLERANCE = 0.005
FAILURE = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.27 GiB. GPU 0 has a total capacity of 44.42 GiB of which"
    " 1.91 GiB is free. Including non-PyTorch memory, this process has 42.50 GiB memory in use. Of the allocated memory"
    " 41.08 GiB is allocated by PyTorch, and 902.61 MiB is reserved by PyTorch but unallocated.\n"
)
HARMLESS = (
    "{time} INFO trainer.py:{n} step {step} | loss {x:.4f} | grad_norm {y:.3f} | lr {z:.2e} | {n} tokens/s\n",
    "INFO {time} loggers.py:{n}] Engine 000: Avg prompt throughput: {x:.1f} tokens/s, Running: {n} reqs, GPU KV cache usage: {y:.1f}%\n",
    'INFO:     10.0.{n}.7:{step} - "POST /v1/chat/completions HTTP/1.1" 200 OK\n',
    "Epoch 3:  47%|████▋     | {step}/99999 [02:13<02:31, {x:.2f}it/s]\r",
    "{time} [rank{n}]: peak memory: {x:.2f} GiB, reserved {y:.2f} GiB\n",
    '{time} WARNING dataset.py:{n} sample {step} was truncated from {n} to 4096 tokens: "the quick brown fox"\n',
)


def labels(path: Path, half: int | None) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [label for label in read if half is None or int(sha256(label["id"].encode()).hexdigest(), 16) % 2 == half]


def judged(label: dict[str, Any], found: Diagnosis) -> Iterator[tuple[str, bool, str]]:
    """What a label says about a diagnosis: the measure, whether it is met, and what was expected and found."""
    yield "cause found", found.family is not None, f"{found.family}"
    for name, value in label["fields"].items():
        if name.endswith("_bytes") and isinstance(value, int | float):
            got = found.fields.get(name)
            right = got is not None and abs(got - value) <= TOLERANCE * max(abs(value), 1)
            yield "byte fields", right, f"{name} {value}: {got}"
    if label["phase_in_log"]:
        phase = found.phase.replace("-", "_")
        yield "phase", phase == label["phase"], f"{label['phase']}: {phase}"
    if not label["cause_decidable_from_log"]:
        return
    if label["root_cause"] in CAUSES:
        yield "cause", found.cause in CAUSES[label["root_cause"]], f"{label['root_cause']}: {found.cause}"
    if label["right_remedies"]:
        wanted = [remedy["action"] for remedy in label["right_remedies"][:2]]
        first = found.remedies[0].action if found.remedies else None
        yield "first remedy", first in wanted, f"{wanted}: {first}"


def score(path: Path, logs: Path, half: int | None, verbose: bool) -> None:
    met: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    by_family: dict[str, Counter[bool]] = {}
    for label in labels(path, half):
        with (logs / f"{label['id']}.log").open("rb") as stream:
            found = diagnose_stream(stream)
        all_right = True
        for measure, right, said in judged(label, found):
            asked[measure] += 1
            met[measure] += right
            all_right &= right
            if verbose and not right:
                print(f"  {label['id']}: {measure}: {said}")
        by_family.setdefault(found.family or "none", Counter())[all_right] += 1
    for measure, count in asked.items():
        print(f"{measure:13} {met[measure]:4} of {count:4}  {met[measure] / count:6.1%}")
    print("logs with nothing wrong, by family:")
    for family, counts in sorted(by_family.items()):
        print(f"  {family:26} {counts[True]:3} of {counts.total():3}")


def generated(megabytes: int) -> bytes:
    """A log of harmless lines that differ, and one failure at its end."""
    dice = random.Random(20)
    lines: list[str] = []
    size = 0
    while size < 2**20:
        n = dice.randrange(8)
        time = f"2026-11-24 {dice.randrange(24):02}:{dice.randrange(60):02}:{dice.randrange(60):02},{dice.randrange(1000):03}"
        line = dice.choice(HARMLESS).format(
            time=time, n=n, step=dice.randrange(10**5), x=dice.random(), y=dice.random(), z=dice.random()
        )
        lines.append(line)
        size += len(line)
    return "".join(lines).encode() * megabytes + FAILURE.encode()


def speed(megabytes: int) -> None:
    log = generated(megabytes)
    for _ in range(3):
        start = perf_counter()
        found = diagnose_stream(io.BytesIO(log))
        seconds = perf_counter() - start
        assert found.family == "pytorch-cuda", found.family
        print(f"{len(log) / 1e6:.0f} MB in {seconds:.2f} s: {len(log) / 1e6 / seconds:.0f} MB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="?", type=Path)
    parser.add_argument("logs", nargs="?", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true", help="every miss")
    parser.add_argument("--half", type=int, choices=(0, 1), help="of the labels, by the hash of the id")
    parser.add_argument(
        "--speed", nargs="?", type=int, const=200, metavar="MEGABYTES", help="read a generated log of that size"
    )
    given = parser.parse_args()
    if given.labels:
        score(given.labels, given.logs or given.labels.parent / "oom-logs", given.half, given.verbose)
    if given.speed or not given.labels:
        speed(given.speed or 200)


if __name__ == "__main__":
    main()
