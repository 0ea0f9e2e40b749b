"""`advise oom`: from the error in a log to the cause and the fix."""

from __future__ import annotations

import os
import sys
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from advisor.cli.options import given, help_option, job_options, output_options
from advisor.cli.output import Answer, colour, is_terminal, width
from advisor.errors import RequestError

if TYPE_CHECKING:
    from advisor.triage.diagnosis import Diagnosis

GZIP = b"\x1f\x8b"
FORMATS = ("table", "json", "markdown")
EXPLAIN = click.Option(["--explain"], is_flag=True, help="Every remedy, and the plan with its parts and reasons.")
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
    text = render(found, format, explain=values["explain"], width=width(output), colour=colour(output))
    return Answer(text, found.exit_code, output)


def _read(log: str | None) -> Diagnosis:
    from advisor.triage.diagnosis import diagnose_stream

    if log in (None, "-"):
        if log is None and (sys.stdin is None or is_terminal(sys.stdin)):
            raise RequestError("say which log: advise oom train.log, or pipe one in")
        return diagnose_stream(sys.stdin.buffer)
    try:
        with open(os.path.expanduser(str(log)), "rb") as stream:
            if stream.peek(2)[:2] != GZIP:
                return diagnose_stream(stream)
            from gzip import GzipFile

            with GzipFile(fileobj=stream) as unpacked:
                return diagnose_stream(cast(BinaryIO, unpacked))
    except (OSError, ValueError, EOFError, zlib.error) as problem:
        raise RequestError(f"{log} cannot be read: {getattr(problem, 'strerror', None) or problem}") from None


command = click.Command(
    "oom",
    params=[
        click.Argument(["log"], required=False, metavar="[LOG]"),
        *job_options(),
        *output_options(),
        EXPLAIN,
        help_option(),
    ],
    add_help_option=False,
    callback=oom,
    help=HELP,
    short_help="Why a job ran out of memory, from its log.",
)
