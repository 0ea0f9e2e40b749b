"""`advise oom`: from the error in a log to the cause and the fix."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from advisor.cli.options import given, help_option, job_options, output_options
from advisor.cli.output import Answer, colour, is_terminal, width
from advisor.errors import RequestError

if TYPE_CHECKING:
    from advisor.triage.diagnosis import Diagnosis

FORMATS = ("table", "json", "markdown")
HELP = """Why a job ran out of memory, and what to do first.

\b
  advise oom train.log
  kubectl logs POD | advise oom
  advise oom train.log --train llama-3.1-8b --gpu a100-80 --batch 8

LOG is a file, - or a pipe, of any size. Nothing in it is run, kept or sent. With the job, or where the log tells it,
its figures correct the estimate and a plan follows, from the remedy that comes first.

Exit codes: 0 a cause was found; 4 the log holds none; 2 the request is wrong.
"""


def oom(log: str | None, **values: Any) -> Answer:
    """Read the log, and answer in the format that was asked for."""
    format = values["format"] or "table"
    if format not in FORMATS:
        raise RequestError(f"a diagnosis has no format {format!r}; one of {', '.join(FORMATS)}")
    found = _read(log)
    job = given(values)
    if found.found:
        from advisor.triage.plan import with_plan

        found = with_plan(found, job)
    from advisor.render.diagnosis import render

    output = values["output"]
    return Answer(render(found, format, width(output), colour(output)), found.exit_code, output)


def _read(log: str | None) -> Diagnosis:
    from advisor.triage.diagnosis import diagnose_stream

    if log in (None, "-"):
        if log is None and (sys.stdin is None or is_terminal(sys.stdin)):
            raise RequestError("say which log: advise oom train.log, or pipe one in")
        return diagnose_stream(sys.stdin.buffer)
    try:
        with _opened(str(log)) as stream:
            return diagnose_stream(stream)
    except (OSError, ValueError) as problem:
        raise RequestError(f"{log} cannot be read: {getattr(problem, 'strerror', None) or problem}") from None


def _opened(log: str) -> BinaryIO:
    return open(os.path.expanduser(log), "rb")


command = click.Command(
    "oom",
    params=[click.Argument(["log"], required=False, metavar="[LOG]"), *job_options(), *output_options(), help_option()],
    add_help_option=False,
    callback=oom,
    help=HELP,
    short_help="Why a job ran out of memory, from its log.",
)
