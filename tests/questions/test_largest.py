"""The largest model: what is named fits by `estimate`, and the next larger shape does not."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import RequestError, advise, estimate, largest
from advisor.planning.claims import claims
from advisor.questions.largest import Row

JOBS: dict[str, dict[str, Any]] = {
    "a100-40": {"gpu": "a100-40"},
    "a card without bf16": {"gpu": "v100-16", "batch": 8, "seq": "8k"},
    "two GPUs": {"gpu": "rtx-3090", "gpus": 2},
    "vllm": {"gpu": "h100-80", "gpus": 4, "tp": 4, "engine": "vllm"},
    "llama.cpp": {"gpu": "rtx-3060", "engine": "llama.cpp"},
    "ZeRO": {"gpu": "a100-80", "gpus": 4, "zero": 3, "checkpointing": "full"},
    "the guide's formulas": {"gpu": "a100-80", "estimator": "checklist"},
}


def settings(row: Row) -> dict[str, Any]:
    """The keys of a row's job, without its model."""
    w = row.w
    method = {"method": w.method} if w.task == "train" else {}
    return {"batch": w.batch, "seq": w.seq, "precision": w.precision, "quantization": w.quantization, **method}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_each_size_fits_and_the_next_does_not(job: dict[str, Any]) -> None:
    """By the same estimate, from the configs that the answer holds."""
    found = largest(**job)
    assert any(row.shape for row in found.rows)
    for row in found.rows:
        task, keys = row.w.task, {**job, **settings(row)}
        if row.shape:
            assert estimate(**keys, **{task: row.shape.config()}).fits
        if row.beyond:
            assert not estimate(**keys, **{task: row.beyond.config()}).fits


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_every_model_that_is_named_fits(job: dict[str, Any]) -> None:
    """`advise` neither refuses it nor finds it too large, with the same settings."""
    for row in largest(**job).rows:
        for name in row.examples:
            assert advise(**{**job, **settings(row), row.w.task: name}).verdict == "fits"


def test_a_larger_card_never_answers_smaller() -> None:
    """Cards that are known by their size alone, for every task and number format."""
    sizes: dict[tuple[str, ...], list[float]] = {}
    for card in ("6GB", "8GB", "10GB", "16GB", "24GB", "40GB", "48GB", "80GB", "141GB"):
        for row in largest(gpu=card).rows:
            w = row.w
            sizes.setdefault((w.task, w.method, w.precision, w.quantization), []).append(row.billions or 0)
    assert len(sizes) == 7
    for billions in sizes.values():
        assert billions == sorted(billions)
        assert len(billions) == 9


def test_a_longer_sequence_and_a_larger_batch_leave_less_to_the_model() -> None:
    """And so does a more certain answer."""
    plain = [row.billions or 0 for row in largest(gpu="a100-40").rows]
    for more in ({"seq": "16k"}, {"batch": 8}, {"confidence": 0.99}):
        less = [row.billions or 0 for row in largest(gpu="a100-40", **more).rows]
        assert all(here <= there for here, there in zip(less, plain, strict=True))


def test_fewer_bits_hold_more() -> None:
    """4 bits more than 8, 8 more than 16; adapters more than full training."""
    rows = largest(gpu="a100-80").rows
    assert [(row.w.task, row.w.method, row.w.quantization) for row in rows[:3]] == [
        ("infer", "full", "none"),
        ("infer", "full", "int8"),
        ("infer", "full", "nf4"),
    ]
    none, int8, int4, full, mixed, lora, qlora = (row.billions or 0 for row in rows)
    assert none < int8 < int4
    assert mixed < full < lora < qlora < int4


