"""The decisions as data: rules/triage.toml from facts to causes and remedies, rules/remedies.toml what a remedy is.

They run on the engine of the plans; each set fires once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from advisor.data import data_folder
from advisor.planning.engine import Condition, Engine, Facts, build

CAPACITY = ("capacity", "unknown")  # the causes whose treatment depends on what failed and when


class Cause(NamedTuple):
    name: str
    cause: str
    certainty: str
    why: str


class Action(NamedTuple):
    """A remedy and the words of the frameworks for it; ``any`` serves where a framework has none of its own."""

    name: str
    title: str
    why: str
    how: Mapping[str, str]


class Book(NamedTuple):
    """Rules of one question, in their order: an engine, and what each rule says."""

    engine: Engine
    says: Mapping[str, dict[str, Any]]

    def first(self, facts: Facts) -> dict[str, Any]:
        """What the first rule says whose conditions all hold."""
        fired = self.engine.run(facts, lambda _rule, _facts: None)
        return self.says[fired[0]]


def cause(facts: Facts) -> Cause:
    """Why it failed."""
    rule = _book("cause").first(facts)
    return Cause(rule["name"], rule["cause"], rule["certainty"], rule["why"])


def treatment(facts: Facts) -> tuple[Action, ...]:
    """What to do, in order; the facts have the cause."""
    table = "capacity" if facts["cause"] in CAPACITY else "treatment"
    known = actions()
    return tuple(known[name] for name in _book(table).first(facts)["do"])


@cache
def actions() -> Mapping[str, Action]:
    """Every remedy by its name."""
    return {name: Action(name, each["title"], each["why"], each["how"]) for name, each in _table("remedies").items()}


@cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((data_folder("rules") / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def _book(table: str) -> Book:
    rules = {each.get("name", f"{table}-{place}"): each for place, each in enumerate(_table("triage")[table], start=1)}
    return Book(build(f"triage-{table}", {name: conditions(each) for name, each in rules.items()}), rules)


def conditions(rule: Mapping[str, Any]) -> list[Condition]:
    """A rule's clauses: ``{ fact = "phase", is = "load" }``."""
    return [
        Condition(clause["fact"], operator, value)
        for clause in rule["when"]
        for operator, value in clause.items()
        if operator != "fact"
    ]
