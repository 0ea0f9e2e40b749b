"""JSON and the notebook."""

from __future__ import annotations

import json

import pytest
from sample import FITTED, PLANS

from advisor.render import json as plan_json
from advisor.render import markdown


@pytest.mark.parametrize("name", PLANS)
def test_json_is_to_dict(name: str) -> None:
    """The command and the Python API promise the same fields."""
    text = plan_json.render(PLANS[name])
    assert json.loads(text) == PLANS[name].to_dict()
    assert text.endswith("}\n")


def test_json_has_signs_as_they_are() -> None:
    """UTF-8, not escapes."""
    assert "weights × 1" in plan_json.render(FITTED)


def test_a_notebook_shows_the_markdown() -> None:
    """Jupyter calls _repr_markdown_."""
    assert FITTED._repr_markdown_() == markdown.render(FITTED)
