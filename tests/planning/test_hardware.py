"""What a card, an engine or a task cannot do is not proposed: every card of the catalogue, every engine."""

from __future__ import annotations

import pytest

from advisor import catalog
from advisor.api import advise
from advisor.errors import RequestError
from advisor.hardware import Gpu
from advisor.job import Job
from advisor.memory.optimizers import OPTIMIZERS
from advisor.planning.abilities import abilities
from advisor.planning.engine import holds
from advisor.planning.facts import facts
from advisor.planning.pairs import broken_pairs
from advisor.planning.remedies import BITSANDBYTES, REMEDIES, NotApplicable
from advisor.planning.rulebook import load
from advisor.planning.software import catalogue, runs_on, versions
from advisor.results import Plan
from advisor.vocabulary import ENGINES
from advisor.workload import Workload, resolve

CARDS = catalog.gpus()


def proposals(w: Workload) -> list[tuple[str, Workload]]:
    """Every setting that a rule has for this job and that the job accepts, with the rule's id."""
    known = facts(w, fits=False, past=0)
    found = []
    for rule in load("training" if w.task == "train" else "inference").rule:
        if not all(holds(clause.condition, known) for clause in [*rule.scope, *rule.when]):
            continue
        settings = REMEDIES[rule.remedy](w)
        for changes in [] if isinstance(settings, NotApplicable) else settings:
            try:
                changed = resolve(w.asked.with_changes(**changes))
            except RequestError:
                continue
            if not broken_pairs(w, changed):
                found.append((rule.id, changed))
    return found


def jobs(gpu: Gpu) -> list[Workload]:
    """Jobs in which every remedy has something to do, as far as the engines run on the card."""
    wanted = [
        {
            "train": "llama-3.1-8b",
            "engine": engine,
            "attention": "eager",
            "gpus": gpus,
            "precision": precision,
            "method": method,
        }
        for engine, gpus, precision, method in (
            ("trainer", 1, "fp16-mixed", "full"),
            ("trainer", 2, "fp32", "full"),
            ("torchtune", 1, "fp16-mixed", "lora"),
        )
    ] + [
        {"infer": "llama-3.1-8b", "engine": engine, "seq": 32768, "attention": attention}
        for engine in ("transformers", "vllm", "sglang", "llama.cpp", "tgi", "tensorrt-llm")
        for attention in ("eager", "auto")
    ]
    found = []
    for keys in wanted:
        try:
            found.append(resolve(Job(gpu=gpu.slug, **keys)))
        except RequestError:  # an engine that does not run on this card
            continue
    return found


@pytest.mark.parametrize("gpu", CARDS, ids=lambda gpu: gpu.slug)
def test_no_card_is_asked_for_what_it_lacks(gpu: Gpu) -> None:
    """bf16, FP8 in cache and weights, FlashAttention-2, bitsandbytes, unified memory, expandable segments."""
    capability = float(gpu.compute_capability or 99) if gpu.vendor == "nvidia" else 99
    for w in jobs(gpu):
        for rule, changed in proposals(w):
            where = f"{rule} on {gpu.slug} with {w.engine.name}"
            if changed.precision != w.precision:
                assert gpu.bf16 or "bf16" not in changed.precision, where
                assert changed.precision != "fp16", "torch's grad_scaler.py cannot unscale fp16 gradients"
            if changed.kv_precision != w.kv_precision:
                assert gpu.fp8 or changed.kv_precision != "fp8", where
            if changed.attention != w.attention:
                assert capability >= 8.0 or changed.attention != "flash", where
            if changed.quantization != w.quantization:
                assert capability >= abilities(w.engine.name).weights.get(changed.quantization, 0), where
                assert changed.quantization not in BITSANDBYTES or capability >= 6.0, where
                assert changed.quantization != "fp8" or gpu.fp8 or gpu.vendor != "amd", where
            if changed.optimizer != w.optimizer:
                kind = OPTIMIZERS[changed.optimizer]
                assert gpu.vendor in ("nvidia", "amd", "intel") or kind.on_device, where
                assert capability >= 6.0 or not kind.bits8, where
            if changed.allocator != w.allocator:
                assert gpu.cuda, where
            if changed.offload != w.offload or not OPTIMIZERS[changed.optimizer].on_device:
                assert not gpu.unified, where


