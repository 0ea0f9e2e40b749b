"""An answer as a page: a sentence that says it, tables, notes. For the questions beside the main one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from textwrap import fill
from typing import Any, NamedTuple


class Table(NamedTuple):
    """Rows under headers; the places of columns of figures, of those never broken, of names not broken within. Nothing without rows."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()
    firm: Collection[int] = ()
    whole: Collection[int] = ()


class Page(NamedTuple):
    """What there is to say. ``remarks`` belong to the tables, ``notes`` to the job."""

    headline: str
    tables: Sequence[Table]
    remarks: Sequence[str]
    notes: Sequence[str]


def render(page: Page, record: dict[str, Any], format: str, width: int) -> str:
    """The page in one of the formats of ``advisor.render.FORMATS``; JSON is the record behind it."""
    if format == "json":
        from advisor.render.json import dumps

        return dumps(record)
    return _markdown(page) if format == "markdown" else _text(page, width)


def _text(page: Page, width: int) -> str:
    from advisor.render.grid import grid

    parts = [fill(page.headline, width)]
    for table in page.tables:
        if table.rows:
            body = grid(table.headers, table.rows, right=table.right, firm=table.firm, whole=table.whole, width=width - 2)
            parts.append("\n".join([table.title, *(f"  {line}".rstrip() for line in body.splitlines())]))
    parts += [fill(remark, width, break_on_hyphens=False) for remark in page.remarks]
    if page.notes:
        notes = [
            fill(note, width, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False) for note in page.notes
        ]
        parts.append("\n".join(["Notes", *notes]))
    return "\n\n".join(parts) + "\n"


def _markdown(page: Page) -> str:
    from advisor.render.grid import escape, markdown_grid

    parts = [f"**{escape(page.headline)}**"]
    parts += [
        f"### {escape(table.title)}\n\n{markdown_grid(table.headers, table.rows, right=table.right)}"
        for table in page.tables
        if table.rows
    ]
    parts += [escape(remark) for remark in page.remarks]
    if page.notes:
        parts.append("### Notes\n\n" + "\n".join(f"- {escape(note)}" for note in page.notes))
    return "\n\n".join(parts) + "\n"
