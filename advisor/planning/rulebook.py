"""The rules as data: rules/inference.toml and rules/training.toml, and after them those beyond the guide.

The order of a file is the order of the walk. Before the first rule stands ``fits`` and after the
last ``exhausted``, which end it.

A start builds the rules and checks their conditions, which the engine would take without a word. Whether a file is whole and
well formed is for ``rule_files``, which brings pydantic: the tests and ``advise rules`` ask it, and who cannot build a rule.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import Any, Literal, NamedTuple

from advisor.data import data_folder
from advisor.errors import RequestError
from advisor.planning.engine import OPERATORS, Condition, Facts, Other, holds
from advisor.planning.facts import FACTS

Question = Literal["inference", "training"]
QUESTIONS: tuple[Question, ...] = ("inference", "training")
FITS, EXHAUSTED = "fits", "exhausted"
ORDERED = ("at_least", "at_most", "above", "below")


class Clause(NamedTuple):
    """A condition, ``fact = "batch", above = 1``, and what to say when it fails."""

    condition: Condition
    otherwise: str


class Speed(NamedTuple):
    """A factor on the time per sample, from low to high: 1.2 is 20 % slower."""

    low: float
    high: float
    source: str


class RuleCost(NamedTuple):
    text: str
    speed: Speed | dict[str, Speed]
    quality: Literal["none", "small", "real"]
    figure: str  # the published figure behind `quality`
    changes_result: bool = False  # training learns something else, beyond the rounding of the same arithmetic


class Rule(NamedTuple):
    """One remedy: when it applies, what it is worth, how it is done."""

    id: str
    name: str
    title: str
    remedy: str
    when: list[Clause]
    what: str
    why: str
    cost: RuleCost
    how: dict[str, str | dict[str, str]]
    source: list[str]
    scope: list[Clause]  # what all rules of its file ask for; where that fails the rule is not spoken of

    @property
    def clauses(self) -> list[Clause]:
        """Where the rule speaks at all, then when it applies."""
        return [*self.scope, *self.when]

    def applies(self, situation: Facts) -> bool:
        """Whether every condition holds."""
        return all(holds(clause.condition, situation) for clause in self.clauses)


class Rulebook(NamedTuple):
    """The rules of one question, in the order of the walk."""

    rule: list[Rule]

    def conditions(self) -> dict[str, list[Condition]]:
        """What the rules engine is built of. A rule that the walk has left behind cannot fire again."""
        rules = {
            rule.id: [Condition("past", "below", place), *(clause.condition for clause in rule.clauses)]
            for place, rule in enumerate(self.rule, start=1)
        }
        return {FITS: [Condition("fits", "is", True)], **rules, EXHAUSTED: [Condition("fits", "is", False)]}


def built(written: dict[str, Any]) -> Rulebook:
    """The rulebook that a file writes down."""
    scope = [_clause(each) for each in written.get("scope", [])]
    return Rulebook([_rule(each, scope) for each in written["rule"]])


def _rule(written: dict[str, Any], scope: list[Clause]) -> Rule:
    prose = {name: _one_paragraph(written[name]) for name in ("title", "what", "why")}
    when = [_clause(each) for each in written["when"]]
    source = [_one_paragraph(each) for each in written["source"]]
    return Rule(**{**written, **prose, "when": when, "cost": _cost(written["cost"]), "source": source, "scope": scope})


def _cost(written: dict[str, Any]) -> RuleCost:
    prose = {name: _one_paragraph(written[name]) for name in ("text", "figure")}
    return RuleCost(**{**written, **prose, "speed": _speed(written["speed"])})


def _speed(written: dict[str, Any]) -> Any:
    """One for all cases, or one for each."""
    if "low" not in written:
        return {case: _speed(each) for case, each in written.items()}
    return Speed(float(written["low"]), float(written["high"]), _one_paragraph(written["source"]))


def _one_paragraph(text: str) -> str:
    return " ".join(text.split())


def _clause(written: dict[str, Any]) -> Clause:
    return Clause(written_condition(written), _one_paragraph(written["otherwise"]))


def written_condition(clause: dict[str, Any]) -> Condition:
    """The condition of a clause."""
    fact: Any = clause.get("fact")
    rest = [name for name in clause if name not in ("fact", "otherwise")]
    if len(rest) != 1 or rest[0] not in OPERATORS:
        raise ValueError(f"a clause on {fact} takes one of {', '.join(OPERATORS)}, not {', '.join(rest) or 'none'}")
    return condition(fact, rest[0], clause[rest[0]])


def condition(fact: str, operator: str, value: Any) -> Condition:
    """Only like is compared with like: durable_rules takes 1, true and "1" for equal, Python does not."""
    if fact not in FACTS:
        raise ValueError(f"{fact} is no fact; there are {', '.join(FACTS)}")
    kind: type = FACTS[fact]
    if operator in ORDERED and kind is not int:
        raise ValueError(f"{fact} has no order; it takes is and not")
    if isinstance(value, dict):
        if value.keys() != {"fact"} or FACTS.get(value["fact"]) is not kind:
            raise ValueError(f'{fact} is compared with a {kind.__name__} or {{ fact = "..." }} of that kind, not {value}')
        return Condition(fact, operator, Other(value["fact"]))
    of_kind = type(value) is kind  # a bool is an int to isinstance
    if not of_kind:
        raise ValueError(f"{fact} is compared with a {kind.__name__}, not {value!r}")
    if kind is int and abs(value) >= 2**63:
        raise ValueError(f"{fact} is compared with {value}, which is beyond 64 bits")
    return Condition(fact, operator, value)


@cache
def load(question: Question) -> Rulebook:
    """The rules of one question, those of the guide and then those beyond it, read once."""
    return Rulebook([rule for name in files(question) for rule in _read(name).rule])


def files(question: Question) -> list[str]:
    """Where they are written down."""
    return [f"{question}{part}.toml" for part in ("", "-beyond")]


def text_of(name: str) -> str:
    """A file of rules."""
    try:
        return (data_folder("rules") / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise RequestError(f"{name}: {problem}") from None


def _read(name: str) -> Rulebook:
    text = text_of(name)
    try:
        return built(tomllib.loads(text))
    except (AttributeError, KeyError, TypeError, ValueError):
        from advisor.planning.rule_files import parse

        parse(text, name)  # which tells the rule and the key that are wrong
        raise


def rules() -> tuple[Rule, ...]:
    """All rules, those for inference first."""
    return tuple(rule for question in QUESTIONS for rule in load(question).rule)


def find_rule(text: str) -> Rule:
    """The rule of an id or a name, ``T1`` or ``gradient-checkpointing``."""
    wanted = re.sub(r"[\s_]+", "-", text.strip().lower())
    found = next((rule for rule in rules() if wanted in (rule.id.lower(), rule.name)), None)
    if found is None:
        from difflib import get_close_matches

        names = {name: rule for rule in rules() for name in (rule.id.lower(), rule.name)}
        near = get_close_matches(wanted, list(names), 1)
        hint = f"did you mean {names[near[0]].id} {names[near[0]].name}?" if near else "`advise rules` lists them"
        raise RequestError(f"there is no rule {text.strip()!r}; {hint}")
    return found
