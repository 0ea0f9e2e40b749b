"""Where an answer goes: a terminal, a pipe or a file, in signs and colours that it can show."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from typing import NamedTuple, TextIO

from advisor.errors import RequestError

WIDTH, WIDEST = 80, 100
# For terminals that have ASCII only.
PLAIN_SIGNS = str.maketrans({
    "×": "x", "→": "->", "·": ".", "–": "-", "—": "-", "−": "-", "…": "...", "≤": "<=", "≥": ">=", "≈": "~", "÷": "/",
    "’": "'", "“": '"', "”": '"', "§": "section ", "°": " degrees",
})  # fmt: skip
SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


class Answer(NamedTuple):
    """What a command has to say, where to, and how it ends."""

    text: str
    exit_code: int = 0
    output: str | None = None


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def width(output: str | None) -> int:
    """Columns of the terminal, from 80 to 100; 80 where the answer goes elsewhere."""
    if output is not None or not is_terminal(sys.stdout):
        return WIDTH
    try:
        return min(WIDEST, max(WIDTH, os.get_terminal_size(sys.stdout.fileno()).columns))
    except OSError:
        return WIDTH


def colour(output: str | None) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set or it is a dumb one; FORCE_COLOR colours a pipe as well."""
    if output is not None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") != "0":
        return True
    return is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"


def deliver(answer: Answer) -> None:
    """Write the answer to its file, or print it."""
    if answer.output is not None and answer.output != "-":
        _write_file(answer.output, answer.text)
        return
    if sys.stdout is None or sys.stdout.closed:
        return
    try:
        sys.stdout.write(showable(answer.text, sys.stdout.encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError as problem:
        _forget_stdout()
        raise RequestError(f"the answer cannot be written: {problem.strerror}") from None


def _forget_stdout() -> None:
    """Nobody reads any more: what is still in the buffer goes nowhere, so that Python does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def showable(text: str, encoding: str | None) -> str:
    """The text in signs that the encoding has; JSON stays JSON."""
    if _encodes(text, encoding):
        return text
    if text.startswith("{"):
        return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    return _plain(text).encode("ascii", "replace").decode("ascii")


def _encodes(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _plain(text: str) -> str:
    """The signs of ASCII that come nearest: 10^9 for 10⁹; the longer arrow takes a blank from the gap behind its cell."""
    text = re.sub("→(.*?)  ", r"->\1 ", text)
    raised = re.sub(f"[{SUPERSCRIPTS}]+", lambda found: "^" + "".join(str(SUPERSCRIPTS.index(sign)) for sign in found[0]), text)
    return raised.translate(PLAIN_SIGNS)


def _write_file(path: str, text: str) -> None:
    """The whole file or none of it: written beside it under another name, then moved there."""
    try:
        target = os.path.realpath(path)
        mode = os.stat(target).st_mode if os.path.exists(target) else None
        if mode is not None and not stat.S_ISREG(mode):  # a device or a named pipe must not be replaced by a file
            with open(target, "w", encoding="utf-8") as stream:
                stream.write(text)
            return
        _replace(target, text, mode)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise RequestError(f"{path} cannot be written: {reason}") from None


def _replace(target: str, text: str, mode: int | None) -> None:
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:200]}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def print_error(message: str) -> None:
    """One line on stderr."""
    if sys.stderr is None or sys.stderr.closed:
        return
    line = f"advise: {' '.join(message.split())}\n"
    try:
        sys.stderr.write(line if _encodes(line, sys.stderr.encoding) else _plain(line))  # stderr escapes what is left
        sys.stderr.flush()
    except OSError:
        pass
