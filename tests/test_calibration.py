"""What was observed corrects the estimate, is carried through the plan, and survives being printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from advisor import Job, RequestError, advise, estimate
from advisor.calibration import Observation
from advisor.results import Estimate

GIB = 2**30
LEVELS = ("allocated", "reserved", "device")
LORA = {"gpu": "a100-80", "train": "llama-3.1-8b", "method": "lora", "seq": 3072}
SERVED = {"gpu": "a100-80", "infer": "llama-3.1-8b"}
FULL = {"gpu": "h200", "train": "llama-3.1-8b", "seq": 1024, "gpus": 2}
EVERYTHING_ELSE = (
    "weights",
    "adapter-weights",
    "optimizer-state",
    "kv-cache",
    "cublas-workspace",
    "allocator-slack",
    "cuda-context",
)


def sizes(estimate: Estimate) -> dict[str, int]:
    return {name: getattr(estimate, f"{name}_bytes") for name in LEVELS}


def width(estimate: Estimate) -> int:
    return estimate.high_bytes - estimate.low_bytes


@pytest.mark.parametrize("job", [LORA, SERVED, FULL], ids=["lora", "served", "full"])
@pytest.mark.parametrize("names", [("allocated",), ("reserved",), ("device",), LEVELS], ids=lambda names: "-".join(names))
def test_what_was_expected_changes_nothing_but_the_interval(job: dict[str, Any], names: tuple[str, ...]) -> None:
    """Observed as estimated: every byte stays, and the interval narrows."""
    plain = estimate(**job)
    seen = estimate(**job, observed={name: sizes(plain)[name] for name in names})
    assert [(part.name, part.bytes, part.formula) for part in seen.parts] == [
        (part.name, part.bytes, part.formula) for part in plain.parts
    ]
    assert seen.phases == plain.phases
    assert width(seen) < width(plain)
    assert "nothing changes but the interval" in seen.notes[-1]


def test_ten_percent_more_of_what_comes_and_goes() -> None:
    """The moving parts take the factor 1.1 in every phase, and the others stay."""
    plain = estimate(**LORA)
    moving = sum(part.bytes for part in plain.parts if part.name not in EVERYTHING_ELSE)
    more = round(0.1 * moving)
    seen = estimate(**LORA, observed={"allocated": plain.allocated_bytes + more})
    assert seen.allocated_bytes - plain.allocated_bytes == pytest.approx(more, abs=8)
    before, after = ({part.name: part.bytes for part in each.parts} for each in (plain, seen))
    for name in ("activations", "logits-and-loss"):
        assert after[name] == pytest.approx(1.1 * before[name], rel=1e-6)
        assert "× 1.1: corrected by an observation" in next(part.formula for part in seen.parts if part.name == name)
    for name in ("weights", "adapter-weights", "optimizer-state", "cublas-workspace", "cuda-context"):
        assert after[name] == before[name]
    assert "what comes and goes × 1.1." in seen.notes[-1]


def test_each_size_that_was_seen_is_met() -> None:
    """All three at once: allocated, the slack above it, context above that."""
    observed = {"allocated": 40 * GIB, "reserved": 44 * GIB, "device": 45 * GIB}
    seen = estimate(**LORA, observed=observed)
    assert sizes(seen) == pytest.approx(observed, abs=8)
    assert seen.low_bytes == pytest.approx(0.99 * 45 * GIB, rel=1e-6)
    assert seen.high_bytes == pytest.approx(1.01 * 45 * GIB, rel=1e-6)


def test_a_surprise_is_not_put_down_to_the_context() -> None:
    """10 GiB more on the device: context and slack go to the ends of their ranges, the rest is tensors."""
    plain = estimate(**LORA)
    seen = estimate(**LORA, observed={"device": plain.device_bytes + 10 * GIB})
    parts = {part.name: part.bytes for part in seen.parts}
    assert parts["cuda-context"] == pytest.approx(700 * 2**20, abs=8)
    assert seen.device_bytes == pytest.approx(plain.device_bytes + 10 * GIB, abs=64)
    assert seen.allocated_bytes > plain.allocated_bytes + 5 * GIB


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(20 * GIB, 80 * GIB), min_size=3, max_size=3), st.sets(st.sampled_from(LEVELS), min_size=1))
def test_the_sizes_come_out_as_they_were_seen(some: list[int], names: set[str]) -> None:
    """Whatever was seen, if it can be at all: those sizes, and parts that add up."""
    observed = {name: size for name, size in zip(LEVELS, sorted(some), strict=True) if name in names}
    try:
        seen = estimate(**LORA, observed=observed)
    except RequestError:
        reject()
    assert {name: sizes(seen)[name] for name in observed} == pytest.approx(observed, abs=64)
    assert sum(part.bytes for part in seen.parts) == seen.device_bytes
    assert seen.low_bytes <= seen.device_bytes <= seen.high_bytes


TOO_MUCH = {**LORA, "engine": "transformers", "batch": 2, "observed": {"allocated": 79 * GIB}}


def test_a_plan_carries_the_correction() -> None:
    """The steps' estimates are corrected as well, and the last one is wider than ± 1 %, for nobody has seen it."""
    corrected, plain = advise(**TOO_MUCH), advise(**{**TOO_MUCH, "observed": None})
    assert corrected.verdict == "fits-after-changes"
    assert corrected.steps[0].before_bytes > plain.steps[0].before_bytes
    assert corrected.final is not None
    assert plain.final is not None
    after, before = corrected.final.estimate, plain.final.estimate
    assert after.allocated_bytes > before.allocated_bytes
    moving = sum(part.bytes for part in before.parts if part.name not in EVERYTHING_ELSE)
    factor = 1 + (after.allocated_bytes - before.allocated_bytes) / moving
    assert f"what comes and goes × {factor:.2f}." in corrected.notes[-1]
    assert width(after) > 0.02 * after.device_bytes


