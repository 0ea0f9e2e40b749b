"""A job: a workload on a target, as the user says it. None means not given.

>>> Job(gpu="v100-16", train="7b", seq="8k").seq
8192
"""

# No `from __future__ import annotations` here: pydantic would evaluate forty strings, at 20 ms a start.

import math
import re
from difflib import get_close_matches
from typing import Annotated, Any, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, field_validator

from advisor.errors import RequestError
from advisor.vocabulary import BY_NAME, KEYS

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
    found = re.fullmatch(r"\s*(\d{1,18})\s*([kK]?)\s*", str(text), re.ASCII)
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


def _names(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise ValueError("names with commas between them")
    listed = sorted(names) if isinstance(names, set | frozenset) else names
    return tuple(dict.fromkeys(name.strip() for name in listed if name.strip()))


def _whole(value: object, info: ValidationInfo) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\s*-?\d{1,18}\s*", str(value), re.ASCII):
        raise ValueError("a whole number")
    return _bounded(int(str(value)), "whole", BY_NAME[info.field_name or ""].least)


def _choice(value: object, info: ValidationInfo) -> str:
    choices = BY_NAME[info.field_name or ""].choices
    text = str(value).strip().lower().replace("_", "-")
    found = next((choice for choice in choices if choice.replace("_", "-") == text), None)
    if found is None:
        near = get_close_matches(text, choices, 1)
        raise ValueError(f"did you mean {near[0]}?" if near else f"one of {', '.join(choices)}")
    return found


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 4096 or not value.isprintable():
        raise ValueError("a name")
    return value.strip()


def _model(value: object) -> str | dict[str, Any]:
    return value if isinstance(value, dict) else _text(value)


Text = Annotated[str | None, BeforeValidator(lambda value: None if value is None else _text(value))]
ModelName = Annotated[str | dict[str, Any] | None, BeforeValidator(lambda value: None if value is None else _model(value))]
Count = Annotated[int | None, BeforeValidator(lambda value: None if value is None else parse_count(value))]
Size = Annotated[int | None, BeforeValidator(lambda value: None if value is None else parse_size(value))]
Share = Annotated[float | None, BeforeValidator(lambda value: None if value is None else _share(value))]
Names = Annotated[tuple[str, ...] | None, BeforeValidator(lambda value: None if value is None else _names(value))]
Whole = Annotated[int | None, BeforeValidator(lambda value, info: None if value is None else _whole(value, info))]
Choice = Annotated[str | None, BeforeValidator(lambda value, info: None if value is None else _choice(value, info))]
Flag = Annotated[bool | None, BeforeValidator(lambda value: None if value is None else _flag(value))]


class Job(BaseModel):
    """A workload on a target. `advise --help` tells what each key means; a wrong value raises RequestError."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: Text = None
    gpus: Whole = None
    max_gpus: Whole = None
    nodes: Whole = None
    free: Size = None
    memory_fraction: Share = None
    train: ModelName = None
    infer: ModelName = None
    batch: Count = None
    seq: Count = None
    prompt: Count = None
    accumulation: Whole = None
    precision: Choice = None
    quantization: Choice = None
    kv_precision: Choice = None
    method: Choice = None
    lora_rank: Whole = None
    lora_targets: Names = None
    lora_dropout: Share = None
    adapter_precision: Choice = None
    optimizer: Choice = None
    checkpointing: Choice = None
    attention: Choice = None
    loss: Choice = None
    zero: Whole = None
    sharding: Choice = None
    tp: Whole = None
    pp: Whole = None
    cp: Whole = None
    ep: Whole = None
    offload: Names = None
    offload_layers: Whole = None
    host_ram: Size = None
    engine: Choice = None
    engine_version: Text = None
    compile: Flag = None
    estimator: Choice = None
    confidence: Share = None
    keep: Names = None
    min_seq: Count = None
    min_batch: Count = None
    policy: Choice = None

    def __init__(self, **keys: Any) -> None:
        try:
            super().__init__(**keys)
        except ValidationError as problem:
            _refuse(problem)

    @field_validator("keep")
    @classmethod
    def _known_keys(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name.replace("-", "_") not in BY_NAME:
                raise ValueError(f"{name} is no key of a job{_near(name)}")
        return names and tuple(name.replace("-", "_") for name in names)

    @field_validator("offload")
    @classmethod
    def _known_offloads(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in BY_NAME["offload"].choices:
                raise ValueError(f"any of {', '.join(BY_NAME['offload'].choices)}")
        return names

    def given(self) -> dict[str, Any]:
        """The keys that the user said something about."""
        return {key.name: value for key in KEYS if (value := getattr(self, key.name)) is not None}

    def with_changes(self, **changes: Any) -> Self:
        """The same job with other values, which must be of the right kind already."""
        return self.model_copy(update=changes)


def _near(name: str) -> str:
    near = get_close_matches(name.replace("-", "_"), list(BY_NAME), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _refuse(problem: ValidationError) -> NoReturn:
    first = problem.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "job"
    if first["type"] == "extra_forbidden":
        raise RequestError(f"{name} is no key of a job{_near(name)}") from None
    said = str(first["input"])
    said = said if len(said) <= 40 else said[:37] + "..."
    raise RequestError(
        f"{name.replace('_', '-')}: {said!r} does not do: {first['msg'].removeprefix('Value error, ')}"
    ) from None
