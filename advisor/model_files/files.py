"""Files that may be anything: read within limits, never blocking, and refused in one line that names them."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from advisor.errors import RequestError

MIB = 2**20


def shown(name: object) -> str:
    """The name on one line, whatever it is made of, and not longer than a line."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 200 else f"{text[:80]}...{text[-117:]}"


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its size in bytes. Only a regular file is opened: a pipe or a device could wait for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise RequestError(f"{shown(path)} is not a regular file")
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise RequestError(f"{shown(path)}: no such file") from None
    except (OSError, ValueError) as problem:  # ValueError: a null byte in the name
        if isinstance(problem, RequestError):
            raise
        raise RequestError(f"{shown(path)} cannot be read: {getattr(problem, 'strerror', None) or problem}") from None


def read_json_file(path: Path, most_bytes: int) -> dict[str, Any]:
    """The object in a JSON file of at most that many bytes."""
    with opened(path) as (file, size):
        content = b"" if size > most_bytes else file.read(most_bytes + 1)
    if max(size, len(content)) > most_bytes:
        raise RequestError(f"{shown(path)} is larger than {most_bytes // MIB} MiB: not a file of that kind")
    return parse_object(content, shown(path))


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object in UTF-8, strictly: finite numbers, each key once."""
    try:
        value = json.loads(
            content.decode("utf-8"), parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_each_key_once
        )
    except UnicodeDecodeError:
        raise RequestError(f"{where} is not UTF-8 text") from None
    except RecursionError:
        raise RequestError(f"{where} is nested too deeply") from None
    except ValueError as problem:  # JSONDecodeError too, and a number of thousands of digits
        raise RequestError(f"{where} is not valid JSON: {shown(problem)}") from None
    if not isinstance(value, dict):
        raise RequestError(f"{where} holds no JSON object")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        keys = set[str]()
        twice = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} stands there twice")
    return read
