"""Routes beside the walk: where any combination of the remedies fits one is found, and none is cheaper by our own prices."""

from __future__ import annotations

import itertools

import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_toy import GIB, estimate_of, noise, toy_estimate, toy_resolve
from planning_toy import workload as toy
from random_jobs import late_job

from advisor.api import advise
from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.planning import rulebook, search
from advisor.planning.engine import PlainLoop
from advisor.planning.plan import plan
from advisor.planning.prices import Price, cost, price
from advisor.workload import resolve

GUIDE = {
    question: [rule for rule in rulebook.load(question).rule if int(rule.id[1:]) <= 6 and rule.id != "I5"]
    for question in rulebook.QUESTIONS
}
MOST_ENDS = 1200  # of one job
PLAIN = {question: PlainLoop(question, rulebook.load(question).conditions()) for question in rulebook.QUESTIONS}


def toy_plan(estimate=toy_estimate, **keys):
    question = "training" if "train" in keys else "inference"
    return plan(toy(**keys), estimate, toy_resolve, PLAIN[question])


def sized(table, default):
    """An estimator that looks a few keys up: the first row whose keys all have these values."""

    def estimate(w):
        size = next((size for keys, size in table if all(getattr(w, key) == value for key, value in keys.items())), default)
        return estimate_of(size * GIB, w)

    return estimate


def changes(route):
    return {step.rule: {key: new for key, (_, new) in step.change.items()} for step in route.steps}


def named(found):
    return {route.name: changes(route) for route in found.alternatives}


# --- the oracle ----------------------------------------------------------------------------------------------------------

