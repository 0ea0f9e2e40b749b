"""The bar of a budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from advisor.render.bar import EDGE, FREE, LETTERS, bar, letter
from advisor.results import PARTS, Part

SIZES = st.lists(st.integers(0, 2**45), min_size=1, max_size=len(PARTS))


def test_every_part_has_a_letter_of_its_own() -> None:
    """Within the detailed parts as within the guide's, no two share one."""
    assert len({LETTERS[name] for name in PARTS}) == len(PARTS)
    guide = (
        "model",
        "gradients",
        "optimizer-state",
        "kv-cache",
        "activations",
        "input-data",
        "system-overhead",
        "safety-margin",
    )
    assert len({LETTERS[name] for name in guide}) == len(guide)


@given(SIZES, st.integers(1, 2**45))
def test_a_bar_is_as_long_as_its_scale_and_one_edge(sizes: list[int], usable: int) -> None:
    """The fuller of card and job fills all cells; each part has its share of them within one."""
    parts = [Part(name, size) for name, size in zip(PARTS, sizes, strict=False)]
    scale = max(usable, sum(sizes))
    text = bar(parts, usable, scale, 60)
    assert text.count(EDGE) == 1
    assert len(text.rstrip(FREE)) <= 61
    for part in parts:
        assert abs(text.count(letter(part.name)) - part.bytes * 60 / scale) <= 1


def test_what_does_not_fit_stands_behind_the_edge() -> None:
    """Half of the job is beyond the card."""
    assert bar([Part("weights", 8)], usable=4, scale=8, cells=8) == "WWWW|WWWW"


def test_free_memory_stands_before_the_edge() -> None:
    """Nothing stands behind the edge of a job that fits."""
    assert bar([Part("weights", 2)], usable=8, scale=8, cells=8) == "WW······|"
