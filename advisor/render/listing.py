"""Lists of a catalogue: rows under headers for people, records for programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple


class Listing(NamedTuple):
    """What a list shows: headers and rows, the places of the columns of figures, the records behind the rows."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int]
    records: Sequence[dict[str, Any]]


def render(listing: Listing, format: str, width: int) -> str:
    """The list in one of the formats of ``advisor.render.FORMATS``."""
    if format == "json":
        from advisor.render.json import dumps

        return dumps({"schema": 1, "rows": list(listing.records)})
    from advisor.render.grid import grid, markdown_grid

    if format == "markdown":
        return markdown_grid(listing.headers, listing.rows, right=listing.right) + "\n"
    return grid(listing.headers, listing.rows, right=listing.right, firm=(0,), width=width) + "\n"