@pytest.mark.parametrize(
    ("gpu", "billions", "keys"),
    [
        ("16GB", 7, {"quantization": "int8"}),
        ("24GB", 7, {"precision": "fp16", "quantization": "none"}),
        ("40GB", 13, {"precision": "fp16", "quantization": "none"}),
    ],
)
def test_the_guides_pairs_of_card_and_model_hold_by_its_own_checklist(gpu: str, billions: int, keys: dict[str, str]) -> None:
    """§8.2: 16 GB run 7B in INT8, 24 GB 7B in FP16, 40 GB 13B."""
    row = next(row for row in largest(gpu=gpu, estimator="checklist", **keys).rows if row.w.task == "infer")
    assert f"{billions}b" in row.examples
    assert (row.billions or 0) >= billions


@pytest.mark.parametrize(
    ("gpu", "task", "model"), [("80GB", "infer", "30b"), ("80GB", "train", "13b"), ("40GB", "train", "7b")]
)
def test_the_guides_pairs_that_its_checklist_contradicts_are_not_among_the_answers(gpu: str, task: str, model: str) -> None:
    """§8.2: 80 GB for 30B inference and 13B training, 40 GB for 7B training; its formulas give 87.1, 125 and 69 GB."""
    found = largest(gpu=gpu, estimator="checklist", precision="fp16", quantization="none")
    rows = [row for row in found.rows if row.w.task == task]
    assert rows
    assert all(model not in row.examples for row in rows)
    assert any(each["section"] == "§8.2" and each["contradicts"] for each in found.guide)


def test_the_guide_stands_beside_its_own_checklist() -> None:
    """Every claim of §5 about the card and of §8.2 about its size; none with the detailed estimator."""
    found = largest(gpu="h100-80", estimator="checklist")
    of_h100 = [claim.says for claim in claims() if claim.section == "§5.4"]
    assert [each["says"] for each in found.guide if each["section"] == "§5.4"] == of_h100
    assert {each["section"] for each in found.guide} == {"§5.4", "§8.2"}
    assert largest(gpu="h100-80", method="full").guide == ()


def test_what_the_job_says_is_not_varied() -> None:
    """A method, a precision, a quantization; what has no answer then is left out, with the reason."""
    found = largest(gpu="a100-40", method="lora", precision="bf16")
    assert [(row.w.task, row.w.method, row.w.precision) for row in found.rows] == [("train", "lora", "bf16")]
    assert any("method is for training" in note for note in found.notes)
    found = largest(gpu="a100-40", quantization="int8")
    assert [(row.w.task, row.w.quantization) for row in found.rows] == [("infer", "int8"), ("train", "int8"), ("train", "int8")]
    assert {row.w.method for row in found.rows[1:]} == {"lora", "qlora"}
    assert len(largest(gpu="a100-40", keep="quantization,precision,method").rows) == 2


def test_nothing_fits_is_said() -> None:
    """No shape, no example, exit code 3."""
    found = largest(gpu="2GB", batch=64, seq="128k", method="full")
    assert [(row.billions, row.examples) for row in found.rows] == [(None, ())] * len(found.rows)
    assert found.exit_code == 3


def test_parallel_degrees_leave_shapes_out_with_a_note() -> None:
    """Eight heads of keys are not divided by three."""
    found = largest(gpu="h100-80", gpus=3, tp=3, engine="vllm")
    assert any("parallel degrees divide" in note for note in found.notes)
    assert all(row.shape and row.shape.kv_heads % 3 == 0 for row in found.rows)


def test_the_dictionary_is_plain() -> None:
    """The fields that programs read."""
    import json

    found = json.loads(json.dumps(largest(gpu="a100-40", keep=["quantization"]).to_dict()))
    assert found["schema"] == 1
    assert found["rows"][0].keys() >= {"task", "method", "precision", "quantization", "billions", "examples"}


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"gpu": "a100"},
        {"gpu": "a100-40", "train": "7b"},
        {"gpu": "a100-40", "observed": "device=3GiB"},
        {"gpu": "a100-40", "tp": 7},
    ],
)
def test_bad_requests_are_refused_in_one_line(job: dict[str, Any]) -> None:
    """As everywhere."""
    with pytest.raises(RequestError) as refusal:
        largest(**job)
    assert "\n" not in str(refusal.value)
