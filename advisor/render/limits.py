"""How far batch and sequence can go, as a page with a chart of the frontier."""

from __future__ import annotations

from math import ceil, log2

from advisor.job import MOST as MOST_TOKENS
from advisor.questions.limits import Edge, Limits
from advisor.render.page import Page, Table
from advisor.render.words import Unit, a_card, runs, unit_of

COLUMN = 4  # signs for each doubling of the length
MOST = 13  # doublings that a line of 80 signs has room for
SHORTEST = 128
UNLIMITED = MOST_TOKENS["count"]


def page(limits: Limits) -> Page:
    """The edges with what they take, then the frontier."""
    job = limits.job
    u = unit_of(job["estimator"])
    remarks = []
    if limits.frontier:
        certain = f" at the upper end, in {runs(job['confidence'])}," if job["estimator"] == "detailed" else ""
        remarks = [
            f"What fits takes{certain} no more than the {u.amount(limits.usable_bytes)} that each card has; the next does."
        ]
    edges = [_edge(limits, name, found, u) for name, found in (("batch", limits.batch), ("seq", limits.seq)) if found]
    return Page(
        headline=_headline(limits),
        tables=[
            Table("Edges", ["", "fits", f"up to, {u.name}", "the next one"], edges, right=(1, 2, 3)),
            _chart(limits.frontier),
        ],
        remarks=remarks,
        notes=limits.notes,
    )


def _headline(limits: Limits) -> str:
    job = limits.job
    does = "training" if job["train"] is not None else "inference"
    count = f"{job['gpus']} × {limits.gpu['name']}" if job["gpus"] > 1 else a_card(str(limits.gpu["name"]))
    found = [
        f"a batch of {_most(limits.batch)} at {job['seq']:,} tokens" if limits.batch else "",
        f"{_most(limits.seq)} tokens at a batch of {job['batch']:,}" if limits.seq else "",
    ]
    told = " or ".join(filter(None, found))
    about = f"{does} of {limits.model['name']} on {count}"
    if told:
        return f"The limits of {about}: {told}."
    if limits.frontier:
        return f"The limits of {about}: neither this batch nor this length, but less of both."
    return f"Nothing fits: {about} has no room for the shortest sequence."


def _most(found: Edge) -> str:
    return f"{found.value:,}" if found.value < UNLIMITED else "any number of"


def _edge(limits: Limits, name: str, found: Edge, u: Unit) -> list[str]:
    job = limits.job
    value = _tokens(found.value)
    what = f"batch at {job['seq']:,} tokens" if name == "batch" else f"tokens at batch {job['batch']:,}"
    beyond = u.figure(found.next_high_bytes) if found.next_high_bytes is not None else "refused" if found.refused else "-"
    return [what, value, u.figure(found.high_bytes), beyond]


def _chart(frontier: tuple[tuple[int, int], ...]) -> Table:
    """A bar for each batch on a scale of lengths that doubles; it ends where the longest sequence does."""
    if not frontier:
        return Table("", [], [])
    longest = max((seq for _, seq in frontier if seq < UNLIMITED), default=SHORTEST)
    last = ceil(log2(max(longest, SHORTEST)))
    first = max(round(log2(SHORTEST)), last - MOST + 1)
    scale = "".join(f"{_short(2**power):>{COLUMN}}" for power in range(first, last + 1))
    most = COLUMN * (last - first + 1)
    rows = [
        [f"{batch:,}", _tokens(seq), "#" * min(most, max(1, round(COLUMN * (log2(seq) - first + 1))))]
        for batch, seq in frontier
    ]
    return Table(
        "Frontier: how long the sequences of a batch can be", ["batch", "tokens", scale], rows, right=(0, 1), firm=(2,)
    )


def _tokens(count: int) -> str:
    return f"{count:,}" if count < UNLIMITED else "no limit"


def _short(tokens: int) -> str:
    """``512``, ``8k``, ``2M``."""
    for unit, name in ((2**30, "G"), (2**20, "M"), (2**10, "k")):
        if tokens >= unit:
            return f"{tokens // unit}{name}"
    return str(tokens)
