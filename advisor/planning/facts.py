"""What the rules may ask about a job: flat facts, all of them always there, each of one type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from advisor.planning.remedies import weight_bits

if TYPE_CHECKING:
    from advisor.planning.engine import Value
    from advisor.workload import Workload

# Keys of a job that are facts as they stand.
KEYS: dict[str, type] = {
    "gpus": int, "max_gpus": int, "nodes": int, "batch": int, "min_batch": int, "seq": int, "min_seq": int, "prompt": int,
    "accumulation": int, "objective": str, "precision": str, "quantization": str, "kv_precision": str, "method": str, "lora_rank": int,
    "optimizer": str, "checkpointing": str, "attention": str, "loss": str, "zero": int, "sharding": str,
    "tp": int, "pp": int, "cp": int, "ep": int, "compile": bool, "estimator": str,
}  # fmt: skip
# Name, type and meaning of those that are worked out.
WORKED_OUT: dict[str, tuple[type, str]] = {
    "fits": (bool, "the estimate fits the card"),
    "past": (int, "place of the rule that the walk has left behind; it never goes back"),
    "engine": (str, "name of the engine"),
    "serving": (bool, "the engine divides a model by tensor and pipeline parallel"),
    "bf16": (bool, "the card computes in bf16"),
    "data_parallel": (int, "GPUs that see different sequences"),
    "sharers": (int, "GPUs that share one copy of the model"),
    "weight_bits": (int, "bits of one weight"),
    "offloads": (str, "what is moved to the host's memory, with commas between"),
    "host_bytes": (int, "what a machine's own memory holds of the job; 0 where it is not worked out"),
    "host_short": (bool, "a machine's own memory is limited, and holds less than that"),
}
FACTS: dict[str, type] = {**KEYS, **{name: kind for name, (kind, _) in WORKED_OUT.items()}}

# What a text of a rule may hold between braces beside the facts.
FILLED = {*FACTS, "model", "global_batch", "tokens", "gpus_per_node", "dtype", "dtype_torch", "tuned", "bf16_suffix", "call"}
NAMELESS = "MODEL"
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def facts(w: Workload, fits: bool, past: int, host_bytes: int = 0) -> dict[str, Value]:
    """The situation in which the next rule is chosen."""
    return {
        **{name: getattr(w, name) for name in KEYS},
        "fits": fits,
        "past": past,
        "engine": w.engine.name,
        "serving": w.engine.serving,
        "bf16": w.gpu.bf16,
        "data_parallel": w.data_parallel,
        "sharers": w.sharers,
        "weight_bits": weight_bits(w),
        "offloads": ",".join(w.offload),
        "host_bytes": host_bytes,
        "host_short": w.host_ram is not None and host_bytes > w.host_ram,
    }


def filled(text: str, values: Mapping[str, Any]) -> str:
    """The text with the values in place of ``{batch}`` and the like; other braces stay, as in JSON."""
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)


def values(w: Workload) -> dict[str, Any]:
    """What the texts of a rule are filled with."""
    fp16 = w.precision.startswith("fp16") or not w.gpu.bf16
    return {
        **facts(w, fits=False, past=0),
        "model": _model_id(w),
        "global_batch": w.global_batch,
        "tokens": w.batch * w.seq,
        "gpus_per_node": -(-w.gpus // w.nodes),
        "dtype": "fp16" if fp16 else "bf16",
        "dtype_torch": "float16" if fp16 else "bfloat16",
        "tuned": "full" if w.method == "full" else "lora",
        "call": "model.generate" if w.model.generates else "model",
        "bf16_suffix": "_bf16" if w.precision.startswith("bf16") else "",
    }


def _model_id(w: Workload) -> str:
    """What a framework takes for the model: its Hugging Face id or its folder; MODEL where it has neither, as a size class."""
    from advisor.catalog import hf_id, is_model_name

    asked = w.asked.train if w.task == "train" else w.asked.infer
    if not isinstance(asked, str):
        return NAMELESS
    return (hf_id(asked) or NAMELESS) if is_model_name(asked) else asked
