"""`advise observe`: keep what a job took, so that later estimates of its kind can learn from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from advisor.cli.options import given, help_option, job_options, output_options
from advisor.cli.output import Answer
from advisor.errors import RequestError

if TYPE_CHECKING:
    from advisor.calibration import Observation


def path() -> Path:
    """observations.jsonl among the user's configuration (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".config") / "advise" / "observations.jsonl"


def observe(**values: Any) -> Answer:
    """Keep what a job took in ~/.config/advise/observations.jsonl.

    Such as: advise observe --gpu a100-80 --train 7b --method lora --observed device=31.4GiB

    Nothing else writes that file, and only --use-observations reads it.
    """
    from advisor.job import Job  # isort: split
    from advisor.calibration import correction, observed_job
    from advisor.workload import resolve

    w = resolve(Job(**given(values)))
    if not w.observed:
        raise RequestError("say with --observed what the job took, such as --observed device=13.2GiB")
    told = wrap("Observed: " + correction(w).notes[0].partition(": ")[2], 80, break_on_hyphens=False)
    record = {"job": _lasting(observed_job(w).to_dict()), "observed": w.observed}
    _append(path(), record)
    text = json.dumps(record) if values["format"] == "json" else "\n".join([*told, f"Kept in {path()}."])
    return Answer(text + "\n", output=values["output"])


def _lasting(job: dict[str, Any]) -> dict[str, Any]:
    """The job with a model's file by its full path: later it is asked from elsewhere."""
    files = {task: os.path.abspath(os.path.expanduser(name)) for task in ("train", "infer") if _is_file(name := job[task])}
    return {**{name: value for name, value in job.items() if value is not None}, **files}


def _is_file(name: object) -> bool:
    from advisor import catalog

    return isinstance(name, str) and not catalog.is_model_name(name) and os.path.exists(os.path.expanduser(name))


def _append(file: Path, record: dict[str, Any]) -> None:
    """One write to the end: of two commands at once, each has its line whole."""
    line = json.dumps(record, ensure_ascii=False) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise RequestError(f"{file} cannot be written: {problem.strerror}") from None


def past() -> tuple[list[Observation], list[str]]:
    """The observations of the file, and what is to be said about it."""
    file = path()
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return [], [f"There are no observations yet: advise observe keeps them in {file}."]
    except OSError as problem:
        raise RequestError(f"{file} cannot be read: {problem.strerror}") from None
    read = [(number, _observation(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    bad = [str(number) for number, observation in read if observation is None]
    named = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    notes = [f"{file}: no observation in line {named}, left out."] if bad else []
    return [observation for _, observation in read if observation is not None], notes


def _observation(line: str) -> Observation | None:
    from advisor.calibration import Observation, correction
    from advisor.job import Job
    from advisor.workload import resolve

    try:
        record = json.loads(line)
        job = Job(**record["job"])
        seen = Job(observed=record["observed"]).observed
        if not seen:
            return None
        correction(resolve(job.with_changes(observed=seen)))  # refuses what cannot be
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Observation(job, seen)


command = click.Command(
    "observe",
    params=[*job_options(), *output_options(), help_option()],
    add_help_option=False,
    callback=observe,
    help=observe.__doc__,
    short_help="Keep what a job took, for --use-observations.",
)
