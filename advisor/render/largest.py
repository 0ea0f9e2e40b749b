"""The largest models for a card, as a page."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor

from advisor.questions.largest import Largest, Row
from advisor.questions.shapes import LADDER
from advisor.render.page import Page, Table
from advisor.render.words import a_card, unit_of

TASKS = {"infer": "inference", "full": "full training", "lora": "LoRA", "qlora": "QLoRA"}
TO = {"infer": "run", "train": "train"}


def page(largest: Largest) -> Page:
    """A row for each task and number format, then what the memory guide says, where its formulas were asked."""
    rows = largest.rows
    fitting = [row for row in rows if row.shape]
    return Page(
        headline=_headline(largest, fitting),
        tables=[
            Table(
                "Billions of parameters",
                ["task", "numbers", "fits", "next", "such as"],
                [_row(row) for row in rows],
                right=(2, 3),
                firm=(0, 1),
                whole=(4,),
            ),
            Table(
                "What the memory guide says, and what its own checklist gives",
                ["where", "it says", "GB", "so"],
                [
                    [
                        each["section"],
                        each["says"],
                        f"{each['checklist_gb']:.1f}",
                        "contradicted" if each["contradicts"] else "agrees",
                    ]
                    for each in largest.guide
                ],
                right=(2,),
                firm=(0, 3),
            ),
        ],
        remarks=_remarks(largest, fitting),
        notes=largest.notes,
    )


def _headline(largest: Largest, fitting: list[Row]) -> str:
    w = largest.rows[0].w
    u = unit_of(w.estimator)
    count = f"{w.gpus} × {w.gpu.name}" if w.gpus > 1 else a_card(w.gpu.name)
    on = f"{count}, {u.amount(largest.usable_bytes)} each" if w.gpus > 1 else f"{count}, {u.amount(largest.usable_bytes)}"
    if not fitting:
        return f"On {on}: nothing fits, not even the smallest shape."
    told = [
        f"{_billions(max(row.billions or 0 for row in fitting if row.w.task == task))} billion parameters to {does}"
        for task, does in TO.items()
        if any(row.w.task == task for row in fitting)
    ]
    return f"On {on}: up to {', '.join(told)}."


def _row(row: Row) -> list[str]:
    w = row.w
    task = TASKS["infer" if w.task == "infer" else w.method]
    numbers = w.precision if w.quantization == "none" else w.quantization
    return [
        task,
        numbers,
        _billions(row.billions) if row.billions else "-",
        _billions(row.beyond.parameters / 10**9, ceil) if row.beyond else "-",
        ", ".join(row.examples) or "-",
    ]


def _billions(count: float, to: Callable[[float], int] = floor) -> str:
    """Three digits, of what fits never more than there are.

    >>> _billions(8.0359), _billions(70.66), _billions(405.9), _billions(8.0301, ceil)
    ('8.03', '70.6', '405', '8.04')
    """
    digits = 2 if count < 10 else 1 if count < 100 else 0
    return f"{to(round(count, 6) * 10**digits) / 10**digits:.{digits}f}"


def _remarks(largest: Largest, fitting: list[Row]) -> list[str]:
    names = LADDER
    does = {row.w.task: f"{row.w.batch:,} × {row.w.seq:,} tokens to {TO[row.w.task]}" for row in largest.rows}
    remarks = [
        f"Asked with {' and '.join(does.values())}. Sizes are of decoders shaped like Llamas, interpolated between {names[0]} and {names[-1]} ({', '.join(names[1:-1])}):"
        " the width in whole groups of heads, the depth as the size asks for. `next` is the next larger shape, which does not fit."
    ]
    if any(not row.beyond for row in fitting):
        remarks.append(f"{names[-1]} is the largest shape there is here: where it fits, larger ones may too.")
    if any(row.examples for row in fitting):
        remarks.append("The models named fit with the same settings. Of a mixture of experts all parameters count.")
    return remarks
