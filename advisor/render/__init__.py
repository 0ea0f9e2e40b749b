"""One file per output format; each has render(plan, explain, width, colour) -> str."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.results import Plan

FORMATS = ("table", "json", "markdown")


def render(plan: Plan, format: str, *, explain: bool = False, width: int = 80, colour: bool = False) -> str:
    """The plan in one of FORMATS. Loads only that one."""
    from importlib import import_module

    text: str = import_module(f"advisor.render.{format}").render(plan, explain=explain, width=width, colour=colour)
    return text
