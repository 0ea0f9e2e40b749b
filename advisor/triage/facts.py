"""What the rules ask about a failure, from the values of its message and the words around it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from advisor.planning.engine import Value
from advisor.triage import clues
from advisor.triage.extract import Passage
from advisor.triage.grammar import Message, compiled
from advisor.triage.text import joined, size

MIB, GIB = 2**20, 2**30
MOST = 10**6  # of a share or a ratio in percent
BOGUS = 2**60  # bytes: no memory is larger
CONTEXT = round(0.8 * GIB)  # a CUDA context, which is outside of the allocator but this process's own
OWN = 0.98  # two decimals of what is printed
IDLE_SHARE = 15  # percent of the card: what others hold below that is a context or a desktop
HOST_KINDS = {"host", "host_model", "ggml_host", "ray", "array", "pinned"}
NO_DEVICE_KINDS = HOST_KINDS | {"benign", "smem", "shm", "bogus", "kv", "kv_none", "pool", "slots"}
GGML = {"llama.cpp", "ollama"}
TRAINERS = {"trainer", "trl", "axolotl", "llama-factory", "unsloth", "transformers"}
SERVERS = {"vllm", "sglang", "tgi", "tensorrt-llm", "lmdeploy", "llama.cpp", "ollama"}
COMPILED = {"jax", "jax-tpu", "vllm-tpu"}
LOSS = ("cross_entropy", "log_softmax", "lm_head", "logits", "compute_log_prob", "kl_div", "logprob")
MEMORY_COLUMN = r"(?:mem(?:ory)?|alloc(?:ated)?|reserved|vram)(?:usage|used|alloc(?:ated)?)?[:=]?{S}"
BARE_COLUMN = r"max_?mem[:=]{N}"  # detectron2 and its kin print MiB
STEP = r"(?:step|iter(?:ation)?)[:=]?{N}"
LONG_SIDE = 2**16
FEWEST_STEPS, GROWTH = 4, 1.3


class Situation(NamedTuple):
    """Everything that is known of a failure before the rules are asked."""

    message: Message
    fatal: bool
    fields: dict[str, Any]
    phase: str
    framework: str
    facts: dict[str, Value]


class Device(NamedTuple):
    """The card's bytes as the message has them; 0 where it has none."""

    total: int
    tried: int
    allocated: int
    free: int
    gap: int  # held by the allocator, unused
    outside: int  # held by others


