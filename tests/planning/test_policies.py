"""The order of the walk: the guide's, the practical one, or the user's own file."""

from __future__ import annotations

import pytest

from advisor import advise
from advisor.errors import RequestError
from advisor.planning import policies, rulebook

TRAIN = {"gpu": "a100-40", "train": "7b", "max_gpus": 4}


def written(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_shipped_policies_name_every_rule_once():
    """A rule that a shipped policy forgot would never be tried."""
    assert policies.names() == ["documented", "practical"]
    for question in rulebook.QUESTIONS:
        for name in policies.names():
            ids = [rule.id for rule in policies.ordered(question, name).rule]
            assert sorted(ids) == sorted(rule.id for rule in rulebook.load(question).rule), name


def test_the_walk_keeps_to_the_order_of_the_users_file(tmp_path):
    """SGD first, by its name; what the file does not say is never tried, by no route either."""
    plan = advise(gpu="v100-16", train="7b", policy=written(tmp_path, 'rules = ["sgd", "T6", "I1"]'))
    assert [step.rule for step in plan.steps][:2] == ["T4", "T6"]
    assert {step.rule for route in plan.alternatives for step in route.steps} <= {"T4", "T6"}
    assert plan.job["policy"].endswith("own.toml")


def test_the_practical_policy_leaves_the_optimizer_to_the_last():
    """More GPUs come before what changes the result."""
    rules = [step.rule for step in advise(**TRAIN, batch=4, policy="practical").steps]
    assert rules.index("T6") < rules.index("T4") if "T4" in rules else "T6" in rules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('rules = ["T1", "T99"]', "policy .*own.toml: there is no rule 'T99'"),
        ('rules = ["T1", "gradient-checkpointing"]', "T1 stands there twice"),
        ('rules = ["I1"]', "names no rule for training"),
        ("rules = [", "policy "),
        ('order = ["T1"]', "it has one key, rules"),
        ("rules = 3", "it has one key, rules"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_in_one_line(tmp_path, text, says):
    """Whether the job fits or not."""
    with pytest.raises(RequestError, match=says) as refusal:
        advise(gpu="a100-80", train="qwen2.5-0.5b", seq=128, policy=written(tmp_path, text))
    assert "\n" not in str(refusal.value)


def test_a_policy_that_is_not_there_is_answered_with_those_that_are():
    """A name is looked up among the shipped ones, then as a file."""
    with pytest.raises(RequestError, match="there is no practcal; take documented, practical"):
        advise(**TRAIN, policy="practcal")
