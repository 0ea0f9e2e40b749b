"""Host memory that one machine needs: its processes, what passes through it while a model is loaded or saved, what is offloaded.

Sizes in bytes, over all processes of the machine. File pages that the kernel can take back, as those of a memory-mapped
checkpoint, are not counted.
"""

from __future__ import annotations

from functools import partial

from advisor.memory import trained
from advisor.memory.collectives import per_rank
from advisor.memory.extent import size
from advisor.memory.formats import BYTES
from advisor.memory.inference import layers_away
from advisor.memory.kv_cache import cache_bytes
from advisor.memory.offload import moved
from advisor.memory.optimizers import OPTIMIZERS
from advisor.memory.parameters import layer_weights
from advisor.memory.passes import training_passes
from advisor.memory.recipe import (
    deepspeed_masters,
    recipe_of,
    resident_width,
    storing,
    trains_fully,
)
from advisor.memory.sharding import Rank, ranks, shares_of, whole_rank
from advisor.memory.training import in_flight_count, local_seq
from advisor.memory.weights import rank_sum
from advisor.model import Model
from advisor.results import Host, Origin, Part
from advisor.workload import Workload

# A process with PyTorch and a CUDA context, whatever it computes.
PROCESS = 2 * 2**30
PROCESS_SOURCE = "resident after the first CUDA call: 1.96 GiB (pytorch issue 113326), 2.22 GiB (106511), 1.83 GiB (12873)"
ZERO_SOURCE = "DeepSpeed 0.19 zero/stage_1_and_2.py, zero/stage3.py"
FSDP_SOURCE = "torch.distributed.fsdp, CPUOffloadPolicy"
TORCHAO_SOURCE = "torchao optim/cpu_offload.py, CPUOffloadOptimizer"
SAVING_SOURCE = (
    "DeepSpeed 0.19 stage3_gather_16bit_weights_on_model_save; torch get_model_state_dict(full_state_dict, cpu_offload)"
)
LOADING_SOURCE = "transformers 5.23 modeling_utils.py, anonymous memory of a loading process on Linux"


def host(w: Workload) -> Host:
    """The phase that needs the most, on the rank that needs the most."""
    return max((phase for rank in ranks(w) for phase in _phases(w, rank)), key=lambda phase: phase.bytes)


