"""The plan for a person at a terminal: the verdict, what it rests on, the budget, the steps, the command that fits."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from textwrap import indent, wrap

from advisor.render import steps, words
from advisor.render.bar import bar, letter
from advisor.render.grid import grid
from advisor.results import Plan, Step

Paint = Callable[[str, str], str]
VERDICT_COLOURS = {"fits": "1;32", "fits-after-changes": "1;33", "does-not-fit": "1;31"}
PART_COLOURS = ("44;37", "45;37", "46;30", "42;30", "43;30", "41;37", "47;30", "100;37")
LABEL = 11  # columns


def render(plan: Plan, *, explain: bool = False, width: int = 80, colour: bool = False) -> str:
    """Paragraphs of at most ``width`` columns."""
    paint = _ansi if colour else _plain
    sections = [
        "\n".join(paint(line, VERDICT_COLOURS[plan.verdict]) for line in wrap(words.verdict(plan), width)),
        _section("Assumed", _assumed(plan, width), paint),
        _section(f"Memory of {'each' if words.gpus(plan) > 1 else 'the'} GPU", _memory(plan, width, paint), paint),
        _section(words.host_title(plan), _host(plan), paint),
        _section(f"Steps ({words.unit(plan).name} on each GPU)", _steps(plan, width), paint),
        _section("Other ways", _routes(plan, width), paint),
        _section("Skipped", _skipped(plan, width), paint),
        _section("What is missing", "\n".join(_bullets(steps.missing(plan), width)), paint),
        _section("The settings that fit, as a command", _command(plan, width), paint),
        _section(f"In the words of {plan.job['engine']}", _instructions(plan, width), paint) if not explain else "",
        _section("Every phase", _phases(plan, width), paint) if explain else "",
        _section("Every part", _explained_parts(plan, width), paint) if explain else "",
        _section("Every step", _explained_steps(plan, width), paint) if explain else "",
        _section("Notes", "\n".join(_bullets(plan.notes, width)), paint),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _ansi(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _plain(text: str, code: str) -> str:
    return text


def _section(title: str, body: str, paint: Paint) -> str:
    return f"{paint(title, '1')}\n{body}" if body else ""


def _labelled(label: str, text: str, width: int) -> str:
    """``  label      text``, the text below itself where it is long."""
    lines = wrap(text, width - LABEL - 2)
    return "\n".join(f"  {name:{LABEL}}{line}" for name, line in zip([label] + [""] * len(lines), lines, strict=False))


def _bullets(texts: tuple[str, ...] | list[str], width: int) -> Iterator[str]:
    for text in texts:
        yield "\n".join(wrap(text, width, initial_indent="  - ", subsequent_indent="    "))


def _assumed(plan: Plan, width: int) -> str:
    return "\n".join(_labelled(name, text, width) for name, text in words.assumptions(plan))


def _memory(plan: Plan, width: int, paint: Paint) -> str:
    u, budgets = words.unit(plan), words.budgets(plan)
    colours = _part_colours(plan)
    scale = max(plan.usable_bytes, *(estimate.device_bytes for estimate in budgets.values()))
    figures = max(8, *(len(u.figure(estimate.device_bytes)) for estimate in budgets.values()))
    cells = max(1, width - LABEL - 4 - figures)  # the margin, the edge and the figure behind the bar
    bars = [
        f"  {name:{LABEL}}{_painted(bar(estimate.parts, plan.usable_bytes, scale, cells), colours, paint)}"
        f" {u.figure(estimate.device_bytes)}"
        for name, estimate in budgets.items()
    ]
    bars.append(f"  {'':{LABEL}}| is the edge of the card: {u.amount(plan.usable_bytes)}")
    return "\n\n".join(filter(None, ["\n".join(bars), _parts(plan, colours, paint), _peaks(plan, width)]))


def _part_colours(plan: Plan) -> dict[str, str]:
    names = words.part_names(list(words.budgets(plan).values()))
    return {letter(name): PART_COLOURS[place % len(PART_COLOURS)] for place, name in enumerate(names)}


def _painted(text: str, colours: dict[str, str], paint: Paint) -> str:
    """Each run of a letter in its colour."""
    from itertools import groupby

    runs = ((sign, "".join(run)) for sign, run in groupby(text))
    return "".join(paint(run, colours[sign]) if sign in colours else run for sign, run in runs)


def _parts(plan: Plan, colours: dict[str, str], paint: Paint) -> str:
    headers, rows = words.parts(plan)
    lettered = [
        [_painted(letter(row[0]), colours, paint) if place < len(rows) - 1 else "", *row] for place, row in enumerate(rows)
    ]
    return indent(grid(["", *headers], lettered, right=range(2, len(headers) + 1)), "  ")


def _host(plan: Plan) -> str:
    headers, rows = words.host(plan)
    return indent(grid(headers, rows, right=range(1, len(headers))), "  ") if rows else ""


def _peaks(plan: Plan, width: int) -> str:
    """What the one figure stands for: the phases beside each other, and the interval."""
    headers, rows = words.phases(plan)
    if not rows:
        return ""
    table = indent(grid(headers, rows, right=range(1, len(headers))), "  ")
    told = wrap(words.interval(plan), width, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([table, "", *told])


def _steps(plan: Plan, width: int) -> str:
    headers, rows = steps.steps(plan)
    if not rows:
        return ""
    table = indent(grid(headers, rows, right=(2, 3, 4), width=width - 2), "  ")
    return "\n\n  ".join(filter(None, [table, steps.side_effects(plan)]))


def _routes(plan: Plan, width: int) -> str:
    headers, rows = steps.routes(plan)
    return indent(grid(headers, rows, right=(2,), width=width - 2), "  ") if rows else ""


def _skipped(plan: Plan, width: int) -> str:
    rows = [[f"{skip.rule} {skip.name}", skip.reason] for skip in plan.skipped]
    return indent(grid([], rows, width=width - 2), "  ") if rows else ""


def _command(plan: Plan, width: int) -> str:
    if plan.final is None or not plan.steps:
        return ""
    text = "\n".join(shell_lines(steps.command(plan), width))
    if steps.is_object(plan):
        text += f"\n  {steps.CONFIG_NOTE}"
    return text


def shell_lines(argv: list[str], width: int) -> list[str]:
    """Words as a shell takes them, an option and its value on one line, lines that a backslash joins."""
    options: list[str] = []
    for word in argv[1:]:
        if word.startswith("--") or not options:
            options.append(word)
        else:
            options[-1] += f" {shlex.quote(word)}"
    lines = [f"  {argv[0]}"]
    for option in options:
        if len(lines[-1]) + 1 + len(option) + 2 > width:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {option}"
    return lines


def _instructions(plan: Plan, width: int) -> str:
    return "\n".join(
        indent("\n".join([f"# {step.rule} {step.name}", *steps.code(text, width - 2)]), "  ")
        for step, text in steps.instructions(plan)
    )


def _phases(plan: Plan, width: int) -> str:
    return "\n".join(_labelled(name, text, width) for name, text in words.told_phases(plan))


def _explained_parts(plan: Plan, width: int) -> str:
    blocks = []
    for name, estimate in words.budgets(plan).items():
        for part, of in words.every_part(name, estimate):
            blocks.append(f"  {part['name']}, {of}: {part['bytes']:,} bytes")
            blocks += _paragraph(f"= {part['formula']}" if part["formula"] else "", width)
            blocks += _paragraph(f"Source: {part['source']}" if part["source"] else "", width)
    return "\n".join(blocks)


def _explained_steps(plan: Plan, width: int) -> str:
    return "\n\n".join("\n".join(_explained_step(step, width)) for step in plan.steps)


def _explained_step(step: Step, width: int) -> Iterator[str]:
    yield f"  {step.rule} {step.name}: {step.title}"
    yield from _paragraph(", ".join(steps.changes(step)), width)
    yield from _paragraph(f"Because {'; '.join(step.because)}." if step.because else "", width)
    yield from _paragraph(step.why, width)
    yield from _paragraph(f"Cost: {', '.join(steps.costs(step))}.", width)
    yield from _paragraph(f"Source of the cost: {step.cost.speed_source}" if step.cost.speed_source else "", width)
    yield from _paragraph(f"Sources of the rule: {'; '.join(step.source)}" if step.source else "", width)
    for framework, text in step.how.items():
        yield f"      {framework}:"
        yield indent("\n".join(steps.code(text, width - 10)), " " * 10)


def _paragraph(text: str, width: int) -> list[str]:
    return wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 8)
