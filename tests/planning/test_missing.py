"""What is missing where nothing fits: bytes, GPUs, a kept key, or a limit."""

from __future__ import annotations

from planning_toy import GIB, estimate_of
from test_walk import plan, sized

from advisor.results import Host, Part


def test_the_limit_that_stands_in_the_way_is_named():
    """A batch of one would fit; the user wants two at least."""
    found = plan(sized([({"batch": 1}, 30)], 50), infer="7b", batch=4, min_batch=2, max_gpus=1)
    assert found.exit_code == 3
    assert (found.missing["keep"], found.missing["limit"]) == (None, "min_batch")


def test_a_length_that_may_not_be_cut_further_is_named():
    """8K would fit; the user wants 16K at least."""
    found = plan(sized([({"seq": 8192}, 30)], 50), infer="7b", seq=32768, min_seq=16384, max_gpus=1)
    assert found.missing["limit"] == "min_seq"


def test_bytes_of_the_host_are_missing_apart_from_those_of_the_card():
    """The card holds it; the machine does not."""

    def estimate(w):
        return estimate_of(5 * GIB, w)._replace(fits=False, host=Host("run", (Part("weights", 70 * GIB),)))

    found = plan(lambda w: estimate(w._replace(host_ram=64 * GIB)), infer="7b", max_gpus=1)
    assert found.missing["bytes"] == 0
