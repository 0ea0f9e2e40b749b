"""What the lines around a message tell: the phase, the program, whether it was training. catalog/clues.toml has the words."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from typing import Any

from advisor.data import data_folder
from advisor.triage.extract import Passage
from advisor.triage.grammar import Message, compiled
from advisor.triage.text import Line, joined

NEAR = 60  # lines before the message that its traceback takes
BEFORE_NAME = r"(?:,|\d|\.py|>)in(?:\w{1,60}\.){0,3}"
COMPUTING = ("forward", "backward", "generate", "profile")
FOLLOWING = 12  # lines after it: what gave up next, the source line of a notebook


@cache
def words() -> dict[str, Any]:
    """The clues, read once."""
    return tomllib.loads((data_folder("catalog") / "clues.toml").read_text(encoding="utf-8"))


def phase(message: Message, text: Passage) -> str:
    """Of the message alone, of the frames next to it, of the last line that said what the program was about, or unknown."""
    if message.phase:
        return message.phase
    # llama.cpp says after the message who asked, and before it what it made of other kinds.
    ggml = message.framework == "llama.cpp"
    found = _first(joined(text.after[:FOLLOWING]).lower()) if ggml else None
    near, only = near_text(text), "generate" if ggml else None
    found = found or _first(near, only) or _first(near.replace("\n", ""), only)  # a box breaks paths
    if found or ggml:
        return message.usual if found is None or _from_outside(message, found) else found
    stage = _stage(text.before)
    return message.usual if stage is None or _from_outside(message, stage) else stage


def _first(text: str, only: str | None = None) -> str | None:
    """The phase of the first clue that the text has."""
    clues = (clue for clue in words()["phase"] if only in (None, clue["phase"]))
    return next((str(clue["phase"]) for clue in clues if _has(clue, text)), None)


def _from_outside(message: Message, phase: str) -> bool:
    """Whether the process was ended by somebody else while it computed: that tells nothing of the host's memory."""
    return (message.signal is not None or message.kind == "ray") and phase in COMPUTING


def near_text(text: Passage) -> str:
    """The traceback and the message, as the patterns take them."""
    return joined([*_traceback(text.before), *text.after[:FOLLOWING]]).lower()


def _traceback(before: Sequence[Line]) -> Sequence[Line]:
    """The lines from the last `Traceback` on, where there is one near."""
    near = before[-NEAR:]
    starts = [place for place, line in enumerate(near) if "Traceback (most recent" in line.text]
    return near[starts[0] :] if starts else near


def _stage(before: Sequence[Line]) -> str | None:
    for line in reversed(before[-400:]):
        text = joined([line]).lower()
        if text:
            found = next((clue["phase"] for clue in words()["stage"] if _has(clue, text)), None)
            if found:
                return None if found == "unknown" else str(found)
    return None


def framework(message: Message, text: str) -> str:
    """Whose settings the remedies are to name: the program that the lines name, else the message's own."""
    named = next((clue["name"] for clue in words()["framework"] if _has(clue, text)), None)
    generic = ("pytorch", "unknown", "transformers", "torchelastic", "jax", "comfyui")
    return str(named) if named and message.framework in generic else message.framework


def task(text: str) -> str:
    """``train``, ``infer`` or ``unknown``."""
    return next((str(clue["task"]) for clue in words()["task"] if _has(clue, text)), "unknown")


def hints(name: str, text: str) -> bool:
    """Whether the text has the words of one kind: ``unified`` or ``pinned`` memory."""
    return any(_has(clue, text) for clue in words()[name])


def _has(clue: dict[str, Any], text: str) -> bool:
    return any(compiled(pattern.replace("{I}", BEFORE_NAME)).search(text) for pattern in clue["match"])


def telling(phase: str, before: Sequence[Line]) -> Line | None:
    """The last line before the message that has a word of the phase."""
    clues = [clue for clue in (*words()["phase"], *words()["stage"]) if clue["phase"] == phase]
    for line in reversed(before):
        if any(_has(clue, joined([line]).lower()) for clue in clues):
            return line
    return None
