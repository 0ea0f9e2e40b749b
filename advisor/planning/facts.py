"""What the rules may ask about a job: flat facts, all of them always there, each of one type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from advisor.memory.offload import moved
from advisor.memory.optimizers import OPTIMIZERS
from advisor.memory.recipe import keeps_masters
from advisor.mixers import Attention, LatentAttention
from advisor.planning.abilities import abilities
from advisor.planning.engine import Value
from advisor.planning.remedies import BITSANDBYTES, KV_BITS, weight_bits
from advisor.planning.software import runs_on
from advisor.vocabulary import OFFLOADS

if TYPE_CHECKING:
    from advisor.model import Model
    from advisor.workload import Workload

# Keys of a job that are facts as they stand.
KEYS: dict[str, type] = {
    "gpus": int, "max_gpus": int, "nodes": int, "batch": int, "min_batch": int, "seq": int, "min_seq": int, "prompt": int,
    "accumulation": int, "objective": str, "precision": str, "quantization": str, "kv_precision": str, "method": str, "lora_rank": int,
    "optimizer": str, "checkpointing": str, "attention": str, "loss": str, "zero": int, "sharding": str,
    "tp": int, "pp": int, "cp": int, "ep": int, "compile": bool, "allocator": str, "estimator": str,
}  # fmt: skip
# Type and meaning of those that come with the question.
TOLD: dict[str, tuple[type, str]] = {
    "fits": (bool, "the estimate fits the card"),
    "past": (int, "place of the rule that the walk has left behind; it never goes back"),
    "host_bytes": (int, "what a machine's own memory holds of the job; 0 where it is not worked out"),
    "host_short": (bool, "a machine's own memory is limited, and holds less than that"),
}

OF_THE_HOST = frozenset({"host_bytes", "host_short"})  # of those, what takes an estimate to tell


class Worked(NamedTuple):
    """A fact that is worked out of the job: its type, its meaning, and how."""

    kind: type
    meaning: str
    of: Callable[[Workload], Value]


def _is_away(kind: str, w: Workload) -> bool:
    return kind in moved(w)


WORKED_OUT: dict[str, Worked] = {
    "engine": Worked(str, "name of the engine", lambda w: w.engine.name),
    "inference": Worked(bool, "the model is run and not trained", lambda w: w.task == "infer"),
    "serving": Worked(bool, "the engine divides a model by tensor and pipeline parallel", lambda w: w.engine.serving),
    "bf16": Worked(bool, "the card computes in bf16", lambda w: w.gpu.bf16),
    "data_parallel": Worked(int, "GPUs that see different sequences", lambda w: w.data_parallel),
    "sharers": Worked(int, "GPUs that share one copy of the model", lambda w: w.sharers),
    "weight_bits": Worked(int, "bits of one weight", weight_bits),
    "offloads": Worked(str, "what is moved to the host's memory, with commas between", lambda w: ",".join(w.offload)),
    "kv_bits": Worked(int, "bits of one value of the KV cache", lambda w: KV_BITS[w.kv_precision]),
    "cuda": Worked(bool, "the card is NVIDIA's, or known by its size alone", lambda w: w.gpu.cuda),
    "unified": Worked(bool, "the card has no memory beside the machine's own", lambda w: w.gpu.unified),
    "fp8": Worked(bool, "the card computes in fp8", lambda w: w.gpu.fp8),
    "bitsandbytes": Worked(bool, "bitsandbytes runs on the card", lambda w: runs_on("bitsandbytes", w.gpu)),
    "paging": Worked(
        bool,
        "bitsandbytes' paged optimizers have managed memory on the card",
        lambda w: runs_on("bitsandbytes paged optimizers", w.gpu),
    ),
    "bitsandbytes_weights": Worked(
        bool, "the weights are in a format of bitsandbytes", lambda w: w.quantization in BITSANDBYTES
    ),
    "ggml": Worked(bool, "the engine runs GGUF files with llama.cpp's library", lambda w: w.engine.ggml),
    "prompt_in_pieces": Worked(
        bool, "the engine reads a long prompt in pieces by itself", lambda w: abilities(w.engine.name).prompt_in_pieces
    ),
    "layers": Worked(int, "layers of the model", lambda w: len(w.model.layers)),
    "host_layers": Worked(int, "layers that may wait in the host's memory", lambda w: _host_layers(w)),
    "takes_fsdp": Worked(
        bool, "the engine can be launched with FSDP instead of DeepSpeed", lambda w: abilities(w.engine.name).fsdp
    ),
    "expands_segments": Worked(
        bool, "the engine turns expandable segments on by itself", lambda w: abilities(w.engine.name).expands_segments
    ),
    "generates": Worked(bool, "the model generates tokens, and so has a cache and a prompt", lambda w: w.model.generates),
    "full_attention": Worked(
        bool, "every layer of the model has attention over the whole sequence", lambda w: _is_full(w.model)
    ),
    "latent_attention": Worked(
        bool,
        "some layer has latent attention (MLA)",
        lambda w: any(isinstance(layer.attention, LatentAttention) for layer, _ in w.model.kinds),
    ),
    "heads_in_blocks": Worked(
        bool, "keys and values of every head are whole blocks of 32 numbers", lambda w: _in_blocks(w.model)
    ),
    "flashinfer_heads": Worked(
        bool, "every head is of 64, 128 or 256 numbers", lambda w: all(size in (64, 128, 256) for size in _head_sizes(w.model))
    ),
    "masters": Worked(
        bool, "16-bit weights have fp32 masters beside them here", lambda w: keeps_masters(w._replace(precision="bf16"))
    ),
    "fused_step": Worked(bool, "the engine's own AdamW is a fused kernel", lambda w: w.engine.fused_step),
    "optimizer_bits8": Worked(bool, "the optimizer's state is in 8 bits", lambda w: OPTIMIZERS[w.optimizer].bits8),
    "optimizer_paged": Worked(
        bool, "the optimizer's state is paged between card and host", lambda w: not OPTIMIZERS[w.optimizer].on_device
    ),
    **{f"{kind}_away": Worked(bool, f"{kind}: in the host's memory", partial(_is_away, kind)) for kind in OFFLOADS},
}
FACTS: dict[str, type] = {
    **KEYS,
    **{name: kind for name, (kind, _) in TOLD.items()},
    **{name: fact.kind for name, fact in WORKED_OUT.items()},
}
# The keys that plans change and that decide a fact which is worked out; those of the engine, the card and the model have none.
DECIDED_BY: dict[str, tuple[str, ...]] = {
    "data_parallel": ("gpus", "tp", "pp"),
    "sharers": ("gpus", "tp", "pp"),
    "weight_bits": ("quantization", "precision"),
    "offloads": ("offload",),
    "kv_bits": ("kv_precision",),
    "bitsandbytes_weights": ("quantization",),
    "masters": ("zero", "sharding"),
    "optimizer_bits8": ("optimizer",),
    "optimizer_paged": ("optimizer",),
    "host_layers": ("offload", "offload_layers"),
    **{f"{kind}_away": ("offload", "zero", "sharding") for kind in OFFLOADS},
}


def keys_of(fact: str) -> tuple[str, ...]:
    """The keys that plans change and that decide a fact."""
    return (fact,) if fact in KEYS else DECIDED_BY.get(fact, ())


# What a text of a rule may hold between braces beside the facts.
TEXTS: dict[str, Callable[[Workload], Value]] = {
    "model": lambda w: _model_id(w),
    "global_batch": lambda w: w.global_batch,
    "tokens": lambda w: w.batch * w.seq,
    "gpus_per_node": lambda w: -(-w.gpus // w.nodes),
    "dtype": lambda w: "fp16" if _in_fp16(w) else "bf16",
    "dtype_torch": lambda w: "float16" if _in_fp16(w) else "bfloat16",
    "dtype_fabric": lambda w: "16" if _in_fp16(w) else "bf16",  # Lightning's own name, as in 16-mixed
    "tuned": lambda w: "full" if w.method == "full" else "lora",
    "call": lambda w: "model.generate" if w.model.generates else "model",
    "bf16_suffix": lambda w: "_bf16" if w.precision.startswith("bf16") else "",
    "card_layers": lambda w: len(w.model.layers) - _host_layers(w),
    "layers_but_one": lambda w: len(w.model.layers) - 1,
    "card_slots": lambda w: len(w.model.layers) - _host_layers(w) + 1,  # as llama.cpp counts: the output layer comes first
    "launch": lambda w: "launch" if w.nodes == 1 else "launch on every node, with the first one's address and its own rank",
    "host_gib": lambda w: _host_gib(w) if w.engine.serving else 0,
}
FILLED = {*FACTS, *TEXTS}
HOW: dict[str, Callable[[Workload], Value]] = {
    **{name: attrgetter(name) for name in KEYS},
    **{name: worked.of for name, worked in WORKED_OUT.items()},
    **TEXTS,
}
NAMELESS = "MODEL"
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


class Situation(Mapping[str, Value]):
    """The facts of a job, each worked out when it is asked for: a search asks a few of thousands of jobs.

    What else the texts of a rule are filled with can be asked for as well.
    """

    def __init__(self, w: Workload, told: dict[str, Value]) -> None:
        self._w, self._known = w, told

    def __getitem__(self, name: str) -> Value:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = HOW[name](self._w)
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(FACTS)

    def __len__(self) -> int:
        return len(FACTS)

    def __contains__(self, name: object) -> bool:
        return name in FACTS


def facts(w: Workload, fits: bool, past: int, host_bytes: int = 0) -> Situation:
    """The situation in which the next rule is chosen."""
    short = w.host_ram is not None and host_bytes > w.host_ram
    return Situation(w, {"fits": fits, "past": past, "host_bytes": host_bytes, "host_short": short})


def filled(text: str, values: Mapping[str, Value]) -> str:
    """The text with the values in place of ``{batch}`` and the like; other braces stay, as in JSON."""
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)


def _is_full(model: Model) -> bool:
    return all(layer.attention is not None and not layer.attention.window for layer, _ in model.kinds)


def _in_blocks(model: Model) -> bool:
    return all(size % 32 == 0 for size in _head_sizes(model))


def _head_sizes(model: Model) -> list[int]:
    """Numbers of one head of each kind of layer; those of latent attention have two sizes and are asked for apart."""
    return [layer.attention.head_dim for layer, _ in model.kinds if isinstance(layer.attention, Attention)]


def _in_fp16(w: Workload) -> bool:
    return w.precision.startswith("fp16") or not w.gpu.bf16


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
