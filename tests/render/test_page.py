"""Pages of answers."""

from __future__ import annotations

from advisor.render.page import Page, Table, render

PAGE = Page(
    "It fits.",
    [
        Table("Sizes", ["of", "GiB"], [["a-long-name, another-long-name", "1.00"]], right=(1,), whole=(0,)),
        Table("None", ["x"], []),
    ],
    ["A remark."],
    ["A note with | in it."],
)


def test_a_table_without_rows_is_left_out() -> None:
    """With its title."""
    assert "None" not in render(PAGE, {}, "table", 80)
    assert "None" not in render(PAGE, {}, "markdown", 80)


def test_names_are_not_broken_at_their_hyphens() -> None:
    """Where the column says so."""
    text = render(PAGE, {}, "table", 30)
    assert "  a-long-name," in text
    assert "  another-long-name" in text


def test_markdown_leaves_no_bar_open() -> None:
    """A bar in a note would begin a cell."""
    assert "- A note with \\| in it." in render(PAGE, {}, "markdown", 80)


def test_json_is_the_record() -> None:
    """And nothing of the page."""
    assert render(PAGE, {"schema": 1}, "json", 80) == '{\n  "schema": 1\n}\n'
