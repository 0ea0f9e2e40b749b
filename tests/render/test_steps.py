"""Steps in words, and what they lead to."""

from __future__ import annotations

import shlex

import pytest
from sample import FITS, FITTED, GIB, HOPELESS

from advisor.render import steps


def test_the_command_has_what_was_asked_and_what_the_needed_steps_changed() -> None:
    """`sgd` was not needed in the end, so the command leaves the optimizer alone."""
    told = dict(zip(steps.command(FITTED)[1::2], steps.command(FITTED)[2::2], strict=True))
    assert told == {"--gpu": "v100-16", "--gpus": "8", "--train": "7b", "--batch": "2", "--accumulation": "1",
                    "--checkpointing": "full", "--zero": "3", "--keep": "precision"}  # fmt: skip


def test_the_command_spells_every_kind_of_value() -> None:
    """Flags, sizes, lists, shares and names with blanks come out as the command line takes them."""
    asked = {"gpu": "Tesla V100", "train": "./my model", "compile": True, "free": 15 * GIB, "host_ram": 10**9,
             "lora_targets": ("q_proj", "v_proj"), "memory_fraction": 0.9}  # fmt: skip
    plan = FITTED._replace(asked=asked, steps=())
    assert shlex.join(steps.command(plan)) == (
        "advise --gpu 'Tesla V100' --free 15GiB --memory-fraction 0.9 --train './my model' --lora-targets q_proj,v_proj "
        "--host-ram 1000000000 --compile"
    )


def test_a_model_given_as_an_object_becomes_a_file_to_write() -> None:
    """A command line cannot hold the object of a config.json."""
    plan = FITTED._replace(asked={"gpu": "v100-16", "train": {"model_type": "llama"}})
    assert "./config.json" in steps.command(plan)
    assert steps.is_object(plan)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1, 1, "no slower"),
        (1.2, 1.33, "20-33 % slower"),
        (1.25, 1.25, "25 % slower"),
        (1, 1.5, "up to 50 % slower"),
        (1, 2, "up to 2× the time"),
        (1, 3.8416, "up to 3.84× the time"),
        (1, 40960, "up to 40,960× the time"),
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
    assert steps.speed(low, high) == text


def test_an_unknown_number_of_gpus_or_key_is_not_promised() -> None:
    """`missing` names only what would have helped."""
    plan = HOPELESS._replace(missing={"bytes": GIB, "gpus": None, "keep": None})
    assert steps.missing(plan) == ["At best 1.00 GiB are still missing on each GPU."]


def test_more_gpus_are_advised_only_where_a_limit_can_be_lifted() -> None:
    """Who keeps `gpus` is told how many it would take, not to raise --max-gpus."""
    assert "It would fit on 16 GPUs: --max-gpus 16 allows that." in steps.missing(HOPELESS)
    kept = HOPELESS._replace(job={**HOPELESS.job, "keep": ["gpus"]})
    assert "It would fit on 16 GPUs." in steps.missing(kept)


def test_a_plan_tells_when_it_changes_the_global_batch() -> None:
    """Batch 2 on 8 GPUs is not batch 4 on one: it trains otherwise."""
    assert steps.side_effects(FITTED) == "The global batch goes from 4 to 16 sequences."
    assert steps.side_effects(FITS) == ""


def test_a_keyword_is_said_once() -> None:
    """Two rules set the batch in the same call, and the second says only what is new; a file that is the same is not shown again."""
    batch = "# TrainingArguments:\nper_device_train_batch_size=1,\n"
    file = 'deepspeed="ds.json",\n# ds.json:\n{\n  "a": {\n  }\n}'
    first, second = FITTED.steps[0], FITTED.steps[1]
    plan = FITTED._replace(
        steps=(first._replace(rule="T2", how={"trainer": batch}), second._replace(rule="T3", how={"trainer": batch + file}),
               second._replace(rule="T6", how={"trainer": batch + file}))
    )  # fmt: skip
    assert [text for _, text in steps.instructions(plan)] == [batch.strip(), "# TrainingArguments:\n" + file, "# as above"]


def test_a_step_without_words_says_so() -> None:
    """A plan that leaves a change out of the framework's settings would not be carried out."""
    step = next(step for step in FITTED.steps if step.needed)._replace(how={}, change={"zero": (0, 3)})
    assert steps.instructions(FITTED._replace(steps=(step,)))[0][1] == "# no setting of trainer is known for this: zero 0 → 3"


def test_another_way_says_what_it_changes_and_costs_and_where_the_global_batch_goes() -> None:
    """One line for each step; the global batch only where it is another."""
    headers, rows = steps.routes(FITTED)
    assert headers == ["way", "changes", "GiB", "cost"]
    assert rows[0] == [
        "no-quality-loss",
        "T1 checkpointing none → full\nT6 gpus 1 → 8, zero 0 → 3",
        "12.25",
        "1.32-3.33× the time\n7 more GPUs\nchanges what is learned\nglobal batch 4 → 32",
    ]
    assert rows[1][3] == "up to 50 % slower\ncosts quality\nchanges what is learned"


def test_a_limit_in_the_way_is_named_as_the_option_that_sets_it() -> None:
    """Beside what is missing in bytes."""
    assert steps.missing(HOPELESS)[-1] == "It would fit without the limit of --min-batch."
