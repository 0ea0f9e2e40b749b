"""Plans over a grid of jobs: how many end in a fit, what the other ways are, and how fast both are found.

    PYTHONPATH=. python benchmarks/plans/run.py [--write]

The counts do not depend on the machine and are committed in RESULTS.md with ``--write``; the speed is of this machine and
is printed with the processor time of one core, everything loaded and the shapes of the models known.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from time import process_time

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.planning.plan import plan
from advisor.planning.walk import walk
from advisor.results import Plan
from advisor.workload import Workload, resolve

RESULTS = Path(__file__).parent / "RESULTS.md"
GPUS = ("t4", "v100-16", "rtx-4090", "l4", "a100-40", "a100-80", "h100-80", "h200")
MODELS = ("qwen2.5-0.5b", "llama-3.2-1b", "7b", "llama-3.1-8b", "13b", "30b", "70b", "mixtral-8x7b")
TASKS = (
    {"task": "train", "batch": 1, "seq": 2048},
    {"task": "train", "batch": 8, "seq": 4096},
    {"task": "train", "batch": 4, "seq": 2048, "precision": "fp32"},
    {"task": "train", "batch": 4, "seq": 8192, "method": "lora"},
    {"task": "infer", "batch": 1, "seq": 4096},
    {"task": "infer", "batch": 8, "seq": 32768},
    {"task": "infer", "batch": 8, "seq": 32768, "engine": "vllm"},
    {"task": "infer", "batch": 1, "seq": 8192, "engine": "llama.cpp"},
)
LIMITS = (
    {},
    {"max_gpus": 1},
    {"max_gpus": 64},
    {"gpus": 2, "max_gpus": 4},
    {"keep": "seq,batch,precision,optimizer"},
)


def grid() -> list[Workload]:
    """Every job of the grid that is one: an engine may not run on a card."""
    jobs = []
    for gpu, model, work, limits in itertools.product(GPUS, MODELS, TASKS, LIMITS):
        keys = {key: value for key, value in work.items() if key != "task"}
        try:
            w = resolve(Job(gpu=gpu, **{str(work["task"]): model}, **keys, **limits))
            estimate_workload(w)
        except RequestError:
            continue
        jobs.append(w)
    return jobs


def kind(found: Plan) -> str:
    if found.verdict == "fits-after-changes":
        by_route = any("ends without a fit" in note for note in found.notes)
        return "fits by a route that the walk passes by" if by_route else "fits after the walk's changes"
    return {"fits": "fits as asked", "does-not-fit": "nothing within the limits makes it fit"}[found.verdict]


def table(title: str, counts: Counter[str], whole: int) -> list[str]:
    rows = [f"| {name} | {count} | {100 * count / whole:.1f} % |" for name, count in sorted(counts.items())]
    return [f"| {title} | jobs | share |", "|---|---:|---:|", *rows, ""]


def measured(jobs: list[Workload]) -> tuple[list[Plan], float, float]:
    """The plans, and walks and plans in a second of processor time over the jobs that do not fit as asked."""
    plans = [plan(w, estimate_workload) for w in jobs]
    late = [w for w, found in zip(jobs, plans, strict=True) if found.verdict != "fits"]
    some = late[:: max(1, len(late) // 200)]
    gc.freeze()  # what the benchmark itself holds, these plans above all, is not gone through again while it measures
    seconds = []
    for planner in (walk, plan):
        start = process_time()
        for w in some:
            planner(w, estimate_workload)
        seconds.append(process_time() - start)
    return plans, len(some) / seconds[0], len(some) / seconds[1]


def report(plans: list[Plan]) -> str:
    planned = [found for found in plans if found.verdict == "fits-after-changes"]
    walked = [found for found in planned if "fits after" in kind(found)]
    shorter = sum(not all(step.needed for step in found.steps) for found in walked)
    ways = Counter(route.name for found in planned for route in found.alternatives)
    ways["none beside the plan"] = sum(not found.alternatives for found in planned)
    rules = Counter(rule for found in planned for rule in {step.rule for step in found.steps if step.needed})
    return "\n".join(
        [
            "# Plans over a grid of jobs",
            "",
            f"{len(plans)} jobs: {len(GPUS)} cards × {len(MODELS)} models × {len(TASKS)} tasks × {len(LIMITS)} limits, without"
            " those that an engine or a card does not take.",
            f"Made with `python benchmarks/plans/run.py --write` on {date.today().isoformat()}.",
            "",
            *table("verdict", Counter(map(kind, plans)), len(plans)),
            f"Of {len(walked)} walks that end in a fit {shorter} have steps that turned out not to be needed.",
            "",
            *table("other ways of a plan", ways, len(planned)),
            *table("rule that a plan needs", rules, len(planned)),
        ]
    )


def main(write: bool) -> None:
    plans, walks_a_second, plans_a_second = measured(grid())
    text = report(plans)
    print(text)
    print(f"{walks_a_second:.0f} walks and {plans_a_second:.0f} plans with routes in a second of one core")
    if write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main("--write" in sys.argv[1:])