def situation(message: Message, fatal: bool, values: dict[str, Any], text: Passage) -> Situation:
    """The facts of one failure."""
    near = clues.near_text(text)
    wide = joined([*text.before[-200:], *text.after]).lower()
    phase = clues.phase(message, text)
    framework = clues.framework(message, wide)
    if phase == "forward" and framework in SERVERS:
        phase = "generate"
    for name in ("allowed_bytes", "free_bytes"):  # cudaMallocAsync prints 2^64 for no limit, HIP for less than nothing
        if values.get(name, 0) >= BOGUS:
            del values[name]
    grows, step = growth(text)
    if step is not None:
        values.setdefault("step", step)
    of = device(values)
    task = clues.task(near) if clues.task(near) != "unknown" else clues.task(wide)
    kind = message.kind
    on_device = kind not in NO_DEVICE_KINDS
    told: dict[str, Value] = {
        "family": message.family,
        "kind": kind,
        "fatal": fatal,
        "phase": phase,
        "framework": framework,
        "host": kind in HOST_KINDS,
        "on_device": on_device,
        "on_cpu": "cpu" in joined(text.after[:2]).lower(),
        "gathers": "nested_concat" in near or "gather" in near,
        "device_full": "outofdevicememory" in near,
        "says_memory": "outofmemory" in near,
        "pinned": kind == "pinned" or clues.hints("pinned", near),
        "unified": clues.hints("unified", wide),
        "grows": grows and on_device,
        "training": phase in ("backward", "optimizer-step") or (phase in ("forward", "unknown") and task == "train"),
        "at_loss": phase == "forward" and any(word in near for word in LOSS),
        "trainer": framework in TRAINERS,
        "ggml": framework in GGML or kind in ("ggml", "ggml_kv", "metal", "single_buffer", "vulkan"),
        "compiled": framework in COMPILED,
        "server_start": kind in ("startup", "startup_changed"),
        "total_tokens": "total_tokens" in values,
        "bogus": kind == "bogus" or values.get("tried_to_allocate_bytes", 0) >= BOGUS,
        "capped": 0 < values.get("allowed_bytes", 0) < 0.99 * values.get("total_capacity_bytes", 0),
        "tried_mib": min(MOST * MOST, values.get("tried_to_allocate_bytes", 0) // MIB),
        "short_mib": max(0, values.get("requested_budget_bytes", 0) - values.get("free_bytes", 0)) // MIB,
        "weights_fit": 0 < values.get("model_weight_bytes", 0) < values.get("free_bytes", 0),
        "odd_shape": _odd(values),
        "program_known": "xla_total_bytes" in values,
        "program_mib": values.get("xla_total_bytes", 0) // MIB,
        "others_to_own": _percent(values.get("mps_other_bytes", 0), values.get("mps_allocated_bytes", 0)),
    }
    return Situation(message, fatal, values, phase, framework, {**told, **_shares(of, values)})


def _odd(values: dict[str, Any]) -> bool:
    """An array that is wrong more often than large: two sides that are long, or more than a TiB."""
    long = sum(side >= LONG_SIDE for side in values.get("tensor_shape", ()))
    return long >= 2 or int(values.get("tried_to_allocate_bytes", 0)) >= 2**40


def device(values: dict[str, Any]) -> Device:
    """The card as the allocator saw it. What `reserved` includes changed with PyTorch 2.1."""
    total = values.get("total_capacity_bytes", 0)
    if 0 < values.get("allowed_bytes", 0) < total:
        total = values["allowed_bytes"]
    # A message that was cut off may have what the process holds, and no more of what is in it.
    allocated = values.get("allocated_bytes", values.get("process_in_use_bytes", 0))
    free = values.get("free_bytes", 0)
    gap = values.get("reserved_unallocated_bytes")
    if gap is None and "reserved_bytes" in values:
        gap = max(0, values["reserved_bytes"] - allocated)
    if gap is None:
        gap = values.get("cached_bytes", 0)
    held = outside(values, allocated + gap)
    return Device(total, values.get("tried_to_allocate_bytes", 0), allocated, free, gap, held)


def outside(values: dict[str, Any], own: int) -> int:
    """Bytes that other processes hold: as listed, else what the figures leave, less a context of this process.

    In a container no listed process has this one's number: its own is the smallest that holds what it says it holds.
    """
    listed = sorted(process["bytes"] for process in values.get("processes", ()))
    if listed:
        if "process_in_use_bytes" not in values:
            mine = next((size for size in listed if size >= OWN * own), None)
            if mine is not None:
                listed.remove(mine)
        return sum(listed)
    total, free = values.get("total_capacity_bytes", 0), values.get("free_bytes")
    # What the allocator holds unused must be known (cudaMallocAsync does not say), or it would count as somebody else's.
    known = any(name in values for name in ("reserved_unallocated_bytes", "reserved_bytes", "cached_bytes"))
    if "process_in_use_bytes" in values or free is None or not total or not known:
        return 0
    return int(max(0, total - free - own - CONTEXT))


def _shares(of: Device, values: dict[str, Any]) -> dict[str, Value]:
    """Shares of the card, and of what was asked for, in percent."""
    crowded = _percent(of.outside, of.total) >= IDLE_SHARE and of.outside >= of.tried and of.outside >= of.gap
    return {
        "measured": bool(of.total and of.tried and ("allocated_bytes" in values or of.allocated)),
        "nothing_yet": values.get("allocated_bytes") == 0,
        "tried_share": _percent(of.tried, of.total) if of.total else 0,
        "allocated_share": _percent(of.allocated, of.total),
        "wanted_share": _percent(of.allocated + of.tried, of.total),
        "free_times": _percent(of.free, of.tried) if of.tried else 0,
        "total_mib": of.total // MIB,
        "free_mib": of.free // MIB,
        "gap_share": _percent(of.gap, of.total),
        "gap_times": _percent(of.gap, of.tried) if of.tried else 0,
        "room_times": _percent(of.free + of.gap, of.tried) if of.tried else 0,
        "outside_share": _percent(of.outside, of.total),
        "outside_times": _percent(of.outside, of.tried) if of.tried else 0,
        "outside_to_gap": _percent(of.outside, of.gap),
        "crowded": crowded,
    }


def _percent(part: int, whole: int) -> int:
    """Whole percent, rounded down; nothing of nothing is nothing."""
    if whole <= 0:
        return MOST if part > 0 else 0
    return min(MOST, max(0, 100 * part // whole))


def growth(text: Passage) -> tuple[bool, int | None]:
    """Whether the memory column of the lines before rises all the time, and the last step that they name."""
    column, bare, steps = compiled(MEMORY_COLUMN), compiled(BARE_COLUMN), compiled(STEP)
    seen: list[int] = []
    last = None
    for line in text.before:
        low = joined([line]).lower()
        if (found := column.search(low)) is not None:
            seen.append(size(found[1].strip(), found[2]))
        elif (found := bare.search(low)) is not None:
            seen.append(int(found[1]) * MIB)
        if (counted := steps.search(low)) is not None:
            last = int(counted[1])
    rises = (
        len(seen) >= FEWEST_STEPS
        and all(one <= next_ for one, next_ in pairwise(seen))
        and seen[-1] >= GROWTH * max(1, seen[0])
    )
    return rises, last if rises else None
