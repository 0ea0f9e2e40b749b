"""The rules as data: rules/inference.toml and rules/training.toml, read and checked, and after them those beyond the guide.

The order of a file is the order of the walk. Before the first rule stands ``fits`` and after the
last ``exhausted``, which end it.
"""

# No `from __future__ import annotations` here: pydantic would evaluate the strings, which costs a start several milliseconds.

import re
import tomllib
from functools import cache
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from advisor.data import data_folder
from advisor.errors import RequestError
from advisor.planning.engine import MOST_RULES, OPERATORS, Condition, Facts, Other, holds
from advisor.planning.facts import FACTS, FILLED, PLACEHOLDER
from advisor.planning.remedies import REMEDIES
from advisor.vocabulary import ENGINES

Question = Literal["inference", "training"]
QUESTIONS: tuple[Question, ...] = ("inference", "training")
FITS, EXHAUSTED = "fits", "exhausted"
ORDERED = ("at_least", "at_most", "above", "below")
FRAMEWORKS = (*ENGINES, "accelerate")  # accelerate has launch files of its own, but no memory habits


def _known_placeholders(text: str) -> str:
    if unknown := set(PLACEHOLDER.findall(text)) - FILLED:
        raise ValueError(f"nothing fills {{{sorted(unknown)[0]}}}")
    return text


def _one_paragraph(text: str) -> str:
    return " ".join(text.split())


Text = Annotated[str, Field(min_length=1), AfterValidator(_known_placeholders)]
Prose = Annotated[Text, AfterValidator(_one_paragraph)]


class Strict(BaseModel):
    # Built once, for the whole book: its parts are never read alone.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Clause(Strict):
    """A condition, ``fact = "batch", above = 1``, and what to say when it fails."""

    condition: Condition
    otherwise: Prose

    @model_validator(mode="before")
    @classmethod
    def _written(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            raise ValueError("a clause is a table: fact, an operator, otherwise")
        rest = dict(written)
        fact, otherwise = rest.pop("fact", None), rest.pop("otherwise", None)
        if len(rest) != 1 or next(iter(rest)) not in OPERATORS:
            raise ValueError(f"a clause on {fact} takes one of {', '.join(OPERATORS)}, not {', '.join(rest) or 'none'}")
        [(operator, value)] = rest.items()
        return {"condition": condition(fact, operator, value), "otherwise": otherwise}


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


class Speed(Strict):
    """A factor on the time per sample, from low to high: 1.2 is 20 % slower."""

    low: float = Field(gt=0, allow_inf_nan=False)
    high: float = Field(gt=0, allow_inf_nan=False)
    source: Prose


class RuleCost(Strict):
    text: Prose
    speed: Speed | dict[str, Speed]
    quality: Literal["none", "small", "real"]
    figure: Prose  # the published figure behind `quality`
    changes_result: bool = False  # training learns something else, beyond the rounding of the same arithmetic


class Rule(Strict):
    """One remedy: when it applies, what it is worth, how it is done."""

    id: str = Field(pattern=r"^[A-Z][1-9]\d?$")
    name: str = Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
    title: Prose
    remedy: str
    when: list[Clause] = Field(min_length=1)
    what: Prose
    why: Prose
    cost: RuleCost
    how: dict[str, Text | dict[str, Text]] = Field(min_length=1)
    source: list[Prose] = Field(min_length=1)
    scope: list[Clause] = []  # what all rules of its file ask for; where that fails the rule is not spoken of

    @field_validator("remedy")
    @classmethod
    def _known_remedy(cls, name: str) -> str:
        if name not in REMEDIES:
            raise ValueError(f"{name} is no remedy; there are {', '.join(REMEDIES)}")
        return name

    @field_validator("how")
    @classmethod
    def _known_frameworks(cls, how: dict[str, Any]) -> dict[str, Any]:
        if unknown := how.keys() - set(FRAMEWORKS):
            raise ValueError(f"{sorted(unknown)[0]} is no framework; there are {', '.join(FRAMEWORKS)}")
        return how

    @property
    def clauses(self) -> list[Clause]:
        """Where the rule speaks at all, then when it applies."""
        return [*self.scope, *self.when]

    def applies(self, situation: Facts) -> bool:
        """Whether every condition holds."""
        return all(holds(clause.condition, situation) for clause in self.clauses)


class Rulebook(Strict):
    """The rules of one question, in the order of the walk."""

    rule: list[Rule] = Field(min_length=1, max_length=MOST_RULES - 2)  # fits and exhausted are two more
    scope: list[Clause] = []

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for names in ([rule.id for rule in self.rule], [rule.name for rule in self.rule]):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{twice[0]} stands there twice")
        return self

    def conditions(self) -> dict[str, list[Condition]]:
        """What the rules engine is built of. A rule that the walk has left behind cannot fire again."""
        rules = {
            rule.id: [Condition("past", "below", place), *(clause.condition for clause in rule.clauses)]
            for place, rule in enumerate(self.rule, start=1)
        }
        return {FITS: [Condition("fits", "is", True)], **rules, EXHAUSTED: [Condition("fits", "is", False)]}


def parse(text: str, name: str = "rules") -> Rulebook:
    """The rulebook in a TOML text. Raises RequestError with the rule and the key that are wrong."""
    try:
        return Rulebook.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as problem:
        raise RequestError(f"{name}: {problem}") from None
    except ValidationError as problem:
        _refuse(name, problem)


def _refuse(name: str, problem: ValidationError) -> NoReturn:
    first = problem.errors(include_url=False)[0]
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
    raise RequestError(f"{name}: {place or 'the file'}: {first['msg'].removeprefix('Value error, ')}") from None


@cache
def load(question: Question) -> Rulebook:
    """The rules of one question, those of the guide and then those beyond it, read once."""
    books = [_read(f"{question}{part}.toml") for part in ("", "-beyond")]
    return Rulebook(rule=[rule.model_copy(update={"scope": book.scope}) for book in books for rule in book.rule])


def _read(name: str) -> Rulebook:
    try:
        text = (data_folder("rules") / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise RequestError(f"{name}: {problem}") from None
    return parse(text, name)


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
