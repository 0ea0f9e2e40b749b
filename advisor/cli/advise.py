"""`advise --gpu … --train …`: whether the job fits, and the plan."""

from __future__ import annotations

from typing import Any

import click

from advisor.cli.options import given
from advisor.cli.output import Answer, colour, width


def ask(context: click.Context, values: dict[str, Any]) -> Answer | None:
    """The plan as text; the help where nothing is asked; nothing where a command follows."""
    said = {name: value for name, value in values.items() if value not in (None, False, ())}
    if context.invoked_subcommand is not None:
        if said:
            option = next(iter(said)).replace("_", "-")
            raise click.UsageError(f"--{option} stands before {context.invoked_subcommand}; its options go after it")
        return None
    if not said:
        return Answer(context.get_help() + "\n")
    from advisor.api import advise
    from advisor.job import Job
    from advisor.render import render

    output = values["output"]
    job = Job(**given(values))
    if values["use_observations"]:
        from advisor.cli.observe import past

        observations, notes = past()
        plan = advise(job, observations=observations)
        plan = plan._replace(notes=(*plan.notes, *notes))
    else:
        plan = advise(job)
    text = render(plan, values["format"] or "table", explain=values["explain"], width=width(output), colour=colour(output))
    return Answer(text, plan.exit_code, output)
