"""The command `advise`: a question about a job, and the commands beside it, each loaded when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from advisor.cli.options import help_option, job_options, observations_option, output_options, told_option, write_options

COMMANDS = ("largest", "which-gpu", "limits", "oom", "rules", "gpus", "models", "observe")
HELP = """How much GPU memory a job needs, and what to change, step by step, until it fits.

\b
  advise --gpu v100-16 --train 7b
  advise --gpu rtx-4090 --infer llama-3.1-8b --seq 32k --batch 8
  advise --gpu a100-80 --train ./my-model --method lora --format json
"""
EPILOG = """Exit codes: 0 it fits as asked; 1 it does not, and the plan makes it fit; 3 nothing within the limits makes it fit;
2 the request is wrong."""


class Advise(click.Group):
    """A group that is a command as well."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"advisor.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else "a model goes after --train or --infer; advise --help tells more"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands first, then the options under headings."""
        self.format_commands(ctx, formatter)
        write_options(self, ctx, formatter)


def _ask(**values: Any) -> Any:
    from advisor.cli.advise import ask

    return ask(click.get_current_context(), values)


def _version(context: click.Context) -> str:
    from advisor.cli.run import version

    return version()


app = Advise(
    "advise",
    params=[
        *job_options(),
        *output_options(),
        click.Option(["--explain"], is_flag=True, help="Every part with its formula and source, every step with its reasons."),
        observations_option(),
        told_option(["--version"], _version, "The version, and which rules engine is in use."),
        help_option(),
    ],
    add_help_option=False,
    callback=_ask,
    invoke_without_command=True,
    help=HELP,
    epilog=EPILOG,
    subcommand_metavar="[COMMAND]",
    context_settings={
        "max_content_width": 80,
        "token_normalize_func": lambda name: name.replace("_", "-"),  # --lora_rank, as JSON spells it
    },
)  # fmt: skip
