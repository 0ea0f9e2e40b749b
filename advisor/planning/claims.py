"""What the memory guide says of particular cards and models, and where its own formulas say otherwise.

``catalog/claims.jsonl`` has the claims of §3.2, §4.4, §5 and §8.2, one a line. ``when`` holds the settings that the
claim names (a value or several; what is not named is open), ``at_most`` how far an open setting may go and still be
what the guide can mean, ``says`` its words, ``formula_gb`` what the guide's
checklist gives with the settings of ``at`` filled in, and ``contradicts`` whether the two disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from advisor.data import data_folder
from advisor.errors import RequestError
from advisor.hardware import Gpu
from advisor.memory.handbook import GB, bytes_per_value, estimate
from advisor.workload import Workload

GUIDE_PRECISION = {4.0: "fp32", 2.0: "fp16", 1.0: "int8", 0.5: "int4"}  # §1.2, by bytes of a value


class Claim(NamedTuple):
    """One sentence of the guide. ``gpu``: slugs of the cards it names, none for any card of ``gb``; none of both for any card."""

    section: str
    billions: float
    says: str
    claim: str  # fits, does-not-fit, or gives: a figure, ``guide_gb``
    formula_gb: float
    contradicts: bool
    task: str | None = None
    gpu: tuple[str, ...] = ()
    gb: float | None = None
    guide_gb: float | None = None
    part: str | None = None  # the part that the figure is of; the total if none
    when: Mapping[str, Any] = MappingProxyType({})
    at: Mapping[str, Any] = MappingProxyType({})
    at_most: Mapping[str, int] = MappingProxyType({})
    why: str | None = None


@cache
def claims() -> tuple[Claim, ...]:
    """Every claim, in the guide's order."""
    lines = (data_folder("catalog") / "claims.jsonl").read_text(encoding="utf-8").splitlines()
    records = (json.loads(line) for line in lines)
    return tuple(Claim(**{**record, "gpu": tuple(record.get("gpu", ()))}) for record in records)


def contradicted(w: Workload) -> list[str]:
    """What to tell a user whose job the guide makes a claim about that its own checklist does not bear out.

    The checklist is evaluated for the job as it stands, whatever its estimator: a claim that leaves the batch or the
    number of GPUs open is contradicted by some jobs and borne out by others.
    """
    if w.model.nominal is None:  # the guide speaks of size classes only
        return []
    about = [claim for claim in claims() if claim.contradicts and _is_about(claim, w)]
    return [note for claim in about if (note := _note(claim, w))]


def _is_about(claim: Claim, w: Workload) -> bool:
    model = w.model.nominal == claim.billions * GB and claim.task in (None, w.task)
    return is_of_card(claim, w.gpu) and model and _settings_hold(claim, w)


def is_of_card(claim: Claim, gpu: Gpu) -> bool:
    """Whether the claim is about this card: by name, or by its size."""
    named = not claim.gpu or any(f"{gpu.slug}-".startswith(f"{slug}-") for slug in claim.gpu)
    return named and (claim.gb is None or claim.gb == gpu.marketed_gb)


def _settings_hold(claim: Claim, w: Workload) -> bool:
    try:
        precision = GUIDE_PRECISION[bytes_per_value(w)]
    except RequestError:  # 5-bit, say: the guide has no claim about it
        return False
    settings: dict[str, Any] = {
        "precision": precision,
        "batch": w.batch,
        "seq": w.seq,
        "optimizer": w.optimizer,
        "checkpointing": w.checkpointing,
        "zero": w.zero,
        "ranks": w.data_parallel,
    }
    named = all(settings[key] in (wanted if isinstance(wanted, list) else [wanted]) for key, wanted in claim.when.items())
    return named and all(settings[key] <= most for key, most in claim.at_most.items())


def _note(claim: Claim, w: Workload) -> str | None:
    """The note, or None when the checklist bears the claim out for this very job, or has no answer to it."""
    try:
        gives = checklist_bytes(w, claim.part)
    except RequestError:
        return None
    if claim.guide_gb is None:
        borne_out = (gives <= (claim.gb or 0) * GB) == (claim.claim == "fits")
    else:
        borne_out = abs(gives - claim.guide_gb * GB) < 0.05 * GB
    if borne_out:
        return None
    why = f" ({claim.why})" if claim.why else ""
    return f"The guide ({claim.section}) says that {claim.says}; its own checklist gives {gives / GB:.1f} GB{why}."


def checklist_bytes(w: Workload, part: str | None = None) -> int:
    """The checklist's total for this job, or one part of it: the guide's GB × 10⁹."""
    answer = estimate(w._replace(estimator="checklist"))
    return answer.device_bytes if part is None else sum(found.bytes for found in answer.parts if found.name == part)
