"""Corrections of an estimate: what takes the factor, and how wide the interval is."""

from __future__ import annotations

import pytest

from advisor.job import Job
from advisor.memory.correction import NONE, Around, Correction, Seen, said
from advisor.memory.runtime import Range
from advisor.workload import Workload, resolve

AROUND = Around(Range(100, 60, 180, "1", ""), Range(40, 30, 60, "2", ""), Range(20, 10, 40, "3", ""))


def workload() -> Workload:
    return resolve(Job(gpu="a100-80", train="llama-3.2-1b"))


def test_what_follows_from_the_shape_takes_no_factor() -> None:
    """Weights, state and caches stay; activations, gradients and the loss move; CUDA graphs are outside of the allocator."""
    parts = {"weights": 100, "optimizer-state": 200, "kv-cache": 7, "gradients": 100, "activations": 30, "cuda-graphs": 5}
    assert Correction(dynamic=1.1).parts(parts) == {**parts, "gradients": 110, "activations": 33}


def test_slack_and_context_take_factors_of_their_own() -> None:
    """With the ends of their ranges, and the formula says so."""
    found = Correction(slack=2, outside=0.5).around(AROUND)
    assert found.slack == Range(200, 120, 360, "(1) × 2: corrected by an observation", "")
    assert (found.context.point, found.nccl.point) == (20, 10)


def test_without_an_observation_everything_is_uncertain() -> None:
    """2 % below to 4 % above for the tensors on one GPU, and each range in full."""
    errors = NONE.errors(workload(), 1000, AROUND)
    assert errors == [(0, 0), (20, 40), (40, 80), (10, 20), (10, 20)]


@pytest.mark.parametrize(
    ("level", "errors"),
    [
        ("allocated", [(10, 10), (0, 0), (40, 80), (10, 20), (10, 20)]),
        ("reserved", [(11, 11), (0, 0), (0, 0), (10, 20), (10, 20)]),
        ("device", [(11.6, 11.6), (0, 0), (0, 0), (0, 0), (0, 0)]),
    ],
)
def test_what_was_seen_is_known_to_its_digits(level: str, errors: list[tuple[float, float]]) -> None:
    """And what lies outside of it as little as before."""
    seen = Correction(seen=Seen(level, 0.01, 1000, 100, 20))
    assert seen.errors(workload(), 1000, AROUND) == [pytest.approx(pair) for pair in errors]


def test_what_a_plan_changes_is_uncertain_again() -> None:
    """400 bytes of tensors less than were seen: 2 and 4 % of those; half the slack is new, and all of NCCL."""
    seen = Correction(seen=Seen("device", 0.01, 1400, 50, 0))
    assert seen.errors(workload(), 1000, AROUND)[1:] == [(8, 16), (20, 40), (0, 0), (10, 20)]


def test_a_factor_of_one_leaves_the_formula_alone() -> None:
    """Nothing was corrected there."""
    assert said("2 × 3", 1.0) == "2 × 3"
