"""The defaults of a job, and what contradicts itself: from what the user said to a workload."""

from __future__ import annotations

import math
from functools import lru_cache

from advisor import catalog, objectives
from advisor.engines import Engine
from advisor.errors import RequestError
from advisor.hardware import Gpu
from advisor.job import Job
from advisor.memory.offload import refuse_unknown
from advisor.mixers import Attention
from advisor.model import Model
from advisor.references import find_model
from advisor.vocabulary import GGUF_TYPES
from advisor.workload import Workload

LLAMA_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

GGUF_FORMATS = ("none", "mxfp4", *GGUF_TYPES)

FLASH_HEAD = 256  # widest head of PyTorch's FlashAttention (sdp_utils.cpp, check_head_dim_size_flash)


def decide(job: Job) -> Workload:
    """Every key of the job, decided. Raises RequestError where the request contradicts itself."""
    task = _task(job)
    gpu = catalog.find_gpu(_named(job.gpu))
    model = find_model(job.train if task == "train" else job.infer)
    if model.ends:
        from advisor.encoder_jobs import with_objective

        model = with_objective(model, task)
    objective = job.objective or "lm"
    engine = _engine(job, task, model)
    objectives.check(objective, engine, model, job.estimator or "detailed")
    if engine.untied_head:
        model = model.untied
    _check_card(engine, gpu, job)
    notes = [*model.notes]
    if job.engine and engine.name != _other(task):
        notes += [f"{engine.name}: {note}." for note in engine.notes]
        notes.append(f"What the job says, or is assumed above, goes before {engine.name}'s own defaults.")
    parallel = _parallel(job, task, gpu, engine, model)
    _check_cache(job, task, engine)
    precision = _precision(job, task, gpu, engine, model, notes)
    method, quantization = _method(job, task, engine, model, notes)
    loss = _loss(job, engine, method, objective)
    seq = job.seq or min(2048 if task == "train" else 4096, model.max_context or 2**31)
    prompt = job.prompt or seq
    if prompt > seq:
        raise RequestError(f"prompt: {prompt:,} tokens are more than seq, which is prompt plus output: {seq:,}")
    if task == "train" and prompt != seq and not model.is_encoder_decoder:
        raise RequestError("prompt: training reads whole sequences; their length is --seq")
    longest = max(prompt, seq - prompt) if model.is_encoder_decoder and prompt < seq else seq
    if model.max_context and longest > model.max_context:
        notes.append(f"{model.name} was made for {model.max_context:,} tokens; {longest:,} are more.")
    if job.compile:
        notes.append(COMPILED[task])
    if job.host_ram and job.estimator not in (None, "detailed"):
        notes.append("The memory guide's formulas know no host memory: host_ram limits nothing.")
    if parallel["ep"] > 1:
        notes.append("Experts are taken to get as many tokens each: the rank of a favoured one needs more.")
    if task == "infer" and engine.preallocates_kv:
        notes.append(
            f"{engine.name} fills its share of the card with KV cache: nvidia-smi shows that share, whatever the job needs."
        )
    if task == "infer" and engine.serving:
        notes += _headroom_note(engine, job, gpu, parallel["tp"] * parallel["pp"])
    if model.nominal:
        notes.append(_nominal_note(model))
    refuse_unknown(job.offload or (), task, engine.name, engine.serving, job.zero or 0)
    if objective != "lm":
        notes.append(objectives.note(objective, method, seq))
    if objective == "reward":
        model = objectives.scored(model)
    targets = _targets(job, model, notes)
    attention = _attention(job, engine, gpu, model, precision)
    compute = precision.removesuffix("-mixed")
    workload = Workload(
        asked=job,
        gpu=gpu,
        model=model,
        engine=engine,
        task=task,
        **parallel,
        free=_free(job, gpu),
        memory_fraction=_share(job.memory_fraction, "memory-fraction", most=1.0) or engine.reserves.memory_fraction,
        batch=job.batch or 1,
        seq=seq,
        prompt=prompt,
        accumulation=job.accumulation or 1,
        precision=precision,
        quantization=quantization,
        kv_precision=job.kv_precision or compute,
        method=method,
        lora_rank=job.lora_rank or 16,
        lora_targets=targets,
        lora_dropout=job.lora_dropout or 0.0,
        adapter_precision=job.adapter_precision or _adapter_precision(engine, compute),
        optimizer=job.optimizer or "adamw",
        checkpointing=job.checkpointing or "none",
        attention=attention,
        loss=loss,
        zero=_at_most(job.zero or 0, 3, "zero"),
        sharding=job.sharding or engine.sharding,
        offload=job.offload or (),
        offload_layers=_offload_layers(job),
        host_ram=job.host_ram,
        engine_version=job.engine_version,
        compile=bool(job.compile),
        allocator=_allocator(job, engine, gpu),
        estimator=job.estimator or "detailed",
        confidence=_share(job.confidence, "confidence", most=0.9999) or 0.9,
        keep=job.keep or (),
        min_seq=job.min_seq or 1024,
        min_batch=job.min_batch or 1,
        policy=job.policy or "documented",
        notes=tuple(notes),
        observed=job.observed,
        observed_with=job.observed_with,
        objective=objective,
    )
    if model.ends:
        from advisor.encoder_jobs import settled

        return settled(workload)
    return workload


