"""Jobs that do not fit, drawn by a seed: every kind of card, engine, limit and wish that a plan can meet."""

from __future__ import annotations

import random

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.workload import Workload, resolve

CARDS = ("v100-16", "rtx-4090", "a100-40", "a100-80", "t4", "l4", "h100-80", "rx-7900-xtx")
MODELS = ("7b", "13b", "qwen2.5-0.5b", "llama-3.2-1b", "llama-3.1-8b", "mistral-7b", "70b", "mixtral-8x7b", "gemma-2-9b")
TRAINERS = ("deepspeed", "axolotl", "torchtune", "transformers", "trl", "llama-factory", "unsloth", "litgpt", "megatron")
SERVERS = ("transformers", "vllm", "llama.cpp", "sglang", "ollama")


def late_job(seed: int, limited_host: bool = False) -> Workload:
    """A job that its card does not hold as asked."""
    drawn = random.Random(seed)
    while True:
        try:
            w = resolve(Job(**_keys(drawn, limited_host)))
            if not estimate_workload(w).fits:
                return w
        except RequestError:
            continue


def _keys(drawn: random.Random, limited_host: bool) -> dict[str, object]:
    keys = _training(drawn) if drawn.random() < 0.65 else _inference(drawn)
    keys["gpu"] = drawn.choice(CARDS)
    if drawn.random() < 0.2:
        keys["keep"] = drawn.choice(("optimizer", "batch", "gpus", "seq", "precision"))
    if limited_host and drawn.random() < 0.3:
        keys["host_ram"] = drawn.choice(("32GiB", "128GiB"))
    return keys


def _training(drawn: random.Random) -> dict[str, object]:
    keys: dict[str, object] = {
        "train": drawn.choice(MODELS), "batch": drawn.choice((1, 2, 4, 6, 8)), "seq": drawn.choice((512, 2048, 8192, 32768)),
        "gpus": drawn.choice((1, 1, 2, 4)), "max_gpus": drawn.choice((1, 4, 8, 16)),
    }  # fmt: skip
    some = {
        "precision": ("fp32", "bf16-mixed"), "engine": TRAINERS, "accumulation": (2, 3), "attention": ("eager",),
        "method": ("lora", "qlora"),
    }  # fmt: skip
    return keys | {key: drawn.choice(values) for key, values in some.items() if drawn.random() < 0.3}


def _inference(drawn: random.Random) -> dict[str, object]:
    return {
        "infer": drawn.choice(MODELS), "batch": drawn.choice((1, 4, 8, 32)), "seq": drawn.choice((4096, 16384, 65536)),
        "gpus": drawn.choice((1, 1, 2)), "max_gpus": drawn.choice((1, 4, 8)), "engine": drawn.choice(SERVERS),
    }  # fmt: skip
