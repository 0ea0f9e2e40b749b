"""Settings that an engine refuses together: each pair is met by a job, and no plan brings it about."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.api import advise
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.planning.pairs import Pair, broken_pairs, pairs
from advisor.planning.rulebook import condition
from advisor.workload import resolve

LLAMA = {"gpu": "a100-80", "train": "llama-3.1-8b"}
SERVED = {"gpu": "a100-80", "infer": "llama-3.1-8b"}
LITGPT = {**LLAMA, "engine": "litgpt"}
MEGATRON = {**LLAMA, "engine": "megatron"}
TITAN = {**LLAMA, "engine": "torchtitan"}
TUNE = {**LLAMA, "engine": "torchtune"}
FSDP = {**LLAMA, "gpus": 2, "zero": 3, "sharding": "fsdp"}
ZERO = {**LLAMA, "gpus": 2, "zero": 2}
AXOLOTL_FSDP = {**FSDP, "engine": "axolotl", "method": "lora"}
# A job, and the change that brings the pair together.
MET: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama-factory-pure-bf16-zero-3": ({**LLAMA, "engine": "llama-factory", "gpus": 2}, {"zero": 3}),
    "llama-factory-galore-deepspeed": (
        {**LLAMA, "engine": "llama-factory", "gpus": 2, "optimizer": "galore-adamw"},
        {"zero": 2},
    ),
    "paged-fsdp": ({**LLAMA, "gpus": 2, "zero": 3, "sharding": "fsdp"}, {"optimizer": "paged-adamw"}),
    "axolotl-muon-deepspeed": ({**LLAMA, "engine": "axolotl", "gpus": 2, "optimizer": "muon"}, {"zero": 2}),
    "axolotl-activations-without-checkpointing": ({**LLAMA, "engine": "axolotl"}, {"offload": ("activations",)}),
    "trainer-activations-without-checkpointing": (LLAMA, {"offload": ("activations",)}),
    "deepspeed-activations-without-checkpointing": ({**LLAMA, "engine": "deepspeed"}, {"offload": ("activations",)}),
    "llama-factory-activations-without-checkpointing": ({**LLAMA, "engine": "llama-factory"}, {"offload": ("activations",)}),
    "unsloth-activations-without-checkpointing": ({**LLAMA, "engine": "unsloth"}, {"offload": ("activations",)}),
    "axolotl-full-bf16-mixed": ({**LLAMA, "engine": "axolotl", "precision": "fp32"}, {"precision": "bf16-mixed"}),
    "axolotl-full-fp16-mixed": ({**LLAMA, "engine": "axolotl", "precision": "fp32"}, {"precision": "fp16-mixed"}),
    "litgpt-quantized-several-gpus": ({**LITGPT, "gpus": 2, "method": "lora"}, {"method": "qlora"}),
    "litgpt-quantized-bf16-mixed": ({**LITGPT, "precision": "bf16-mixed", "method": "lora"}, {"method": "qlora"}),
    "litgpt-quantized-fp16-mixed": ({**LITGPT, "precision": "fp16-mixed", "method": "lora"}, {"method": "qlora"}),
    "litgpt-quantized-other-optimizer": ({**LITGPT, "method": "qlora"}, {"optimizer": "adamw-8bit"}),
    "litgpt-checkpointing-on-one-gpu": (LITGPT, {"checkpointing": "full"}),
    "litgpt-several-gpus-without-checkpointing": (LITGPT, {"gpus": 2}),
    "litgpt-full-chunked-loss": (LITGPT, {"loss": "chunked"}),
    "litgpt-offloaded-activations": (LITGPT, {"offload": ("activations",)}),
    "litgpt-offloaded-parameters": ({**LITGPT, "gpus": 2, "zero": 3}, {"offload": ("parameters",)}),
    "litgpt-offloaded-optimizer": (LITGPT, {"offload": ("optimizer",)}),
    "litgpt-zero-2": ({**LITGPT, "gpus": 2, "zero": 3}, {"zero": 2}),
    "megatron-adapters": (MEGATRON, {"method": "lora"}),
    "megatron-bf16-mixed": ({**MEGATRON, "precision": "fp32"}, {"precision": "bf16-mixed"}),
    "megatron-fp16-mixed": ({**MEGATRON, "precision": "fp32"}, {"precision": "fp16-mixed"}),
    "megatron-chunked-loss": (MEGATRON, {"loss": "chunked"}),
    "megatron-8-bit-optimizer": (MEGATRON, {"optimizer": "adamw-8bit"}),
    "megatron-paged-optimizer": (MEGATRON, {"optimizer": "paged-adamw"}),
    "megatron-offloaded-parameters": ({**MEGATRON, "gpus": 2, "zero": 3}, {"offload": ("parameters",)}),
    "torchtune-bf16-mixed": ({**TUNE, "precision": "fp32"}, {"precision": "bf16-mixed"}),
    "torchtune-fp16-mixed": ({**TUNE, "precision": "fp32"}, {"precision": "fp16-mixed"}),
    "torchtune-activations-without-checkpointing": (TUNE, {"offload": ("activations",)}),
    "torchtitan-fp16-mixed": ({**TITAN, "precision": "fp32"}, {"precision": "fp16-mixed"}),
    "torchtitan-sgd": (TITAN, {"optimizer": "sgd"}),
    "torchtitan-8-bit-optimizer": (TITAN, {"optimizer": "adamw-8bit"}),
    "torchtitan-paged-optimizer": (TITAN, {"optimizer": "paged-adamw"}),
    "torchtitan-offloaded-optimizer-alone": (TITAN, {"offload": ("optimizer",)}),
    "torchtitan-offloaded-activations": (TITAN, {"offload": ("activations",)}),
    "transformers-quantized-cache-sliding-layers": (
        {"gpu": "a100-80", "infer": "gemma-3-12b"},
        {"kv_precision": "int8"},
    ),
    "llama.cpp-quantized-cache-eager": ({**SERVED, "engine": "llama.cpp", "attention": "eager"}, {"kv_precision": "q8_0"}),
    "llama.cpp-quantized-cache-math": ({**SERVED, "engine": "ollama", "attention": "math"}, {"kv_precision": "q4_0"}),
    "llama.cpp-quantized-cache-odd-heads": (
        {**SERVED, "infer": "phi-2", "seq": 2048, "engine": "llama.cpp"},
        {"kv_precision": "q8_0"},
    ),
    "vllm-int8-cache-latent-attention": (
        {**SERVED, "infer": "deepseek-v2-lite", "engine": "vllm"},
        {"kv_precision": "int8"},
    ),
    "tgi-offloaded-layers": ({**SERVED, "engine": "tgi"}, {"offload": ("layers",)}),
    "tensorrt-llm-offloaded-layers": ({**SERVED, "engine": "tensorrt-llm"}, {"offload": ("layers",)}),
    "fsdp-offloaded-optimizer-alone": ({**LLAMA, "gpus": 2, "zero": 3, "sharding": "fsdp"}, {"offload": ("optimizer",)}),
    "transformers-bitsandbytes-layers-on-the-host": ({**SERVED, "quantization": "nf4"}, {"offload": ("layers",)}),
    "fsdp-8-bit-lion": ({**FSDP, "engine": "torchtune"}, {"optimizer": "lion-8bit"}),
    "fsdp-lion": ({**ZERO, "optimizer": "lion"}, {"sharding": "fsdp", "zero": 3}),
    "offloaded-paged-optimizer": ({**LLAMA, "engine": "torchtune", "optimizer": "paged-adamw"}, {"offload": ("optimizer",)}),
    "deepspeed-offloaded-8-bit-optimizer": (
        {**ZERO, "engine": "deepspeed", "optimizer": "adamw-8bit"},
        {"offload": ("optimizer",)},
    ),
    "torchao-offloaded-8-bit-optimizer": ({**TUNE, "optimizer": "adamw-8bit"}, {"offload": ("optimizer",)}),
    "offloaded-optimizer-on-replicas": ({**LLAMA, "engine": "transformers", "gpus": 2}, {"offload": ("optimizer",)}),
    **{
        f"axolotl-fsdp-quantized-{objective}": ({**AXOLOTL_FSDP, "objective": objective}, {"method": "qlora"})
        for objective in ("dpo", "kto", "orpo")
    },
    "llama-factory-not-4-bit-sharded": (
        {**LLAMA, "engine": "llama-factory", "method": "qlora", "quantization": "int8"},
        {"gpus": 2, "zero": 3},
    ),
    "unsloth-fsdp-int8": (
        {**ZERO, "engine": "unsloth", "method": "qlora", "quantization": "int8"},
        {"sharding": "fsdp", "zero": 3},
    ),
    "unsloth-fsdp-on-one-gpu": (
        {**LLAMA, "engine": "unsloth", "sharding": "fsdp", "zero": 3},
        {"offload": ("parameters",)},
    ),
    "litgpt-replicas": ({**LITGPT, "checkpointing": "full"}, {"gpus": 2}),
    "litgpt-generates-one-sequence": ({**SERVED, "engine": "litgpt"}, {"batch": 2}),
    "litgpt-offloaded-cache": ({**SERVED, "engine": "litgpt"}, {"offload": ("kv",)}),
    "litgpt-offloaded-layers": ({**SERVED, "engine": "litgpt"}, {"offload": ("layers",)}),
    "unsloth-offloaded-cache": ({**SERVED, "engine": "unsloth"}, {"offload": ("kv",)}),
    "ollama-offloaded-cache": ({**SERVED, "engine": "ollama"}, {"offload": ("kv",)}),
    "transformers-quantized-and-offloaded-cache": ({**SERVED, "offload": ("kv",)}, {"kv_precision": "int8"}),
    "tgi-fp8-cache-latent-attention": (
        {**SERVED, "gpu": "h100-80", "infer": "deepseek-v2-lite", "engine": "tgi"},
        {"kv_precision": "fp8"},
    ),
    "tgi-fp8-cache-other-heads": (
        {"gpu": "h100-80", "infer": "phi-2", "seq": 2048, "engine": "tgi"},
        {"kv_precision": "fp8"},
    ),
    "megatron-activations-with-recomputation": ({**MEGATRON, "checkpointing": "full"}, {"offload": ("activations",)}),
    "megatron-activations-pipeline": ({**MEGATRON, "gpus": 2, "pp": 2}, {"offload": ("activations",)}),
    "megatron-offloaded-other-optimizer": ({**MEGATRON, "offload": ("optimizer",)}, {"optimizer": "sgd"}),
}
BY_NAME = {pair.name: pair for pair in pairs()}


def test_every_pair_is_met() -> None:
    """No pair without a job that it is about, and no two of one name."""
    assert list(MET) == [pair.name for pair in pairs()]


@pytest.mark.parametrize("name", MET)
def test_a_change_that_brings_a_pair_together_is_refused_with_its_reason(name: str) -> None:
    """Where the job lies, nothing is refused; one change on, the engine would."""
    keys, change = MET[name]
    before, after = resolve(Job(**keys)), resolve(Job(**{**keys, **change}))
    assert BY_NAME[name].because in broken_pairs(before, after)
    assert not broken_pairs(before, before)
    assert not broken_pairs(after, after), "what the user brought together is the user's"


@pytest.mark.parametrize("name", MET)
def test_no_plan_brings_a_pair_together(name: str) -> None:
    """Whatever a card of 8 GiB makes the walk try, its end has no pair that the job did not have."""
    keys = {**MET[name][0], "gpu": "a100-80", "free": "7GiB", "max_gpus": 4}
    plan = advise(**keys)
    if plan.final is None:
        return
    asked, final = resolve(Job(**keys)), resolve(Job(**plan.final.job))
    assert broken_pairs(asked, final) == []


def test_the_reason_stands_in_the_plan() -> None:
    """LLaMA-Factory refuses pure_bf16 with ZeRO-3, so more GPUs come with FSDP."""
    plan = advise(gpu="a100-40", train="llama-3.1-8b", engine="llama-factory", max_gpus=4, keep="optimizer")
    reasons = {skip.rule: skip.reason for skip in plan.skipped}
    assert reasons["T6"].startswith("LLaMA-Factory refuses pure_bf16 with ZeRO-3")
    assert plan.final is not None
    assert (plan.final.job["sharding"], plan.final.job["gpus"]) == ("fsdp", 4)


def test_a_step_that_keeps_a_pair_apart_is_needed() -> None:
    """The memory would fit without checkpointing, and the Trainer moves no activations without it (transformers 5.23.0)."""
    plan = advise(gpu="t4", train="30b", batch=4, seq=8192, method="lora", max_gpus=1)
    needed = {step.rule for step in plan.steps if step.needed}
    assert {"T1", "T16"} <= needed
    assert plan.final is not None
    without = plan.final.job | {"checkpointing": "none"}
    assert estimate_workload(resolve(Job(**without))).fits


def test_a_cache_that_is_quantized_first_is_moved_whole() -> None:
    """transformers 5.23.0, generation/utils.py: cache_implementation is quantized or offloaded, and offloaded leaves less on the card."""
    plan = advise(gpu="a100-40", infer="llama-3.1-8b", batch=32, seq=65536, keep="batch,seq,gpus,quantization")
    moved = next(step for step in plan.steps if step.rule == "I9")
    assert moved.change == {"offload": ((), ("kv",))}  # back to bf16 is no change where int8 is left out
    assert not any(step.needed for step in plan.steps if step.rule == "I8")
    assert plan.final is not None
    assert plan.final.job["kv_precision"] == "bf16"


def test_litgpt_reads_a_prompt_in_one_pass() -> None:
    """litgpt 0.5.13, generate/base.py: no argument of main() is about the prompt's pieces, the cache or the host."""
    plan = advise(gpu="t4", infer="7b", engine="litgpt", seq=8192, max_gpus=1, keep="seq,quantization")
    reasons = {skip.rule: skip.reason for skip in plan.skipped}
    assert reasons["I6"] == "litgpt reads the prompt in one pass, and no flag changes that"
    assert reasons["I9"].startswith("LitGPT keeps the cache on the card")
    assert reasons["I10"].startswith("LitGPT keeps every layer on a card")


