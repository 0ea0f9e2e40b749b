"""The options are the vocabulary."""

from __future__ import annotations

from typing import Any

import click
import pytest

from advisor.cli.app import COMMANDS, app
from advisor.cli.options import given
from advisor.job import Job
from advisor.vocabulary import BY_NAME, KEYS
from advisor.workload import resolve

# A value of each kind, as text and as Job reads it.
SAMPLES: dict[str, tuple[list[str], Any]] = {
    "count": (["8k"], 8192),
    "whole": (["2"], 2),
    "size": (["24GiB"], 24 * 2**30),
    "share": (["0.5"], 0.5),
    "text": (["v100-16"], "v100-16"),
    "version": (["4.46.2"], "4.46.2"),
    "model": (["7b"], "7b"),
    "keys": (["seq"], ("seq",)),
    "flag": ([], True),
    "sizes": (["allocated=13.5GiB,device=15GiB"], {"allocated": 27 * 2**29, "device": 15 * 2**30}),
    "settings": (["batch=8,lora-targets=q_proj,v_proj"], {"batch": 8, "lora_targets": ("q_proj", "v_proj")}),
}


def parse(words: list[str]) -> dict[str, Any]:
    """The keys of a job in a command line."""
    with app.make_context("advise", words) as context:
        return given(context.params)


@pytest.mark.parametrize("key", KEYS, ids=[key.name for key in KEYS])
def test_every_key_of_a_job_is_an_option(key: Any) -> None:
    """With a dash for the underscore, and the underscore as well."""
    words, value = SAMPLES.get(key.kind, ([], None))
    if key.kind == "choice":
        words, value = [key.choices[-1]], key.choices[-1]
    if key.kind == "list":
        name = (key.choices or ("q_proj",))[0]
        words, value = [name], (name,)
    for spelling in (key.name, key.name.replace("_", "-")):
        assert Job(**parse([f"--{spelling}", *words])).given() == {key.name: value}


def test_a_list_may_be_given_in_pieces() -> None:
    """Repeated or with commas."""
    assert Job(**parse(["--keep", "seq,precision", "--keep", "min-batch"])).keep == ("seq", "precision", "min_batch")


def test_help_tells_every_option_with_its_default_and_choices() -> None:
    """And is ASCII, for terminals that have nothing else."""
    with app.make_context("advise", [], resilient_parsing=True) as context:
        text = " ".join(app.get_help(context).split())
    assert text.isascii()
    for key in KEYS:
        assert f"--{key.name.replace('_', '-')}" in text
        assert " ".join(key.help.split()) in text
        assert f"[default: {key.default}]" in text or not key.default
        if key.kind == "choice":
            assert ", ".join(key.choices) in text.replace("awq- int4", "awq-int4")


def test_the_default_of_gpus_follows_the_degrees() -> None:
    """As the help says: a job of degree 4 runs on four."""
    assert BY_NAME["gpus"].default == "1, or tp x pp x cp"
    assert resolve(Job(gpu="a100-80", infer="70b", engine="vllm", tp=2, pp=2)).gpus == 4
    assert resolve(Job(gpu="a100-80", train="7b", cp=2)).gpus == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """In full, and in a line that the list of commands does not cut."""
    with app.make_context("advise", [], resilient_parsing=True) as context:
        command = app.get_command(context, name)
    assert isinstance(command, click.Command)
    assert command.help
    assert not command.get_short_help_str(60).endswith("...")
