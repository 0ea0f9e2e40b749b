"""The sentences of an answer."""

from __future__ import annotations

import shlex

import pytest
from sample import FITS, FITTED, GIB, GUIDE, HOPELESS, PLANNED_ESTIMATE

from advisor.render import words


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


def test_the_command_has_what_was_asked_and_what_the_needed_steps_changed() -> None:
    """`sgd` was not needed in the end, so the command leaves the optimizer alone."""
    told = dict(zip(words.command(FITTED)[1::2], words.command(FITTED)[2::2], strict=True))
    assert told == {"--gpu": "v100-16", "--gpus": "8", "--train": "7b", "--batch": "2", "--accumulation": "1",
                    "--checkpointing": "full", "--zero": "3", "--keep": "precision"}  # fmt: skip


def test_the_command_spells_every_kind_of_value() -> None:
    """Flags, sizes, lists, shares and names with blanks come out as the command line takes them."""
    asked = {"gpu": "Tesla V100", "train": "./my model", "compile": True, "free": 15 * GIB, "host_ram": 10**9,
             "lora_targets": ("q_proj", "v_proj"), "memory_fraction": 0.9}  # fmt: skip
    plan = FITTED._replace(asked=asked, steps=())
    assert shlex.join(words.command(plan)) == (
        "advise --gpu 'Tesla V100' --free 15GiB --memory-fraction 0.9 --train './my model' --lora-targets q_proj,v_proj "
        "--host-ram 1000000000 --compile"
    )


def test_a_model_given_as_an_object_becomes_a_file_to_write() -> None:
    """A command line cannot hold the object of a config.json."""
    plan = FITTED._replace(asked={"gpu": "v100-16", "train": {"model_type": "llama"}})
    assert "./config.json" in words.command(plan)
    assert words.is_object(plan)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1, 1, "no slower"),
        (1.2, 1.33, "20-33 % slower"),
        (1.25, 1.25, "25 % slower"),
        (1, 1.5, "up to 50 % slower"),
        (1, 2, "up to 2× the time"),
        (1.1, 2.5, "1.1-2.5× the time"),
        (0.5, 1, "up to 50 % faster"),
        (0.5, 0.75, "25-50 % faster"),
        (0.5, 0.5, "50 % faster"),
        (0.5, 1.1, "50 % faster to 10 % slower"),
        (0.41, 2.5, "0.41-2.5× the time"),
    ],
)
def test_speed_in_words(low: float, high: float, text: str) -> None:
    """A factor on the time of a sample: above 1 is slower."""
    assert words.speed(low, high) == text


def test_an_unknown_number_of_gpus_or_key_is_not_promised() -> None:
    """`missing` names only what would have helped."""
    plan = HOPELESS._replace(missing={"bytes": GIB, "gpus": None, "keep": None})
    assert words.missing(plan) == ["After every step 1.00 GiB are still missing on each GPU."]


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


def test_more_gpus_are_advised_only_where_a_limit_can_be_lifted() -> None:
    """Who keeps `gpus` is told how many it would take, not to raise --max-gpus."""
    assert "It would fit on 16 GPUs: --max-gpus 16 allows that." in words.missing(HOPELESS)
    kept = HOPELESS._replace(job={**HOPELESS.job, "keep": ["gpus"]})
    assert "It would fit on 16 GPUs." in words.missing(kept)


def test_a_plan_tells_when_it_changes_the_global_batch() -> None:
    """Batch 2 on 8 GPUs is not batch 4 on one: it trains otherwise."""
    assert words.side_effects(FITTED) == "The global batch goes from 4 to 16 sequences."
    assert words.side_effects(FITS) == ""
