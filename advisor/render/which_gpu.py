"""The cards that hold a job, as a page: those of one size together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from advisor.questions.which_gpu import Cards, Row
from advisor.render.page import Page, Table
from advisor.render.words import Unit, a_card, unit_of


def page(cards: Cards) -> Page:
    """Cards that hold the job as asked, then those that do after changes; the rest by their number."""
    u = unit_of(cards.job["estimator"])
    asked = [row for row in cards.rows if row.fits]
    changed = [row for row in cards.rows if row.plan and not row.fits]
    return Page(
        headline=_headline(cards, asked, changed),
        tables=[
            Table("As asked", ["GPUs × GB", f"left, {u.name}", "cards"], _grouped(asked, u, _size), right=(1,), firm=(0,), whole=(2,)),
            Table("After changes", ["GPUs × GB", f"left, {u.name}", "plan", "cards"], _grouped(changed, u, _size, plan), right=(1,), firm=(0,), whole=(3,)),
        ],
        remarks=list(_rest(cards)),
        notes=cards.notes,
    )  # fmt: skip


def plan(row: Row) -> str:
    """The rules by name, each once: ``zero, multi-gpu ×3``."""
    from advisor.planning.rulebook import find_rule

    return ", ".join(find_rule(rule).name + (f" ×{count}" if count > 1 else "") for rule, count in Counter(row.plan).items())


def _headline(cards: Cards, asked: list[Row], changed: list[Row]) -> str:
    does = "Training" if cards.job["train"] is not None else "Inference"
    job = f"{does} of {cards.model['name']}"
    first = next(iter(asked or changed), None)
    if first is None:
        return f"{job}: none of {_count(len(cards.rows))} holds it within the limits."
    smallest = f"{first.gpus} × {first.gpu.name}" if first.gpus > 1 else a_card(first.gpu.name)
    after = "" if asked else " after changes"
    return (
        f"{job}: {len(asked)} of {_count(len(cards.rows))} hold it as asked and {len(changed)} after changes;"
        f" the smallest is {smallest}{after}."
    )


def _count(cards: int) -> str:
    return "1 card" if cards == 1 else f"{cards} cards"


def _size(row: Row) -> str:
    return f"{row.gpus} × {row.gpu.marketed_gb:g}"


def _grouped(rows: Iterable[Row], u: Unit, *by: Callable[[Row], str]) -> list[list[str]]:
    """One line for the cards that are alike in all of ``by``, in the order of their first."""

    def key(row: Row) -> tuple[Any, ...]:
        return (row.gpus * row.gpu.marketed_gb, row.gpus, len(row.plan), *(each(row) for each in by))

    lines = []
    for _, group in groupby(sorted(rows, key=key), key=key):
        alike = list(group)
        least, most = (u.figure(end(row.headroom_bytes for row in alike)) for end in (min, max))
        size, *more = (each(alike[0]) for each in by)
        lines.append([size, least if least == most else f"{least}-{most}", *more, ", ".join(row.gpu.slug for row in alike)])
    return lines


def _rest(cards: Cards) -> Iterable[str]:
    hopeless = [row for row in cards.rows if not row.holds]
    if hopeless:
        least, most = (end(row.gpu.marketed_gb for row in hopeless) for end in (min, max))
        sizes = f"{most:g} GB" if least == most else f"{least:g} to {most:g} GB"
        yield f"The rules in their order make it fit on none of {_count(len(hopeless))} of {sizes}."
    if cards.refused:
        slug, reason = cards.refused[0]
        others = f" and {len(cards.refused) - 1} more" if len(cards.refused) > 1 else ""
        yield f"No job on {slug}{others}: {reason}."
