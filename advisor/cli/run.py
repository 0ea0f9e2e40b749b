"""From the words of a command line to text, an exit code, and at worst one line on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from advisor.cli.app import app
from advisor.cli.options import Told
from advisor.cli.output import Answer, deliver, print_error
from advisor.errors import RequestError

WRONG_REQUEST = 2


def run(arguments: Sequence[str]) -> int:
    """The exit code of a command, after it has said what it has to say."""
    try:
        answer = _ask(list(arguments))
        deliver(answer)
        return answer.exit_code
    except click.ClickException as problem:
        return _refuse(_usage(problem))
    except RequestError as problem:
        return _refuse(str(problem))
    except Exception as problem:
        if os.environ.get("ADVISE_DEBUG"):
            raise
        return _refuse(f"internal error: {type(problem).__name__}: {problem}; please report it (ADVISE_DEBUG=1 shows where)")


def _ask(arguments: list[str]) -> Answer:
    """What the command answers. click's own main() would print, and end a closed pipe with 1, which means a plan here."""
    try:
        with app.make_context("advise", arguments) as context:
            answer = app.invoke(context)
    except Told as told:  # --help and --version
        return Answer(told.text)
    assert isinstance(answer, Answer)
    return answer


def _usage(problem: click.ClickException) -> str:
    """click's message in one line, and what was meant."""
    near = getattr(problem, "possibilities", None)
    if isinstance(problem, click.NoSuchOption):
        return f"no such option {problem.option_name}" + (
            f"; did you mean {near[0]}?" if near else "; advise --help lists them"
        )
    message = problem.format_message().replace("Option '", "option '").rstrip(".")
    return message[:1].lower() + message[1:]


def _refuse(message: str) -> int:
    print_error(message)
    return WRONG_REQUEST


def version() -> str:
    """The version, and what decides the next rule here; found out without loading it."""
    from importlib.util import find_spec

    from advisor import __version__

    if find_spec("durable_rules_engine") is None:
        engine = "plain loop"
    elif sys.version_info >= (3, 13):  # there it may be installed and still not load: only trying tells
        from advisor.planning.engine import engine_name

        engine = engine_name()
    else:
        from importlib.metadata import version

        engine = f"durable_rules {version('durable-rules')}"
    return f"oom-advisor {__version__} (rules engine: {engine})"