def test_the_planned_job_says_how_the_observed_one_was() -> None:
    """Through JSON and back, the final job is estimated as the plan estimated it."""
    plan = advise(**TOO_MUCH)
    assert plan.final is not None
    job = json.loads(json.dumps(plan.final.job))
    assert (job["observed"], job["observed_with"]) == ({"allocated": 79 * GIB}, {"checkpointing": "none"})
    assert advise(**job).initial.to_dict() == plan.final.estimate.to_dict()


def test_the_asked_job_survives_json() -> None:
    """As every other key does."""
    plan = advise(**TOO_MUCH)
    assert advise(**json.loads(json.dumps(plan.job))).to_dict() == plan.to_dict()


def test_observed_on_another_card() -> None:
    """What 24 GB could not hold was seen on a card that can; the factor goes to the small card, which stays too small."""
    seen = estimate(**{**LORA, "gpu": "rtx-4090"}, observed="allocated=50GiB", observed_with="gpu=a100-80")
    assert seen.allocated_bytes == pytest.approx(estimate(**LORA, observed="allocated=50GiB").allocated_bytes, abs=8)
    assert not seen.fits


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({**LORA, "observed": "allocated=13GiB"}, "less than what this job holds for certain .*weights 14.96 GiB"),
        ({**LORA, "observed": "device=90GiB"}, "more than A100-SXM4-80GB has, .*--observed-with gpu=NAME"),
        ({**LORA, "observed": "reserved=40GiB,allocated=41GiB"}, "part of reserved"),
        ({**LORA, "observed": "device=30.1GiB,allocated=30GiB"}, "no room for context"),
        ({**LORA, "observed": "alocated=30GiB"}, "any of allocated, reserved, device"),
        ({**LORA, "observed": "allocated"}, "names and values such as allocated=13.2GiB"),
        ({**LORA, "observed": "allocated=lots"}, "a size such as 24GiB"),
        ({**LORA, "observed": 5}, "names with commas"),
        ({**LORA, "observed": "device=40GiB", "observed_with": "bach=1"}, "did you mean batch"),
        ({**LORA, "observed": "device=40GiB", "observed_with": "observed=1"}, "any key but observed"),
        ({**LORA, "observed": "device=40GiB", "estimator": "checklist"}, "only the detailed estimator"),
        ({**SERVED, "observed": "device=40GiB", "engine": "vllm"}, "fills its share of the card"),
        ({**SERVED, "observed": "device=40GiB", "offload": "layers"}, "--offload-layers"),
        ({**SERVED, "observed": "reserved=30GiB,allocated=20GiB", "engine": "llama.cpp"}, "no slack of that kind"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)  # fmt: skip
def test_what_cannot_have_been_seen_is_refused(keys: dict[str, Any], message: str) -> None:
    """In one line that says why."""
    with pytest.raises(RequestError, match=message) as refusal:
        estimate(**keys)
    assert "\n" not in str(refusal.value)


def earlier(*ratios: float, name: str = "device", **keys: Any) -> list[Observation]:
    """Jobs that took so much times their estimate."""
    found = []
    for batch, ratio in enumerate(ratios, start=1):
        job = {**LORA, "seq": 1024, "batch": batch, **keys}
        found.append(Observation(Job(**job), {name: round(ratio * sizes(estimate(**job))[name])}))
    return found


def test_earlier_jobs_move_the_estimate_and_narrow_the_interval() -> None:
    """Ratios 1.010, 1.012, 1.014: centre 1.012, spread 2.920 × 0.002 × √(4/3) = 0.7 %, and never under the 1 % of the digits."""
    plain, seen = estimate(**LORA), estimate(**LORA, observations=earlier(1.010, 1.012, 1.014))
    assert seen.device_bytes / plain.device_bytes == pytest.approx(1.012, abs=1e-6)
    assert width(seen) == pytest.approx(0.02 * seen.device_bytes, rel=1e-6)
    assert "3 earlier observations: device is 1.012 × the estimate" in seen.notes[-1]


def test_earlier_jobs_that_scatter_widen_the_interval() -> None:
    """Ratios 0.9, 1, 1.1 and Student's t with two degrees of freedom: ± 2.920 × 0.1 × √(4/3) = 33.7 %."""
    seen = estimate(**LORA, observations=earlier(0.9, 1.0, 1.1))
    assert seen.high_bytes / seen.device_bytes == pytest.approx(1.337, abs=0.001)


@pytest.mark.parametrize("other", [{"engine": "transformers"}, {"train": None, "infer": "llama-3.1-8b", "method": None}])
def test_jobs_of_another_engine_or_task_say_nothing(other: dict[str, Any]) -> None:
    """The estimate stays, and a note says how many are missing."""
    seen = estimate(**LORA, observations=[*earlier(1.1, 1.1), *earlier(1.1, **other)])
    assert seen._replace(notes=()) == estimate(**LORA)._replace(notes=(), parts=seen.parts)
    assert "2 of the 3" in seen.notes[-1]


def test_a_plan_uses_earlier_jobs_at_every_step() -> None:
    """Each of its jobs is corrected by the same ratio."""
    past = earlier(1.10, 1.10, 1.10, name="allocated")
    corrected, plain = (advise(**{**LORA, "batch": 4}, observations=each) for each in (past, ()))
    assert corrected.final is not None
    assert plain.final is not None
    assert corrected.final.job == plain.final.job
    assert corrected.final.estimate.allocated_bytes / plain.final.estimate.allocated_bytes == pytest.approx(1.1, abs=1e-6)
