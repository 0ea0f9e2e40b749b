"""Tables."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.render.grid import escape, grid, markdown_grid

TEXT = st.text(st.sampled_from("abcdefg 0123456789,.-→/"), min_size=1, max_size=60).filter(lambda text: text.strip() == text)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_no_line_is_wider_than_asked(rows: list[tuple[str, str, str]]) -> None:
    """Whatever the cells hold."""
    assert all(len(line) <= 70 for line in grid(["a", "b", "c"], rows, width=70).splitlines())


def test_a_number_with_commas_stays_as_it_is() -> None:
    """tabulate 0.10 fails on it when it breaks the cells itself."""
    assert "6,738,415,616" in grid(["n", "text"], [["6,738,415,616", "word " * 30]], right=(0,), width=60)


def test_columns_of_figures_are_never_broken() -> None:
    """Only text is."""
    table = grid(["a", "n"], [["a long text of several words", "123456789012345678901234567890"]], right=(1,), width=50)
    assert "123456789012345678901234567890" in table


def test_a_path_is_broken_behind_its_slash() -> None:
    """An owner and a model's name are read one below the other."""
    assert grid([], [["x" * 20, "meta-llama/Llama-3.1-8B"]], firm=(0,), width=40).splitlines()[0].endswith("meta-llama/")


def test_a_list_is_broken_behind_its_commas() -> None:
    """Not in the middle of a word."""
    lines = grid([], [["x" * 20, "offload nothing → activations,parameters"]], firm=(0,), width=38).splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == ["offload nothing", "→ activations,", "parameters"]


def test_markdown_cells_hold_no_column_of_their_own() -> None:
    """A bar in a cell would end it."""
    assert markdown_grid(["a"], [["x|y"]]).splitlines()[-1] == r"| x\|y |"
    assert escape("a\nb") == "a, b"