def processes(w: Workload) -> int:
    """Processes of one machine: one for each card, or one that deals the layers out over all of them."""
    return 1 if w.deals_out_layers else -(-w.gpus // w.nodes)


def _phases(w: Workload, rank: Rank) -> tuple[Host, ...]:
    started = [] if w.engine.ggml else [_all(w, "processes", PROCESS, "a process with CUDA", PROCESS_SOURCE)]
    weights = _weights(w, rank)
    load = Host("load", _present([*started, weights, _loading(w)]))
    rest = _trained(w, rank) if w.task == "train" else [_cache(w, rank)]
    return (
        load,
        Host("run", _present([*started, weights, *rest])),
        Host("save", _present([*started, weights, *rest, _saved(w)])),
    )


def _present(parts: list[Part]) -> tuple[Part, ...]:
    return tuple(part for part in parts if part.bytes)


def _all(w: Workload, name: str, each: int, what: str, source: str) -> Part:
    """A part of which every process of the machine has as much."""
    many = processes(w)
    return Part(name, many * each, partial(_of_each, many, each, what, source))


def _of_each(many: int, each: int, what: str, source: str) -> Origin:
    return Origin(f"{many} × {each:,} B: {what}", source)


def _weights(w: Workload, rank: Rank) -> Part:
    if "layers" in w.offload:
        parts = rank.stages if w.deals_out_layers else processes(w)
        away = sum(layers_away(w, rank))
        return Part("weights", parts * away, Origin(f"{parts} × {away:,} B: layers that wait", "accelerate dispatch_model"))
    if "parameters" not in w.offload:
        return Part("weights", 0)
    share = per_rank(w, rank, rank_sum(rank, storing(w)).bytes, shares_of(w).weights)
    source = FSDP_SOURCE if w.sharding == "fsdp" else ZERO_SOURCE
    return _all(w, "weights", share, "a shard of the weights, pinned", source)


def _cache(w: Workload, rank: Rank) -> Part:
    if "kv" not in w.offload:
        return Part("kv-cache", 0)
    held = cache_bytes(rank.model, w.batch, w.seq, w.kv_precision)
    parts = rank.stages if w.deals_out_layers else processes(w)
    return Part("kv-cache", parts * held, Origin(f"{parts} × {held:,} B: the cache", "transformers 5.23 cache_utils.py"))


# --- loading ---------------------------------------------------------------------------------------------------------


def _loading(w: Workload) -> Part:
    """The model as it is made in the host's memory before it goes to the card.

    transformers 5 maps a checkpoint's files and copies what is not used as it lies there: a model in another type than the
    checkpoint's, and experts, which are stacked. With FSDP the first process of a machine does so for all; for ZeRO-3 tensors
    are taken from the map one by one. A model quantized while it is loaded goes to the card directly, unless it is sharded:
    then each process has the whole of it first.
    """
    if w.task == "infer" or not w.engine.made_on_host:
        return Part("loading", 0)
    if w.quantization != "none":
        whole = rank_sum(whole_rank(w.model), storing(w)).bytes if w.zero == 3 else 0
        return _all(w, "loading", whole, "the quantized model, before it is sharded", LOADING_SOURCE)
    if w.zero == 3 and w.sharding == "deepspeed":
        return Part("loading", 0)
    many = 1 if w.zero == 3 else processes(w)
    width, copied = resident_width(w), _copied(w)
    text = f"{many} × {copied:,} × {width} B: parameters that are copied out of the checkpoint's files"
    return Part("loading", many * copied * width, Origin(text, LOADING_SOURCE))


def _copied(w: Workload) -> int:
    if not w.engine.maps_checkpoint or resident_width(w) != BYTES[w.model.dtype]:
        return rank_sum(whole_rank(w.model.unstored), storing(w)).elements
    return _experts(w.model) if w.engine.stacked_experts else 0


def _experts(model: Model) -> int:
    return sum(
        many * weight.elements
        for layer, many in model.kinds
        for weight in layer_weights(layer, model.hidden)
        if weight.kind == "expert"
    )


def _saved(w: Workload) -> Part:
    """The whole model's state dict, which one process gathers from all shards to write it (accelerate 1.15 get_state_dict)."""
    if w.task == "infer" or w.zero < 3 or not trains_fully(w) or not w.engine.made_on_host:
        return Part("state-dict", 0)
    elements, width = rank_sum(whole_rank(w.model.unstored), storing(w)).elements, resident_width(w)
    text = f"{elements:,} × {width} B: the model, gathered on the first process"
    return Part("state-dict", elements * width, Origin(text, SAVING_SOURCE))


# --- training --------------------------------------------------------------------------------------------------------


def _trained(w: Workload, rank: Rank) -> list[Part]:
    away, recipe = moved(w), recipe_of(w)
    ranks_of = shares_of(w)
    shard = per_rank(w, rank, trained.elements(w, rank, recipe), ranks_of.states)
    state = per_rank(w, rank, trained.all_state_bytes(w, rank, recipe), ranks_of.states)
    optimizer = OPTIMIZERS[w.optimizer]
    parts = []
    if "optimizer" in away or not optimizer.on_device:
        parts.append(_all(w, "optimizer-state", state, optimizer.text, optimizer.source))
    if "optimizer" in away:
        parts += _beside_the_optimizer(w, shard, trained.width(w, recipe))
    if "activations" in away:
        kept = _kept(w, rank)
        parts.append(_all(w, "activations", kept, "what the layers keep", "torch.autograd.graph.save_on_cpu"))
    return parts


def _beside_the_optimizer(w: Workload, shard: int, width: int) -> list[Part]:
    """What an optimizer on the CPU has beside its state: the parameters that it steps, and their gradients, pinned."""
    if deepspeed_masters(w):
        copies = "a shard in 16 bits: updated parameters, or the gradients of ZeRO-3"
        return [
            _all(w, "master-weights", 4 * shard, "fp32 masters of a shard", ZERO_SOURCE),
            _all(w, "gradients", 4 * shard, "fp32 gradients of a shard, pinned", ZERO_SOURCE),
            _all(w, "staging-buffers", BYTES["bf16"] * shard, copies, ZERO_SOURCE),
        ]
    if "parameters" in w.offload:
        return [_all(w, "gradients", width * shard, "gradients of a shard, pinned", FSDP_SOURCE)]
    return [
        _all(w, "master-weights", width * shard, "a copy of the parameters, pinned", TORCHAO_SOURCE),
        _all(w, "gradients", width * shard, "gradients, pinned", TORCHAO_SOURCE),
    ]


def _kept(w: Workload, rank: Rank) -> int:
    """Bytes that the layers keep for the backward pass and that the card does not, of all micro-batches in flight."""

    def kept(parked: bool) -> int:
        passes = training_passes(
            recipe_of(w), rank, checkpointed=w.checkpointing == "full", holds_logits=False, adding=False, parked=parked
        )
        return size(passes.kept, w.batch, local_seq(w))

    return in_flight_count(w, rank) * max(0, kept(False) - kept(True))
