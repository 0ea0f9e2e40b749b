"""The steps of a plan in words, and what they lead to: the command, the frameworks' own texts, what is missing."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import Any

from advisor.render.words import global_batch, unit
from advisor.results import Cost, Plan, Route, Step
from advisor.vocabulary import BY_NAME, KEYS

QUALITY = {"small": "costs a little quality", "real": "costs quality"}
SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"))
HEADING = re.compile(r"# .*:")
KEYWORD = re.compile(r"\w+=.*,")
CONFIG_FILE = "./config.json"
CONFIG_NOTE = f"{CONFIG_FILE} is to hold the object that was given for the model."


def side_effects(plan: Plan) -> str:
    """What the plan changes beside the memory."""
    if plan.final is None or plan.job["train"] is None:
        return ""
    before, after = global_batch(plan.job), global_batch(plan.final.job)
    return f"The global batch goes from {before} to {after} sequences." if before != after else ""


def value_text(value: Any) -> str:
    """A value as one would type it."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "nothing"
    return str(value)


def changes(step: Step) -> list[str]:
    """``batch 8 → 4`` and ``accumulation 1 → 2``."""
    return [f"{option(key)} {value_text(old)} → {value_text(new)}" for key, (old, new) in step.change.items() if old != new]


def costs(step: Step) -> list[str]:
    """What the step takes: time, quality, hardware."""
    return _costs(step.cost) if step.needed else ["not needed after all"]


def _costs(cost: Cost) -> list[str]:
    told = [speed(cost.speed_low, cost.speed_high)]
    if cost.quality != "none":
        told.append(QUALITY[cost.quality])
    if cost.gpus:
        told.append(f"{cost.gpus} more GPU{'s' * (cost.gpus > 1)}")
    if cost.host_bytes:
        told.append(f"{cost.host_bytes / 2**30:.1f} GiB of host memory")
    return told