def test_a_t4_keeps_its_cache_in_16_bits_with_vllm_and_an_a100_in_int8() -> None:
    """vLLM 0.33: fp8 raises below 8.9 with Triton, int8_per_token_head runs from 8.0 on."""
    offered = {
        slug: [
            w.kv_precision for rule, w in proposals(resolve(Job(gpu=slug, infer="llama-3.1-8b", engine="vllm"))) if rule == "I8"
        ]
        for slug in ("t4", "a100-80", "h100-80")
    }
    assert offered == {"t4": [], "a100-80": ["int8"], "h100-80": ["fp8", "int8"]}


def test_fp8_weights_start_where_each_engine_says() -> None:
    """SGLang and TGI from 8.0 (fp8.py of each), TensorRT-LLM from Ada on, vLLM from Turing on (Marlin)."""

    def first(slug: str, engine: str) -> str:
        w = resolve(Job(gpu=slug, infer="llama-3.1-8b", engine=engine))
        return next(changed.quantization for rule, changed in proposals(w) if rule == "I3")

    assert first("t4", "vllm") == "fp8"
    assert first("t4", "sglang") == "awq-int4"
    assert first("t4", "tgi") == "awq-int4"
    assert first("a100-80", "tgi") == "fp8"
    assert first("a100-80", "sglang") == "fp8"
    assert first("a100-80", "tensorrt-llm") == "awq-int4"
    assert first("l40s", "tensorrt-llm") == "fp8"


@pytest.mark.parametrize("engine", ENGINES)
def test_each_task_has_remedies_of_its_own(engine: str) -> None:
    """No accumulation, ZeRO, optimizer or method for inference; no quantized cache, prompt or layers on the host for training."""
    of_training = {"accumulation", "zero", "optimizer", "method", "checkpointing", "loss", "sharding"}
    of_inference = {"kv_precision", "prompt", "offload_layers"}
    for task, foreign in (("train", of_inference), ("infer", of_training)):
        try:
            w = resolve(Job(gpu="h100-80", engine=engine, **{task: "llama-3.1-8b"}))
        except RequestError:
            continue
        given = [changed.asked.given().keys() for _, changed in proposals(w)]
        assert given
        assert not foreign & set().union(*given)


def test_what_an_engine_does_by_itself_is_not_proposed() -> None:
    """TRL's loss is chunked, vLLM reads prompts in pieces, llama.cpp has its own allocator and attention."""

    def rules(**keys: object) -> set[str]:
        return {rule for rule, _ in proposals(resolve(Job(gpu="a100-80", **keys)))}

    assert "T7" not in rules(train="llama-3.1-8b", engine="trl")
    assert "T7" in rules(train="llama-3.1-8b", engine="trainer")
    assert not {"I5", "I6", "I7"} & rules(infer="llama-3.1-8b", engine="vllm")
    assert not {"I5", "I6", "I7"} & rules(infer="llama-3.1-8b", engine="llama.cpp")
    assert {"I6", "I7"} <= rules(infer="llama-3.1-8b", engine="transformers")


def test_16_bit_weights_are_not_proposed_where_masters_stay() -> None:
    """DeepSpeed keeps fp32 masters beside them with ZeRO, Megatron-LM always: nothing would be saved."""

    def offered(**keys: object) -> bool:
        w = resolve(Job(gpu="a100-80", train="llama-3.1-8b", precision="bf16-mixed", **keys))
        return any(changed.precision == "bf16" for _, changed in proposals(w))

    assert offered(engine="trainer")
    assert not offered(engine="trainer", gpus=2, zero=2)
    assert offered(engine="trainer", gpus=2, zero=3, sharding="fsdp")
    assert not offered(engine="megatron")


def test_no_degree_that_does_not_divide_the_heads() -> None:
    """Qwen2 7B has 28 heads: 2 and 4, and no 8."""
    w = resolve(Job(gpu="a100-80", infer="qwen2.5-7b", engine="vllm"))
    assert {changed.tp for rule, changed in proposals(w) if rule == "I4"} == {2, 4}


