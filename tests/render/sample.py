"""A plan made by hand, with every kind of thing in it that a format has to show; its figures are round, not true."""

from __future__ import annotations

from advisor.results import Cost, Estimate, Final, Origin, Part, Plan, Route, Skip, Step

GIB = 2**30
JOB = {
    "gpu": "v100-16", "gpus": 1, "max_gpus": 8, "nodes": 1, "free": None, "memory_fraction": None, "train": "7b", "infer": None,
    "batch": 4, "seq": 2048, "prompt": 2048, "accumulation": 1, "precision": "fp16-mixed", "quantization": "none",
    "kv_precision": "fp16", "method": "full", "objective": "lm", "lora_rank": 16, "lora_targets": ["all-linear"], "lora_dropout": 0.0,
    "adapter_precision": "fp32", "optimizer": "adamw", "checkpointing": "none", "attention": "efficient", "loss": "plain",
    "zero": 0, "sharding": "deepspeed", "tp": 1, "pp": 1, "cp": 1, "ep": 1, "offload": [], "offload_layers": None,
    "host_ram": None, "engine": "trainer", "engine_version": None, "compile": False, "allocator": "default", "estimator": "detailed",
    "confidence": 0.9, "keep": ["precision"], "min_seq": 1024, "min_batch": 1, "policy": "documented",
}  # fmt: skip
GPU = {
    "slug": "v100-16",
    "name": "Tesla V100 SXM2 16GB",
    "usable_seen": True,
    "usable_bytes": 16 * GIB,
    "total_bytes": 16 * GIB,
}
MODEL = {"name": "7b", "parameters": 6_738_415_616, "active_parameters": 6_738_415_616, "layers": 32}
ASKED = {"gpu": "v100-16", "train": "7b", "batch": 4, "keep": ("precision",)}


def estimate(gib: dict[str, float], phases: dict[str, float], usable: float = 16) -> Estimate:
    """An estimate of the parts in GiB, with an interval of 5 % on either side."""
    parts = tuple(
        Part(name, int(size * GIB), lambda name=name: Origin(f"{name} × 1 = all of it", f"source of {name}"))
        for name, size in gib.items()
    )
    device = sum(part.bytes for part in parts)
    high = device + device // 20
    return Estimate(device, device, device, device - device // 20, high, high <= usable * GIB,
                    max(phases, key=lambda name: phases[name]), {name: int(size * GIB) for name, size in phases.items()}, parts)  # fmt: skip


ASKED_ESTIMATE = estimate(
    {"weights": 24, "gradients": 24, "optimizer-state": 48, "activations": 30, "cuda-context": 0.25},
    {"load": 24, "forward": 54, "backward": 126, "step": 96},
)
PLANNED_ESTIMATE = estimate(
    {"weights": 3, "gradients": 3, "optimizer-state": 3, "activations": 2, "communication-buffers": 1, "cuda-context": 0.25},
    {"load": 3, "forward": 5, "backward": 12, "step": 9},
)
STEPS = (
    Step("T1", "gradient-checkpointing", "Turn gradient checkpointing on", {"checkpointing": ("none", "full")},
         int(126.25 * GIB), 100 * GIB, Cost(1.2, 1.33, "a help text"), "Layers are computed twice.",
         {"trainer": "gradient_checkpointing=True,\n", "torchtune": "enable_activation_checkpointing: True"},
         because=("checkpointing none is not full",), source=("The guide, §7.1", "arXiv 1604.06174")),
    Step("T2", "accumulate-gradients", "Halve the batch", {"batch": (4, 2), "accumulation": (1, 2)}, 100 * GIB, 98 * GIB,
         Cost(1.0, 1.5), "Half the sequences.", {"trainer": "per_device_train_batch_size=2,"}),
    Step("T4", "sgd", "Train with SGD", {"optimizer": ("adamw", "sgd")}, 98 * GIB, 50 * GIB,
         Cost(quality="real"), "No state.", {}, needed=False),
    Step("T6", "multi-gpu", "Use more GPUs", {"gpus": (1, 8), "zero": (0, 3), "accumulation": (2, 1)}, 50 * GIB, int(12.25 * GIB),
         Cost(1.1, 2.5, "a paper", "none", 7), "An eighth each.", {"accelerate": "num_processes: 8"}),
)  # fmt: skip
ROUTES = (
    Route("no-quality-loss", (STEPS[0], STEPS[3]._replace(change={"gpus": (1, 8), "zero": (0, 3)})),
          Final({**JOB, "gpus": 8, "zero": 3, "checkpointing": "full"}, PLANNED_ESTIMATE), Cost(1.32, 3.33, "", "none", 7, 0, True)),
    Route("same-hardware", (STEPS[1], STEPS[2]), Final({**JOB, "batch": 2, "accumulation": 2, "optimizer": "sgd"}, PLANNED_ESTIMATE),
          Cost(1.0, 1.5, "", "real", changes_result=True)),
)  # fmt: skip
NOTES = ("Tesla V100 SXM2 16GB has no bf16, so fp16-mixed is assumed.", "A second note, " + "long enough to be broken, " * 4)

FITTED = Plan(
    verdict="fits-after-changes", job=JOB, asked=ASKED, gpu=GPU, model=MODEL, total_bytes=16 * GIB, usable_bytes=16 * GIB,
    initial=ASKED_ESTIMATE, steps=STEPS, skipped=(Skip("T3", "zero", "one GPU has nothing to share"),),
    final=Final({**JOB, "gpus": 8, "zero": 3, "checkpointing": "full", "batch": 2, "accumulation": 1}, PLANNED_ESTIMATE),
    alternatives=ROUTES, notes=NOTES,
)  # fmt: skip
FITS = Plan(
    verdict="fits", job=JOB, asked=ASKED, gpu=GPU, model=MODEL, total_bytes=16 * GIB, usable_bytes=16 * GIB,
    initial=PLANNED_ESTIMATE, final=Final(JOB, PLANNED_ESTIMATE),
)  # fmt: skip
HOPELESS = FITTED._replace(verdict="does-not-fit", final=None, steps=STEPS[:2], alternatives=(),
                   missing={"bytes": 82 * GIB, "host_bytes": 0, "gpus": 16, "keep": "precision", "limit": "min_batch"})  # fmt: skip
GUIDE = FITS._replace(
    job={**JOB, "estimator": "checklist"},
    usable_bytes=16 * 10**9,
    total_bytes=16 * 10**9,
    initial=Estimate(
        *[15_400_000_000] * 5, True, None, {}, (Part("model", 14_000_000_000), Part("safety-margin", 1_400_000_000))
    ),
)
PLANS = {"fitted": FITTED, "fits": FITS, "hopeless": HOPELESS, "guide": GUIDE}
