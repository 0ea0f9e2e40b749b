"""What an engine can do for a plan (rules/engines.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from advisor.data import data_folder


class Abilities(NamedTuple):
    """Of one engine. ``weights`` and ``kv``: the compute capability that a format needs."""

    weights: Mapping[str, float] = MappingProxyType({})
    kv: Mapping[str, float] = MappingProxyType({})  # smaller formats of the KV cache, the largest first
    prompt_in_pieces: bool = False
    deepspeed: bool = False
    fsdp: bool = False  # beside DeepSpeed
    source: str = ""


@cache
def _all() -> dict[str, Abilities]:
    written = tomllib.loads((data_folder("rules") / "engines.toml").read_text(encoding="utf-8"))
    return {name: Abilities(**each) for name, each in written.items()}


def abilities(engine: str) -> Abilities:
    """Those of an engine; one that the file does not know has none."""
    return _all().get(engine, Abilities())
