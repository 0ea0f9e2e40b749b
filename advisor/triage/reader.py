"""A log of any size to the places where a message stands, each with the text around it: one pass, in bounded memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import BinaryIO, NamedTuple

from advisor.triage import grammar
from advisor.triage.grammar import Message
from advisor.triage.text import LONGEST_LINE, decoded, joined, lines, squeezed

BLOCK = 2**17  # bytes that are searched at once
BEFORE, AFTER = 3 * 2**14, 2**14  # bytes of context: a traceback, XLA's table of buffers
HEAD = 2**16  # bytes of the beginning, where programs print their settings
MOST_SPOTS = 4  # of one kind of message: the first one counts
MOST_TEMPLATES = 2**13
GUARD = 4  # signs before a word that are looked at first
DIGITS = b"0123456789"
TELLING = (b"137", b"-9", b"al 9")  # numbers that make another message of a line


class Spot(NamedTuple):
    """A message, where its line begins in the log, and the text from there and before it."""

    message: Message
    offset: int
    before: bytes
    after: bytes


class Log(NamedTuple):
    """What is kept of a log. ``counts`` has each family's lines."""

    spots: tuple[Spot, ...]
    head: bytes
    tail: bytes
    counts: dict[str, int]


def read(stream: BinaryIO) -> Log:
    """The log's messages in their order."""
    scan = _Scan()
    for block in _blocks(stream):
        scan.take(block)
    scan.end()
    spots = sorted(scan.spots, key=lambda spot: spot.offset)
    if not any(spot.message.tier >= 2 for spot in spots):
        known = bool(spots)
        broken = _unwrapped(scan.head, known) or _unwrapped(scan.held[-HEAD:], known)
        spots += [spot for spot in broken if spot.message.tier >= 2 or not known]
    return Log(tuple(spots), scan.head, scan.held[-HEAD:], scan.counts)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """The stream in UTF-8 or another encoding that has ASCII."""
    first = stream.read(BLOCK)
    codec = _wide(first)
    decoder = codecs.getincrementaldecoder(codec)("replace") if codec else None
    block = first
    while block:
        yield decoder.decode(block).encode("utf-8", "replace") if decoder else block
        block = stream.read(BLOCK)


def _wide(start: bytes) -> str | None:
    """UTF-16, as PowerShell writes what it redirects, by its mark or its zeros."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    sample = start[:2048]
    if len(sample) > 3 and sample[1::2].count(0) > 0.8 * len(sample) / 2:
        return "utf-16-le"
    return "utf-16-be" if len(sample) > 3 and sample[::2].count(0) > 0.8 * len(sample) / 2 else None


class _Gate(NamedTuple):
    """A word, the keys that hold it as one pattern that begins with it, and the keys that stand on its line beside it."""

    word: bytes
    inside: re.Pattern[bytes]
    beside: list[bytes]

    @classmethod
    def of(cls, word: bytes, keys: tuple[bytes, ...]) -> _Gate:
        around = [(before, after) for before, found, after in (key.partition(word) for key in keys) if found]
        ahead = [each for each in around if len(each[0]) >= GUARD]
        behind = [each for each in around if len(each[0]) < GUARD]
        tails = [
            b"(?<=%b%b)(?:%b)" % (_classes(before[-GUARD:] for before, _ in ahead), re.escape(word), _alternatives(word, ahead)),
            b"(?=%b)(?:%b)" % (_classes(after[:1] for _, after in behind), _alternatives(word, behind)),
        ]  # fmt: skip
        made = b"|".join(tail for tail, some in zip(tails, (ahead, behind), strict=True) if some)
        return cls(word, re.compile(re.escape(word) + b"(?:%b)" % made), [key for key in keys if word not in key])


def _alternatives(word: bytes, around: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What may stand around a word, seen from its end."""
    return b"|".join(b"(?<=%b)%b" % (re.escape(before + word), re.escape(after)) for before, after in around)


def _classes(texts: Iterable[bytes]) -> bytes:
    """A class of signs for each place: a quick no for nearly every place where the word stands."""
    places = zip_longest(*(map(bytes, zip(text)) for text in texts), fillvalue=b"")
    classes = (b"".join(re.escape(sign) for sign in sorted(set(signs)) if sign) for signs in places)
    return b"".join(b"[%b]" % signs for signs in classes)