def test_unsloth_shards_with_its_own_fsdp() -> None:
    """unsloth 2026.10.9, fsdp2_launch.py: UNSLOTH_FSDP2=1 with torchrun; accelerate sees a plain launch."""
    plan = advise(
        gpu="a100-80", train="llama-3.1-8b", engine="unsloth", gpus=2, zero=3, sharding="fsdp", free="8GiB", max_gpus=2
    )
    moved = next(step for step in plan.steps if step.rule == "T17")
    assert "UNSLOTH_FSDP2=1\nUNSLOTH_FSDP2_CPU_OFFLOAD=1" in moved.how["unsloth"]


def test_litgpt_checkpoints_with_the_second_gpu() -> None:
    """FSDPStrategy(activation_checkpointing_policy={Block}) (litgpt 0.5.13, finetune/full.py:108): the step says so, and costs it."""
    plan = advise(gpu="rtx-4090", train="llama-3.1-8b", engine="litgpt", max_gpus=4)
    first = next(step for step in plan.steps if step.rule == "T6")
    assert first.change["checkpointing"] == ("none", "full")
    assert first.cost.speed_high == 1.26
    assert next(skip for skip in plan.skipped if skip.rule == "T1").reason.startswith("LitGPT has no flag for checkpointing")


@pytest.mark.parametrize(
    ("keys", "rule", "precision"),
    [
        ({"engine": "torchtune"}, "T14", "bf16"),
        ({"engine": "axolotl"}, "T14", "bf16"),
        ({"engine": "megatron", "batch": 8}, "T5", "bf16"),
        ({"engine": "megatron", "batch": 8, "gpu": "v100-32"}, "T5", "fp16"),
        ({"engine": "deepspeed", "batch": 8}, "T5", "bf16-mixed"),
    ],
)
def test_from_fp32_an_engine_takes_the_16_bits_that_it_has(keys: dict[str, Any], rule: str, precision: str) -> None:
    """torchtune 0.6.1 has no autocast, so its dtype becomes bf16; Megatron-LM's --bf16 and --fp16 keep fp32 masters beside."""
    asked = {"gpu": "a100-40", "train": "llama-3.2-1b", "precision": "fp32", "seq": 1024, "max_gpus": 1, **keys}
    plan = advise(**asked, free="27GiB" if "batch" in keys else "17GiB", keep="optimizer,batch,checkpointing")
    steps = {step.rule: step for step in plan.steps}
    assert steps[rule].change == {"precision": ("fp32", precision)}
    assert keys["engine"] in steps[rule].how


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair.name)
def test_a_pair_says_where_it_was_read(pair: Any) -> None:
    """A version, a commit or an issue stands in the source."""
    assert any(character.isdigit() for character in pair.source)
    assert not pair.because.endswith(".")


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair.name)
def test_a_pair_is_of_facts(pair: Pair) -> None:
    """Each condition compares a fact with a value of its kind, as a rule's does; two at least make a pair."""
    assert len(pair.when) >= 2
    assert [condition(each.fact, each.operator, each.value) for each in pair.when] == list(pair.when)
    assert pair.because
    assert pair.source
