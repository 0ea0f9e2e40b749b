"""A diagnosis for a person, for other programs, or as Markdown. What comes from the log is shown escaped."""

from __future__ import annotations

import json
import re
from textwrap import indent, wrap
from typing import Any

from advisor.triage.diagnosis import Diagnosis

CAUSES = {
    "capacity": "the job needs more than the card has",
    "fragmentation": "memory is there, but in pieces",
    "other-process": "others hold the memory",
    "leak": "memory that is not given back",
    "limit": "a limit below the card's capacity",
    "kv-cache": "no room for the KV cache",
    "host-memory": "the host's memory, not the card's",
    "not-memory": "not the card's memory at all",
    "misreport": "refused although enough was free",
    "benign": "nothing that stopped the job",
    "unknown": "not told by the log",
}
PHASES = {
    "load": "while loading", "forward": "in the forward pass", "backward": "in the backward pass",
    "optimizer-step": "in the optimizer step", "kv-cache-init": "while the KV cache was made", "profile": "while the engine warmed up",
    "generate": "while generating", "eval": "in the evaluation", "checkpoint-save": "while a checkpoint was saved",
    "host": "on the host", "unknown": "",
}  # fmt: skip
LABELS = {
    "tried_to_allocate_bytes": "asked for", "total_capacity_bytes": "card", "allocated_bytes": "allocated",
    "reserved_unallocated_bytes": "reserved, unused", "reserved_bytes": "reserved in total", "free_bytes": "free",
    "process_in_use_bytes": "this process", "kv_needed_bytes": "KV cache needed", "kv_available_bytes": "KV cache available",
    "requested_budget_bytes": "engine's share", "allowed_bytes": "cap",
}  # fmt: skip
GIB = 2**30
MOST_REMEDIES = 5  # at a terminal


def render(found: Diagnosis, format: str, *, explain: bool = False, width: int = 80, colour: bool = False) -> str:
    """The diagnosis in one of table, json and markdown."""
    if format == "json":
        return json.dumps(found.to_dict(), ensure_ascii=False, indent=2) + "\n"
    return _markdown(found, explain) if format == "markdown" else _table(found, explain, width, colour)


def headline(found: Diagnosis) -> str:
    """The answer in one sentence."""
    if not found.found:
        return found.why
    when = f" {PHASES[found.phase]}" if PHASES[found.phase] else ""
    return f"Out of memory{when}: {CAUSES[found.cause]}." if found.cause not in ("benign", "not-memory") else (
        f"{CAUSES[found.cause].capitalize()}{when}."
    )  # fmt: skip


def amount(size: int) -> str:
    """``12.55 GiB``, ``64.00 MiB``, ``131072 B``."""
    if abs(size) >= GIB:
        return f"{size / GIB:,.2f} GiB"
    return f"{size / 2**20:,.2f} MiB" if abs(size) >= 2**20 else f"{size} B"


def figures(found: Diagnosis) -> list[tuple[str, str]]:
    """The values of the message in words."""
    rows = [
        (
            LABELS.get(name, name.removesuffix("_bytes").replace("_", " ")),
            amount(value) if name.endswith("_bytes") else _plain(value),
        )
        for name, value in found.fields.items()
        if name != "other_processes"
    ]
    listed = found.fields.get("other_processes", ())
    return rows + [(f"process {one['pid']}", amount(one["bytes"])) for one in listed]


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(found: Diagnosis, explain: bool, width: int, colour: bool) -> str:
    def bold(text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if colour else text

    blocks = [bold("\n".join(wrap(headline(found), width)))]
    if found.found:
        said = f"{found.why} ({found.family}, {found.framework}; certainty {found.certainty})"
        blocks.append("\n".join(wrap(said, width)))
        if rows := figures(found):
            most = max(len(name) for name, _ in rows)
            blocks.append(bold("Figures") + "\n" + "\n".join(f"  {name:{most}}  {value}" for name, value in rows))
        quoted = [line for text in found.evidence for line in _quoted(text, width)]
        blocks.append(bold("Evidence") + "\n" + "\n".join(quoted))
        blocks.append(bold("What to do, in this order") + "\n" + "\n".join(_remedies(found, explain, width)))
    if found.notes:
        blocks.append(bold("Notes") + "\n" + "\n".join(_bullets(list(found.notes), width)))
    text = "\n\n".join(blocks) + "\n"
    if found.plan is None:
        return text
    from advisor.render.table import render as render_plan

    return text + "\n" + bold("The plan") + "\n\n" + render_plan(found.plan, explain=explain, width=width, colour=colour)


def _quoted(text: str, width: int) -> list[str]:
    return wrap(text, width, initial_indent="  > ", subsequent_indent="    ", break_on_hyphens=False) or ["  >"]


def _bullets(texts: list[str], width: int) -> list[str]:
    return [line for text in texts for line in wrap(text, width, initial_indent="  - ", subsequent_indent="    ")]


def _remedies(found: Diagnosis, explain: bool, width: int) -> list[str]:
    lines: list[str] = []
    for place, one in enumerate(found.remedies if explain else found.remedies[:MOST_REMEDIES], start=1):
        lines += wrap(f"{one.title}. {one.why}", width, initial_indent=f"  {place}. ", subsequent_indent="     ")
        lines.append(indent(one.how, " " * 7))
    return lines


def _markdown(found: Diagnosis, explain: bool) -> str:
    from advisor.render.grid import escape

    blocks = [f"**{escape(headline(found))}**"]
    if found.found:
        blocks.append(escape(f"{found.why} ({found.family}, {found.framework}; certainty {found.certainty})"))
        if rows := figures(found):
            blocks.append("### Figures\n\n" + "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in rows))
        blocks.append("### Evidence\n\n" + _fenced("\n".join(found.evidence)))
        blocks.append(
            "### What to do, in this order\n\n"
            + "\n".join(
                f"{place}. **{escape(one.title)}.** {escape(one.why)}\n\n{indent(_fenced(one.how), '   ')}\n"
                for place, one in enumerate(found.remedies, start=1)
            ).rstrip("\n")
        )
    if found.notes:
        blocks.append("### Notes\n\n" + "\n".join(f"- {escape(note)}" for note in found.notes))
    text = "\n\n".join(blocks) + "\n"
    if found.plan is None:
        return text
    from advisor.render.markdown import render as render_plan

    return text + "\n### The plan\n\n" + render_plan(found.plan, explain=explain)


def _fenced(text: str) -> str:
    """A block of code, fenced by more backticks than it has in a row."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
