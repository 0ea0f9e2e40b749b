"""The guide's claims in catalog/claims.jsonl: each beside what its own checklist gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_handbook import size_class, workload

from advisor.hardware import Gpu
from advisor.planning import claims
from advisor.planning.claims import Claim, checklist_bytes, contradicted
from advisor.planning.claims import claims as all_claims

GB = 10**9
SIZES = {"v100-16": 16, "a100-40": 40, "a100-80": 80, "h100-80": 80, "rtx-4090": 24}


def card(slug: str, size: float = 0) -> Gpu:
    size = size or SIZES[slug]
    return Gpu(slug, slug, marketed_gb=size, total_bytes=round(size * 2**30), usable_bytes=round(size * 2**30))


def settings(claim: Claim) -> dict[str, Any]:
    """The claim's own settings and those of ``at``, as keys of a job."""
    first = {key: value[0] if isinstance(value, list) else value for key, value in claim.when.items() if key != "ranks"}
    if first.get("precision") == "int8":
        first |= {"precision": "fp16", "quantization": "int8"}
    return {"task": claim.task, "billions": int(claim.billions), **first, **claim.at}


def label(claim: Claim) -> str:
    return f"{claim.section} {claim.says}"


@pytest.mark.parametrize("claim", all_claims(), ids=label)
def test_figure_is_the_checklists(claim: Claim) -> None:
    """``formula_gb`` is what the checklist gives, and ``contradicts`` is what follows of it."""
    gives = checklist_bytes(workload(**settings(claim)), claim.part) / GB
    assert round(gives, 1) == claim.formula_gb
    if claim.guide_gb is not None:
        assert claim.contradicts == (round(gives, 2) != claim.guide_gb)
    else:
        assert claim.gb is not None
        assert claim.contradicts == ((gives <= claim.gb) != (claim.claim == "fits"))


@pytest.mark.parametrize("claim", all_claims(), ids=label)
def test_user_is_told_of_a_contradiction(claim: Claim) -> None:
    """The very job of a contradicted claim gets its note, whatever the estimator; one that is borne out gets none of it."""
    gpu = card(claim.gpu[0]) if claim.gpu else card("some-card", claim.gb or 80)
    for estimator in ("detailed", "checklist", "quick"):
        told = contradicted(workload(gpu=gpu, estimator=estimator, **settings(claim)))
        assert any(claim.section in note and claim.says in note for note in told) == claim.contradicts


def test_every_claim_is_there() -> None:
    """16 cells of §3.2, 4 totals of §4.4, 19 rows of §5 and 9 of §8.2."""
    counts: dict[str, int] = {}
    for claim in all_claims():
        counts[claim.section[:2]] = counts.get(claim.section[:2], 0) + 1
    assert counts == {"§3": 16, "§4": 4, "§5": 19, "§8": 9}


def test_note_names_section_claim_and_figure() -> None:
    """13B FP16 at batch 2 and 4K on an A100 40GB: §5.2 says that it fits, its checklist gives 42.5 GB."""
    told = contradicted(workload("infer", 13, gpu=card("a100-40"), batch=2))
    assert told[0] == (
        "The guide (§5.2) says that 13B FP16 at batch 2 and 4K fits on an A100 40GB; its own checklist gives 42.5 GB."
    )


def test_variants_of_a_card_are_meant_too() -> None:
    """The PCIe card is an A100 40GB as well; one of another size or name is not, except to §8.2, which speaks of sizes."""
    assert contradicted(workload("infer", 13, gpu=card("a100-40-pcie", 40), batch=2))
    assert not contradicted(workload("infer", 13, gpu=card("a100-40-pcie", 48), batch=2))
    assert not contradicted(workload("infer", 13, gpu=card("a100-400", 40), batch=2))
    other = contradicted(workload("infer", 30, gpu=card("some-80", 80), batch=2))
    assert [note[:16] for note in other] == ["The guide (§8.2)"]


@pytest.mark.parametrize(
    "keys",
    [
        {"batch": 3},
        {"quantization": "int8"},
        {"quantization": "q5_k_m"},
        {"gpus": 2},
    ],
)
def test_another_job_is_not_told(keys: dict[str, Any]) -> None:
    """Another batch or format is not the claim, and over two GPUs it is borne out."""
    assert not contradicted(workload("infer", 13, gpu=card("a100-40"), **{"batch": 2, **keys}))


def test_what_the_guide_cannot_mean_is_not_held_against_it() -> None:
    """§8.2 says that an 80 GB card does whatever one likes with 7B: not 64 sequences of a million tokens."""
    told = contradicted(workload("infer", 7, gpu=card("h100-80"), batch=64, seq=1_000_000))
    assert not any("whatever one likes" in note for note in told)
    told = contradicted(workload("infer", 7, gpu=card("h100-80"), precision="fp32", batch=16))
    assert any("whatever one likes" in note for note in told)


def test_open_settings_are_judged_by_the_job() -> None:
    """§5.4's "13B in any setting" is false on one GPU and true on eight with ZeRO-3; LoRA is not what the guide trains."""
    one, eight = workload("train", 13, gpu=card("h100-80")), workload("train", 13, gpu=card("h100-80"), gpus=8, zero=3)
    assert any("any setting" in note for note in contradicted(one))
    assert contradicted(eight) == []
    assert contradicted(workload("train", 13, gpu=card("h100-80"), method="lora")) == []


def test_zero_2_on_one_gpu_says_why() -> None:
    """§4.4's 32.6 GB takes two GPUs; on one the checklist gives 53.2."""
    keys = {"optimizer": "sgd", "checkpointing": "full", "zero": 2}
    told = contradicted(workload("train", 7, gpu=card("a100-40"), **keys))
    assert any("32.6 GB; its own checklist gives 53.2 GB (ZeRO divides over data-parallel GPUs" in note for note in told)


def test_catalogue_is_read_for_size_classes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with a name of its own is in no claim, and costs no reading."""

    def never() -> None:
        raise AssertionError

    monkeypatch.setattr(claims, "claims", never)
    assert contradicted(workload("infer", model=size_class(7)._replace(nominal=None))) == []


def test_memory_is_arithmetic_without_files() -> None:
    """The claims are read here, because nothing in advisor/memory opens a file."""
    memory = Path(claims.__file__).parents[1] / "memory"
    read = [file.name for file in memory.glob("*.py") if re.search(r"data_folder|read_text|\bopen\(", file.read_text())]
    assert read == []