COMPILED = {
    "train": "torch.compile: what it keeps of each layer is estimated; a loss over all logits at once is as in eager mode.",
    "infer": "What torch.compile fuses away is not estimated yet: the figures are those of eager mode.",
}


def _task(job: Job) -> str:
    if (job.train is None) == (job.infer is None):
        given = "both are" if job.train is not None else "neither is"
        raise RequestError(f"name the model with --train or with --infer; {given} given")
    task = "train" if job.train is not None else "infer"
    if task == "infer":
        for name, default in OF_TRAINING:
            if getattr(job, name) not in (None, default):
                raise RequestError(f"{name.replace('_', '-')} is for training; with --infer there is nothing for it to do")
        if job.precision and job.precision.endswith("-mixed"):
            raise RequestError(f"precision: {job.precision} is for training; with --infer take {job.precision[:4]}")
    elif job.kv_precision in ("fp8", "int8", "q8_0", "q4_0"):
        raise RequestError("kv-precision: training has no KV cache; it is for --infer")
    return task


# What only the one task has, with what it is when nobody asks for it.
OF_TRAINING = (
    ("method", "full"),
    ("objective", "lm"),
    ("checkpointing", "none"),
    ("zero", 0),
    ("accumulation", 1),
    ("optimizer", "adamw"),
    ("cp", 1),
)


def _named(gpu: str | None) -> str:
    if gpu is None:
        raise RequestError("name the card with --gpu: a name of `advise gpus`, or a size such as 24GB")
    return gpu


def _engine(job: Job, task: str, model: Model) -> Engine:
    engine = catalog.find_engine(job.engine or _usual_engine(task, model, job.objective), job.engine_version)
    if engine.task not in (task, "both"):
        does = "trains" if engine.task == "train" else "runs"
        raise RequestError(f"engine: {engine.name} only {does} models; for --{task} take --engine {_other(task)}")
    return engine


def _check_card(engine: Engine, gpu: Gpu, job: Job) -> None:
    """Refuses a card that the engine does not run on; an older version of it may run on older ones."""
    if gpu.vendor and engine.vendors and gpu.vendor not in engine.vendors:
        raise RequestError(f"engine: {engine.name} does not run on {gpu.name}; it takes cards of {', '.join(engine.vendors)}")
    has = float(gpu.compute_capability or math.inf) if gpu.vendor == "nvidia" else math.inf
    if has < engine.capability and job.engine_version is None:
        raise RequestError(
            f"engine: {engine.name} needs compute capability {engine.capability:g} and {gpu.name} has {has:g};"
            " with --engine-version an older one is estimated"
        )


