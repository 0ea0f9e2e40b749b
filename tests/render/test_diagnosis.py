"""A diagnosis as a person reads it."""

from __future__ import annotations

import json

import pytest

from advisor import diagnose
from advisor.render.diagnosis import CAUSES, PHASES, amount, headline, render

LOG = """Traceback (most recent call last):
  File "/srv/train.py", line 12, in main
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB. GPU 1 has a total capacity of 15.50 GiB of which 1.00 GiB is free. Process 77 has 9.00 GiB memory in use. Including non-PyTorch memory, this process has 5.50 GiB memory in use. Of the allocated memory 5.00 GiB is allocated by PyTorch, and 100.00 MiB is reserved by PyTorch but unallocated."""


def test_the_first_line_is_the_answer() -> None:
    """When, and why."""
    assert headline(diagnose(LOG)) == "Out of memory in the backward pass: others hold the memory."
    assert headline(diagnose("KV cache pool is full. Retract requests.")) == "Nothing that stopped the job while generating."
    assert headline(diagnose("all is well")).startswith("The log has no message")


def test_every_cause_and_phase_has_words() -> None:
    """What a diagnosis may say can be said."""
    import tomllib

    from advisor.data import data_folder

    rules = tomllib.loads((data_folder("rules") / "triage.toml").read_text())
    clues = tomllib.loads((data_folder("catalog") / "clues.toml").read_text())
    assert {rule["cause"] for rule in rules["cause"]} <= CAUSES.keys()
    assert {clue["phase"] for clue in (*clues["phase"], *clues["stage"])} <= PHASES.keys()


@pytest.mark.parametrize("width", [80, 100])
def test_paragraphs_keep_to_the_width(width: int) -> None:
    """Words of frameworks alone are never broken: they are to be copied."""
    lines = render(diagnose(LOG), "table", width=width).split("\n")
    how = {f"       {line}" for one in diagnose(LOG).remedies for line in one.how.split("\n")}
    assert all(len(line) <= width for line in lines if line not in how)


def test_the_figures_are_named() -> None:
    """With the processes that the message lists."""
    text = render(diagnose(LOG), "table")
    assert "asked for" in text
    assert "3.00 GiB" in text
    assert "process 77" in text
    assert "9.00 GiB" in text


def test_json_and_markdown_say_the_same() -> None:
    """In their own form."""
    said = json.loads(render(diagnose(LOG), "json"))
    markdown = render(diagnose(LOG), "markdown")
    assert said["cause"] == "other-process"
    assert all(one["title"] in markdown for one in said["remedies"])
    assert markdown.count("```") % 2 == 0
    assert diagnose(LOG)._repr_markdown_() == markdown


def test_amounts() -> None:
    """In the unit that fits, negative ones too."""
    assert [amount(size) for size in (3 * 2**30, 2**26, 131072, -(2**31))] == ["3.00 GiB", "64.00 MiB", "131072 B", "-2.00 GiB"]
