"""What a step costs: time, quality, hardware, and whether something else is learned."""

from __future__ import annotations

import pytest

from advisor.api import advise, estimate
from advisor.memory.host import host
from advisor.planning.rulebook import rules
from advisor.workload import resolve

HOME = {"gpu": "rtx-4090", "train": "llama-3.1-8b", "max_gpus": 1}
GIB = 2**30


def test_which_rules_change_what_is_learned() -> None:
    """Another optimizer, shorter texts, other weights; 8-bit and bf16 states are roundings of the same arithmetic."""
    assert {rule.id for rule in rules() if rule.cost.changes_result} == {"T4", "T18", "T19", "T20"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.id)
def test_a_price_is_a_range_with_its_source(rule: object) -> None:
    """No negative time, no quality without a figure; what changes the result costs quality."""
    speeds = rule.cost.speed.values() if isinstance(rule.cost.speed, dict) else [rule.cost.speed]
    for speed in speeds:
        assert 0 < speed.low <= speed.high
        assert speed.source
    assert rule.cost.figure
    assert rule.cost.quality != "none" or not rule.cost.changes_result


def test_a_global_batch_that_grows_changes_the_result() -> None:
    """A batch of one cannot be divided over two GPUs; with two micro-steps it can."""
    grown = advise(gpu="a100-80", train="13b", max_gpus=2, keep="optimizer")
    assert [step.cost.changes_result for step in grown.steps if step.rule == "T6"] == [True]
    kept = advise(gpu="a100-80", train="13b", max_gpus=2, accumulation=2, keep="optimizer")
    assert [step.cost.changes_result for step in kept.steps if step.rule == "T6"] == [False]


def test_offloading_is_priced_with_the_hosts_memory() -> None:
    """As many bytes as the machine holds more than before, which is a process without it."""
    plan = advise(**HOME, keep="optimizer")
    step = next(step for step in plan.steps if step.rule == "T15")
    assert plan.final is not None
    held = estimate(**plan.final.job).host
    assert held is not None
    assert step.cost.host_bytes == held.bytes - host(resolve_without_offload(plan.final.job)).bytes
    assert step.to_dict()["cost"]["hardware"]["host_bytes"] == step.cost.host_bytes > 60 * GIB


def resolve_without_offload(job: dict[str, object]) -> object:
    from advisor.job import Job

    return resolve(Job(**{**job, "offload": None, "zero": 0}))


def test_one_rule_that_adds_gpus_is_cheaper_than_two_that_lead_to_the_same_job() -> None:
    """FSDP over four GPUs loses as much as over two: no more of it is lost by taking the GPUs with it than by ZeRO before it."""
    keys = {"train": "mistral-7b", "seq": 512, "gpus": 2, "accumulation": 2, "gpu": "rx-7900-xtx", "host_ram": "32GiB"}
    ways = {route.name: [step.rule for step in route.steps] for route in advise(**keys).alternatives}
    assert ways["cheapest"] == ["T11"]


def test_layers_that_join_others_on_the_host_take_as_much_longer_as_they_are_more() -> None:
    """64 times is what the first layers may cost, not 64 times again for every eighth that joins them."""
    plan = advise(gpu="t4", infer="llama-3.1-70b", engine="vllm", keep="quantization", max_gpus=4)
    steps = [step for step in plan.steps if step.rule == "I10"]
    assert [step.change["offload_layers"][1] for step in steps] == [10, 20, 30, 40, 50, 60]
    assert [step.cost.speed_high for step in steps] == [64, 2, 1.5, 1.33333, 1.25, 1.2]


def test_paged_moments_lie_in_the_hosts_memory() -> None:
    """Two fp32 moments of 124,439,808 weights, beside the process."""
    paged, plain = (
        estimate(gpu="rtx-4090", train="gpt2", precision="fp32", optimizer=kind) for kind in ("paged-adamw", "adamw")
    )
    assert plain.host is None
    assert paged.host is not None
    assert {part.name: part.bytes for part in paged.host.parts}["optimizer-state"] == 8 * 124_439_808


def test_no_step_goes_beyond_the_hosts_memory() -> None:
    """With 20 GiB of it the optimizer of 8 billion weights stays on the card, and the reason says why."""
    plan = advise(**HOME, host_ram="20GiB", keep="method,quantization")
    reasons = {skip.rule: skip.reason for skip in plan.skipped}
    assert "of a machine's own memory, which host_ram limits" in reasons["T15"]
    assert all(step.rule != "T15" for step in plan.steps)


def test_what_the_engine_refuses_of_the_job_as_asked_is_a_note() -> None:
    """The plan does not touch it, but the user should know."""
    plan = advise(gpu="h100-80", train="gpt2", engine="llama-factory", gpus=2, zero=3)
    assert (
        "As asked, LLaMA-Factory refuses pure_bf16 with ZeRO-3; it takes it with FSDP (sharding fsdp), and bf16-mixed with both."
        in plan.notes
    )
    assert not any(
        note.startswith("As asked, LLaMA") for note in advise(gpu="h100-80", train="gpt2", engine="llama-factory").notes
    )
