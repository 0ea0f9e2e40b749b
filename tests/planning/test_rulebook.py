"""The rules as data: the documented order, a complete page for each, and one line for every mistake in the file."""

from __future__ import annotations

import re

import pytest
from planning_toy import workload

from advisor.errors import RequestError
from advisor.planning import rule_files, rulebook
from advisor.planning.engine import Condition, Other
from advisor.planning.facts import FACTS, facts, filled
from advisor.planning.remedies import REMEDIES
from advisor.planning.rule_files import parse
from advisor.planning.rulebook import QUESTIONS, find_rule, load, rules
from advisor.render.steps import code

RULE = """
[[rule]]
id = "T1"
name = "one"
title = "Do one thing"
remedy = "plain_sgd"
when = [{ fact = "batch", above = 1, otherwise = "the batch is {batch}" }]
what = "What"
why = "Why"
source = ["A paper"]
cost = { text = "Little", quality = "none", figure = "Exact", speed = { low = 1.0, high = 1.2, source = "A paper" } }
how = { trainer = "batch={batch}" }
"""

DOCUMENTED = {
    "inference": ["I1 halve-batch", "I2 limit-sequence", "I3 quantize-weights", "I4 split-model"],
    "training": [
        "T1 gradient-checkpointing", "T2 accumulate-gradients", "T3 zero", "T4 sgd", "T5 mixed-precision", "T6 multi-gpu",
    ],
}  # fmt: skip
FRAMEWORKS = {
    "inference": {"transformers", "vllm", "sglang", "llama.cpp", "ollama"},
    "training": {"trainer", "trl", "axolotl", "llama-factory", "litgpt"},
}

BEYOND = {
    "inference": {"transformers", "vllm", "sglang", "llama.cpp", "ollama"},
    "training": {
        "trainer",
        "transformers",
        "trl",
        "deepspeed",
        "accelerate",
        "axolotl",
        "llama-factory",
        "torchtune",
        "litgpt",
    },
}
ON_THEIR_OWN = {"vllm", "sglang", "llama.cpp", "ollama"}  # have such kernels and allocators of their own
# Where a framework has no setting for it: a rule condition or a pair keeps the rule away, or there is nothing to set.
WITHOUT = {
    "I5": ON_THEIR_OWN,
    "I7": ON_THEIR_OWN,
    "I9": {"vllm", "sglang", "ollama"},
    "T7": {"accelerate", "litgpt"},
    "T8": {"accelerate", "torchtune", "litgpt"},  # their own code always takes PyTorch's fused attention
    "T9": {"accelerate"},
    "T11": {"transformers", "deepspeed", "torchtune", "litgpt"},
    "T12": {"accelerate"},
    "T13": {"accelerate"},
    "T14": {"deepspeed"},
    "T15": {"litgpt"},
    "T16": {"litgpt"},
    "T17": {"litgpt"},
    "T18": {"accelerate"},
    "T19": {"accelerate"},
    "T20": {"accelerate"},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_order_is_that_of_the_memory_guide(question):
    """Section 7.1 of the guide: the numbered lists for inference and for training; what it does not have comes after."""
    listed = [f"{rule.id} {rule.name}" for rule in load(question).rule]
    assert listed[: len(DOCUMENTED[question])] == DOCUMENTED[question]
    letter = listed[0][0]
    assert [rule.id for rule in load(question).rule] == [f"{letter}{place}" for place in range(1, len(listed) + 1)]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.id)
def test_every_rule_has_its_whole_page(rule):
    """What, why (with a part and a phase), cost with figures and sources, how for the usual frameworks, and a source with its section."""
    assert rule.title[0].isupper()
    assert not rule.title.endswith(".")
    assert re.search(r"phase|decode|prefill|backward|step", rule.why)
    assert re.search(r"`[a-z-]+`", rule.what), "names the parts it works on"
    for speed in rule.cost.speed.values() if isinstance(rule.cost.speed, dict) else [rule.cost.speed]:
        assert speed.low <= speed.high
        assert speed.source
    assert rule.cost.figure
    assert any(re.search(r"\d{4}|\d+\.\d+", line) for line in rule.source)
    question = "inference" if rule.id.startswith("I") else "training"
    if f"{rule.id} {rule.name}" in DOCUMENTED[question]:
        assert any("memory guide" in line and "§" in line for line in rule.source)
        assert FRAMEWORKS[question] <= rule.how.keys()
    else:
        assert [clause.condition for clause in rule.scope] == [Condition("estimator", "is", "detailed")]
        assert BEYOND[question] - WITHOUT.get(rule.id, set()) <= rule.how.keys()
    for clause in rule.when:
        assert clause.otherwise
        assert not clause.otherwise.endswith(".")


