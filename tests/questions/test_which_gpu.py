"""The cards that hold a job, held against what `advise` says of each."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from advisor import Job, RequestError, advise, catalog, estimate, which_gpu
from advisor.estimator import estimate_workload
from advisor.planning.walk import walk
from advisor.workload import resolve

JOBS: dict[str, dict[str, Any]] = {
    "full training": {"train": "llama-3.1-8b"},
    "LoRA": {"train": "llama-3.1-8b", "method": "lora"},
    "ZeRO, which more GPUs divide": {"train": "llama-3.1-8b", "zero": 3},
    "layers dealt out": {"infer": "llama-3.1-70b"},
    "tensor parallel": {"infer": "qwen3-32b", "engine": "vllm"},
    "one GPU": {"infer": "llama-3.1-70b", "max_gpus": 1, "keep": "seq"},
    "the guide's formulas": {"infer": "13b", "estimator": "checklist"},
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_every_card_is_there_once(job: dict[str, Any]) -> None:
    """Held, after changes, hopeless or refused."""
    found = which_gpu(**job)
    slugs = [row.gpu.slug for row in found.rows] + [slug for slug, _ in found.refused]
    assert sorted(slugs) == sorted(gpu.slug for gpu in catalog.gpus())


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_each_row_is_what_advise_says_of_that_card(job: dict[str, Any]) -> None:
    """As asked with the fewest GPUs, and else the steps of the walk that are needed."""
    rows = which_gpu(**job).rows
    for row in rows[:: max(1, len(rows) // 25)]:
        changed = estimate(**job, gpu=row.gpu.slug, **(row.changes or {}))
        assert changed.fits == row.holds
        plan = walk(resolve(Job(gpu=row.gpu.slug, **job)), estimate_workload)
        if row.fits:
            assert (plan.verdict == "fits") == (not row.changes)
        else:
            assert (plan.verdict == "fits-after-changes") == bool(row.plan)
            assert row.plan == (tuple(step.rule for step in plan.steps if step.needed) if plan.final else ())
            assert not plan.final or plan.final.job["gpus"] == row.gpus


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_more_memory_never_holds_less(job: dict[str, Any]) -> None:
    """Of cards of one kind, a larger one takes no more of them, and no plan where a smaller one takes none."""
    kinds: dict[Any, list[Any]] = {}
    for row in which_gpu(**job).rows:
        gpu = row.gpu
        kinds.setdefault((gpu.vendor, gpu.architecture, gpu.compute_capability, gpu.link, gpu.per_node), []).append(row)
    for rows in kinds.values():
        rows.sort(key=lambda row: (row.gpu.marketed_gb, row.gpu.usable_bytes))
        for small, large in pairwise(rows):
            if large.gpu.usable_bytes >= small.gpu.usable_bytes and large.gpu.total_bytes >= small.gpu.total_bytes:
                assert (large.holds, large.fits) >= (small.holds, small.fits) or large.fits
                assert not (small.fits and large.fits) or large.gpus <= small.gpus


def test_the_smallest_comes_first() -> None:
    """By the memory of all GPUs together, as asked before changed."""
    rows = which_gpu(infer="llama-3.1-70b").rows
    asked = [row for row in rows if row.fits]
    assert rows[: len(asked)] == tuple(asked)
    total = [row.gpus * row.gpu.marketed_gb for row in asked]
    assert total == sorted(total)


def test_more_gpus_count_as_asked_where_they_leave_each_less() -> None:
    """Training without ZeRO keeps a copy on each, so more of them is a change."""
    plain, zero = (which_gpu(train="llama-3.1-8b", **more).rows for more in ({}, {"zero": 3}))
    assert {row.gpus for row in plain if row.fits} == {1}
    assert {row.gpus for row in zero if row.fits} > {1}
    assert {row.gpus for row in which_gpu(infer="llama-3.1-70b", keep="gpus").rows} == {1}
    assert {row.gpus for row in which_gpu(infer="llama-3.1-70b", max_gpus=3).rows} <= {1, 2, 3}


def test_filters_leave_cards_out() -> None:
    """By maker, architecture and size as sold."""
    job = {"infer": "llama-3.2-3b"}
    assert {row.gpu.vendor for row in which_gpu(**job, vendor="AMD").rows} == {"amd"}
    assert {row.gpu.architecture for row in which_gpu(**job, family="hopper").rows} == {"Hopper"}
    assert {row.gpu.marketed_gb for row in which_gpu(**job, memory="24GB").rows} == {24}
    assert min(row.gpu.marketed_gb for row in which_gpu(**job, memory="80GB+").rows) == 80
    sizes = {row.gpu.marketed_gb for row in which_gpu(**job, memory="16-24").rows}
    assert (min(sizes), max(sizes)) == (16, 24)


def test_cards_that_the_engine_does_not_run_on_are_refused_with_the_reason() -> None:
    """vLLM needs compute capability 7.5."""
    refused = dict(
        which_gpu(
            infer="qwen3-8b", engine="vllm", family="pascal", vendor="nvidia", memory="1GB+", engine_version="0.10"
        ).refused
    )
    assert not refused  # with a version, older cards are estimated
    found = which_gpu(infer="qwen3-8b", engine="vllm", memory="16GB")
    assert "p100-16" in dict(found.refused)
    assert "compute capability" in dict(found.refused)["p100-16"]


def test_nothing_holds_it_is_said() -> None:
    """Exit code 3."""
    found = which_gpu(infer="llama-3.1-405b", memory="8GB", max_gpus=1, keep="quantization,offload,offload_layers")
    assert (found.exit_code, {row.plan for row in found.rows}) == (3, {()})
    assert all(row.headroom_bytes < 0 for row in found.rows)


def test_what_another_order_makes_fit_is_not_called_hopeless() -> None:
    """Where the walk ends without a fit on every card, `advise` is asked as a whole."""
    job = {"train": "llama-3.1-8b"}
    found = which_gpu(**job, memory="4GB", vendor="nvidia", family="ampere")
    assert found.exit_code == 0
    for row in found.rows:
        plan = advise(**job, gpu=row.gpu.slug)
        assert plan.verdict == "fits-after-changes"
        assert row.plan == tuple(step.rule for step in plan.steps if step.needed)
        assert estimate(**job, gpu=row.gpu.slug, **(row.changes or {})).fits


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"train": "no-such-model"},
        {"train": "7b", "gpu": "a100-40"},
        {"train": "7b", "vendor": "nvidiaa"},
        {"train": "7b", "family": "no"},
        {"train": "7b", "memory": "much"},
        {"train": "7b", "memory": "7GB"},
        {"train": "7b", "engine": "vllm"},
        {"infer": "7b", "engine": "vllm", "family": "kepler"},
    ],
)
def test_bad_requests_are_refused_in_one_line(job: dict[str, Any]) -> None:
    """Also where every card refuses the job."""
    with pytest.raises(RequestError) as refusal:
        which_gpu(**job)
    assert "\n" not in str(refusal.value)