TRAINING = [
    {"gpu": gpu, "train": model, "batch": batch, "seq": seq, "gpus": gpus, "max_gpus": 4, **other}
    for (gpu, model), (batch, seq), gpus, other in itertools.product(
        [("v100-16", "7b"), ("rtx-4090", "llama-3.2-1b"), ("a100-80", "llama-3.1-8b"), ("t4", "qwen2.5-0.5b")],
        [(1, 2048), (6, 512), (4, 8192)],
        [1, 2],
        [{}, {"precision": "fp32"}, {"engine": "axolotl", "keep": "optimizer"}, {"engine": "deepspeed", "accumulation": 3}],
    )
]
INFERENCE = [
    {"gpu": gpu, "infer": model, "batch": batch, "seq": seq, "engine": engine, "max_gpus": most}
    for (gpu, model), (batch, seq), engine, most in itertools.product(
        [("t4", "7b"), ("rtx-4090", "mistral-7b"), ("a100-40", "13b"), ("a100-80", "70b")],
        [(1, 4096), (8, 16384), (32, 65536)],
        ["transformers", "vllm", "llama.cpp"],
        [1, 2, 4],
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(80))
def test_no_combination_of_seven_rules_is_cheaper(seed):
    """Of all rules, those beyond the guide too: drawn at random, on jobs drawn at random."""
    w = late_job(seed)
    rules = oracle.some_rules(w, seed, 7)
    ends = oracle.combinations(w, rules, MOST_ENDS)
    if ends is None:
        pytest.skip("more combinations than there is time for")
    assert oracle.by_search(w, rules) == oracle.by_all(ends, w)


@pytest.mark.slow
def test_no_combination_of_the_guides_remedies_is_cheaper():
    """200 jobs, all their combinations: a route where any fits, none where none does, and its price is the least there is."""
    asked = found = 0
    for keys in [*TRAINING, *INFERENCE]:
        w = resolve(Job(**keys))
        if estimate_workload(w).fits:
            continue
        asked += 1
        rules = GUIDE["training" if w.task == "train" else "inference"]
        least = oracle.by_all(oracle.combinations(w, rules, 10**6), w)
        assert oracle.by_search(w, rules) == least, keys
        found += sum(price is not None for price in least.values())
    assert len(TRAINING) + len(INFERENCE) == 204
    assert asked > 100
    assert found > 150


# --- what each route is -----------------------------------------------------------------------------------------------


def test_a_job_that_fits_has_no_other_ways():
    """There is nothing to be cheaper than."""
    assert toy_plan(infer="7b").alternatives == ()


def test_the_cheapest_does_not_change_what_is_learned_where_that_can_be():
    """The walk comes to SGD before it adds a GPU; with three sequences more GPUs change nothing."""
    found = toy_plan(sized([({"optimizer": "sgd"}, 30), ({"gpus": 2, "batch": 1}, 30)], 50), train="7b", batch=2)
    assert [step.rule for step in found.steps if step.needed] == ["T4"]
    assert named(found)["cheapest"] == {
        "T2": {"batch": 1, "accumulation": 2},
        "T6": {"zero": 3, "accumulation": 1, "gpus": 2},
    }


def test_the_same_hardware_has_no_further_gpu():
    """Two GPUs would change nothing that is learned; SGD on one does, and is named for who has but one."""
    table = [({"gpus": 2, "batch": 1}, 30), ({"optimizer": "sgd", "checkpointing": "full"}, 30)]
    found = toy_plan(sized(table, 50), train="7b", batch=2, keep="precision")
    both = {**named(found), "walk": {step.rule: step for step in found.steps if step.needed}}
    assert "T4" in both.get("same-hardware", both["walk"])
    assert all(route.cost.gpus == 0 for route in found.alternatives if route.name == "same-hardware")


def test_where_a_batch_cannot_be_divided_it_grows_by_as_little_as_can_be_and_says_so():
    """Four GPUs that share two sequences see four with a batch of one, and eight with the batch of two."""
    found = toy_plan(sized([({"gpus": 4}, 30), ({"gpus": 8}, 30)], 50), train="7b", batch=2)
    ways = {"walk": found, **{route.name: route for route in found.alternatives}}
    seen = {name: way.final.job["batch"] * way.final.job["accumulation"] * 4 for name, way in ways.items()}
    assert (seen.pop("walk"), set(seen.values())) == (4, {8})  # the walk keeps what can be kept; who wants no slowdown does not
    [other] = found.alternatives
    assert "The global batch goes from 2 to 8." in other.steps[-1].why
    assert other.cost.changes_result


def test_the_fastest_has_the_least_slowdown():
    """Checkpointing costs a fifth; more GPUs cost no time."""
    found = toy_plan(sized([({"checkpointing": "full"}, 30), ({"gpus": 8}, 30)], 50), train="7b")
    assert [step.rule for step in found.steps] == ["T1"]
    assert list(named(found)) == ["fastest"]
    assert named(found)["fastest"] == {"T6": {"zero": 3, "gpus": 8}}


def test_a_route_that_is_the_walk_again_or_nowhere_better_is_not_shown():
    """One remedy helps, so there is one way."""
    assert toy_plan(sized([({"checkpointing": "full"}, 30)], 50), train="7b", max_gpus=1).alternatives == ()


def test_a_route_finds_what_the_walk_passes_by():
    """SGD is taken where it comes, and then no number of GPUs fits; without it two do. The steps are the route's, and a note says so."""

    def estimate(w):
        return estimate_of((45 if w.optimizer == "sgd" else 50 if w.gpus == 1 else 30) * GIB, w)

    found = toy_plan(estimate, train="7b")
    assert found.verdict == "fits-after-changes"
    assert [step.rule for step in found.steps] == ["T6"]
    assert found.final.job["optimizer"] == "adamw"
    assert (found.missing, found.skipped) == (None, ())  # what the walk passed over is not what these steps pass over
    assert "ends without a fit" in found.notes[-1]


def test_a_search_that_gives_up_shows_nothing_that_its_way_fits_without(monkeypatch):
    """The first that comes up is every rule as far as it goes; more GPUs are enough, and no two of them are needed for one."""
    monkeypatch.setattr(search, "MOST_WAYS", 0)
    found = toy_plan(sized([({"gpus": 8, "zero": 3}, 30), ({"checkpointing": "full"}, 30)], 50), train="7b")
    assert all(len(steps) == 1 for steps in named(found).values())


def test_a_price_is_dominated_by_one_that_is_nowhere_worse():
    """Not by itself, and not by one that costs GPUs where it costs time."""
    some, more, gpus = Price(slow=263_034, changes=1), Price(slow=263_034, changes=2), Price(gpus=1, changes=1)
    assert more.is_dominated_by(some)
    assert not some.is_dominated_by(some)
    assert not some.is_dominated_by(gpus)
    assert not gpus.is_dominated_by(some)


def test_time_that_is_saved_pays_for_nothing():
    """Otherwise needless remedies would make a plan cheaper."""
    rule = next(rule for rule in rulebook.rules() if rule.id == "T6")
    w = resolve(Job(gpu="v100-16", train="7b"))
    taken = cost(rule, {"zero": 3, "gpus": 2}, w, resolve(Job(gpu="v100-16", train="7b", zero=3, gpus=2)))
    assert taken.speed_high < 1
    assert price(taken, 1, False).slow == 0


jobs = st.one_of(
    st.fixed_dictionaries(
        {"train": st.just("7b")},
        optional={
            "gpus": st.integers(1, 4), "max_gpus": st.integers(1, 16), "batch": st.integers(1, 64), "seq": st.integers(1, 10**5),
            "accumulation": st.integers(1, 6), "zero": st.integers(0, 3), "precision": st.sampled_from(["fp32", "bf16"]),
            "optimizer": st.sampled_from(["adamw", "sgd"]), "min_batch": st.integers(1, 8),
            "keep": st.lists(st.sampled_from(["batch", "zero", "gpus", "accumulation", "optimizer", "precision"]), max_size=2),
        },
    ),
    st.fixed_dictionaries(
        {"infer": st.just("7b"), "engine": st.sampled_from(["transformers", "vllm", "llama.cpp"])},
        optional={
            "gpus": st.integers(1, 4), "max_gpus": st.integers(1, 16), "batch": st.integers(1, 64), "seq": st.integers(1, 10**5),
            "min_seq": st.integers(1, 20000),
            "keep": st.lists(st.sampled_from(["batch", "seq", "gpus", "quantization", "tp"]), max_size=2),
        },
    ),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(jobs, st.one_of(st.none(), st.integers(0, 2**32)))
def test_a_route_keeps_what_is_kept_breaks_no_limit_and_fits(keys, seed):
    """Whatever the estimates: and no price is below zero, and a plan of the walk means a plan."""
    estimate = toy_estimate if seed is None else noise(seed, 0.1)
    try:
        w = toy_resolve(Job(**keys))
        estimate(w)
        found = toy_plan(estimate, **keys)
    except RequestError:
        return
    for route in found.alternatives:
        end = route.final.job
        assert route.final.estimate.fits
        assert not {key for step in route.steps for key, (old, new) in step.change.items() if old != new} & set(w.keep)
        assert end["gpus"] <= w.max_gpus
        assert end["batch"] >= min(w.batch, w.min_batch)
        assert end["seq"] >= min(w.seq, w.min_seq)
        assert route.cost.gpus >= 0 <= route.cost.host_bytes
        assert route.cost.speed_high >= route.cost.speed_low > 0
        last = {key: new for step in route.steps for key, (_, new) in step.change.items()}
        assert toy_resolve(Job(**keys).with_changes(**last)).to_dict() == end
    assert len({route.name for route in found.alternatives}) == len(found.alternatives) <= 4
    assert found.final is not None or not found.alternatives


def test_fsdp_that_is_asked_for_already_has_a_price():
    """Where FSDP is named, T11 changes the stage alone."""
    plan = advise(gpu="gtx-1070-ti", train="ministral-3-8b", gpus=4, zero=2, sharding="fsdp", attention="math")
    assert plan.verdict == "fits-after-changes"