TYPICAL = {
    "model": "mistralai/Mistral-Small-24B-Instruct-2501", "batch": 16, "accumulation": 16, "global_batch": 2048, "seq": 131072,
    "prompt": 131072, "tokens": 2097152, "gpus": 64, "gpus_per_node": 8, "nodes": 8, "data_parallel": 64, "tp": 8, "pp": 8,
    "zero": 3, "dtype": "bf16", "dtype_torch": "bfloat16", "precision": "bf16-mixed",
}  # fmt: skip
LONG = TYPICAL | {
    "model": "/home/somebody/" + "a-long-name/" * 20, "batch": 2**31, "accumulation": 2**31, "global_batch": 2**48, "seq": 2**31,
    "prompt": 2**31, "tokens": 2**62, "gpus": 2**17, "gpus_per_node": 2**17, "nodes": 2**17, "data_parallel": 2**17, "tp": 2**17,
    "pp": 2**17,
}  # fmt: skip
SNIPPETS = {
    f"{rule.id} {framework} {case}": text
    for rule in rules()
    for framework, written in rule.how.items()
    for case, text in (written if isinstance(written, dict) else {"": written}).items()
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_is_narrow(name):
    """At most 70 columns with usual values, so that it stands on a page of 80; 76 with the longest, where only comments are broken."""
    assert max(map(len, filled(SNIPPETS[name], TYPICAL).splitlines())) <= 70
    assert max(map(len, code(filled(SNIPPETS[name], LONG), 70))) <= 76


@pytest.mark.parametrize("name", [name for name in SNIPPETS if name.split()[1] in ("trainer", "trl", "vllm", "sglang")])
def test_a_snippet_says_where_it_goes(name):
    """Arguments are not a line for a shell; the first line tells one from the other, and a launch is followed by its own heading."""
    lines = SNIPPETS[name].strip().splitlines()
    assert lines[0].startswith("# ")
    if lines[0] == "# {launch}:":
        assert "# TrainingArguments:" in lines or "# SFTConfig:" in lines
    else:
        assert not re.search(r"^(torchrun|accelerate|vllm|python) ", SNIPPETS[name], re.MULTILINE)


def test_every_remedy_has_its_rule():
    """No function lies about that no rule names, and no two rules of one question share one."""
    assert {rule.remedy for rule in rules()} == set(REMEDIES)
    for question in QUESTIONS:
        remedies = [rule.remedy for rule in load(question).rule]
        assert len(remedies) == len(set(remedies))


@pytest.mark.parametrize("text", ["T1", "t1", " gradient-checkpointing ", "Gradient checkpointing", "gradient_checkpointing"])
def test_a_rule_is_found_by_id_and_by_name(text):
    """Case, blanks and underscores are forgiven."""
    assert find_rule(text).id == "T1"


@pytest.mark.parametrize(("text", "words"), [("split-modle", "I4 split-model"), ("T91", "T9 "), ("????", "`advise rules`")])
def test_an_unknown_rule_gets_the_nearest(text, words):
    """One line that says what to type instead."""
    with pytest.raises(RequestError, match=words):
        find_rule(text)


def test_the_files_are_read_once():
    """A second question costs nothing."""
    assert load("training") is load("training")


def test_a_rule_becomes_conditions_between_the_two_that_end_the_walk():
    """``fits`` comes first and ``exhausted`` last; a rule that is left behind cannot fire."""
    text = RULE.replace("above = 1,", 'above = { fact = "min_batch" },')
    assert parse(text).conditions() == {
        "fits": [Condition("fits", "is", True)],
        "T1": [Condition("past", "below", 1), Condition("batch", "above", Other("min_batch"))],
        "exhausted": [Condition("fits", "is", False)],
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("above = 1,", "over = 1,", "one of is, not, at_least"),
        ("above = 1,", "", "one of is, not"),
        ("above = 1,", "above = 1, below = 9,", "one of is, not"),
        ("above = 1,", "above = nan,", "compared with a int"),
        ("above = 1,", "above = 1e-5,", "compared with a int"),
        ("above = 1,", "above = true,", "compared with a int"),
        ("above = 1,", f"above = {2**63},", "beyond 64 bits"),
        ("above = 1,", 'above = { fact = "precision" },', "of that kind"),
        ("above = 1,", 'above = { fact = "mim_batch" },', "of that kind"),
        ('fact = "batch"', 'fact = "bacth"', "bacth is no fact"),
        ('fact = "batch", above = 1', 'fact = "precision", above = "bf16"', "has no order"),
        ('otherwise = "the batch is {batch}"', 'otherwise = ""', "at least 1 character"),
        ("{batch}", "{bacth}", "nothing fills {bacth}"),
        ('when = [{ fact = "batch", above = 1, otherwise = "the batch is {batch}" }]', "when = []", "at least 1 item"),
        ('remedy = "plain_sgd"', 'remedy = "pray"', "pray is no remedy"),
        ('name = "one"', 'name = "one"\nnote = "x"', "Extra inputs"),
        ('id = "T1"', 'id = "1"', "rule.1.id"),
        ('quality = "none"', 'quality = "nil"', "'none', 'small' or 'real'"),
        ("low = 1.0", "low = inf", "finite"),
        ("low = 1.0", 'low = "1"', "valid number"),
        ("trainer", "trianer", "trianer is no framework"),
        ('source = ["A paper"]', "source = []", "at least 1 item"),
        ("[[rule]]", "[[rule", "line"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_it(old, new, words):
    """Before the engine sees it: durable_rules would answer with a number, or hang."""
    assert parse(RULE)
    with pytest.raises(RequestError) as refusal:
        parse(RULE.replace(old, new, 1), "training.toml")
    message = str(refusal.value)
    assert message.startswith("training.toml: ")
    assert words in message
    assert "\n" not in message


def test_the_files_that_come_with_it_are_well_formed():
    """A start trusts them; this, and `advise rules`, look."""
    rule_files.check()


def test_the_form_asks_for_all_that_a_rule_is_made_of():
    """Every field of a rule is a key of the file, but for the scope, which is the file's."""
    for form, made in (
        (rule_files.Rule, rulebook.Rule), (rule_files.RuleCost, rulebook.RuleCost), (rule_files.Speed, rulebook.Speed),
    ):  # fmt: skip
        assert [*form.model_fields] == [name for name in made._fields if name != "scope"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("above = 1,", "over = 1,", "rule.1.when.1: a clause on batch takes one of is, not"),
        ("above = 1,", "above = true,", "rule.1.when.1: batch is compared with a int"),
        ('what = "What"', "", "rule.1.what: Field required"),
        ('name = "one"', 'name = "one"\nnote = "x"', "rule.1.note: Extra inputs"),
        ("when = [{", "when = [7, {", "rule.1.when.1: a clause is a table"),
        ("[[rule]]", "[[rule", "line"),
    ],
)
def test_a_rule_that_cannot_be_built_is_one_line_at_a_start(tmp_path, monkeypatch, old, new, words):
    """Who edits the advice reads what is wrong also where nothing else is checked."""
    (tmp_path / "training.toml").write_text(RULE.replace(old, new, 1), encoding="utf-8")
    (tmp_path / "training-beyond.toml").write_text(RULE.replace("T1", "T2").replace('"one"', '"two"'), encoding="utf-8")
    monkeypatch.setattr(rulebook, "data_folder", lambda name: tmp_path)
    with pytest.raises(RequestError) as refusal:
        load.__wrapped__("training")
    assert str(refusal.value).startswith("training.toml: ")
    assert words in str(refusal.value)


def test_two_files_of_a_question_share_no_id(tmp_path, monkeypatch):
    """The second rule of one id would never be shown."""
    for question in QUESTIONS:
        for name in (f"{question}.toml", f"{question}-beyond.toml"):
            (tmp_path / name).write_text(RULE, encoding="utf-8")
    monkeypatch.setattr(rulebook, "data_folder", lambda name: tmp_path)
    with pytest.raises(RequestError, match="the rules for inference: T1 stands there twice"):
        rule_files.check()


def test_ids_and_names_stand_once():
    """An id is a promise."""
    with pytest.raises(RequestError, match="T1 stands there twice"):
        parse(RULE + RULE)
    with pytest.raises(RequestError, match="one stands there twice"):
        parse(RULE + RULE.replace("T1", "T2"))


def test_more_rules_than_the_engine_can_tell_apart_are_refused():
    """61 and the two that end the walk."""
    many = [
        RULE.replace("T1", f"{letter}{n}").replace('"one"', f'"{letter.lower()}-{n}"') for letter in "AB" for n in range(1, 32)
    ]
    assert parse("".join(many[:61]))
    with pytest.raises(RequestError, match="at most 61 items"):
        parse("".join(many))


def test_no_rules_at_all_are_refused():
    """An empty ruleset never fires in durable_rules."""
    with pytest.raises(RequestError, match="rule"):
        parse("")


@pytest.mark.parametrize("keys", [{"train": "7b"}, {"infer": "7b"}, {"infer": "7b", "engine": "vllm", "precision": "fp16"}])
def test_every_fact_is_told_of_every_job_with_its_type(keys):
    """durable_rules takes 1, true and "1" for equal; Python does not, so types must not vary."""
    told = facts(workload(**keys), fits=False, past=0)
    assert {name: type(value) for name, value in told.items()} == FACTS
