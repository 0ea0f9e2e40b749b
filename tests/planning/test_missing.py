"""What is missing where nothing fits: bytes, GPUs, a kept key, or a limit."""

from __future__ import annotations

import pytest
from planning_toy import GIB, estimate_of, toy_estimate
from test_routes import sized, toy_plan

from advisor.api import advise
from advisor.results import Host, Part


def test_what_is_missing_when_nothing_helps():
    """How many bytes, and how many GPUs beyond max_gpus would do."""
    found = toy_plan(sized([({"gpus": 32}, 30)], 50), train="7b", max_gpus=4)
    assert (found.verdict, found.exit_code, found.final) == ("does-not-fit", 3, None)
    assert found.missing == {"bytes": 11 * GIB, "host_bytes": 0, "gpus": 32, "keep": None, "limit": None}


def test_no_number_of_gpus_may_do():
    """Activations that never shrink: null."""
    found = toy_plan(sized([], 50), train="7b")
    assert found.missing == {"bytes": 11 * GIB, "host_bytes": 0, "gpus": None, "keep": None, "limit": None}


def test_the_bytes_are_those_of_the_way_that_comes_nearest():
    """The walk takes SGD and ends at 45; without it checkpointing leaves 42, which is 3 more than the card has."""

    def estimate(w):
        return estimate_of((45 if w.optimizer == "sgd" else 42 if w.checkpointing == "full" else 50) * GIB, w)

    assert toy_plan(estimate, train="7b", max_gpus=1).missing["bytes"] == 3 * GIB


def test_the_first_kept_key_that_stands_in_the_way_is_named():
    """Not ``seq``, which would not help, but ``optimizer``."""
    found = toy_plan(sized([({"optimizer": "sgd"}, 30)], 50), train="7b", keep="seq,optimizer,zero")
    assert found.missing["keep"] == "optimizer"


def test_kept_gpus_are_asked_about_below_max_gpus():
    """The user kept one GPU; two would have done."""
    found = toy_plan(sized([({"gpus": 1}, 50)], 30), train="7b", keep="gpus")
    assert found.missing == {"bytes": 11 * GIB, "host_bytes": 0, "gpus": 2, "keep": "gpus", "limit": None}


def test_the_limit_that_stands_in_the_way_is_named():
    """A batch of one would fit; the user wants two at least."""
    found = toy_plan(sized([({"batch": 1}, 30)], 50), infer="7b", batch=4, min_batch=2, max_gpus=1)
    assert found.exit_code == 3
    assert (found.missing["keep"], found.missing["limit"]) == (None, "min_batch")


def test_a_length_that_may_not_be_cut_further_is_named():
    """8K would fit; the user wants 16K at least."""

    def estimate(w):
        return estimate_of((30 if w.seq <= 8192 else 50) * GIB, w)

    found = toy_plan(estimate, infer="7b", seq=32768, min_seq=16384, max_gpus=1)
    assert found.missing["limit"] == "min_seq"


def test_bytes_of_the_host_are_missing_apart_from_those_of_the_card():
    """The card holds it, the machine lacks 6 GiB, and its limit is what stands in the way."""

    def estimate(w):
        short = w.host_ram is not None and w.host_ram < 70 * GIB
        return estimate_of(5 * GIB, w)._replace(fits=not short, host=Host("run", (Part("weights", 70 * GIB),)))

    found = toy_plan(estimate, infer="7b", max_gpus=1, host_ram="64GiB")
    assert found.missing == {"bytes": 0, "host_bytes": 6 * GIB, "gpus": None, "keep": None, "limit": "host_ram"}


@pytest.mark.parametrize(
    "keys",
    [
        {"gpu": "t4", "train": "70b", "max_gpus": 1, "keep": "method,offload"},
        {"gpu": "t4", "infer": "70b", "max_gpus": 1, "keep": "offload,quantization", "engine": "llama.cpp"},
        {"gpu": "v100-16", "train": "13b", "keep": "gpus,method,offload", "zero": 3},
    ],
)
def test_a_wish_that_is_named_is_one_without_which_there_is_a_plan(keys):
    """What it says is true: asked again without the wish, or with so many GPUs, the answer is a plan."""
    found = advise(**keys)
    assert found.verdict == "does-not-fit"
    assert found.missing["bytes"] > 0
    again = []
    if found.missing["keep"]:
        others = [key for key in keys["keep"].split(",") if key != found.missing["keep"]]
        again.append({**keys, "keep": ",".join(others)})
    if found.missing["gpus"] and "gpus" not in keys["keep"]:
        again.append({**keys, "max_gpus": found.missing["gpus"]})
    assert again
    assert {advise(**request).verdict for request in again} == {"fits-after-changes"}


def test_nothing_is_missing_where_there_is_a_plan():
    """Nor where the job fits as asked."""
    assert toy_plan(toy_estimate, train="7b").missing is None
    assert toy_plan(sized([({"checkpointing": "full"}, 30)], 50), train="7b").missing is None
