"""The options: those of a job, made of the vocabulary, and those that every command has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from advisor.render import FORMATS
from advisor.vocabulary import KEYS, Key

METAVARS = {
    "text": "NAME",
    "version": "X.Y.Z",
    "model": "MODEL",
    "count": "N",
    "whole": "N",
    "size": "SIZE",
    "share": "0..1",
    "choice": "NAME",
    "list": "A,B,...",
    "keys": "A,B,...",
    "sizes": "NAME=SIZE",
    "settings": "KEY=VALUE",
}
LISTS = ("list", "keys", "sizes", "settings")
# The heading above the options that begin at a key.
HEADINGS = {
    "gpu": "The card",
    "train": "The model and its work",
    "precision": "Numbers and method",
    "zero": "Several GPUs, and the host's memory",
    "engine": "The software",
    "estimator": "The estimate and the plan",
}


class Told(click.exceptions.Exit):
    """Ends the reading of a command line with an answer, which goes where answers go: click would print it by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class JobOption(click.Option):
    """An option that is a key of a job."""

    def __init__(self, key: Key) -> None:
        self.heading = HEADINGS.get(key.name)
        choices = f" One of {', '.join(key.choices)}." if key.kind == "choice" else ""
        default = f"  [default: {key.default}]" if key.default else ""
        kind: dict[str, Any] = {"is_flag": True} if key.kind == "flag" else {"metavar": METAVARS.get(key.kind, "NAME")}
        super().__init__([f"--{key.name.replace('_', '-')}", key.name], default=None, multiple=key.kind in LISTS,
                         help=f"{key.help}{choices}{default}", **kind)  # fmt: skip


class JobCommand(click.Command):
    """A command with the options of a job, under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, ctx, formatter)


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The options of a job as the vocabulary groups them, those of the command itself before and after."""
    sections: dict[str, list[tuple[str, str]]] = {}
    own, heading = "Only these", ""
    for option in command.get_params(ctx):
        if isinstance(option, JobOption):
            heading, own = option.heading or heading, "Output"
        record = option.get_help_record(ctx)
        if record is not None:
            sections.setdefault(heading if isinstance(option, JobOption) else own, []).append(record)
    for title, records in sections.items():
        with formatter.section(title):
            formatter.write_dl(records)


def job_options() -> list[click.Option]:
    """One option for each key of a job, in the order of the vocabulary."""
    return [JobOption(key) for key in KEYS]


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The keys of a job among the values of a command that the user said something about, as text for ``Job``."""
    keys = {}
    for key in KEYS:
        value = values.get(key.name)
        if key.kind in LISTS:
            value = ",".join(value) if value else None
        if value is not None and value is not False:
            keys[key.name] = value
    return keys


def _known_format(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None or value in FORMATS:
        return value
    from difflib import get_close_matches

    near = get_close_matches(value, FORMATS, 1)
    raise click.UsageError(f"no format {value!r}; " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(FORMATS)}"))


def output_options() -> list[click.Option]:
    """What every command takes."""
    return [
        click.Option(["--format"], metavar="NAME", callback=_known_format, default=None,
                     help=f"One of {', '.join(FORMATS)}.  [default: table]"),
        click.Option(["--output"], metavar="FILE", default=None, help="Write the answer to this file, whole or not at all."),
    ]  # fmt: skip


def observations_option() -> click.Option:
    return click.Option(["--use-observations"], is_flag=True, help="Correct the estimate by what `advise observe` has kept.")


def told_option(names: list[str], text: Callable[[click.Context], str], help: str) -> click.Option:
    """An option that is a question by itself."""

    def tell(context: click.Context, option: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            raise Told(text(context) + "\n")

    return click.Option(names, is_flag=True, is_eager=True, expose_value=False, callback=tell, help=help)


def help_option() -> click.Option:
    return told_option(["-h", "--help"], click.Context.get_help, "Show this message and exit.")


def listing_command(name: str, callback: Callable[..., Any], argument: str, short_help: str) -> click.Command:
    """A command that shows a list, of what its words fit."""
    return click.Command(
        name,
        params=[click.Argument(["words"], nargs=-1, metavar=f"[{argument}]"), *output_options(), help_option()],
        add_help_option=False,
        callback=callback,
        help=callback.__doc__,
        short_help=short_help,
    )