def _usual_engine(task: str, model: Model, objective: str | None) -> str:
    """What runs a model when nobody says: a GGUF file is llama.cpp's, preferences are TRL's."""
    if objective not in (None, "lm"):
        return "trl"
    if task == "infer" and model.stored:
        from advisor.memory.weights import is_gguf

        return "llama.cpp" if is_gguf(model) else _other(task)
    return _other(task)


def _other(task: str) -> str:
    return "trainer" if task == "train" else "transformers"


def _parallel(job: Job, task: str, gpu: Gpu, engine: Engine, model: Model) -> dict[str, int]:
    """GPUs and how they share the work. Degrees that the user gives decide ``gpus`` when it is not given itself."""
    tp, pp, cp, ep = job.tp or 1, job.pp or 1, job.cp or 1, job.ep or 1
    for name, degree in (("tp", tp), ("pp", pp)):
        if degree > 1 and engine.splits_layers_only:
            raise RequestError(f"{name}: {engine.name} deals the layers out by itself; give --gpus {job.gpus or tp * pp} alone")
    group = tp * pp * cp if task == "train" else tp * pp
    gpus = job.gpus or group
    if gpus % group:
        degrees = "tp × pp × cp" if task == "train" else "tp × pp"
        raise RequestError(f"gpus: {gpus} cannot be divided by {degrees} = {group}")
    if ep > 1:
        _check_experts(ep, gpus // pp, task, engine, model)
    nodes = job.nodes or math.ceil(gpus / gpu.per_node)
    if nodes > gpus:
        raise RequestError(f"nodes: {nodes} machines are more than the {gpus} GPUs in them")
    return {
        "gpus": gpus,
        "max_gpus": max(job.max_gpus or 8, gpus),
        "nodes": nodes,
        "tp": tp,
        "pp": pp,
        "cp": cp,
        "ep": ep,
    }


def _check_cache(job: Job, task: str, engine: Engine) -> None:
    """Refuses a type of KV cache that the engine has not."""
    can = engine.kv_precisions
    if task == "infer" and can and job.kv_precision and job.kv_precision not in can:
        raise RequestError(f"kv-precision: {engine.name} has no {job.kv_precision} cache; it has {', '.join(can)}")


def _check_experts(ep: int, ranks: int, task: str, engine: Engine, model: Model) -> None:
    """Experts are dealt out over the ranks of a pipeline stage."""
    if not model.has_experts:
        raise RequestError(f"ep: {model.name} has no experts to divide")
    if task == "infer" and not engine.serving:
        raise RequestError(f"ep: {engine.name} does not deal out experts; vllm and sglang do")
    if ranks % ep:
        raise RequestError(f"ep: {ep} does not divide the {ranks} GPUs of a pipeline stage")


def _free(job: Job, gpu: Gpu) -> int | None:
    if job.free is not None and job.free > gpu.total_bytes:
        raise RequestError(f"free: {job.free:,} bytes are more than {gpu.name} has ({gpu.total_bytes:,})")
    return job.free


def _precision(job: Job, task: str, gpu: Gpu, engine: Engine, model: Model, notes: list[str]) -> str:
    if job.precision is not None:
        if job.precision.startswith("bf16") and not gpu.bf16:
            notes.append(
                f"{gpu.name} has no bf16 units: PyTorch emulates it, at the same memory and much slower; fp16 is its own."
            )
        return job.precision
    if task == "train":
        if gpu.bf16:
            return "bf16"
        precision = _without_bf16(job, engine)
        because = "" if precision == "fp16-mixed" else f": {engine.name} has no fp16-mixed for this job"
        notes.append(f"{gpu.name} has no bf16, so {precision} is assumed{because}.")
        return precision
    if model.dtype == "fp32" and (job.quantization or model.quantization) not in (None, "none"):
        return "bf16" if gpu.bf16 else "fp16"  # what quantization leaves alone is 16-bit
    if model.dtype == "bf16" and not gpu.bf16:
        notes.append(f"{gpu.name} has no bf16, so fp16 is assumed.")
        return "fp16"
    return model.dtype


def _without_bf16(job: Job, engine: Engine) -> str:
    """What the engine trains in where there is no bf16."""
    if job.method in (None, "full"):
        return (not job.zero and engine.without_bf16_full) or engine.without_bf16
    return (job.method == "qlora" and engine.without_bf16_kbit) or engine.without_bf16


def _method(job: Job, task: str, engine: Engine, model: Model, notes: list[str]) -> tuple[str, str]:
    """The method and the format of the frozen weights."""
    method = job.method or "full"
    # What trains unpacks a GGUF file (transformers integrations/ggml.py), so QLoRA quantizes it anew.
    anew = task == "train" and (method != "qlora" or model.quantization in GGUF_TYPES)
    own = "none" if anew else model.quantization
    if engine.ggml and own not in GGUF_FORMATS:
        notes.append(f"{engine.name} does not read {own} weights: 16-bit ones are assumed.")
        own = "none"
    quantization = job.quantization or own
    if method == "qlora" and job.quantization == "none":
        raise RequestError("quantization: qlora trains adapters on quantized weights; none is --method lora")
    if method == "qlora" and quantization == "none":
        quantization = "nf4"
    if task == "train" and method == "full" and quantization != "none":
        raise RequestError(f"quantization: {quantization} weights cannot be trained in full; add --method qlora")
    named = {"int8": engine.int8, "int4": engine.int4, "nf4": engine.nf4}.get(quantization, quantization)
    if named != quantization:
        notes.append(f"{quantization} is {named} with {engine.name}.")
    if named in GGUF_TYPES and engine.unpacks_gguf:
        notes.append(
            f"{engine.name} unpacks a GGUF file to 16 bits when it loads it, as it is counted here (5.23 can leave it packed, with the `kernels` package)."
        )
        named = "none"
    if engine.ggml and named not in GGUF_FORMATS:
        raise RequestError(f"quantization: {engine.name} runs the types of GGUF files, such as {engine.int4}; {named} is none")
    if named in ("int8", "nf4", "nf4-dq"):
        from advisor.memory.recipe import keeps_experts

        if keeps_experts(named, engine, model):
            notes.append("bitsandbytes leaves the experts as they are: transformers 5 stacks them in one parameter a layer.")
    return method, named


def _targets(job: Job, model: Model, notes: list[str]) -> tuple[str, ...]:
    """The modules asked for. Of Llama's names, which recipes list whatever the model, those that it lacks are passed over as long
    as there is one that it has (PEFT: tuners_utils.py, inject_adapter); any other name that it lacks is refused."""
    if job.lora_targets == ():
        raise RequestError("lora-targets: name at least one module, or leave it to all-linear")
    asked = job.lora_targets or ("all-linear",)
    if asked == ("all-linear",):
        return asked
    from advisor.memory.weights import linear_names

    known = {*linear_names(model), "lm_head"}
    has = tuple(name for name in asked if name in known)
    for name in asked:
        if name not in known and not (has and name in LLAMA_NAMES):
            raise RequestError(f"lora-targets: {model.name} has no {name}; it has {', '.join(sorted(known))}")
    if has != asked:
        lacking = ", ".join(name for name in asked if name not in known)
        notes.append(f"{model.name} has no {lacking}: PEFT passes over names that match nothing, and so does this estimate.")
    return has


def _loss(job: Job, engine: Engine, method: str, objective: str) -> str:
    if objective in objectives.WHOLE_LOGITS:
        if job.loss == "chunked":
            raise RequestError(f"loss: {objective} is computed over all logits; leave --loss away")
        return "plain"
    return job.loss or (method == "full" and engine.loss_full) or engine.loss


def _offload_layers(job: Job) -> int | None:
    if job.offload_layers is not None and "layers" not in (job.offload or ()):
        raise RequestError("offload-layers: counts the layers of --offload layers, which is not given")
    return job.offload_layers


def _allocator(job: Job, engine: Engine, gpu: Gpu) -> str:
    """Expandable segments are of PyTorch on CUDA (c10/cuda/CUDACachingAllocator.cpp); llama.cpp allocates for itself."""
    if job.allocator == "expandable" and (engine.ggml or not gpu.cuda):
        has = f"{engine.name} does not allocate with it" if engine.ggml else f"{gpu.name} is no CUDA card"
        raise RequestError(f"allocator: expandable segments are of PyTorch on CUDA, and {has}")
    return job.allocator or "default"


def _adapter_precision(engine: Engine, compute: str) -> str:
    return compute if engine.adapter_precision == "compute" else engine.adapter_precision


def _attention(job: Job, engine: Engine, gpu: Gpu, model: Model, precision: str) -> str:
    """The kernel that runs. `auto` and `sdpa` take what the card, the number format and the heads allow."""
    asked = job.attention or "auto"
    why_not = why_not_flash(engine, gpu, model, precision)
    if asked == "flash" and why_not:
        raise RequestError(f"attention: flash cannot run here: {why_not}")
    if engine.ggml and asked in ("auto", "sdpa") and not engine.flash_by_itself:
        return "eager"  # -fa off
    if asked != "flash" and model.eager_only and not engine.serving and not engine.ggml:
        return "eager"  # SDPA has no soft-cap; transformers falls back to its own attention, FlashAttention-2 alone has one
    if asked not in ("auto", "sdpa"):
        return asked
    return "efficient" if why_not else "flash"


def why_not_flash(engine: Engine, gpu: Gpu, model: Model, precision: str) -> str:
    """The reason, or nothing where FlashAttention runs."""
    capability = gpu.compute_capability
    if gpu.vendor == "nvidia" and capability and float(capability) < 8.0:
        return f"FlashAttention-2 needs compute capability 8.0, and {gpu.name} has {capability}"
    if precision == "fp32":
        return "FlashAttention takes fp16 and bf16 only"
    return _why_no_flash_for(model)


@lru_cache(maxsize=256)
def _why_no_flash_for(model: Model) -> str:
    if any(isinstance(layer.mixer, Attention) and layer.mixer.position_bias for layer, _ in model.kinds):
        return f"{model.name} adds learned numbers to the scores, which FlashAttention does not take"
    if any(isinstance(layer.mixer, Attention) and layer.mixer.disentangled for layer, _ in model.kinds):
        return f"{model.name} scores content and positions apart, which only transformers' own attention does"
    widest = max((x.head_dim for layer, _ in model.kinds if isinstance(x := layer.attention, Attention)), default=0)
    return f"heads of {widest} are wider than {FLASH_HEAD}" if widest > FLASH_HEAD else ""


def _at_most(value: int, most: int, name: str) -> int:
    if value > most:
        raise RequestError(f"{name}: {value} is more than {most}")
    return value


def _share(share: float | None, name: str, most: float) -> float | None:
    if share is not None and not 0 < share <= most:
        raise RequestError(f"{name}: a share above 0 and up to {most:g}, such as 0.9")
    return share


def _headroom_note(engine: Engine, job: Job, gpu: Gpu, ranks: int) -> list[str]:
    from advisor.memory.serving import headroom

    left = headroom(gpu, engine.reserves, ranks)
    if not left:
        return []
    share = (gpu.total_bytes - left) / gpu.total_bytes
    return [
        f"{engine.name} leaves {left / 2**30:.1f} GiB of this card to activations and CUDA graphs, so weights and KV cache get"
        f" {share:.2f} of it unless --mem-fraction-static says more."
    ]


def _nominal_note(model: Model) -> str:
    from advisor.memory.parameters import parameter_count

    return (
        f"{model.name} is the memory guide's size class, with the Llama shape of that size: the detailed estimator counts "
        f"its {parameter_count(model):,} parameters, the simple ones the nominal {model.nominal:,}."
    )
