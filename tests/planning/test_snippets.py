"""Snippets can be pasted: each is read as its framework reads it, and those of one plan do not contradict each other.

The keys in data/snippet_keys.jsonl were read off the frameworks' own parsers, which no test needs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pasted import blocks, contradictions, merged, names, settings
from planning_toy import toy_resolve

from advisor import advise
from advisor.job import Job
from advisor.planning.facts import facts, filled
from advisor.planning.rulebook import Rule, rules
from advisor.planning.snippets import changed, chosen, standing

KEYS = Path(__file__).parents[1] / "data" / "snippet_keys.jsonl"
TEXTS = [
    pytest.param(framework, text, id=f"{rule.id}-{framework}-{case}".rstrip("-"))
    for rule in rules()
    for framework, written in rule.how.items()
    for case, text in (written if isinstance(written, dict) else {"": written}).items()
]
TRAINERS = ("trainer", "transformers", "trl", "deepspeed", "axolotl", "llama-factory", "torchtune", "litgpt", "unsloth", "megatron", "torchtitan")  # fmt: skip
SERVERS = ("vllm", "sglang", "transformers", "llama.cpp", "ollama", "tgi", "tensorrt-llm", "litgpt", "unsloth")
JOBS: list[dict[str, Any]] = [
    *({"engine": engine, "train": "llama-3.1-8b", "gpu": "rtx-4090", "batch": 4} for engine in TRAINERS),
    *({"engine": engine, "train": "qwen2.5-7b", "gpu": "a100-80", "batch": 8, "precision": "fp32"} for engine in TRAINERS),
    *({"engine": engine, "infer": "llama-3.1-8b", "gpu": "rtx-4090", "batch": 16, "seq": 65536} for engine in SERVERS),
    *({"engine": engine, "infer": "llama-3.1-70b", "gpu": "rtx-3090", "max_gpus": 2} for engine in SERVERS),
    {"engine": "trainer", "train": "llama-3.1-70b", "gpu": "a100-80", "gpus": 8, "zero": 3, "sharding": "fsdp", "max_gpus": 64},
    {"engine": "trl", "train": "llama-3.1-8b", "gpu": "rtx-3090", "gpus": 2, "max_gpus": 2, "sharding": "fsdp", "batch": 4},
    {"engine": "axolotl", "train": "llama-3.1-8b", "gpu": "v100-16", "precision": "fp32", "max_gpus": 16},
    {"engine": "trl", "train": "llama-3.1-8b", "gpu": "rtx-4090", "max_gpus": 1, "batch": 4, "method": "lora"},
]


@cache
def known() -> dict[str, dict[str, set[str]]]:
    """The keys of each place of each framework."""
    found: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for line in KEYS.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found[record["framework"]][record["place"]] = set(record["keys"])
        assert record["source"]
    return found


@cache
def sample(task: str) -> Any:
    return facts(toy_resolve(Job(train="7b", gpus=2, zero=3) if task == "train" else Job(infer="7b")), fits=False, past=0)


@pytest.mark.parametrize(("framework", "text"), TEXTS)
def test_every_snippet_is_read_and_its_keys_are_the_frameworks(framework: str, text: str) -> None:
    """YAML, JSON, Python, flags or a Modelfile, each under a heading that says where it goes; no key but the framework's own.

    Of a script only the grammar is looked at, and of a command that is run once.
    """
    text = filled(filled(text, sample("train")), sample("infer"))
    for block in blocks(framework, text):
        sets = settings(block)
        if block.place not in ("script", "command"):
            assert set(names(sets)) <= known()[framework][block.place]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: "-".join(map(str, list(job.values())[:3])))
def test_snippets_of_one_plan_do_not_contradict(job: dict[str, Any]) -> None:
    """In no framework is one key set to two values, nor a file or a call named twice with different contents."""
    for steps in plans(job):
        for framework in {name for step in steps for name in step["how"]}:
            told: dict[str, dict[str, Any]] = {}
            for step in {step["rule"]: step for step in steps}.values():
                for block in blocks(framework, step["how"].get(framework, "# silent")):
                    sets = settings(block)
                    assert not contradictions(told.get(block.place, {}), sets)
                    told[block.place] = merged(told.get(block.place, {}), sets)
            assert {"fsdp", "deepspeed"} - told.get("TrainingArguments", {}).keys(), "FSDP and DeepSpeed at once"
            assert {"fsdp", "deepspeed"} - told.get("configuration", {}).keys(), "FSDP and DeepSpeed at once"
            assert {"bf16", "fp16"} - told.get("TrainingArguments", {}).keys(), "bf16 and fp16 at once"


def plans(job: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The needed steps of the walk, where it leads somewhere, and those of each other way."""
    found = advise(**job).to_dict()
    if found["final"]:
        yield [step for step in found["steps"] if step["needed"]]
    yield from (route["steps"] for route in found["alternatives"])


def test_a_case_holds_when_all_its_names_do() -> None:
    """The first such case counts, and none is no text."""
    written = {"3+optimizer-away": "both", "3": "one"}
    assert chosen(written, {"3", "optimizer-away"}) == "both"
    assert chosen(written, {"3"}) == "one"
    assert chosen(written, {"optimizer-away"}) is None


CASES = {
    "key": "gpus zero precision tp pp offload checkpointing sharding",
    "value": "2 3 lora qlora int8 fp8 auto flash bf16 fp16 bf16-mixed fp16-mixed lion-8bit adamw-8bit paged-adamw paged-adamw-8bit",
    "of the job": "8-bit 4-bit kv-8-bit kv-4-bit deepspeed fsdp fsdp-2 fsdp-3 deepspeed-2 deepspeed-3 all-weights adapters checkpointed"
    " optimizer-away parameters-away activations-away layers-away",
}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.id)
def test_every_case_can_hold(rule: Rule) -> None:
    """A case whose name nothing has would be a snippet that nobody sees."""
    names = {name for line in CASES.values() for name in line.split()}
    for written in rule.how.values():
        if isinstance(written, dict):
            assert {name for case in written for name in case.split("+")} <= names


def test_a_jobs_standing_decides_where_a_setting_goes() -> None:
    """What is offloaded, what is trained and whether it is checkpointed; the change itself has the sharding and the new value."""
    w = toy_resolve(Job(train="7b", gpus=2, zero=3, checkpointing="full", method="lora"))
    assert standing(w) == {"adapters", "checkpointed", "kv-16-bit"}
    assert changed({"zero": 3}, w) == {"zero", "3", "16-bit", "deepspeed-3", "deepspeed"}
