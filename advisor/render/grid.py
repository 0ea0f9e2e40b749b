"""Tables of text, laid out by tabulate. Long cells are broken here: tabulate 0.10 takes '6,738,415,616' for a number and fails."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from textwrap import wrap

Rows = Sequence[Sequence[str]]
GAP = 2  # columns between two columns of the table
HEADED = 2  # columns that tabulate adds to a header (its MIN_PADDING)
LEAST = 12  # columns that a broken column keeps


def grid(
    headers: Sequence[str],
    rows: Rows,
    *,
    right: Collection[int] = (),
    firm: Collection[int] = (),
    whole: Collection[int] = (),
    width: int | None = None,
) -> str:
    """Columns with two spaces between them, ``right`` ones flush right.

    The widest are broken until ``width`` holds the table; those flush right and ``firm`` ones never, ``whole`` ones not at hyphens.
    """
    from tabulate import tabulate

    text: str = tabulate(
        _broken(rows, _widths(headers, rows, {*right, *firm}, width), whole) if width else rows,
        headers=headers,
        tablefmt="simple" if headers else "plain",
        disable_numparse=True,
        colalign=_alignment(len(rows[0]), right),
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def _alignment(count: int, right: Collection[int]) -> list[str]:
    return ["right" if place in right else "left" for place in range(count)]


def _widths(headers: Sequence[str], rows: Rows, firm: Collection[int], width: int) -> list[int]:
    """The room of each column: what it asks for, the widest cut first."""
    least = [len(header) + HEADED for header in headers] or [0] * len(rows[0])
    widths = [max(most, *map(_width, cells)) for most, *cells in zip(least, *rows, strict=True)]
    soft = [place for place in range(len(widths)) if place not in firm]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        widest = max(soft, key=lambda place: widths[place], default=None)
        if widest is None or widths[widest] <= LEAST:
            break
        widths[widest] -= 1
    return widths


def _width(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def _broken(rows: Rows, widths: Sequence[int], whole: Collection[int]) -> list[list[str]]:
    return [
        [_break(cell, width, place not in whole) for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]


def _break(cell: str, width: int, at_hyphens: bool) -> str:
    """A cell on as many lines as it needs; what has a word too long is broken after commas first, a path after its slashes."""
    if _width(cell) <= width:
        return cell
    lines = [piece for line in cell.split("\n") for piece in _pieces(line, width)]
    return "\n".join(part for line in lines for part in wrap(line, width, break_on_hyphens=at_hyphens))


def _pieces(line: str, width: int) -> list[str]:
    if " " not in line:
        return line.replace("/", "/\n").split("\n")
    too_long = any(len(word) > width for word in line.split())
    return line.replace(",", ",\n").split("\n") if too_long else [line]


def markdown_grid(headers: Sequence[str], rows: Rows, *, right: Collection[int] = ()) -> str:
    """The same as a Markdown table."""
    from tabulate import tabulate

    text: str = tabulate(
        [[escape(cell) for cell in row] for row in rows],
        headers=headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=_alignment(len(headers), right),
    )
    return text


def escape(text: str) -> str:
    """Text that Markdown leaves as it is; what stood on lines of its own has commas between."""
    for sign in "\\`*<|":
        text = text.replace(sign, f"\\{sign}")
    return ", ".join(text.split("\n"))
