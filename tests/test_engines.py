"""The catalogue of engines: one record for each name of the vocabulary, with its source."""

import json

import pytest

from advisor.catalog import find_engine
from advisor.data import data_folder
from advisor.errors import RequestError
from advisor.vocabulary import ENGINES, QUANTIZATIONS

LINES = (data_folder("catalog") / "engines.jsonl").read_text().splitlines()


def test_every_engine_of_the_vocabulary_has_one_line() -> None:
    """The records are the vocabulary's names, in its order."""
    assert [json.loads(line)["name"] for line in LINES] == list(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_a_source_and_known_formats(name: str) -> None:
    """What int8 and int4 mean is a format that a job can ask for by name, and the record says where it was read."""
    engine = find_engine(name)
    assert engine.name == name
    assert engine.source
    assert {engine.int8, engine.int4} <= set(QUANTIZATIONS)


def test_tasks() -> None:
    """Serving engines do not train; both transformers and litgpt do either."""
    tasks = {name: find_engine(name).task for name in ENGINES}
    assert {name for name, task in tasks.items() if task == "infer"} == {
        "vllm", "sglang", "llama.cpp", "ollama", "tgi", "tensorrt-llm"}  # fmt: skip
    assert {name for name, task in tasks.items() if task == "both"} == {"transformers", "litgpt", "unsloth"}
    assert {name for name in ENGINES if find_engine(name).serving} == {"vllm", "sglang", "tgi", "tensorrt-llm"}


def test_vllm_takes_092_of_the_card() -> None:
    """vLLM 0.33.0 config/cache.py: gpu_memory_utilization 0.92, filled with KV cache at start."""
    vllm = find_engine("vLLM")
    assert vllm.reserves.memory_fraction == 0.92
    assert vllm.preallocates_kv


def test_who_chunks_the_loss() -> None:
    """TRL 1.15 and newer, LitGPT, torchtune, torchtitan and Unsloth never hold all the fp32 logits; Trainer and a bare loop do."""
    assert {name for name in ENGINES if find_engine(name).loss == "chunked"} == {
        "trl", "litgpt", "torchtune", "torchtitan", "unsloth"}  # fmt: skip


def test_who_upcasts() -> None:
    """PEFT makes adapters fp32 and its k-bit preparation the rest; torch-native engines follow the computation (axolotl undoes the latter, LLaMA-Factory leaves it out)."""
    assert {name for name in ENGINES if find_engine(name).kbit_upcast} == {"trainer", "transformers", "trl"}
    for name in ("litgpt", "torchtune", "torchtitan"):
        assert find_engine(name).adapter_precision == "compute"
        assert find_engine(name).sharding == "fsdp"
    for name in ("trainer", "transformers", "trl", "axolotl", "llama-factory", "unsloth"):
        assert find_engine(name).adapter_precision == "fp32"


def test_what_eight_and_four_bits_mean() -> None:
    """bitsandbytes in the Hugging Face family, GGUF types in llama.cpp's, fp8 and AWQ where a server cannot quantize to int4."""
    assert [(find_engine(name).int8, find_engine(name).int4) for name in ("trainer", "transformers")] == [("int8", "nf4")] * 2
    assert [(find_engine(name).int8, find_engine(name).int4) for name in ("llama.cpp", "ollama")] == [("q8_0", "q4_k_m")] * 2
    assert [(find_engine(name).int8, find_engine(name).int4) for name in ("vllm", "sglang", "tgi", "tensorrt-llm")] == [
        ("fp8", "awq-int4")] * 4  # fmt: skip


def test_names_are_forgiven_and_unknown_ones_refused() -> None:
    """Case and punctuation do not matter; anything else gets the list."""
    assert find_engine("LLaMA Factory").name == "llama-factory"
    assert find_engine("llamacpp").name == "llama.cpp"
    with pytest.raises(RequestError, match="did you mean vllm"):
        find_engine("vlm")


def test_versions_of_an_engine() -> None:
    """transformers 4.45 stopped making a whole prompt's logits, 4.50 began to reserve one block, 5 stacked the experts."""

    def habits(version: str | None) -> tuple[bool, bool, bool]:
        engine = find_engine("transformers", version)
        return engine.all_logits, engine.reserves_once, engine.stacked_experts

    assert habits("4.44.2") == (True, False, False)
    assert habits("4.45") == (False, False, False)
    assert habits("4.50.0") == (False, True, False)
    assert habits("5") == habits("5.23.0") == habits(None) == (False, True, True)


def test_entries_of_versions_change_known_facts() -> None:
    """What is told of an older version is a field of Engine, and differs from what the newest does."""
    for record in map(json.loads, LINES):
        newest = find_engine(record["name"])
        ages = [change["before"] for change in record.get("versions", ())]
        assert sorted(ages, key=lambda age: [int(part) for part in age.split(".")], reverse=True) == ages
        for change in record.get("versions", ()):
            for name in set(change) - {"before", "source"}:
                assert getattr(newest, name) != change[name]
