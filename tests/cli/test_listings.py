"""`gpus`, `models` and `rules`."""

from __future__ import annotations

import json

import pytest

from advisor import catalog
from advisor.cli.run import run
from advisor.planning.rulebook import rules


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that ends well."""
    assert run(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [["gpus"], ["models"], ["rules"], ["gpus", "nvidia"], ["models", "mistral"], ["rules", "T3"]])
def test_lists_keep_to_80_columns(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of every list, and every line of a rule's page."""
    assert max(map(len, shown(words, capsys).splitlines())) <= 80


def test_gpus_tells_where_the_memory_is_known_from(capsys: pytest.CaptureFixture[str]) -> None:
    """One card was measured, its PCIe brother estimated."""
    lines = {line.split()[0]: line.split() for line in shown(["gpus", "V100"], capsys).splitlines()}
    assert lines["v100-16"][1:] == ["15.75", "measured", "Volta", "-", "8"]
    assert lines["v100-16-pcie"][2] == "estimated"


def test_gpus_and_models_as_json_are_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    """All rows, under a version of the format."""
    listed = json.loads(shown(["gpus", "--format", "json"], capsys))
    assert listed["schema"] == 1
    assert [row["slug"] for row in listed["rows"]] == [gpu.slug for gpu in catalog.gpus()]
    listed = json.loads(shown(["models", "--format", "json"], capsys))
    assert [row["hf_id"] for row in listed["rows"]] == [model.hf_id for model in catalog.models()]


def test_a_name_that_is_spelled_otherwise_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """What --gpu and --train take, the lists take."""
    assert "24GB" in shown(["gpus", "24GB", "--format", "json"], capsys)
    assert "llama-3.1-8b" in shown(["models", "Llama3.1_8B"], capsys)


def test_rules_lists_all_in_the_order_of_the_walk(capsys: pytest.CaptureFixture[str]) -> None:
    """Inference first."""
    lines = shown(["rules"], capsys).splitlines()[2:]
    assert [line.split()[0] for line in lines] == [rule.id for rule in rules()]


@pytest.mark.parametrize("words", [["T1"], ["t1"], ["gradient-checkpointing"], ["gradient", "checkpointing"]])
def test_a_rule_is_shown_by_id_or_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In full, under its headings."""
    assert shown(["rules", *words], capsys).startswith(
        "T1 gradient-checkpointing: Turn gradient checkpointing on\n\nWhat it does\n"
    )


def test_rules_are_found_by_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Several make a list."""
    lines = shown(["rules", "batch"], capsys).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["I1", "T2"]


def test_a_rule_as_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """One row with the words of the page."""
    [row] = json.loads(shown(["rules", "T1", "--format", "json"], capsys))["rows"]
    assert {"id", "name", "title", "when", "what", "why", "cost", "how", "source"} <= row.keys()


def test_lists_are_markdown_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    """A table with a line below its head."""
    assert shown(["gpus", "v100", "--format", "markdown"], capsys).splitlines()[1].startswith("|:--")
