"""The plan as Markdown: for notebooks, issues and chats."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.render import steps, words
from advisor.render.grid import escape, markdown_grid
from advisor.render.table import shell_lines
from advisor.results import Plan

COMMAND_WIDTH = 80


def render(plan: Plan, *, explain: bool = False, width: int = 80, colour: bool = False) -> str:
    """The plan under headings, as the table format has it, without the bar; the reader's program wraps and colours."""
    phases, phase_rows = words.phases(plan)
    step_headers, step_rows = steps.steps(plan)
    sections = [
        f"**{escape(words.verdict(plan))}**",
        _table("Assumed", ["", ""], words.assumptions(plan)),
        _table("Memory", *words.parts(plan), right=range(1, 5)),
        _table("", phases, phase_rows, right=range(1, len(phases))),
        escape(words.interval(plan)),
        _table(words.host_title(plan), *words.host(plan), right=range(1, 3)),
        _table(f"Steps ({words.unit(plan).name} on each GPU)", step_headers, step_rows, right=(2, 3, 4)),
        steps.side_effects(plan),
        _table("Other ways", *steps.routes(plan), right=(2,)),
        _table("Skipped", ["rule", "reason"], [(f"{skip.rule} {skip.name}", skip.reason) for skip in plan.skipped]),
        _list("What is missing", steps.missing(plan)),
        _command(plan),
        *(_explanations(plan) if explain else [_instructions(plan)]),
        _list("Notes", plan.notes),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _table(title: str, headers: list[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    return _headed(title, markdown_grid(headers, rows, right=right)) if rows else ""


def _headed(title: str, body: str) -> str:
    return f"### {title}\n\n{body}" if title else body


def _list(title: str, texts: Sequence[str]) -> str:
    return _headed(title, "\n".join(f"- {escape(text)}" for text in texts)) if texts else ""


def _code(text: str, language: str = "") -> str:
    fence = "````" if "```" in text else "```"
    body = text.strip("\n")
    return f"{fence}{language}\n{body}\n{fence}"


def _command(plan: Plan) -> str:
    if plan.final is None or not plan.steps:
        return ""
    lines = "\n".join(line[2:] for line in shell_lines(steps.command(plan), COMMAND_WIDTH))
    more = f"\n\n{steps.CONFIG_NOTE}" if steps.is_object(plan) else ""
    return _headed("The settings that fit, as a command", _code(lines, "sh") + more)


def _instructions(plan: Plan) -> str:
    texts = [f"{step.rule} {step.name}:\n\n{_code(text)}" for step, text in steps.instructions(plan)]
    return _headed(f"In the words of {plan.job['engine']}", "\n\n".join(texts)) if texts else ""


def _explanations(plan: Plan) -> list[str]:
    rows = [
        (part["name"], of, f"{part['bytes']:,}", part["formula"], part["source"])
        for name, estimate in words.budgets(plan).items()
        for part, of in words.every_part(name, estimate)
    ]
    told_steps = []
    for step in plan.steps:
        source = f" Source: {escape(step.cost.speed_source)}" if step.cost.speed_source else ""
        told = [
            escape(f"Because {'; '.join(step.because)}." if step.because else ""),
            escape(step.why),
            f"Cost: {escape(', '.join(steps.costs(step)))}.{source}",
            escape(f"Sources of the rule: {'; '.join(step.source)}" if step.source else ""),
        ]
        how = [f"{framework}:\n\n{_code(text)}" for framework, text in step.how.items()]
        title = f"#### {step.rule} {step.name}: {escape(step.title)}"
        told_steps.append("\n\n".join(filter(None, [title, escape(", ".join(steps.changes(step))), *told, *how])))
    return [
        _table("Every phase", ["phase", "what happens in it"], words.told_phases(plan)),
        _table("Every part", ["part", "of", "bytes", "formula", "source"], rows, right=(2,)),
        _headed("Every step", "\n\n".join(told_steps)) if told_steps else "",
    ]
