"""A rule in full, under the same headings for every rule."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent, wrap
from typing import TYPE_CHECKING, Any

from advisor.planning.engine import Other
from advisor.planning.facts import PLACEHOLDER
from advisor.render.steps import code, speed

if TYPE_CHECKING:
    from advisor.planning.rulebook import Clause, Rule, Speed

OPERATORS = {
    "is": "is",
    "not": "is not",
    "at_least": "is at least",
    "at_most": "is at most",
    "above": "is above",
    "below": "is below",
}
QUALITY = {"none": "nothing is lost", "small": "a little is lost", "real": "something is lost"}
MARGIN = "  "


def render(rule: Rule, format: str, width: int) -> str:
    """The page of a rule, plain or as Markdown."""
    sections = [(title, list(blocks)) for title, blocks in _sections(rule)]
    if format == "markdown":
        return _markdown(rule, sections)
    pages = ["\n".join([title, *(_plain(block, width) for block in blocks)]) for title, blocks in sections]
    return "\n\n".join([f"{rule.id} {rule.name}: {rule.title}", *pages]) + "\n"


class Code(str):
    """Text that is shown as it is."""


def _sections(rule: Rule) -> Iterator[tuple[str, list[str]]]:
    cost = rule.cost
    yield "What it does", [rule.what]
    yield "When it applies", [f"- {_condition(clause)}. If not: {clause.otherwise}." for clause in rule.clauses]
    yield "Why it helps", [rule.why]
    yield (
        "What it costs",
        [
            cost.text,
            *_times(cost.speed),
            f"- Quality: {QUALITY[cost.quality]}. {cost.figure}.",
        ],
    )
    yield "How to apply it", [block for framework, text in rule.how.items() for block in _how(framework, text)]
    yield "Sources", [f"- {source}" for source in rule.source]


def _condition(clause: Clause) -> str:
    fact, operator, value = clause.condition
    compared = value.fact if isinstance(value, Other) else {True: "true", False: "false"}.get(value, value)  # type: ignore[call-overload]
    return f"{fact} {OPERATORS[operator]} {compared}"


def _times(written: Speed | dict[str, Speed]) -> Iterator[str]:
    for case, time in (written if isinstance(written, dict) else {"": written}).items():
        yield f"- Time{f', {case}' if case else ''}: {speed(time.low, time.high)}. {time.source}."


def _how(framework: str, text: str | dict[str, str]) -> Iterator[str]:
    if isinstance(text, str):
        text = {"": text}
    for case, snippet in text.items():
        yield f"{framework}, {case}:" if case else f"{framework}:"
        yield Code(snippet.strip("\n"))


def _named(text: str) -> str:
    """``{batch}``, which a plan fills in, as BATCH."""
    return PLACEHOLDER.sub(lambda found: found[1].upper(), text)


def _plain(block: str, width: int) -> str:
    text = _named(block)
    if isinstance(block, Code):
        return indent("\n".join(code(text, width - len(MARGIN * 3))), MARGIN * 3)
    hanging = MARGIN * 2 if text.startswith("- ") else MARGIN
    return "\n".join(wrap(text, width, initial_indent=MARGIN, subsequent_indent=hanging, break_on_hyphens=False))


def _markdown(rule: Rule, sections: list[tuple[str, list[str]]]) -> str:
    from advisor.render.grid import escape

    parts = [f"## {rule.id} {rule.name}: {escape(rule.title)}"]
    for title, blocks in sections:
        parts.append(f"### {title}")
        parts += [f"```\n{_named(block)}\n```" if isinstance(block, Code) else escape(_named(block)) for block in blocks]
    return "\n\n".join(parts) + "\n"


def record(rule: Rule) -> dict[str, Any]:
    """The rule for programs; a condition on another fact has that as an object."""
    plain = rule._asdict()
    del plain["scope"]
    plain["cost"] = {**rule.cost._asdict(), "speed": _times_record(rule.cost.speed)}
    plain["when"] = [
        {
            "fact": clause.condition.fact,
            "operator": clause.condition.operator,
            "value": {"fact": value.fact} if isinstance(value := clause.condition.value, Other) else value,
            "otherwise": clause.otherwise,
        }
        for clause in rule.clauses
    ]
    return plain


def _times_record(written: Speed | dict[str, Speed]) -> dict[str, Any]:
    if isinstance(written, dict):
        return {case: time._asdict() for case, time in written.items()}
    return written._asdict()