class _Scan:
    """What has been read: the block at hand with its context, and what was found so far."""

    def __init__(self) -> None:
        known = grammar.load()
        announced = known.keys
        gated = {key for keys in known.gates.values() for key in keys}
        self.messages = known.messages
        self.gates = [_Gate.of(gate, keys) for gate, keys in known.gates.items()]
        self.alone = [key for key in announced if key not in gated]
        self.announced = announced
        self.templates: dict[bytes, Message | None] = {}
        self.spots: list[Spot] = []
        self.kept: dict[int, int] = {}
        self.counts: dict[str, int] = {}
        self.head = b""
        self.held = b""  # context, then what is still to be searched
        self.from_ = 0  # where in `held` that begins
        self.base = 0  # where in the log `held` begins

    def take(self, block: bytes) -> None:
        if len(self.head) < HEAD:
            self.head += block[: HEAD - len(self.head)]
        self.held += block
        until = self.held.rfind(b"\n", self.from_, max(self.from_, len(self.held) - AFTER)) + 1
        if until == 0 and len(self.held) - self.from_ > BLOCK:  # a line without an end
            until = len(self.held) - AFTER
        if until > self.from_:
            self._search(until)
            cut = max(0, until - BEFORE)
            self.held, self.from_, self.base = self.held[cut:], until - cut, self.base + cut

    def end(self) -> None:
        self._search(len(self.held))
        self.from_ = len(self.held)

    def _search(self, until: int) -> None:
        """Note the lines between ``from_`` and ``until`` that have a key, and what they say."""
        held, start = self.held, self.from_
        ends: dict[int, int] = {}  # of the lines with a key, by their first byte
        beside = list(self.alone)
        for gate in self.gates:
            if held.find(gate.word, start, until) >= 0:
                beside += gate.beside
                last = start
                for key in gate.inside.finditer(held, start, until):
                    if key.start() >= last:
                        first, last = self._line(key.start(), until)
                        ends[first] = max(last, ends.get(first, 0))
        for word in beside:
            place = held.find(word, start, until)
            while place >= 0:
                first, last = self._line(place, until)
                ends[first] = max(last, ends.get(first, 0))
                place = held.find(word, max(last, place + 1), until)
        for first in sorted(ends):
            message = self._meant(held[first : ends[first]])
            if message is not None:
                self._note(message, first)

    def _line(self, place: int, until: int) -> tuple[int, int]:
        """The line around a place: from a line end or carriage return to the next, or as much as counts."""
        low, high = max(0, place - LONGEST_LINE // 2), min(until, place + LONGEST_LINE // 2)
        first = max(self.held.rfind(b"\n", low, place), self.held.rfind(b"\r", low, place)) + 1 or low
        ends = [end for end in (self.held.find(b"\n", place, high), self.held.find(b"\r", place, high)) if end >= 0]
        return first, min(ends, default=high)

    def _meant(self, line: bytes) -> Message | None:
        """The first message of the grammar that the line has. Lines that differ in numbers alone say the same."""
        template = line if any(number in line for number in TELLING) else line.translate(None, DIGITS)
        if template in self.templates:
            return self.templates[template]
        text = squeezed_lines(line)
        named = {message for key, messages in self.announced.items() if key in line for message in messages}
        meant = next((self.messages[one] for one in sorted(named) if self.messages[one].is_in(text)), None)
        if len(self.templates) < MOST_TEMPLATES:
            self.templates[template] = meant
        return meant

    def _note(self, message: Message, first: int) -> None:
        self.counts[message.family] = self.counts.get(message.family, 0) + 1
        kept = self.kept.get(message.place, 0)
        if kept < MOST_SPOTS:
            self.kept[message.place] = kept + 1
            before = self.held[max(0, first - BEFORE) : first]
            self.spots.append(Spot(message, self.base + first, before, self.held[first : first + AFTER]))


def squeezed_lines(raw: bytes) -> str:
    """What the grammar's patterns are matched with."""
    return joined(lines(decoded(raw))).lower()


def _unwrapped(raw: bytes, known: bool) -> list[Spot]:
    """The first message of a text whose lines were broken inside of words: one text without line ends.

    Without the warnings that are ``known`` already.
    """
    messages = grammar.load().messages
    warnings = [message for message in messages if message.tier == 0 and known]
    broken = (squeezed(line.text) for line in lines(decoded(raw)))
    whole = "".join(text for text in broken if not any(one.is_in(text.lower()) for one in warnings))
    low = whole.lower()
    for message in sorted(messages, key=lambda message: -message.tier):
        found = next(filter(None, (grammar.compiled(one).search(low) for one in message.match)), None)
        if found:
            first = max(0, found.start() - 200)
            before, after = whole[:first], whole[first : first + AFTER]
            return [Spot(message, first, before.encode(), after.encode())]
    return []
