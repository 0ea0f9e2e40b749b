"""Lines of a log as their program wrote them: without colours, prefixes and escapes; and the numbers in them.

Every pattern here takes linear time: no repetition is nested in another without a limit, and what can be long is possessive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

NARROWEST = 20  # columns at which anybody breaks lines
LONGEST_LINE = 4096  # characters that count of a line
ANSI = re.compile(r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]?|\][^\x07\x1b\n]*+(?:\x07|\x1b\\)?|[@-Z\\^_])")
LINE_END = re.compile(r"\r\n?|\n|\\r?\\?n(?![a-z])|[\x0b\x0c\x85\u2028\u2029]")
ENTITIES = {"&gt;": ">", "&lt;": "<", "&quot;": '"', "&#39;": "'", "&#x27;": "'", "&nbsp;": " ", "&amp;": "&"}
BOXES = dict.fromkeys(map(ord, "│┃║╭╮╰╯─━▏▕\u00a0\u200b\ufeff\x00\x08"), " ")
# What launchers and loggers put before a line. `who` tells processes apart.
PREFIX = re.compile(
    r"""[ \t]*(?:
      \[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,:]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?:?
    | \[?\d{1,2}[-/]\d{1,2}(?:[-/]\d{2,4})?[ T-]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\]?
    | \[?\d\d:\d\d:\d\d(?:[.,]\d{1,6})?\]?
    | \[[ ]{0,6}\d{1,8}\.\d{6}\]                                         # the kernel's seconds
    | [EWIF]\d{4}[ ]\d\d:\d\d:\d\d\.\d{1,9}(?:[ ]{1,4}\d{1,9})?[ ][\w./-]{1,120}:\d{1,6}\]
    | (?P<who>\[rank[ ]?\d{1,5}\]:? | \[\d{1,5},\d{1,5}\](?:<std(?:err|out)>)?:?
        | \([A-Za-z_][\w.\[\]-]{0,60}(?:[ ](?:rank|pid|ip|actor_id|node_id)=[\w.:-]{1,60},?){0,4}\) | \((?:rank|pid)=\d{1,9}(?:,[ ]ip=[\w.:]{1,60})?\)
        | [A-Za-z][\w.-]{0,40}[ ]{0,20}\|(?=[ ]))
    | \[?(?:INFO|DEBUG|WARNING|WARN|ERROR|CRITICAL|FATAL|TRACE|Driver)\b\]?:?
    | \[?[\w./-]{1,80}\.(?:py|cc|cpp|cu|h):\d{1,6}+\]?+:?+(?![ ]in[ ])     # else a frame, as rich prints it
    | \[[\w.]{1,40}:[ ][\w.-]{1,40}\]                                             # a label of a collector of logs
    | -(?=[ ])|[\w.]{1,60}[ ]-(?=[ ](?:INFO|DEBUG|WARN|ERROR|CRIT))
    | SUBPROCESS:|stderr:|stdout:|>{1,8}(?=[ ])|\#(?=[ ])|E(?=[ ]{2,})|\|(?=[ ])
    )[ \t]*""",
    re.VERBOSE,
)
KEPT_BLANK = re.compile(r"(?<=[\d.,;])[ \t]++(?=\d)")
NO_BLANKS = {ord(" "): None, ord("\t"): None}
UNITS = {"": 1, "b": 1, "byte": 1, "bytes": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
DECIMAL_COMMA = re.compile(r"\d+,\d\d")


class Line(NamedTuple):
    """What a program wrote, the process that a prefix names, and the columns that the line took with its prefixes."""

    text: str
    who: str = ""
    columns: int = 0


def decoded(raw: bytes) -> str:
    """Text of UTF-8 or of what else has its ASCII: the messages are ASCII in every encoding but UTF-16, which the reader undoes."""
    return raw.decode("utf-8", "replace")


def lines(text: str, most: int = 10**9) -> list[Line]:
    """The lines, whatever ends them; a carriage return and an escaped line end do too."""
    parts = LINE_END.split(ANSI.sub("", text))
    return [_line(part[:LONGEST_LINE]) for part in parts[:most]]


def rejoined(found: list[Line], anchor: int) -> tuple[list[Line], int]:
    """The lines as they were before a terminal or a copy broke all of them at one column, and where the anchor is then.

    Lines are taken for broken where several different ones have the same length and none is longer.
    """
    widest = max((line.columns for line in found), default=0)
    full = {line.text for line in found if line.columns == widest}
    if widest < NARROWEST or len(full) < 2 or widest >= LONGEST_LINE:
        return found, anchor
    whole: list[Line] = []
    place = 0
    open_ = False  # the line before goes on in this one
    for at, line in enumerate(found):
        if open_:
            whole[-1] = whole[-1]._replace(text=(whole[-1].text + line.text)[:LONGEST_LINE])
        else:
            whole.append(line)
        open_ = line.columns == widest
        if at == anchor:
            place = len(whole) - 1
    return whole, place


def _line(text: str) -> Line:
    columns = len(text)
    if "&" in text:
        for entity, sign in ENTITIES.items():
            text = text.replace(entity, sign)
    text = text.translate(BOXES)
    who, place = "", 0
    for _ in range(10):  # as many prefixes as anybody stacks
        found = PREFIX.match(text, place)
        if found is None:
            break
        who, place = who or (found["who"] or ""), found.end()
    return Line(text[place:].rstrip(), who.strip(" :|"), columns)


def squeezed(text: str) -> str:
    """The text without blanks, which wrapping and alignment move about, in ASCII of the same length character by character.

    >>> squeezed("Tried to allocate 2.00 GiB on GPU 0, 6.00 GB")
    'Triedtoallocate2.00GiBonGPU0, 6.00GB'
    """
    return KEPT_BLANK.sub("\x00", text).translate(NO_BLANKS).replace("\x00", " ").encode("ascii", "replace").decode("ascii")


def joined(of: Iterable[Line], between: str = "\n") -> str:
    return between.join(squeezed(line.text) for line in of)


def number(written: str) -> float:
    """A comma is a decimal point where two digits follow it, a thousands mark elsewhere.

    >>> number("25,600,000"), number("1900,00"), number("2.25")
    (25600000.0, 1900.0, 2.25)
    """
    if DECIMAL_COMMA.fullmatch(written):
        return float(written.replace(",", "."))
    whole, point, rest = written.replace(",", "").partition(".")
    return float(whole + point + rest.replace(".", ""))


def size(written: str, unit: str) -> int:
    """Bytes. Every unit is 1024-based here, as those who print these messages count."""
    unit = unit.lower()
    return round(number(written) * UNITS[unit if unit in UNITS else unit[0]])
