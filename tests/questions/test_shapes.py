"""Shapes between the models of the catalogue."""

from __future__ import annotations

from itertools import pairwise

from advisor import catalog
from advisor.memory.parameters import parameter_count
from advisor.questions.shapes import LADDER, firsts, shapes
from advisor.references import find_model


def test_the_published_models_are_among_them() -> None:
    """With the parameters that their publishers count (Hugging Face safetensors totals, as the catalogue has them)."""
    counted = {model.slug: model.counted for model in catalog.models()}
    assert {counted[name] for name in LADDER} <= {shape.parameters for shape in shapes()}


def test_a_shape_counts_as_its_config_does() -> None:
    """The closed form against the program's own count."""
    for shape in shapes()[::20]:
        assert parameter_count(find_model(shape.config())) == shape.parameters


def test_each_is_larger_than_the_one_before_and_not_by_much() -> None:
    """One layer of a shape with few is the largest step: below 6 %."""
    sizes = [shape.parameters for shape in shapes()]
    assert all(1 < large / small < 1.06 for small, large in pairwise(sizes))


def test_they_stay_between_their_neighbours() -> None:
    """No wider than the wider one; heads that fill the width and share keys evenly."""
    for shape in shapes():
        assert 576 <= shape.hidden <= 16384
        assert shape.heads * shape.head_dim == shape.hidden
        assert shape.heads % shape.kv_heads == 0
        assert 13 <= shape.layers <= 130


def test_depth_falls_back_only_where_the_width_changes() -> None:
    """Between two such places a larger shape is deeper or wider in its feed-forward part."""
    starts = set(firsts(shapes()))
    for place, (small, large) in enumerate(pairwise(shapes()), start=1):
        assert place in starts or large.layers > small.layers or large.width > small.width
