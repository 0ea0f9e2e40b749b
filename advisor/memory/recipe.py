"""From a workload to the recipe that its tensors follow."""

from __future__ import annotations

from functools import lru_cache

from advisor.engines import Engine
from advisor.memory.formats import BYTES, FORMATS
from advisor.memory.latest import latest
from advisor.memory.net import Recipe
from advisor.memory.parameters import Kind
from advisor.memory.sharding import expert_tp
from advisor.memory.weights import Storing, adapter_targets
from advisor.model import Model
from advisor.workload import Workload


def compute_width(w: Workload) -> int:
    return BYTES[w.precision.removesuffix("-mixed")]


def trains_fully(w: Workload) -> bool:
    return w.task == "train" and w.method == "full"


def upcast(w: Workload) -> bool:
    """PEFT's prepare_model_for_kbit_training: whatever bitsandbytes does not quantize becomes fp32.

    Not where the weights are sharded: ZeRO-3 and FSDP put tensors of one type together, so all is 16-bit, the packed weights'
    storage too (PEFT docs, accelerate/fsdp.md, accelerate/deepspeed.md; trl 1.16 leaves the preparation out there).
    """
    return w.task == "train" and w.method != "full" and kbit(w) and w.engine.kbit_upcast and w.zero < 3


def kbit(w: Workload) -> bool:
    """Whether bitsandbytes holds the weights."""
    return w.quantization != "none" and FORMATS[w.quantization].kbit


def resident_width(w: Workload) -> int:
    """Bytes of a weight that is not quantized."""
    if upcast(w) or w.precision == "fp32":
        return 4
    if trains_fully(w) and w.precision.endswith("-mixed") and not deepspeed_masters(w):
        return 4
    return 2


@latest
def storing(w: Workload) -> Storing:
    """How the base weights lie on the card."""
    return Storing(
        w.quantization,
        resident_width(w),
        blocks=not loads_into_one_block(w),
        skips=_skipped(w),
        ggml=w.engine.ggml,
        head_copy=_copies_head(w),
        kbit_head=w.engine.kbit_head,
        each_expert=not w.engine.stacked_experts and not w.engine.serving,
        kept=w.model.ends.fp32_modules if w.model.ends and not trains_fully(w) else (),
        kept_width=4 if w.precision.startswith("fp16") else resident_width(w),
    )


def keeps_experts(quantization: str, engine: Engine, model: Model) -> bool:
    """bitsandbytes replaces `nn.Linear` modules (transformers integrations/bitsandbytes.py), and transformers 5 has all experts
    of a layer in one parameter: they stay as they are, silently (bitsandbytes issue 1849)."""
    return engine.stacked_experts and quantization != "none" and FORMATS[quantization].kbit and model.has_experts


def _skipped(w: Workload) -> tuple[Kind, ...]:
    """Kinds of weights that are not quantized here, though the format could."""
    if keeps_experts(w.quantization, w.engine, w.model):
        return ("expert",)
    of_experts = w.quantization != "none" and FORMATS[w.quantization].of_experts
    return ("linear",) if of_experts and w.model.has_experts else ()


def _copies_head(w: Workload) -> bool:
    """transformers 4 loads the head that an FP8 checkpoint of a tied model has, and does not tie it (Qwen3-0.6B-FP8 takes a head
    more than its parameters in Qwen's published figures, transformers 4.51)."""
    stores = w.quantization != "none" and FORMATS[w.quantization].stores_head
    return stores and w.engine.keeps_stored_head


def loads_into_one_block(w: Workload) -> bool:
    """transformers since 4.50 first reserves one block for the whole model and cuts the weights out of it
    (modeling_utils.py, caching_allocator_warmup), when it loads straight to the GPU; llama.cpp has one buffer."""
    if w.engine.ggml:
        return True
    return w.task == "infer" and w.engine.reserves_once


def keeps_masters(w: Workload) -> bool:
    """Whether fp32 masters of what is trained lie beside the weights: with ZeRO, and where the engine always has them."""
    half = w.precision in ("bf16", "fp16")
    return w.task == "train" and (deepspeed_masters(w) or (w.engine.masters and half))


