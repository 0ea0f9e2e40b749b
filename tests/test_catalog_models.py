"""The catalogue of models: each row's config gives its published count, or the difference has a name."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from advisor import catalog
from advisor.data import data_folder
from advisor.errors import RequestError
from advisor.memory.parameters import parameter_count
from advisor.model import Experts
from advisor.model_files.config import model_from_config

ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (data_folder("catalog") / "models.jsonl").read_text(encoding="utf-8").splitlines()
]


def refusal(row: dict[str, Any]) -> str:
    """Why the row's config makes no model; empty when it does."""
    try:
        model_from_config(row["config"], row["slug"])
    except RequestError as error:
        return str(error)
    return ""


COMPUTED = [row for row in ROWS if not refusal(row)]
NOT_COMPUTED = [row for row in ROWS if refusal(row)]


def by_slug(rows: list[dict[str, Any]]) -> Any:
    """The rows as cases, called by their slug."""
    return pytest.mark.parametrize("row", [pytest.param(row, id=row["slug"]) for row in rows])


@by_slug(COMPUTED)
def test_the_config_gives_the_published_count_or_the_difference_has_a_name(row: dict[str, Any]) -> None:
    """``published`` is the Hugging Face total of the stored tensors, ``counted`` the real class's parameters."""
    computed = parameter_count(model_from_config(row["config"], row["slug"]))
    difference = row.get("difference", {"name": "none", "parameters": 0})
    assert computed == row["counted"]
    assert "estimated" not in row
    if "published" in row:
        assert computed + difference["parameters"] == row["published"]
    assert difference["name"]


@by_slug(NOT_COMPUTED)
def test_a_row_that_is_not_computed_yet_is_refused_by_name(row: dict[str, Any]) -> None:
    """It stands in the catalogue with its count, and an estimate says what is missing."""
    assert re.search(r"(is|are) not estimated yet$", refusal(row))
    assert row["estimated"] is False
    assert row.get("published") or row.get("counted")


def test_how_far_the_catalogue_is_checked() -> None:
    """392 models: 369 computed, of which 224 are the published count, 64 differ by a named number and 81 have no published count."""
    kinds = Counter(
        "no published count" if "published" not in row else "named" if "difference" in row else "exact" for row in COMPUTED
    )
    assert len(ROWS) == 392
    assert kinds == {"exact": 224, "named": 64, "no published count": 81}


def test_names_are_unique() -> None:
    """No two rows answer to the same slug, alias or Hugging Face id, whatever the case; opt-1.3b is not opt-13b."""
    names = Counter(
        name
        for row in ROWS
        for name in {
            re.sub("[^a-z0-9.]", "", name.lower())
            for name in (row["slug"], *row.get("aliases", ()), row.get("hf_id", ""), row.get("hf_id", "").partition("/")[2])
            if name
        }
    )
    assert [name for name, many in names.items() if many > 1] == []


@by_slug([row for row in COMPUTED if row.get("difference", {}).get("name", "").startswith("tied head")])
def test_a_tied_head_that_is_stored_twice_is_one_embedding(row: dict[str, Any]) -> None:
    """The surplus is vocabulary times hidden size."""
    model = model_from_config(row["config"], row["slug"])
    assert model.tied
    assert row["difference"]["parameters"] == model.vocab * model.hidden


@by_slug([row for row in COMPUTED if row.get("difference", {}).get("name", "").startswith("router bias buffers")])
def test_router_bias_buffers_are_one_number_for_each_expert(row: dict[str, Any]) -> None:
    """DeepSeek-V3's balancing bias is a buffer of the router, not a parameter."""
    model = model_from_config(row["config"], row["slug"])
    experts = [layer.feed_forward.total for layer in model.layers if isinstance(layer.feed_forward, Experts)]
    assert row["difference"]["parameters"] == sum(experts)


@pytest.mark.parametrize(
    ("slug", "nominal", "parameters", "kv_heads"),
    [
        ("7b", 7 * 10**9, 6_738_415_616, 32),
        ("13b", 13 * 10**9, 13_015_864_320, 40),
        ("30b", 30 * 10**9, 32_528_943_616, 52),
        ("70b", 70 * 10**9, 68_976_648_192, 8),
    ],
)
def test_the_size_classes_have_llama_shapes(slug: str, nominal: int, parameters: int, kv_heads: int) -> None:
    """Llama 1 and 2 (arXiv 2302.13971, 2307.09288); no maximum length of their own."""
    row = next(row for row in ROWS if row["slug"] == slug)
    model = model_from_config(row["config"], slug)
    assert row["nominal"] == nominal
    assert parameter_count(model) == parameters
    assert {layer.mixer.kv_heads for layer in model.layers} == {kv_heads}
    assert "context" not in row


def test_every_row_says_where_it_is_from() -> None:
    """A figure without a source is a rumour."""
    assert [row["slug"] for row in ROWS if not row.get("source")] == []


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("google/gemma-3-4b-pt", "gemma-3-4b"),
        ("llama-3.1-8b-instruct", "llama-3.1-8b"),
    ],
)
def test_a_tuning_by_the_same_owner_is_the_same_shape(name: str, slug: str) -> None:
    """Tuned and base checkpoints differ in their values only; somebody else's may have another vocabulary."""
    assert catalog.find_model(name).name == slug
    with pytest.raises(RequestError):
        catalog.find_model(f"someone/{slug}-instruct")
