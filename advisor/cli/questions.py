"""What the questions beside the main one have in common: a job's options, the formats, a page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from typing import Any

import click

from advisor.cli.options import JobCommand, given, help_option, job_options, observations_option, output_options
from advisor.cli.output import Answer, width


def answered(question: str, values: dict[str, Any], **more: Any) -> Answer:
    """The answer of ``advisor.api``'s function of that name, as its page in ``advisor.render`` has it."""
    from advisor.job import Job  # isort: split
    from advisor import api
    from advisor.render.page import render

    observations, notes = _learned() if values["use_observations"] else ([], [])
    found = getattr(api, question)(Job(**given(values)), observations=observations, **more)
    found = found._replace(notes=(*found.notes, *notes))
    page = import_module(f"advisor.render.{question}").page(found)
    text = render(page, found.to_dict(), values["format"] or "table", width(values["output"]))
    return Answer(text, found.exit_code, values["output"])


def _learned() -> tuple[list[Any], list[str]]:
    from advisor.cli.observe import past

    return past()


def question_command(
    name: str,
    callback: Callable[..., Answer],
    short_help: str,
    *,
    without: Collection[str] = (),
    more: Sequence[click.Option] = (),
) -> click.Command:
    """A command that takes a job, or what it says of one: ``without`` are keys that it looks for itself."""
    options = job_options()
    for option in options:
        option.hidden = option.name in without  # to be answered with what it looks for, not with "no such option"
    return JobCommand(
        name,
        params=[*more, *options, *output_options(), observations_option(), help_option()],
        add_help_option=False,
        callback=callback,
        help=callback.__doc__,
        short_help=short_help,
        epilog="Exit codes: 0 with an answer; 3 nothing fits; 2 the request is wrong.",
    )
