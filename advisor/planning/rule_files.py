"""Whether a file of rules is whole and well formed, and if not, the rule and the key that are wrong, in one line."""

# No `from __future__ import annotations` here: pydantic would evaluate the strings.

import tomllib
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from advisor.errors import RequestError
from advisor.planning import rulebook
from advisor.planning.engine import MOST_RULES
from advisor.planning.facts import FILLED, PLACEHOLDER
from advisor.planning.remedies import REMEDIES
from advisor.vocabulary import ENGINES

FRAMEWORKS = (*ENGINES, "accelerate")  # accelerate has launch files of its own, but no memory habits


def _known_placeholders(text: str) -> str:
    if unknown := set(PLACEHOLDER.findall(text)) - FILLED:
        raise ValueError(f"nothing fills {{{sorted(unknown)[0]}}}")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_known_placeholders)]


class Strict(BaseModel):
    # Built once, for the whole file: its parts are never read alone.
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class Clause(Strict):
    otherwise: Text

    @model_validator(mode="before")
    @classmethod
    def _after_its_condition(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            raise ValueError("a clause is a table: fact, an operator, otherwise")
        rulebook.written_condition(written)
        return {"otherwise": written.get("otherwise")}


class Speed(Strict):
    low: float = Field(gt=0, allow_inf_nan=False)
    high: float = Field(gt=0, allow_inf_nan=False)
    source: Text


class RuleCost(Strict):
    text: Text
    speed: Speed | dict[str, Speed]
    quality: Literal["none", "small", "real"]
    figure: Text
    changes_result: bool = False


class Rule(Strict):
    id: str = Field(pattern=r"^[A-Z][1-9]\d?$")
    name: str = Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
    title: Text
    remedy: str
    when: list[Clause] = Field(min_length=1)
    what: Text
    why: Text
    cost: RuleCost
    how: dict[str, Text | dict[str, Text]] = Field(min_length=1)
    source: list[Text] = Field(min_length=1)

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


class File(Strict):
    """The rules of one file."""

    rule: list[Rule] = Field(min_length=1, max_length=MOST_RULES - 2)  # fits and exhausted are two more
    scope: list[Clause] = []

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        _once(self.rule)
        return self


def _once(rules: list[Rule]) -> None:
    for names in ([rule.id for rule in rules], [rule.name for rule in rules]):
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} stands there twice")


def parse(text: str, name: str = "rules") -> rulebook.Rulebook:
    """The rulebook in a TOML text. Raises RequestError with the rule and the key that are wrong."""
    return rulebook.built(_checked(text, name)[1])


def check() -> None:
    """The rules that come with the program. Raises RequestError as ``parse`` does, and for two of one id or name in two files."""
    for question in rulebook.QUESTIONS:
        files = [_checked(rulebook.text_of(name), name)[0] for name in rulebook.files(question)]
        try:
            _once([rule for file in files for rule in file.rule])
        except ValueError as problem:
            raise RequestError(f"the rules for {question}: {problem}") from None


def _checked(text: str, name: str) -> tuple[File, dict[str, Any]]:
    """A file as its form has it, and as it is written."""
    try:
        written = tomllib.loads(text)
        return File.model_validate(written), written
    except tomllib.TOMLDecodeError as problem:
        raise RequestError(f"{name}: {problem}") from None
    except ValidationError as problem:
        _refuse(name, problem)


def _refuse(name: str, problem: ValidationError) -> NoReturn:
    first = problem.errors(include_url=False)[0]
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
    raise RequestError(f"{name}: {place or 'the file'}: {first['msg'].removeprefix('Value error, ')}") from None
