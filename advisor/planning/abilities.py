"""What an engine can do for a plan (catalog/abilities.jsonl); what it does with memory stands in catalog/engines.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from advisor.data import data_folder


class Abilities(NamedTuple):
    """Of one engine. ``weights`` and ``kv``: the compute capability that a format needs."""

    engine: str = ""
    weights: Mapping[str, float] = MappingProxyType({})
    kv: Mapping[str, float] = MappingProxyType({})  # smaller formats of the KV cache, the largest first
    prompt_in_pieces: bool = False  # reads a long prompt in pieces by itself
    deepspeed: bool = False  # zero and offload are written in DeepSpeed's configuration
    fsdp: bool = False  # can be launched with FSDP instead
    checkpoints_over_gpus: bool = False  # recomputes activations on several GPUs, in every case
    expands_segments: bool = False  # turns PyTorch's expandable segments on by itself
    source: str = ""


@cache
def _all() -> dict[str, Abilities]:
    lines = (data_folder("catalog") / "abilities.jsonl").read_text(encoding="utf-8").splitlines()
    return {known.engine: known for known in (Abilities(**json.loads(line)) for line in lines)}


def abilities(engine: str) -> Abilities:
    """Those of an engine; one that the file does not know has none."""
    return _all().get(engine, Abilities())
