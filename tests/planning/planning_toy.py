"""A small world for the planning tests: one model, two cards, and estimators whose every byte can be worked out by hand."""

from __future__ import annotations

import hashlib

from advisor.engines import Engine
from advisor.errors import RequestError
from advisor.hardware import Gpu
from advisor.job import Job
from advisor.mixers import Attention
from advisor.model import Layer, Mlp, Model
from advisor.results import Estimate, Part
from advisor.workload import Workload

GIB = 2**30
MODEL = Model(
    name="toy-7b",
    model_type="llama",
    hidden=4096,
    vocab=32000,
    layers=(Layer(Attention(heads=32, kv_heads=8, head_dim=128), Mlp(width=11008)),) * 32,
)
CARDS = {
    "new": Gpu(slug="new", name="New", total_bytes=40 * GIB, usable_bytes=39 * GIB, marketed_gb=40, bf16=True),
    "old": Gpu(slug="old", name="Old", total_bytes=16 * GIB, usable_bytes=15 * GIB, marketed_gb=16, bf16=False),
}
ENGINES = {
    "trainer": Engine("trainer", "train"),
    "axolotl": Engine("axolotl", "train", int4="nf4-dq"),
    "transformers": Engine("transformers", "both"),
    "vllm": Engine("vllm", "infer", serving=True, int8="fp8", int4="awq-int4"),
    "llama.cpp": Engine("llama.cpp", "infer", int8="q8_0", int4="q4_k_m"),
}
BYTES = {"fp32": 4, "fp32-mixed": 4, "bf16": 2, "fp16": 2, "bf16-mixed": 4, "fp16-mixed": 4}
BITS = {"none": 16, "int8": 8, "fp8": 8, "q8_0": 8, "nf4": 4, "nf4-dq": 4, "awq-int4": 4, "q4_k_m": 4}


def toy_resolve(job: Job) -> Workload:
    """The job with defaults filled in, and with the refusals that the remedies have to live with."""
    task = "train" if job.train is not None else "infer"
    gpu = CARDS[job.gpu or "new"]
    engine = ENGINES[job.engine or ("trainer" if task == "train" else "transformers")]
    gpus, tp, pp, cp = job.gpus or 1, job.tp or 1, job.pp or 1, job.cp or 1
    if (task == "train" or engine.serving) and gpus % (tp * pp * cp):
        raise RequestError(f"{gpus} GPUs are no multiple of {tp * pp * cp}")
    if job.nodes and gpus > job.nodes * gpu.per_node:
        raise RequestError(f"{gpus} GPUs are more than {job.nodes} machines hold")
    seq = job.seq or (2048 if task == "train" else 4096)
    if job.prompt and job.prompt > seq:
        raise RequestError("the prompt is longer than the sequence")
    return Workload(
        asked=job, gpu=gpu, model=MODEL, engine=engine, task=task,
        gpus=gpus, max_gpus=max(job.max_gpus or 8, gpus), nodes=job.nodes or -(-gpus // gpu.per_node),
        free=job.free, memory_fraction=job.memory_fraction,
        batch=job.batch or 1, seq=seq, prompt=job.prompt or seq, accumulation=job.accumulation or 1,
        precision=job.precision or "bf16", quantization=job.quantization or "none", kv_precision=job.kv_precision or "bf16",
        method=job.method or "full", lora_rank=16, lora_targets=("all-linear",), lora_dropout=0.0, adapter_precision="fp32",
        optimizer=job.optimizer or "adamw", checkpointing=job.checkpointing or "none",
        attention="flash" if job.attention in (None, "auto", "sdpa") else job.attention, loss=job.loss or "plain",
        zero=job.zero or 0, sharding=job.sharding or "deepspeed", tp=tp, pp=pp, cp=cp, ep=job.ep or 1,
        offload=job.offload or (), offload_layers=job.offload_layers, host_ram=job.host_ram, engine_version=None, compile=False,
        allocator=job.allocator or "default",
        estimator=job.estimator or "detailed", confidence=0.9, keep=job.keep or (),
        min_seq=job.min_seq or 1024, min_batch=job.min_batch or 1, policy="documented",
    )  # fmt: skip


def workload(**keys: object) -> Workload:
    return toy_resolve(Job(**keys))


def toy_estimate(w: Workload) -> Estimate:
    """Seven billion weights, sharded, split and quantized; sixty-four kibibytes of activations a token."""
    ranks = w.data_parallel if w.task == "train" else 1
    split = w.tp * w.pp if w.engine.serving or w.task == "train" else w.gpus
    weights = 7_000_000_000 * BYTES[w.precision] * BITS[w.quantization] // 16 // split
    if w.task == "infer":
        parts = {"weights": weights, "kv-cache": w.batch * w.seq * 128 * 1024 // split}
        return _estimate(w, {"decode": sum(parts.values())}, parts)
    gradients, state = weights, (0 if w.optimizer in ("sgd", "none") else 2 * weights)
    state //= ranks if w.zero >= 1 else 1
    gradients //= ranks if w.zero >= 2 else 1
    weights //= ranks if w.zero >= 3 else 1
    held = 8 if w.precision == "fp32" else 4
    activations = w.batch * w.seq * 512 * 1024 * held // 4 // (5 if w.checkpointing == "full" else 1)
    model = {"weights": weights, "gradients": gradients, "optimizer-state": state}
    phases = {"backward": sum(model.values()) + activations, "step": sum(model.values()) + state // 2}
    last = {"activations": activations} if phases["backward"] >= phases["step"] else {"step-temporaries": state // 2}
    return _estimate(w, phases, model | last)


def _estimate(w: Workload, phases: dict[str, int], parts: dict[str, int]) -> Estimate:
    peak = max(phases, key=lambda phase: phases[phase])
    return estimate_of(sum(parts.values()), w, peak, phases, parts)


def estimate_of(size: int, w: Workload, peak: str | None = "forward", phases: object = None, parts: object = None) -> Estimate:
    """An estimate of so many bytes; it fits where they are no more than what the card can hand out."""
    listed = tuple(Part(name, many) for name, many in (parts or {"weights": size}).items() if many)
    fits = size <= w.usable_bytes
    return Estimate(size, size, size, size, size, fits, peak, dict(phases or {"forward": size}), listed)


def noise(seed: int, threshold: float):
    """An estimator without sense: any job needs anything, always the same for the same job. Now and then it refuses."""

    def estimate(w: Workload) -> Estimate:
        digest = hashlib.sha256(repr((seed, sorted(w.to_dict().items(), key=lambda item: item[0]))).encode()).digest()
        if digest[0] < 8 and w.asked.given().keys() - {"gpu", "train", "infer", "batch", "seq", "keep", "gpus"}:
            raise RequestError("no figure for that")
        size = int.from_bytes(digest[1:5], "big")
        return estimate_of(size, w)._replace(fits=size <= threshold * 2**32)

    return estimate
