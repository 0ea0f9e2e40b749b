"""Evaluation against tensor accounting on the real model classes.

tests/data/evaluation.jsonl holds the peak of live tensor bytes of a forward pass with labels under ``no_grad``, counted as in
test_tensor_accounting.py (torch 2.13, transformers 5.23, PEFT 0.21 on a CPU, fake tensors; accelerate's conversion of outputs where
precision is mixed), the weights included and no optimizer state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.runtime import workspace
from advisor.results import Estimate
from advisor.workload import resolve

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "evaluation.jsonl").read_text().splitlines()]


def estimated(**keys: Any) -> Estimate:
    return estimate_workload(resolve(Job(**{"gpu": "h200", "engine": "deepspeed", **keys})))


def name(case: dict[str, Any]) -> str:
    model = case["train"]
    called = model if isinstance(model, str) else model["architectures"][0]
    return f"{called}-{case['precision']}-{case['attention']}-{case['batch']}x{case['seq']}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_peak_of_an_evaluation_is_within_one_percent(case: dict[str, Any]) -> None:
    """Without an optimizer the phase is the weights and what the pass takes."""
    keys = {name: value for name, value in case.items() if name != "peak"}
    w = resolve(Job(gpu="h200", engine="torchtitan", optimizer="none", loss="plain", adapter_precision="fp32", **keys))
    assert estimate_workload(w).phases["eval"] - workspace(w).point == pytest.approx(case["peak"], rel=0.01)


def test_gradients_are_gone() -> None:
    """Trained in bf16 with SGD a model is its weights and its gradients at the step; between steps it is its weights."""
    found = estimated(train="llama-3.1-8b", seq=64, optimizer="sgd", engine="torchtitan", accumulation=4)
    assert found.phases["step"] - found.phases["save"] == pytest.approx(2 * 8_030_261_248, rel=1e-3)
    assert found.phases["eval"] < found.phases["forward"]


def test_buffers_that_stand_stay() -> None:
    """Megatron's fp32 gradients are there between steps too."""
    found = estimated(train="llama-3.1-8b", seq=64, engine="megatron", optimizer="adamw")
    assert found.phases["save"] > (2 + 4 + 12) * 8_030_261_248
