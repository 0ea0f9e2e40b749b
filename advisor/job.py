"""A job: a workload on a target, as the user says it. None means not given.

>>> Job(gpu="v100-16", train="7b", seq="8k").seq
8192
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from advisor.errors import RequestError
from advisor.vocabulary import BY_NAME, KEYS, Key

# More than any machine or context has; beyond it arithmetic still works, but the request is a slip of the keyboard.
MOST = {"count": 2**31, "whole": 2**17, "size": 2**50}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


def parse_size(text: object) -> int:
    """Bytes of ``24GiB``, ``24GB``, ``24576MiB`` or a plain number of bytes. GB is 10⁹, GiB 2³⁰."""
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?i?B?)\s*", str(text), re.IGNORECASE | re.ASCII)
    unit = found and found[2].upper()
    if not found or unit not in UNITS:
        raise ValueError("a size such as 24GiB or 24GB")
    return _bounded(round(float(found[1]) * UNITS[unit]) if "." in found[1] else int(found[1]) * UNITS[unit], "size", 1)


def parse_count(text: object) -> int:
    """8192 of ``8192``, ``8k`` or ``8K``."""
    found = re.fullmatch(r"\s*(-?\d{1,100})\s*([kK]?)\s*", str(text), re.ASCII)
    if not found or isinstance(text, bool):
        raise ValueError("a whole number, such as 4096 or 4k")
    return _bounded(int(found[1]) * (1024 if found[2] else 1), "count", 1)


def _bounded(value: int, kind: str, least: float) -> int:
    if value < least:
        raise ValueError(f"at least {least:g}")
    if value > MOST[kind]:
        raise ValueError(f"at most {MOST[kind]:,}")
    return value


def _share(value: object) -> float:
    try:
        share = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError("a number from 0 to 1")
    return share


def _names(value: object, choices: tuple[str, ...]) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise ValueError("names with commas between them")
    listed = sorted(names) if isinstance(names, set | frozenset) else names
    plain = tuple(dict.fromkeys(name.strip() for name in listed if name.strip()))
    if choices and set(plain) - set(choices):
        raise ValueError(f"any of {', '.join(choices)}")
    return plain


def _whole(value: object, least: float) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\s*-?\d{1,100}\s*", str(value), re.ASCII):
        raise ValueError("a whole number")
    return _bounded(int(str(value)), "whole", least)


def _choice(value: object, choices: tuple[str, ...]) -> str:
    text = str(value).strip().lower().replace("_", "-")
    found = next((choice for choice in choices if choice.replace("_", "-") == text), None)
    if found is None:
        near = _nearest(text, choices)
        raise ValueError(f"did you mean {near}?" if near else f"one of {', '.join(choices)}")
    return found


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 4096 or not value.isprintable():
        raise ValueError("a name")
    return value.strip()


def _config(value: dict[object, Any]) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in value):
        raise ValueError("the object of a config.json")
    return dict(value)  # type: ignore[arg-type]


def _version(value: object) -> str:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(
        r"v?\d{1,6}(\.\d{1,6}){0,4}([.+-]?[a-z][\w.+-]{0,40})?", text, re.ASCII | re.IGNORECASE
    ):
        raise ValueError("a version such as 4.46.2")
    return text.removeprefix("v")


def _keys(value: object) -> tuple[str, ...]:
    names = tuple(name.replace("-", "_") for name in _names(value, ()))
    for name in names:
        if name not in BY_NAME:
            raise ValueError(f"{name} is no key of a job{_did_you_mean(name)}")
    return names


def _pairs(value: object) -> dict[str, object]:
    """``a=1,b=2``, pieces of that, or an object. A comma parts two pairs only where a name and = come after it."""
    if isinstance(value, dict):
        return {str(name).strip(): said for name, said in value.items()}
    text = value if isinstance(value, str) else ",".join(_names(value, ()))
    pairs = [pair.partition("=") for pair in re.split(r",(?=\s*[\w-]+\s*=)", text)]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError("names and values such as allocated=13.2GiB")
    return {name.strip(): said.strip() for name, _, said in pairs}


def _sizes(value: object, choices: tuple[str, ...]) -> dict[str, int]:
    pairs = _pairs(value)
    return {name: parse_size(pairs[name]) for name in _names(list(pairs), choices)}


def _settings(value: object) -> dict[str, Any]:
    named = {name.replace("-", "_"): said for name, said in _pairs(value).items()}
    for name in named:
        if name.startswith("observed"):
            raise ValueError(f"any key but {name}")
    words = {"": None, "true": True, "false": False}
    return {name: parsed(name, words.get(said, said) if isinstance(said, str) else said) for name, said in named.items()}


PARSERS: dict[str, Callable[[object, Key], Any]] = {
    "text": lambda value, key: _text(value),
    "version": lambda value, key: _version(value),
    "model": lambda value, key: _config(value) if isinstance(value, dict) else _text(value),
    "count": lambda value, key: parse_count(value),
    "size": lambda value, key: parse_size(value),
    "share": lambda value, key: _share(value),
    "whole": lambda value, key: _whole(value, key.least),
    "choice": lambda value, key: _choice(value, key.choices),
    "flag": lambda value, key: _flag(value),
    "list": lambda value, key: _names(value, key.choices),
    "keys": lambda value, key: _keys(value),
    "sizes": lambda value, key: _sizes(value, key.choices),
    "settings": lambda value, key: _settings(value),
}


def parsed(name: str, value: object) -> Any:
    """The value of a key as its kind has it. Raises RequestError, in one line."""
    key = BY_NAME.get(name)
    if key is None:
        raise RequestError(f"{name} is no key of a job{_did_you_mean(name)}")
    if value is None:
        return None
    try:
        return PARSERS[key.kind](value, key)
    except ValueError as problem:
        said = repr(value)
        said = said if len(said) <= 40 else said[:37] + "..."
        raise RequestError(f"{name.replace('_', '-')}: {said} does not do: {problem}") from None


@dataclass(frozen=True, init=False)
class Job:
    """A workload on a target. `advise --help` tells what each key means; a wrong value raises RequestError."""

    # Not of pydantic, whose first class takes 20 ms of a start: `parsed` checks every value already.

    gpu: str | None = None
    gpus: int | None = None
    max_gpus: int | None = None
    nodes: int | None = None
    free: int | None = None
    memory_fraction: float | None = None
    train: str | dict[str, Any] | None = None
    infer: str | dict[str, Any] | None = None
    batch: int | None = None
    seq: int | None = None
    prompt: int | None = None
    accumulation: int | None = None
    precision: str | None = None
    quantization: str | None = None
    kv_precision: str | None = None
    method: str | None = None
    objective: str | None = None
    lora_rank: int | None = None
    lora_targets: tuple[str, ...] | None = None
    lora_dropout: float | None = None
    adapter_precision: str | None = None
    optimizer: str | None = None
    checkpointing: str | None = None
    attention: str | None = None
    loss: str | None = None
    zero: int | None = None
    sharding: str | None = None
    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    ep: int | None = None
    offload: tuple[str, ...] | None = None
    offload_layers: int | None = None
    host_ram: int | None = None
    engine: str | None = None
    engine_version: str | None = None
    compile: bool | None = None
    allocator: str | None = None
    estimator: str | None = None
    confidence: float | None = None
    keep: tuple[str, ...] | None = None
    min_seq: int | None = None
    min_batch: int | None = None
    observed: dict[str, int] | None = None
    observed_with: dict[str, Any] | None = None
    policy: str | None = None

    def __init__(self, **keys: Any) -> None:
        self.__dict__.update(dict.fromkeys(BY_NAME), **{name: parsed(name, value) for name, value in keys.items()})

    def given(self) -> dict[str, Any]:
        """The keys that the user said something about."""
        return {key.name: value for key in KEYS if (value := getattr(self, key.name)) is not None}

    def with_changes(self, **changes: Any) -> Self:
        """The same job with other values, which must be of the right kind already."""
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__, **changes)
        return changed


def _nearest(name: str, names: tuple[str, ...]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1)
    return near[0] if near else None


def _did_you_mean(name: str) -> str:
    near = _nearest(name.replace("-", "_"), tuple(BY_NAME))
    return f"; did you mean {near}?" if near else ""