def deepspeed_masters(w: Workload) -> bool:
    """DeepSpeed keeps fp32 masters of what is trained beside the weights, which are 16-bit unless fp32 is asked for (ZeRO's
    optimizer clones its partition in every case: zero/stage_1_and_2.py, single_partition_of_fp32_groups)."""
    return w.task == "train" and w.zero > 0 and w.sharding == "deepspeed"


@latest
def recipe_of(w: Workload) -> Recipe:
    """How the tensors of this workload's passes look."""
    return _shared(_recipe(w))


@lru_cache(maxsize=1024)
def _shared(recipe: Recipe) -> Recipe:
    """One object for equal recipes, so that what is remembered by recipe is found by identity."""
    return recipe


def _recipe(w: Workload) -> Recipe:
    width = resident_width(w)
    adapted = w.task == "train" and w.method != "full"
    quantized = w.quantization != "none"
    autocast = w.task == "train" and w.precision.endswith("-mixed") and not deepspeed_masters(w) and not upcast(w)
    if autocast and w.zero and w.sharding == "fsdp":
        autocast, width = False, 2  # FSDP casts the gathered parameters, so the passes see 16-bit weights
    runs_its_code = not w.engine.fused and w.engine.sharding != "fsdp"  # those have models of their own
    own_loss = w.task == "train" and w.model.shifted_loss and runs_its_code
    shifts = w.task == "train" and w.engine.shifts_logits and not own_loss
    return Recipe(
        train=w.task == "train",
        weight=width,
        compute=compute_width(w),
        stream=4 if w.model.residual_fp32 else width,
        autocast=autocast,
        trainable=not adapted,
        quantized=quantized and FORMATS[w.quantization].unpacks,
        rank=w.lora_rank if adapted else 0,
        targets=adapter_targets(w.model, w.lora_targets) if adapted else frozenset(),
        adapter=BYTES[w.adapter_precision],
        dropout=adapted and w.lora_dropout > 0,
        kernel=w.attention,
        masked=sees_masks(w),
        loss=_loss(w),
        chunks=w.engine.chunks,
        chunk_tokens=w.engine.chunk_tokens,
        outputs_fp32=(w.task == "train" and w.engine.outputs_fp32) or shifts,
        shifted=shifts or own_loss,
        narrow_loss=own_loss and (deepspeed_masters(w) or not w.engine.autocasts),
        compiled=w.compile and w.task == "train",
        joined=w.engine.joined_projections and w.task == "train",
        cuts_distances=_cuts_distances(w),
        expands_keys=w.engine.expands_keys and w.task == "train",
        unpacked=BYTES["fp16"] * (2 if w.engine.kbit_from_fp16 and w.precision.startswith("bf16") else 1),
        quantized_head=quantized and kbit(w) and w.engine.kbit_head,
        keeps_inputs=quantized and kbit(w) and w.engine.kbit_keeps_inputs,
        caches=w.task == "infer",
        parts=token_parts(w),
        routed_parts=token_parts(w) if expert_tp(w) == 1 else 1,
        ring=w.cp > 1,
        exchanged=w.task == "train" and w.ep > 1,
        clamped=w.model.ends is not None and w.model.ends.audio is not None and width == 2 and w.precision.startswith("fp16"),
        fused=w.task == "train" and w.engine.fused,
    )


def _cuts_distances(w: Workload) -> bool:
    """The first DeBERTa looks no farther than the sequence is long (modeling_deberta.py, compute_attention_span)."""
    ends = w.model.ends
    return ends is not None and ends.cuts_distances and 2 * (w.seq if w.task == "train" else w.prompt) < ends.distances


def _loss(w: Workload) -> str:
    if w.task != "train" or w.loss != "chunked":
        return "plain"
    return "chunks" if w.engine.chunks or w.engine.chunk_tokens else "fused"


def token_parts(w: Workload) -> int:
    """Ranks that share out the tokens of what tensor parallel does not cut: norms, dropout and the residual stream (Korthikanti et
    al., arXiv 2205.05198)."""
    return w.tp if w.task == "train" and w.engine.sequence_parallel else 1


def sees_masks(w: Workload) -> bool:
    """Whether sliding layers get an explicit mask: a sequence not shorter than the window, in transformers' SDPA."""
    length = w.seq if w.task == "train" else w.prompt
    window = w.model.shortest_window
    return window is not None and length >= window and not w.engine.serving
