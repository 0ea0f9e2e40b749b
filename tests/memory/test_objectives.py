"""Objectives beside the next token, against tensor accounting on the real model classes.

tests/data/objectives.jsonl holds the peaks of live tensor bytes of a step and an evaluation, counted as in test_tensor_accounting.py.
The loops do what the trainers do: DPO with TRL 1.16's own autograd function (its Triton kernels write in place, and were replaced by
nothing) and a second model or switched-off adapters; DPO as LLaMA-Factory 0.9.5 computes it; a reward model of
AutoModelForSequenceClassification; ORPO as in TRL 1.16 with the memory of its fused kernel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.runtime import workspace
from advisor.results import Estimate
from advisor.workload import resolve

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "objectives.jsonl").read_text().splitlines()]
LLAMA = 8_030_261_248
HEAD = 128_256 * 4_096


def estimated(**keys: Any) -> Estimate:
    return estimate_workload(resolve(Job(**{"gpu": "h200", "train": "llama-3.1-8b", **keys})))


def part(found: Estimate, name: str) -> int:
    return sum(part.bytes for part in found.parts if part.name == name)


def counted(case: dict[str, Any]) -> tuple[dict[str, float], dict[str, int]]:
    """How far each phase is off, as a share, and what was counted."""
    w = resolve(Job(gpu="h200", attention="sdpa", **{name: value for name, value in case.items() if name != "peaks"}))
    found = estimate_workload(w)
    peaks: dict[str, int] = case["peaks"]
    return {phase: (found.phases[phase] - workspace(w).point) / peak - 1 for phase, peak in peaks.items()}, peaks


def name_of(case: dict[str, Any]) -> str:
    return "-".join(str(case[key]) for key in ("objective", "engine", "train", "method", "precision", "checkpointing"))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_peak_is_within_one_percent(case: dict[str, Any]) -> None:
    """The highest phase is within 1 % of what was counted, and every other within 3 %."""
    off, peaks = counted(case)
    assert abs(off[max(peaks, key=lambda phase: peaks[phase])]) <= 0.01
    assert max(abs(share) for share in off.values()) <= 0.03


def test_the_reference_is_a_second_model() -> None:
    """Full DPO holds the weights twice; with LoRA the adapters are switched off instead, and ORPO has no reference."""
    assert part(estimated(objective="dpo"), "reference-weights") == pytest.approx(2 * LLAMA, rel=1e-3)
    assert part(estimated(objective="dpo", method="lora"), "reference-weights") == 0
    assert part(estimated(objective="orpo"), "reference-weights") == 0


def test_the_reference_is_sharded_with_zero_3_only() -> None:
    """TRL's prepare_deepspeed keeps stage 3 for the reference and runs it without ZeRO otherwise."""
    whole, shard = (part(estimated(objective="dpo", gpus=8, zero=zero), "reference-weights") for zero in (2, 3))
    assert whole == 8 * shard


def test_llama_factory_loads_its_reference_in_16_bits() -> None:
    """What it does not train it loads in the computing type, also where the policy is fp32."""
    keys: dict[str, Any] = {"objective": "dpo", "precision": "bf16-mixed"}
    assert part(estimated(**keys, engine="trl"), "reference-weights") == pytest.approx(4 * LLAMA, rel=1e-3)
    assert part(estimated(**keys, engine="llama-factory"), "reference-weights") == pytest.approx(2 * LLAMA, rel=1e-3)


def test_a_pair_is_two_sequences() -> None:
    """What a checkpointed DPO step keeps of a batch of 2 is what an lm step keeps of 4: the inputs of 32 layers."""
    keys: dict[str, Any] = {"method": "lora", "checkpointing": "full", "seq": 4096, "loss": "chunked", "engine": "trl"}
    pair, alone = (estimated(**keys, objective=name, batch=batch) for name, batch in (("dpo", 2), ("lm", 4)))
    assert pair.phases["backward"] == pytest.approx(alone.phases["backward"], rel=0.1)


def test_a_reward_model_has_no_language_head() -> None:
    """A head of one number takes the place of 128,256 × 4,096 weights: 7,504,928,768 parameters."""
    found = estimated(objective="reward", optimizer="none", engine="trl", seq=64)
    assert part(found, "weights") == pytest.approx(2 * (LLAMA - HEAD + 4_096), abs=2**20)


def test_grpo_generates_all_completions_of_a_step() -> None:
    """Eight sequences in each of sixteen micro-steps are generated together: 128 × 4,096 tokens of 131,072 bytes."""
    found = estimated(objective="grpo", method="lora", batch=8, accumulation=16, seq=4096, checkpointing="full")
    assert (found.peak_phase, part(found, "kv-cache")) == ("decode", 128 * 4_096 * 131_072)


def test_zero_3_gathers_the_model_to_generate() -> None:
    """TRL's unwrap_model_for_generation makes every rank hold all parameters."""
    found = estimated(objective="grpo", gpus=8, zero=3, batch=8, accumulation=16, seq=4096, checkpointing="full")
    assert found.peak_phase == "decode"
    assert part(found, "gathered-parameters") == pytest.approx(2 * LLAMA, rel=1e-3)


@pytest.mark.parametrize("objective", ["ppo", "rloo", "online-dpo", "distillation"])
def test_what_is_not_estimated_is_refused_by_name(objective: str) -> None:
    """One line names the objective and what to estimate instead."""
    with pytest.raises(RequestError, match=rf"^objective: {objective} is not estimated: [^\n]+$"):
        estimated(objective=objective)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"objective": "dpo", "engine": "trainer"}, "take --engine trl"),
        ({"objective": "reward", "engine": "llama-factory"}, "take --engine trl"),
        ({"objective": "orpo", "loss": "chunked"}, "computed over all logits"),
        ({"objective": "dpo", "estimator": "checklist"}, "--estimator detailed"),
        ({"objective": "dpo", "train": None, "infer": "7b"}, "is for training"),
        ({"objective": "dop"}, "did you mean dpo?"),
        ({"objective": "dpo", "train": "bert-base"}, "is for decoders"),
    ],
)
def test_contradictions_are_refused(keys: dict[str, Any], told: str) -> None:
    """An engine that has no such trainer, a loss that it cannot compute in chunks, an estimator that does not know it."""
    with pytest.raises(RequestError, match=told):
        estimated(**keys)


def test_preferences_are_trls_unless_said_otherwise() -> None:
    """The engine follows the objective, and is in the job that is printed."""
    job = resolve(Job(gpu="h200", train="7b", objective="dpo")).to_dict()
    assert (job["objective"], job["engine"], job["loss"]) == ("dpo", "trl", "chunked")
    assert resolve(Job(gpu="h200", train="7b")).to_dict()["objective"] == "lm"


def test_seven_phases_fit_a_terminal() -> None:
    """GRPO has one phase more than any other training: the table still has at most 80 columns."""
    from advisor import advise
    from advisor.render.table import render

    plan = advise(gpu="a100-80", train="llama-3.1-8b", objective="grpo", method="lora", batch=4, accumulation=8)
    assert "decode" in render(plan)
    assert max(map(len, render(plan, explain=False).splitlines())) <= 80
