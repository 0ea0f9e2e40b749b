"""What a log tells of its job: the model, the lengths, the card. Only what a program prints of its own settings counts."""

from __future__ import annotations

import re
from typing import Any

from advisor.triage.extract import Passage
from advisor.triage.facts import GIB, Situation
from advisor.triage.reader import Log
from advisor.triage.text import decoded

VALUE = r"""["']?\s{0,2}[=:\s]\s{0,2}["']?"""
NAME = r"([/~]{0,2}[\w.-]{1,96}(?:/[\w.-]{1,96}){0,8})"
# The key of a job, and where a program's settings name it.
SETTINGS = {
    "model": (rf"\b(?:model_name_or_path|base_model|model_name|model_path|model-path|pretrained_model_name_or_path){VALUE}{NAME}",
              rf"(?:^|[\s,{{(])[\"']?model[\"']?\s{{0,2}}[=:]\s{{0,2}}[\"']?{NAME}", rf"--model[= ]{NAME}", rf"\bvllm serve {NAME}"),
    "seq": (rf"\b(?:max[_-]model[_-]len|max_seq_len|max_seq_length|cutoff_len|sequence_len|context[_-]length|n_ctx){VALUE}(\d{{2,7}})\b",),
    "batch": (rf"\b(?:per_device_train_batch_size|train_micro_batch_size_per_gpu|micro[_-]batch[_-]size){VALUE}(\d{{1,5}})\b",),
    "accumulation": (rf"\bgradient_accumulation_steps{VALUE}(\d{{1,5}})\b",),
    "gpus": (rf"\bnproc[-_]per[-_]node{VALUE}(\d{{1,2}})\b",),
    "tp": (rf"\b(?:tensor[_-]parallel[_-]size|tp_size){VALUE}(\d{{1,3}})\b",),
    "lora_rank": (rf"\blora_r(?:ank)?{VALUE}(\d{{1,4}})\b",),
}  # fmt: skip
# What vLLM calls a checkpoint's format, as a job says it.
QUANTIZATION = re.compile(r"""\bquantization["']?\s{0,2}[=:\s]\s{0,2}["']?(awq|gptq|fp8|bitsandbytes|mxfp4)(?:_marlin)?\b""")
QUANTIZATIONS = {"awq": "awq-int4", "gptq": "gptq-int4", "fp8": "fp8", "bitsandbytes": "nf4", "mxfp4": "mxfp4"}
CARD = re.compile(r"\b((?:NVIDIA |Tesla |GeForce |AMD )[A-Za-z0-9][\w -]{1,40}\w)")
# The engine of a job for each program that a log shows; None where the estimates know no such engine.
ENGINES = {
    "vllm": "vllm", "sglang": "sglang", "tgi": "tgi", "tensorrt-llm": "tensorrt-llm", "llama.cpp": "llama.cpp", "ollama": "ollama",
    "trainer": "trainer", "trl": "trl", "axolotl": "axolotl", "llama-factory": "llama-factory", "unsloth": "unsloth",
    "deepspeed": "deepspeed", "megatron": "megatron", "torchtune": "torchtune", "torchtitan": "torchtitan", "litgpt": "litgpt",
    "transformers": "transformers",
}  # fmt: skip
ONLY_INFER = {"vllm", "sglang", "tgi", "tensorrt-llm", "llama.cpp", "ollama"}
ONLY_TRAIN = {"trainer", "trl", "axolotl", "llama-factory", "unsloth", "deepspeed", "megatron", "torchtune", "torchtitan"}
# What cards are sold as, in GB; a runtime sees a little less.
SOLD = (2, 3, 4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 256, 288)


def settings(log: Log, text: Passage, of: Situation) -> dict[str, Any]:
    """Keys of a job, as text; ``model`` stands for ``train`` or ``infer`` where the log does not say which."""
    told = _said("\n".join([decoded(log.head), *(line.text for line in text.before), *(line.text for line in text.after)]))
    model = told.pop("model", None)
    if engine := ENGINES.get(of.framework):
        told["engine"] = engine
    if model:
        told[_task(of, engine) or "model"] = model
    if "max_model_len" in of.fields:
        told["seq"] = str(of.fields["max_model_len"])
    if "gpu_memory_utilization" in of.fields:
        told["memory_fraction"] = str(of.fields["gpu_memory_utilization"])
    return told


def _said(text: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key, patterns in SETTINGS.items():
        found = next(filter(None, (re.search(pattern, text, re.MULTILINE) for pattern in patterns)), None)
        if found:
            told[key] = found[1]
    format = QUANTIZATION.search(text)
    if format:
        told["quantization"] = QUANTIZATIONS[format[1]]
    card = CARD.search(text)
    if card:
        told["gpu"] = card[1]
    return told


def _task(of: Situation, engine: str | None) -> str | None:
    if engine in ONLY_INFER:
        return "infer"
    if engine in ONLY_TRAIN or of.facts["training"]:
        return "train"
    return "infer" if of.phase == "generate" else None


def sold_as(total: int) -> str | None:
    """A card of the capacity that a runtime reports, ``24GB``: the smallest size sold that holds it."""
    return next((f"{size}GB" for size in SOLD if total <= size * GIB), None)
