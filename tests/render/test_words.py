"""The verdict and the figures of an answer."""

from __future__ import annotations

import pytest
from sample import FITS, FITTED, GUIDE, HOPELESS, PLANNED_ESTIMATE

from advisor.render import words
from advisor.results import Host, Part


def test_a_plan_that_raises_gpus_says_so_in_the_verdict() -> None:
    """Hardware is the dearest change: nobody is to miss it."""
    assert "on 8 GPUs instead of 1" in words.verdict(FITTED)


def test_a_walk_that_raised_gpus_in_vain_says_so_as_well() -> None:
    """The verdict of a plan that ends without fitting names the GPUs that it went up to."""
    plan = HOPELESS._replace(steps=FITTED.steps)
    assert "not even on 8 GPUs instead of 1" in words.verdict(plan)


def test_a_plan_on_as_many_gpus_does_not_speak_of_them() -> None:
    """No GPUs in the verdict when none are added."""
    assert "GPUs" not in words.verdict(FITS) + words.verdict(HOPELESS)


def test_the_verdict_counts_the_needed_steps_only() -> None:
    """Of the four steps of the sample one turned out to be needless."""
    assert "3 steps make it fit" in words.verdict(FITTED)
    assert "1 step makes it fit" in words.verdict(FITTED._replace(steps=FITTED.steps[:1]))


def test_the_end_of_the_interval_is_told_where_it_decides() -> None:
    """Fewer bytes than the card has, and still no fit, because a run in ten may need more."""
    plan = HOPELESS._replace(usable_bytes=PLANNED_ESTIMATE.device_bytes + 1, initial=PLANNED_ESTIMATE._replace(fits=False))
    assert "12.25 (up to 12.86) GiB" in words.verdict(plan)


def test_figures_are_gib_for_detailed_and_the_guides_gb_for_the_other_estimators() -> None:
    """2**30 and 10**9 are never mixed up."""
    assert "12.25 of 16.00 GiB" in words.verdict(FITS)
    assert "15.40 of 16.00 GB" in words.verdict(GUIDE)


def test_parts_of_both_budgets_stand_in_the_order_of_a_budget() -> None:
    """A part that only the plan has stands where it belongs, not at the end."""
    names = [row[0] for row in words.parts(FITTED)[1]]
    assert names == ["weights", "gradients", "optimizer-state", "activations", "communication-buffers", "cuda-context", "total"]


@pytest.mark.parametrize(("name", "spoken"), [("A100 80GB", "an"), ("H100 80GB HBM3", "an"), ("RTX A6000", "an"), ("L4", "an"),
                                              ("Instinct MI250", "an"), ("Tesla T4", "a"), ("GeForce RTX 4090", "a")])  # fmt: skip
def test_one_card_has_an_article_and_several_are_each(name: str, spoken: str) -> None:
    """As it is spoken."""
    plan = FITS._replace(gpu={**FITS.gpu, "name": name})
    assert f"on {spoken} {name}." in words.verdict(plan)
    assert f"on each {name}." in words.verdict(plan._replace(final=FITS.final._replace(job={**FITS.job, "gpus": 2})))


HOST = Host("run", (Part("processes", 2 * 2**30), Part("optimizer-state", 30 * 2**30)))


def test_the_verdict_names_the_host_where_it_is_short() -> None:
    """Thirty-two of sixty-four GiB are told in passing; of sixteen they decide."""
    plan = FITS._replace(initial=PLANNED_ESTIMATE._replace(host=HOST), job={**FITS.job, "host_ram": 64 * 2**30})
    assert words.verdict(plan).endswith("with 32.00 of 64.00 GiB in the machine's own memory.")
    short = HOPELESS._replace(initial=plan.initial, job={**FITS.job, "host_ram": 16 * 2**30})
    assert "The card alone would hold it. The machine's own memory is short as asked: 32.00 of 16.00 GiB." in words.verdict(
        short
    )
    assert "own memory" not in words.verdict(HOPELESS)


def test_the_hosts_parts_have_a_table_of_their_own() -> None:
    """Only where the host has something to hold."""
    plan = FITS._replace(initial=PLANNED_ESTIMATE._replace(host=HOST))
    assert words.host(plan) == (
        ["part", "asked, GiB"],
        [["processes", "2.00"], ["optimizer-state", "30.00"], ["total", "32.00"]],
    )
    assert words.host(FITS) == ([], [])
