"""Settings that do not go together in an engine (rules/pairs.toml): a plan never brings them together."""

# No `from __future__ import annotations` here: pydantic would evaluate the strings.

import tomllib
from functools import cache

from pydantic import Field

from advisor.data import data_folder
from advisor.planning.engine import Condition, holds
from advisor.planning.facts import facts
from advisor.planning.rulebook import Prose, Strict, condition
from advisor.workload import Workload


class Pair(Strict):
    """What the engine refuses: all conditions at once. ``because`` is what a user reads of it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9.]*(-[a-z0-9.]+)*$")
    when: list[Condition] = Field(min_length=2)
    because: Prose
    source: Prose


class Pairs(Strict):
    pair: list[Pair]


@cache
def pairs() -> tuple[Pair, ...]:
    """Every pair, read once."""
    written = tomllib.loads((data_folder("rules") / "pairs.toml").read_text(encoding="utf-8"))
    read = [{**pair, "when": [_condition(clause) for clause in pair["when"]]} for pair in written["pair"]]
    return tuple(Pairs.model_validate({"pair": read}).pair)


def _condition(clause: dict[str, object]) -> Condition:
    [(operator, value)] = ((name, value) for name, value in clause.items() if name != "fact")
    return condition(str(clause["fact"]), operator, value)


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
    possible = _of_engine(w.engine.name)
    known = facts(w, fits=False, past=0) if possible else {}
    met = (pair.because for pair in possible if all(holds(one, known) for one in pair.when))
    return list(dict.fromkeys(met))


@cache
def _of_engine(engine: str) -> list[Pair]:
    """The pairs that may be about an engine: a search asks for hundreds of jobs of one."""
    return [pair for pair in pairs() if all(one.fact != "engine" or holds(one, {"engine": engine}) for one in pair.when)]
