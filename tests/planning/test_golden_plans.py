"""What the plan is for the rows of the memory guide's own table of cards (§5) and its worked examples (§4.4).

The checklist is the guide's arithmetic: its plans need no more to be checked than the guide. The detailed estimator's
plans for the same jobs stand beside them.
"""

from __future__ import annotations

import pytest

from advisor import advise

FP16 = {"precision": "fp16"}
# The card, the job, then what each plan needs: nothing where the job fits; and the checklist's other ways.
TABLE = [
    ("v100-16", {"infer": "7b", "quantization": "int8", "batch": 1, "seq": 4096}, "", "", {}),
    ("v100-16", {"infer": "7b", **FP16}, "I3", "I3", {"no-quality-loss": "I4"}),
    ("v100-16", {"train": "7b"}, "T4 T6", "T1 T4 T6", {"no-quality-loss": "T6"}),
    ("a100-40", {"infer": "7b", **FP16, "batch": 4, "seq": 8192}, "", "", {}),
    ("a100-40", {"infer": "13b", **FP16, "batch": 2, "seq": 4096}, "I1", "", {"fastest": "I4"}),
    ("a100-40", {"infer": "13b", "quantization": "int8", "batch": 4, "seq": 8192}, "", "I1", {}),
    ("a100-80", {"infer": "13b", **FP16, "batch": 8, "seq": 8192}, "I1", "I1", {"fastest": "I4"}),
    ("a100-80", {"infer": "30b", **FP16, "batch": 2, "seq": 4096}, "I3", "I1", {"no-quality-loss": "I4"}),
    ("a100-80", {"infer": "70b", "quantization": "int8", "batch": 1, "seq": 2048}, "I3", "", {"no-quality-loss": "I4"}),
    (
        "h100-80",
        {"infer": "30b", **FP16, "batch": 4, "seq": 8192},
        "I3",
        "I1 I3",
        {"no-quality-loss": "I1 I4", "fastest": "I4"},
    ),
    ("h100-80", {"infer": "70b", "quantization": "int8", "batch": 2, "seq": 4096}, "I3", "", {"no-quality-loss": "I4"}),
    ("a100-80", {"train": "7b", "precision": "fp32"}, "T5", "T4", {}),
    ("h100-80", {"train": "13b"}, "T6", "T4", {}),
    ("a100-80", {"train": "30b", "zero": 2, "gpus": 2}, "T3 T6", "T1 T3 T4 T6", {}),
    ("a100-80", {"train": "13b", "zero": 2, "gpus": 2}, "T3", "T1 T3 T4", {"fastest": "T4"}),
    ("a100-40", {"train": "7b", "batch": 4, "seq": 2048}, "T2 T6", "T1 T4", {"fastest": "T6"}),  # §4.4, the first
    ("a100-80", {"train": "13b", "zero": 2, "gpus": 2, "precision": "bf16-mixed"}, "T3", "T1 T3 T4", {"fastest": "T4"}),
]


def needed(plan):
    return " ".join(dict.fromkeys(step.rule for step in plan.steps if step.needed))


@pytest.mark.parametrize(("gpu", "job", "checklist", "detailed", "ways"), TABLE)
def test_the_plan_for_a_row_of_the_guides_table(gpu, job, checklist, detailed, ways):
    """The rules that are needed, in the order of the walk; whatever they say, the plan ends in a fit."""
    by_checklist, by_detail = (advise(gpu=gpu, **job, estimator=name) for name in ("checklist", "detailed"))
    assert needed(by_checklist) == checklist
    assert needed(by_detail) == detailed
    assert {route.name: " ".join(step.rule for step in route.steps) for route in by_checklist.alternatives} == ways
    assert by_checklist.final.estimate.fits
    assert by_detail.final.estimate.fits
