"""Tables of text, laid out by tabulate."""

from __future__ import annotations

from collections.abc import Collection, Sequence

GAP = 2  # columns between two columns of the table
HEADED = 2  # columns that tabulate adds to a header (its MIN_PADDING)
LEAST = 10  # columns that a wrapped column keeps


def grid(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = (), width: int | None = None
) -> str:
    """Columns with two spaces between them, ``right`` ones flush right, the widest wrapped until ``width`` holds them."""
    from tabulate import tabulate

    text: str = tabulate(
        rows,
        headers=headers,
        tablefmt="simple" if headers else "plain",
        disable_numparse=True,
        colalign=_alignment(len(rows[0]), right),
        maxcolwidths=_widths(headers, rows, width) if width else None,
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def _alignment(count: int, right: Collection[int]) -> list[str]:
    return ["right" if place in right else "left" for place in range(count)]


def _widths(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int | None]:
    """The most that each column may take, the widest cut first; None where it need not be cut."""
    least = [len(header) + HEADED for header in headers] or [0] * len(rows[0])
    wanted = [
        max(most, *(len(line) for cell in cells for line in cell.split("\n")))
        for most, *cells in zip(least, *rows, strict=True)
    ]
    given = list(wanted)
    while sum(given) + GAP * (len(given) - 1) > width and max(given) > LEAST:
        given[given.index(max(given))] -= 1
    return [new if new < old else None for new, old in zip(given, wanted, strict=True)]


def markdown_grid(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
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