def routes(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the other ways; each of their steps has a line, and what they cost together."""
    u = unit(plan)
    rows = [
        [
            route.name,
            "\n".join(f"{step.rule} {', '.join(changes(step))}" for step in route.steps),
            u.figure(route.final.estimate.device_bytes),
            "\n".join([*_costs(route.cost), *_learned(plan, route)]),
        ]
        for route in plan.alternatives
    ]
    return ["way", "changes", u.name, "cost"], rows


def _learned(plan: Plan, route: Route) -> list[str]:
    if not route.cost.changes_result:
        return []
    before, after = global_batch(plan.job), global_batch(route.final.job)
    return ["changes what is learned", *([f"global batch {before} → {after}"] if before != after else [])]


def speed(low: float, high: float) -> str:
    """A factor on the time, in words.

    >>> speed(1.2, 1.33), speed(1, 1.5), speed(1, 2), speed(0.5, 1), speed(0.5, 1.1), speed(1, 1)
    ('20-33 % slower', 'up to 50 % slower', 'up to 2× the time', 'up to 50 % faster', '50 % faster to 10 % slower', 'no slower')
    """
    if low == high:
        return "no slower" if low == 1 else _factor(low)
    if high >= 2 and low != 1:
        return f"{_times(low)}-{_times(high)}× the time"
    if low < 1 < high:
        return f"{_factor(low)} to {_factor(high)}"
    if low == 1:
        return f"up to {_factor(high)}"
    if high == 1:
        return f"up to {_factor(low)}"
    near = 100 * min(abs(low - 1), abs(high - 1))
    return f"{near:.0f}-{_factor(high if high > 1 else low)}"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"


def _factor(time: float) -> str:
    if time >= 2:
        return f"{_times(time)}× the time"
    return f"{100 * (time - 1):.0f} % slower" if time > 1 else f"{100 * (1 - time):.0f} % faster"


def missing(plan: Plan) -> list[str]:
    """What would have made it fit, where nothing within the limits did."""
    if not plan.missing:
        return []
    u = unit(plan)
    short = (("bytes", "on each GPU"), ("host_bytes", "in a machine's own memory"))
    lines = [f"At best {u.amount(size)} are still missing {where}." for key, where in short
             if (size := plan.missing.get(key))]  # fmt: skip
    if enough := plan.missing.get("gpus"):
        allowed = enough > plan.job["max_gpus"] and "gpus" not in plan.job["keep"]
        lines.append(f"It would fit on {enough} GPUs" + (f": --max-gpus {enough} allows that." if allowed else "."))
    if plan.missing.get("keep"):
        lines.append(f"It would fit if {option(plan.missing['keep'])} might change: take it out of --keep.")
    if plan.missing.get("limit"):
        lines.append(f"It would fit without the limit of --{option(plan.missing['limit'])}.")
    return lines


def option(key: str) -> str:
    """A key as the command line spells it."""
    return key.replace("_", "-")


def command(plan: Plan) -> list[str]:
    """The words of a command that asks for the plan's final settings: what was asked, with what the needed steps changed."""
    if plan.final is None:
        return []
    changed = {"observed_with", *(key for step in plan.steps if step.needed for key in step.change)}
    words = ["advise"]
    for key in KEYS:
        if key.name in changed or key.name in plan.asked:
            words += _words(key.name, plan.final.job.get(key.name) if key.name in changed else plan.asked[key.name])
    return words


def _words(name: str, value: Any) -> list[str]:
    key = BY_NAME[name]
    if key.kind == "flag":
        return [f"--{option(name)}"] if value else []
    if value is None or value == () or value == []:
        return []
    if key.kind in ("sizes", "settings"):
        pairs = [f"{each}={'' if said is None else value_text(said)}" for each, said in value.items()]
        return [f"--{option(name)}", ",".join(pairs)]
    if isinstance(value, dict):
        return [f"--{name}", CONFIG_FILE]
    return [f"--{option(name)}", _size(value) if key.kind == "size" else value_text(value)]


def is_object(plan: Plan) -> bool:
    """Whether the model was given as the object of a config.json, which a command line cannot hold."""
    return any(isinstance(plan.asked.get(task), dict) for task in ("train", "infer"))


def _size(size: int) -> str:
    for bytes_, name in SIZES:
        if size % bytes_ == 0:
            return f"{size // bytes_}{name}"
    return str(size)


def instructions(plan: Plan) -> list[tuple[Step, str]]:
    """The needed steps with the job's engine's own words for them; of a rule applied several times the last.

    Words that an earlier step has said are not said again: a keyword twice in one call would be an error.
    """
    if plan.final is None:
        return []
    last = {step.rule: step for step in plan.steps if step.needed}
    engine = plan.job["engine"]
    told: set[tuple[str, str]] = set()
    return [
        (step, _untold(step.how[engine], told) if engine in step.how else _wordless(step, engine)) for step in last.values()
    ]


def _wordless(step: Step, engine: str) -> str:
    return f"# no setting of {engine} is known for this: {', '.join(changes(step))}"


def _untold(text: str, told: set[tuple[str, str]]) -> str:
    """The snippet without the keywords and the files that stand under the same heading already."""
    blocks: list[list[str]] = [[""]]  # each a heading and its lines
    for line in text.strip("\n").split("\n"):
        if HEADING.fullmatch(line):
            blocks.append([line])
        else:
            blocks[-1].append(line)
    kept: list[str] = []
    for heading, *lines in blocks:
        again = {line for line in lines if (heading, line) in told}
        if again and heading.endswith(".json:"):
            lines = [] if again == set(lines) else lines
        else:
            lines = [line for line in lines if not (line in again and KEYWORD.fullmatch(line))]
        kept += [heading, *lines] if heading and lines else lines
        told |= {(heading, line) for line in lines}
    return "\n".join(kept) or "# as above"


def steps(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the steps; what changes and what it costs has a line each."""
    u = unit(plan)
    rows = [
        [f"{step.rule} {step.name}", "\n".join(changes(step)), u.figure(step.before_bytes), u.figure(step.after_bytes),
         u.figure(step.saved_bytes), "\n".join(costs(step))]
        for step in plan.steps
    ]  # fmt: skip
    return ["rule", "change", "before", "after", "saved", "cost"], rows


def code(text: str, width: int) -> list[str]:
    """Lines of a snippet; only a comment may be broken without becoming another program."""
    lines = []
    for line in text.strip("\n").split("\n"):
        comment = line.lstrip().startswith("# ") and len(line) > width
        lines += wrap(line, width, subsequent_indent="# ", break_on_hyphens=False) if comment else [line]
    return lines
