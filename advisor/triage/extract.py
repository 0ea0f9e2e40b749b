"""The values of a message: sizes in bytes, cards, ranks, processes."""

from __future__ import annotations

import math
import re
from collections import deque
from typing import Any, NamedTuple

from advisor.triage.grammar import Pattern, compiled, load
from advisor.triage.reader import Spot
from advisor.triage.text import Line, decoded, joined, lines, number, rejoined, size

OVERSEERS = ("(raylet)", "(autoscaler)")  # they speak of others
AROUND = 2**12  # bytes in which it is seen whether lines were broken
MOST_AFTER = 60  # lines that may belong to one message
GIB = 2**30
OTHER_PROCESS = re.compile(r"process(\d{1,12}+)has(?<![\d.,])(\d{1,9}+(?:\.\d{1,9}+)?)([gmkt]ib|bytes)memoryinuse")
RANK = re.compile(r"rank[ =]?(\d{1,5})|(?:Worker_|DP|PP)?TP(\d{1,4})")
NCCL_RANK = re.compile(r"^[\w.-]{1,80}:\d{1,9}:\d{1,9} ?\[(\d{1,5})\]")
DTYPE_BYTES = {"bfloat16": 2, "half": 2, "float16": 2, "float": 4, "float32": 4, "double": 8, "float64": 8, "complex": 8,
               "complex64": 8, "complex128": 16, "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4,
               "uint32": 4, "int64": 8, "uint64": 8, "<i2": 2, "<i4": 4, "<i8": 8, "<u2": 2, "<u4": 4, "<u8": 8,
               "<f2": 2, "<f4": 4, "<f8": 8}  # fmt: skip


class Passage(NamedTuple):
    """A spot's text in lines: of the message and what follows it, and of what stands before it."""

    after: tuple[Line, ...]
    before: tuple[Line, ...]


def passage(spot: Spot) -> Passage:
    """The lines of the message's own process, where prefixes tell processes apart, unbroken where they were broken."""
    before = lines(decoded(spot.before))[:-1] if spot.before.endswith(b"\n") else lines(decoded(spot.before))
    whole, anchor = rejoined(before + lines(decoded(spot.after)), len(before))
    before, after = whole[:anchor], whole[anchor:]
    who = after[0].who if after and after[0].who not in OVERSEERS else ""
    return Passage(tuple(_of(who, after)[:MOST_AFTER]), tuple(_of(who, before)))


def refined(spot: Spot) -> Spot:
    """The spot with the message that its whole line has, where the line was broken."""
    near = spot._replace(before=spot.before[-AROUND:], after=spot.after[:AROUND])
    text = joined(passage(near).after[:1]).lower()
    if text == joined(lines(decoded(near.after))[:1]).lower():
        return spot
    message = next((one for one in load().messages if one.is_in(text)), spot.message)
    return spot._replace(message=message)


def _of(who: str, found: list[Line]) -> list[Line]:
    return [line for line in found if not who or line.who in ("", who)]


def fields(spot: Spot, text: Passage) -> dict[str, Any]:
    """What the message says, by name; sizes end in ``_bytes``."""
    scopes = _scopes(spot, text)
    found: dict[str, Any] = {}
    for name, patterns in spot.message.fields.items():
        value = next((value for one in patterns if (value := _value(one, scopes)) is not None), None)
        if value is not None:
            found[name] = value
    _derive(found)
    if others := _processes(scopes[1]) or _processes(scopes[2]):
        found["processes"] = others
    if spot.message.signal:
        found["signal"] = spot.message.signal
    rank = _rank(text)
    if rank is not None:
        found.setdefault("rank", rank)
    return found


def _scopes(spot: Spot, text: Passage) -> list[str]:
    """Where a value is looked for: the line, the message, the message without line ends, and for context what stands before."""
    first = joined(text.after[:1])
    end = len(text.after)
    begins = compiled(spot.message.match[0])
    alone = begins.search(first.lower()) is not None
    for place, line in enumerate(text.after[1:], start=1):
        if alone and begins.search(joined([line]).lower()):  # the next message of its kind
            end = place
            break
    own = text.after[:end]
    return [first, joined(own), joined(own, ""), joined(text.before)]


def _value(pattern: Pattern, scopes: list[str]) -> Any:
    *own, before = scopes
    for scope in own:
        found = pattern.regex.search(scope.lower())
        if found:
            return _read(pattern.kind, found, scope)
    earlier = deque(pattern.regex.finditer(before.lower()), maxlen=1)  # the last one before the message
    return _read(pattern.kind, earlier[0], before) if earlier else None


def _read(kind: str, found: re.Match[str], scope: str) -> Any:
    written = scope[found.start(1) : found.end(1)]
    if kind == "S":
        return size(written, found[2])
    if kind in "BN":
        return int(number(written))
    if kind == "G":
        return round(float(written) * GIB)
    if kind == "F":
        return float(written)
    if kind == "A":
        return [int(each) for each in written.replace(" ", "").split(",") if each]
    return written


def _derive(found: dict[str, Any]) -> None:
    """The bytes of a tensor whose shape and type are told."""
    shape, dtype = found.get("tensor_shape"), found.get("dtype")
    if shape and dtype and "tried_to_allocate_bytes" not in found:
        width = DTYPE_BYTES.get(dtype.lower())
        if width and len(shape) <= 12:
            found["tried_to_allocate_bytes"] = math.prod(shape) * width


def _processes(scope: str) -> list[dict[str, int]]:
    listed = OTHER_PROCESS.finditer(scope.lower())
    return [{"pid": int(one[1]), "bytes": size(one[2], one[3])} for one, _ in zip(listed, range(64), strict=False)]


def _rank(text: Passage) -> int | None:
    for line in text.after[:1]:
        found = RANK.search(line.who) or NCCL_RANK.match(line.text)
        if found:
            return int(next(group for group in found.groups() if group))
    return None
