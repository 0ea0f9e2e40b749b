"""`advise which-gpu`: the cards that hold a job."""

from __future__ import annotations

from typing import Any

import click

from advisor.cli.output import Answer
from advisor.cli.questions import answered, question_command


def which_gpu(vendor: str | None, family: str | None, memory: str | None, **values: Any) -> Answer:
    """The cards of the catalogue that hold the job, and how many of each, up to --max-gpus.

    Such as: advise which-gpu --train llama-3.1-8b --method lora --memory 24GB+

    Those that hold it as asked come first, the smallest before the others, then those that do after changes. More GPUs count as
    asked where they leave each less to hold: inference, and training with --zero.
    """
    return answered("which_gpu", values, vendor=vendor, family=family, memory=memory)


FILTERS = [
    click.Option(["--vendor"], metavar="NAME", help="Cards of this maker only: nvidia, amd, apple, ..."),
    click.Option(["--family"], metavar="NAME", help="Cards of this architecture only: hopper, ada, ..."),
    click.Option(["--memory"], metavar="SIZES", help="Cards sold with this much only: 24GB, 24GB+, 24GB-80GB."),
]
command = question_command("which-gpu", which_gpu, "The cards that hold a job.", without=("gpu",), more=FILTERS)
