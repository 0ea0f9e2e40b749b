"""What the rules may ask about a job: flat facts, all of them always there, each of one type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from advisor.memory.offload import moved
from advisor.memory.optimizers import OPTIMIZERS
from advisor.memory.recipe import keeps_masters
from advisor.planning.abilities import abilities
from advisor.planning.remedies import BITSANDBYTES, KV_BITS, weight_bits
from advisor.planning.software import runs_on
from advisor.vocabulary import OFFLOADS

if TYPE_CHECKING:
    from advisor.planning.engine import Value
    from advisor.workload import Workload

# Keys of a job that are facts as they stand.
KEYS: dict[str, type] = {
    "gpus": int, "max_gpus": int, "nodes": int, "batch": int, "min_batch": int, "seq": int, "min_seq": int, "prompt": int,
    "accumulation": int, "objective": str, "precision": str, "quantization": str, "kv_precision": str, "method": str, "lora_rank": int,
    "optimizer": str, "checkpointing": str, "attention": str, "loss": str, "zero": int, "sharding": str,
    "tp": int, "pp": int, "cp": int, "ep": int, "compile": bool, "allocator": str, "estimator": str,
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
    "kv_bits": (int, "bits of one value of the KV cache"),
    "cuda": (bool, "the card is NVIDIA's, or known by its size alone"),
    "fp8": (bool, "the card computes in fp8"),
    "bitsandbytes": (bool, "bitsandbytes runs on the card"),
    "paging": (bool, "bitsandbytes' paged optimizers have managed memory on the card"),
    "bitsandbytes_weights": (bool, "the weights are in a format of bitsandbytes"),
    "ggml": (bool, "the engine runs GGUF files with llama.cpp's library"),
    "prompt_in_pieces": (bool, "the engine reads a long prompt in pieces by itself"),
    "layers": (int, "layers of the model"),
    "host_layers": (int, "layers that may wait in the host's memory"),
    "takes_fsdp": (bool, "the engine can be launched with FSDP instead of DeepSpeed"),
    "generates": (bool, "the model generates tokens, and so has a cache and a prompt"),
    "full_attention": (bool, "every layer of the model has attention over the whole sequence"),
    "masters": (bool, "16-bit weights have fp32 masters beside them here"),
    "optimizer_bits8": (bool, "the optimizer's state is in 8 bits"),
    "optimizer_paged": (bool, "the optimizer's state is paged between card and host"),
    **{f"{kind}_away": (bool, f"{kind}: in the host's memory") for kind in OFFLOADS},
}
FACTS: dict[str, type] = {**KEYS, **{name: kind for name, (kind, _) in WORKED_OUT.items()}}

# What a text of a rule may hold between braces beside the facts.
FILLED = {
    *FACTS, "model", "global_batch", "tokens", "gpus_per_node", "dtype", "dtype_torch", "tuned", "bf16_suffix", "call",
    "card_layers", "host_gib",
}  # fmt: skip
NAMELESS = "MODEL"
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def facts(w: Workload, fits: bool, past: int, host_bytes: int = 0) -> dict[str, Value]:
    """The situation in which the next rule is chosen."""
    away = moved(w)
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
        "kv_bits": KV_BITS[w.kv_precision],
        "cuda": w.gpu.cuda,
        "fp8": w.gpu.fp8,
        "bitsandbytes": runs_on("bitsandbytes", w.gpu),
        "paging": runs_on("bitsandbytes paged optimizers", w.gpu),
        "bitsandbytes_weights": w.quantization in BITSANDBYTES,
        "ggml": w.engine.ggml,
        "prompt_in_pieces": abilities(w.engine.name).prompt_in_pieces,
        "layers": len(w.model.layers),
        "host_layers": _host_layers(w),
        "takes_fsdp": abilities(w.engine.name).fsdp,
        "generates": w.model.generates,
        "full_attention": all(layer.attention is not None and not layer.attention.window for layer, _ in w.model.kinds),
        "masters": keeps_masters(w._replace(precision="bf16")),
        "optimizer_bits8": OPTIMIZERS[w.optimizer].bits8,
        "optimizer_paged": not OPTIMIZERS[w.optimizer].on_device,
        **{f"{kind}_away": kind in away for kind in OFFLOADS},
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
        "card_layers": len(w.model.layers) - _host_layers(w),
        "host_gib": _host_gib(w) if w.engine.serving else 0,
    }


def _host_layers(w: Workload) -> int:
    """Layers that may wait in the host's memory: so many as the job says, or as it takes."""
    if "layers" not in w.offload:
        return 0
    return len(w.model.layers) if w.offload_layers is None else min(w.offload_layers, len(w.model.layers))


def _host_gib(w: Workload) -> int:
    """GiB of weights that one GPU's part of the model leaves to the host."""
    from advisor.memory.inference import layers_away
    from advisor.memory.sharding import ranks

    return max(-(-sum(layers_away(w, rank)) // 2**30) for rank in ranks(w))


def _model_id(w: Workload) -> str:
    """What a framework takes for the model: its Hugging Face id or its folder; MODEL where it has neither, as a size class."""
    from advisor.catalog import hf_id, is_model_name

    asked = w.asked.train if w.task == "train" else w.asked.infer
    if not isinstance(asked, str):
        return NAMELESS
    return (hf_id(asked) or NAMELESS) if is_model_name(asked) else asked