def software_notes(plan: Plan) -> list[str]:
    return [note for note in plan.notes if " begins at " in note]


def test_the_plan_says_which_versions_still_run_on_a_v100() -> None:
    """torch 2.10.0 has code for 7.0 and 2.11.0 has none; llama.cpp builds with CUDA 12."""
    [note] = software_notes(advise(gpu="v100-16", train="gpt2"))
    assert "compute capability 7.0, and PyTorch begins at 7.5 now: PyPI's wheels to 2.10 have code for it" in note
    [note] = software_notes(advise(gpu="v100-16", infer="gpt2", engine="llama.cpp"))
    assert "build it with CUDA 12" in note
    assert software_notes(advise(gpu="t4", train="gpt2")) == []
    assert software_notes(advise(gpu="v100-16", train="7b", estimator="checklist")) == []


@pytest.mark.parametrize("gpu", CARDS, ids=lambda gpu: gpu.slug)
def test_every_card_that_is_left_behind_is_told_something(gpu: Gpu) -> None:
    """One line for each program that begins later, whatever the card."""
    w = resolve(Job(gpu=gpu.slug, train="gpt2"))
    assert bool(versions(w)) is not runs_on("PyTorch", gpu)


@pytest.mark.parametrize("program", catalogue().values(), ids=lambda program: program.name)
def test_a_program_has_a_source_and_its_engines_exist(program: object) -> None:
    """The older cards are in order, the newest first, and below what the program begins at."""
    assert program.source
    assert set(program.engines) <= set(ENGINES)
    steps = [program.capability, *(old.capability for old in program.older)]
    assert steps == sorted(steps, reverse=True)
    assert len(steps) == len(set(steps))


def test_every_engine_that_the_file_of_abilities_names_exists() -> None:
    """With a source each; one that is not named has none."""
    for engine in ENGINES:
        known = abilities(engine)
        assert known.source or not (
            known.weights or known.kv or known.prompt_in_pieces or known.deepspeed or known.fsdp or known.expands_segments
        )
    assert abilities("no such engine").source == ""
    from advisor.planning.abilities import _all

    assert set(_all()) <= set(ENGINES)


@pytest.mark.parametrize("engine", ["deepspeed", "megatron", "torchtune", "torchtitan", "axolotl"])
def test_an_engine_whose_adamw_is_fused_is_not_told_to_fuse_it(engine: str) -> None:
    """DeepSpeed 0.19.8 runtime/engine.py, Megatron-LM d98e8a64 core/optimizer/__init__.py, torchtune's and axolotl's configurations,
    torchtitan's OptimizersContainer: nothing would change."""
    w = resolve(Job(gpu="a100-80", train="llama-3.1-8b", engine=engine))
    assert "T9" not in {rule for rule, _ in proposals(w)}
    plan = advise(gpu="a100-80", train="llama-3.1-8b", engine=engine, free="20GiB", max_gpus=1)
    assert "T9" not in {step.rule for step in plan.steps}


def test_an_engine_whose_adamw_is_the_plain_one_is_told_to_fuse_it() -> None:
    """A bare loop and LitGPT's fine-tuning (finetune/full.py) make torch.optim.AdamW without fused; so did axolotl 0.7.1 (adamw_hf)."""
    for keys in ({"engine": "transformers"}, {"engine": "litgpt"}, {"engine": "axolotl", "engine_version": "0.7.1"}):
        w = resolve(Job(gpu="a100-80", train="llama-3.1-8b", **keys))
        assert "T9" in {rule for rule, _ in proposals(w)}


def test_an_engine_that_expands_segments_by_itself_is_not_told_to() -> None:
    """axolotl 0.19.0 utils/__init__.py, torchtune 0.6.1 __init__.py and unsloth_zoo 2026.10.9 __init__.py set the environment."""
    told = {
        engine
        for engine in ENGINES
        if catalog.find_engine(engine).task != "infer"
        and "T10" in {rule for rule, _ in proposals(resolve(Job(gpu="a100-80", train="llama-3.1-8b", engine=engine)))}
    }
    assert told == {"trainer", "transformers", "trl", "litgpt", "torchtitan", "llama-factory", "deepspeed", "megatron"}
