"""The layout for terminals."""

from __future__ import annotations

import re
import shlex

import pytest
from sample import FITS, FITTED, PLANS

from advisor.render import steps
from advisor.render.table import render

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_no_line_is_wider_than_the_terminal(name: str, explain: bool, width: int) -> None:
    """80 columns when piped, and what the terminal has else."""
    assert max(map(len, render(PLANS[name], explain=explain, width=width).splitlines())) <= width


def test_a_huge_total_leaves_the_bar_its_place() -> None:
    """2,500,000 GiB stand behind a shorter bar."""
    parts = tuple(part._replace(bytes=part.bytes * 20_000) for part in FITTED.initial.parts)
    huge = FITTED.initial._replace(parts=parts, device_bytes=sum(part.bytes for part in parts))
    assert max(map(len, render(FITTED._replace(initial=huge)).splitlines())) <= 80


@pytest.mark.parametrize("name", PLANS)
def test_colour_changes_no_sign(name: str) -> None:
    """Without the colours the coloured text is the plain one."""
    coloured = render(PLANS[name], colour=True)
    assert ANSI.sub("", coloured) == render(PLANS[name])
    assert coloured != render(PLANS[name])


def test_the_first_line_is_the_verdict() -> None:
    """`advise … | head -1` tells what decides."""
    assert render(FITTED).splitlines()[0].startswith("Does not fit as asked; 3 steps make it fit, on 8 GPUs instead of 1")


def test_the_command_can_be_pasted_into_a_shell() -> None:
    """Its lines are joined by backslashes, its values quoted."""
    plan = FITTED._replace(asked={**FITTED.asked, "train": "./a folder; rm -rf ~", "engine_version": "4.38" + "x" * 60})
    text = render(plan).partition("as a command\n")[2].partition("\n\n")[0]
    assert shlex.split(text.replace("\\\n", "")) == steps.command(plan)


def test_a_job_that_fits_gets_no_command() -> None:
    """It has been typed already."""
    assert "as a command" not in render(FITS)


def test_explain_tells_the_formula_and_source_of_every_part_and_the_reasons_of_every_step() -> None:
    """Short output has none of it."""
    short, long = render(FITTED), render(FITTED, explain=True)
    for estimate in (FITTED.initial, FITTED.final.estimate):
        for part in estimate.to_dict()["parts"]:
            assert f"= {part['formula']}" in long
            assert f"Source: {part['source']}" in long
    for step in FITTED.steps:
        assert step.why in long
        assert all(text.strip() in long for text in step.how.values())
    assert "Source:" not in short
