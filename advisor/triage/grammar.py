"""The messages that programs print when memory runs out, as catalog/messages.toml describes them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from advisor.data import data_folder

# A number starts where no number goes on and is read once: possessive, so that a long row of digits takes linear time.
DIGITS = r" ?(?<![\d.,])(-?\d{1,20}+(?:[.,]\d{1,20}+){0,6}+)"
UNIT = r" ?(tib|gib|mib|kib|tb|gb|mb|kb|bytes?|b|t|g|m|k)"
DTYPES = r"(bfloat16|float64|float32|float16|float8\w*|float|double|half|complex128|complex64|u?int64|u?int32|u?int16|u?int8|bool|<[ifu]\d)"
PLACEHOLDERS = {
    "{S}": DIGITS + UNIT,
    "{B}": r" ?(?<![\d.,])(\d{1,20}+(?:,\d{3}){0,6}+)",
    "{G}": r" ?(?<![\d.,])(-?\d{1,9}+(?:\.\d{1,9}+)?)",
    "{N}": r" ?(?<![\d.])(-?\d{1,15}+)",
    "{F}": r" ?(?<![\d.])(\d{1,9}+(?:\.\d{1,9}+)?)",
    "{A}": r"[\[(]([\d, ]{1,120}+)[\])]",
    "{T}": DTYPES,
    "{W}": r"([a-z_]{1,40}+)",
    "{J}": r"(\d{1,12}+(?:\.(?:\d{1,6}+|batch|extern))?)",
}  # fmt: skip
PLACEHOLDER = re.compile(r"\{[SBGNFATWJ]\}")


class Pattern(NamedTuple):
    """Where a value stands in a message, and what kind it is: the letter of its placeholder."""

    kind: str
    written: str

    @property
    def regex(self) -> re.Pattern[str]:
        return compiled(self.written)


Fields = Mapping[str, tuple[Pattern, ...]]


class Message(NamedTuple):
    """One kind of message. See catalog/messages.toml for what the parts mean."""

    place: int
    family: str
    framework: str
    kind: str
    tier: int
    keys: tuple[str, ...]
    match: tuple[str, ...]
    fields: Fields
    phase: str | None
    usual: str
    unless: tuple[str, ...]
    signal: str | None

    def is_in(self, line: str) -> bool:
        """Whether a squeezed lower-case line has the message."""
        return any(compiled(pattern).search(line) for pattern in self.match)


class Grammar(NamedTuple):
    messages: tuple[Message, ...]
    gates: Mapping[bytes, tuple[bytes, ...]]  # a word, and the keys that stand only where it does

    @property
    def keys(self) -> dict[bytes, tuple[int, ...]]:
        """Each key with the places of the messages that it may announce."""
        found: dict[bytes, list[int]] = {}
        for message in self.messages:
            for key in message.keys:
                found.setdefault(key.encode(), []).append(message.place)
        return {key: tuple(messages) for key, messages in found.items()}


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern on squeezed lower-case text; its placeholders become groups. Made when it is first asked for: a log needs few."""
    return re.compile(_expanded(pattern))


def _expanded(pattern: str) -> str:
    bare = pattern.replace(" ?", "").replace(" ", "")
    pieces = PLACEHOLDER.split(bare)
    holders = [*PLACEHOLDER.findall(bare), ""]
    return "".join(_lowered(piece) + PLACEHOLDERS.get(holder, "") for piece, holder in zip(pieces, holders, strict=True))


def _lowered(piece: str) -> str:
    r"""Lower case, but for the classes: ``\S`` is not ``\s``."""
    return re.sub(r"\\.|[A-Z]", lambda found: found[0] if found[0][0] == "\\" else found[0].lower(), piece)


def _pattern(written: str) -> Pattern:
    return Pattern(PLACEHOLDER.findall(written)[0][1], written)


@cache
def load() -> Grammar:
    """The grammar, read once."""
    text = (data_folder("catalog") / "messages.toml").read_text(encoding="utf-8")
    return parsed(tomllib.loads(text))


def parsed(record: dict[str, Any]) -> Grammar:
    groups: dict[str, Fields] = {
        name: {field: tuple(map(_pattern, patterns)) for field, patterns in fields.items()}
        for name, fields in record["fields"].items()
    }
    messages = tuple(_message(place, each, groups) for place, each in enumerate(record["message"]))
    gates = {gate.encode(): tuple(key.encode() for key in keys) for gate, keys in record["gates"].items()}
    return Grammar(messages, gates)


def _message(place: int, written: dict[str, Any], groups: dict[str, Fields]) -> Message:
    fields: dict[str, tuple[Pattern, ...]] = {}
    for group in written["fields"]:
        for field, patterns in groups[group].items():
            fields[field] = fields.get(field, ()) + patterns
    return Message(
        place,
        written["family"],
        written["framework"],
        written["kind"],
        written["tier"],
        tuple(written["keys"]),
        tuple(written["match"]),
        fields,
        written.get("phase"),
        written.get("usual", "unknown"),
        tuple(written.get("unless", ())),
        written.get("signal"),
    )
