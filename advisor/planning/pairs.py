"""Settings that do not go together in an engine (catalog/pairs.jsonl): a plan never brings them together."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from advisor.data import data_folder
from advisor.planning.engine import Condition, Value, holds
from advisor.planning.facts import facts

if TYPE_CHECKING:
    from advisor.workload import Workload


class Pair(NamedTuple):
    """What the engine refuses: all conditions at once. ``because`` is what a user reads of it."""

    name: str
    when: tuple[Condition, ...]
    because: str
    source: str


@cache
def pairs() -> tuple[Pair, ...]:
    """Every pair, read once. A start reads them for each job, so they are lines of JSON and not checked here but by a test."""
    lines = (data_folder("catalog") / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_pair(**json.loads(line)) for line in lines)


def _pair(name: str, when: list[tuple[str, str, str | int]], because: str, source: str) -> Pair:
    return Pair(name, tuple(Condition(*clause) for clause in when), because, source)


def broken_pairs(before: Workload, after: Workload) -> list[str]:
    """Why a change is refused: the pairs that it brings together. One that the user brought together stays the user's."""
    together = refused(after)
    if not together:
        return []
    already = refused(before)
    return [because for because in together if because not in already]


def refused(w: Workload) -> list[str]:
    """Why the engine does not take the job as it is. The guide's own formulas know no engines."""
    if w.estimator != "detailed":
        return []
    possible = pairs_of(w.engine.name, w.engine.ggml)
    known = facts(w, fits=False, past=0) if possible else {}
    met = (pair.because for pair in possible if all(holds(one, known) for one in pair.when))
    return list(dict.fromkeys(met))


@cache
def pairs_of(engine: str, ggml: bool) -> list[Pair]:
    """The pairs that may be about an engine, with what is left to ask of a job: a search asks for hundreds of jobs of one."""
    known: dict[str, Value] = {"engine": engine, "ggml": ggml}
    return [
        pair._replace(when=tuple(one for one in pair.when if one.fact not in known))
        for pair in pairs()
        if all(holds(one, known) for one in pair.when if one.fact in known)
    ]
