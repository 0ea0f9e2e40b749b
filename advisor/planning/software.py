"""Which programs still run on a card (catalog/software.jsonl has one a line, with its source)."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from advisor.data import data_folder

if TYPE_CHECKING:
    from advisor.hardware import Gpu
    from advisor.workload import Workload


class Older(NamedTuple):
    """What runs on cards of this compute capability and more, that the newest version does not run on."""

    capability: float
    says: str


class Software(NamedTuple):
    """A program: the engines that are made of it, and the cards that its newest version runs on."""

    name: str
    capability: float
    source: str
    engines: tuple[str, ...] = ()
    vendors: tuple[str, ...] = ()  # none: whatever the engine runs on
    older: tuple[Older, ...] = ()  # the newest card first


@cache
def catalogue() -> dict[str, Software]:
    """Every program by its name."""
    lines = (data_folder("catalog") / "software.jsonl").read_text(encoding="utf-8").splitlines()
    programs = (_software(json.loads(line)) for line in lines)
    return {program.name: program for program in programs}


def _software(record: dict[str, object]) -> Software:
    lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
    older = tuple(Older(**each) for each in lists.get("older", ()))
    return Software(**{**record, **lists, "older": older})  # type: ignore[arg-type]


def runs_on(name: str, gpu: Gpu) -> bool:
    """Whether the program's newest version runs on the card."""
    program = catalogue()[name]
    return gpu.reaches(program.capability) and (not gpu.vendor or not program.vendors or gpu.vendor in program.vendors)


def versions(w: Workload) -> list[str]:
    """What to install on a card that the newest versions have left behind."""
    return [
        f"{w.gpu.name} has compute capability {w.gpu.compute_capability}, and {program.name} begins at {program.capability:g} now: {old.says}."
        for program in catalogue().values()
        if w.engine.name in program.engines and not w.gpu.reaches(program.capability)
        for old in [old for old in program.older if w.gpu.reaches(old.capability)][:1]
    ]
