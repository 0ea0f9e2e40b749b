"""From what the user said to a workload: defaults, look-ups, and refusals in one line."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.errors import RequestError
from advisor.job import Job
from advisor.memory.llama_cpp import uses_flash
from advisor.planning import pairs
from advisor.workload import Workload, resolve


def decided(**keys: Any) -> Workload:
    return resolve(Job(**{"gpu": "a100-80", "train": "llama-3.1-8b", **keys}))


def refused(**keys: Any) -> str:
    with pytest.raises(RequestError) as caught:
        decided(**keys)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_training_defaults() -> None:
    """2,048 tokens, batch 1, bf16, full training with AdamW by the Hugging Face Trainer."""
    w = decided()
    assert (w.seq, w.batch, w.precision, w.method, w.optimizer, w.engine.name) == (2048, 1, "bf16", "full", "adamw", "trainer")


def test_inference_defaults() -> None:
    """4,096 tokens, all of them a prompt, in the model's own type, by plain transformers."""
    w = decided(train=None, infer="llama-3.1-8b")
    assert (w.seq, w.prompt, w.precision, w.engine.name) == (4096, 4096, "bf16", "transformers")


def test_the_length_defaults_to_no_more_than_the_model_takes() -> None:
    """GPT-2 was made for 1,024 tokens; a longer one that is asked for is answered, with a note."""
    assert decided(train="gpt2").seq == 1024
    assert any("1,024 tokens" in note for note in decided(train="gpt2", seq=2048).notes)


def test_a_card_without_bf16_trains_in_fp16() -> None:
    """A V100 has no bf16: training defaults to fp16-mixed and inference to fp16, and a note says so."""
    trained = decided(gpu="v100-16")
    run = decided(gpu="v100-16", train=None, infer="llama-3.1-8b")
    assert (trained.precision, run.precision) == ("fp16-mixed", "fp16")
    assert any("no bf16" in note for note in trained.notes)


@pytest.mark.parametrize(
    ("keys", "precision"),
    [
        ({"engine": "torchtune"}, "fp32"),  # torchtune 0.6.1, recipes/full_finetune_single_device.py:65-69
        ({"engine": "torchtune", "method": "lora"}, "fp32"),
        ({"engine": "torchtitan", "gpus": 2, "zero": 3}, "fp32"),  # torchtitan b5bcd76c, config/configs.py:94
        ({"engine": "axolotl"}, "fp32"),  # axolotl 0.19.0, utils/config/__init__.py:194-199
        ({"engine": "axolotl", "method": "lora"}, "fp16-mixed"),  # the adapters are fp32
        ({"engine": "axolotl", "gpus": 2, "zero": 3}, "fp16-mixed"),
        ({"engine": "megatron"}, "fp16"),  # beside fp32 masters
        ({"engine": "litgpt", "method": "lora"}, "fp16-mixed"),
        ({"engine": "litgpt", "method": "qlora"}, "fp16"),  # litgpt 0.5.13, finetune/lora.py:142-149
    ],
)
def test_an_engine_without_fp16_mixed_precision_trains_in_what_it_has(keys: dict[str, Any], precision: str) -> None:
    """On a T4 nothing is assumed that the engine refuses there, and a note says what is."""
    w = decided(gpu="t4", **keys)
    assert w.precision == precision
    assert pairs.refused(w) == []
    assert any(f"no bf16, so {precision} is assumed" in note for note in w.notes)
    assert decided(gpu="a100-40", **keys).precision == "bf16"


def test_attention_follows_card_type_and_heads() -> None:
    """Flash on an A100; the memory-efficient kernel on a V100 and in fp32; eager for Gemma 2's soft-capped scores."""
    assert decided().attention == "flash"
    assert decided(gpu="v100-16").attention == "efficient"
    assert decided(precision="fp32").attention == "efficient"
    assert decided(train="gemma-2-9b").attention == "eager"
    assert "compute capability 8.0" in refused(gpu="v100-16", attention="flash")


def test_what_a_job_says_of_attention_is_what_llama_cpp_does() -> None:
    """Its own kernel has the soft-cap; the job as it is shown, asked for again, is the same job."""
    shown = decided(train=None, infer="gemma-2-9b", engine="llama.cpp", gpu="t4")
    assert shown.attention == "efficient"
    assert uses_flash(shown)
    assert uses_flash(resolve(Job(**shown.to_dict())))


def test_degrees_decide_the_gpus() -> None:
    """tp 4 alone means four GPUs; six GPUs cannot be shared out by four."""
    assert decided(tp=4).gpus == 4
    assert "cannot be divided" in refused(tp=4, gpus=6)


def test_max_gpus_is_never_below_gpus() -> None:
    """The default of 8 gives way to 16 GPUs that are there."""
    assert decided(gpus=16).max_gpus == 16


def test_nodes_are_as_few_as_hold_the_gpus() -> None:
    """Sixteen A100s are two machines of eight."""
    assert decided(gpus=16).nodes == 2


def test_qlora_quantizes_to_nf4() -> None:
    """QLoRA is LoRA on nf4 weights unless another format is named; full training of quantized weights is refused."""
    assert decided(method="qlora").quantization == "nf4"
    assert decided(method="qlora", quantization="int8").quantization == "int8"
    assert "qlora" in refused(quantization="nf4")


def test_llamas_names_are_passed_over_where_one_matches() -> None:
    """PEFT goes by what matches: of the usual list GLM-4.7 Flash, with latent attention, has the last projection alone. Other names
    that a model lacks are refused, and a list of which nothing matches."""
    w = decided(train="glm-4.7-flash", method="lora", lora_targets="q_proj,k_proj,v_proj,o_proj")
    assert w.lora_targets == ("o_proj",)
    assert any("has no q_proj, k_proj, v_proj" in note for note in w.notes)
    assert "has no q_proj" in refused(train="glm-4.7-flash", lora_targets="q_proj,k_proj")
    assert "has no c_attn" in refused(lora_targets="q_proj,c_attn")


def test_the_engine_says_what_int4_is() -> None:
    """int4 is nf4 in transformers and Q4_K_M in llama.cpp, and a note names it."""
    for engine, named in (("transformers", "nf4"), ("llama.cpp", "q4_k_m")):
        w = decided(train=None, infer="llama-3.1-8b", quantization="int4", engine=engine)
        assert w.quantization == named
        assert any(named in note for note in w.notes)


def test_a_model_published_in_fp8_is_served_in_fp8() -> None:
    """DeepSeek-V3's checkpoint is FP8, and so is its default for inference; training starts from 16 bits."""
    assert decided(train=None, infer="deepseek-v3", gpus=16).quantization == "fp8"
    assert decided(train="deepseek-v3").quantization == "none"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"infer": "7b"}, "both"),
        ({"train": None}, "neither"),
        ({"gpu": None}, "--gpu"),
        ({"gpu": "a100-800"}, "a100-80"),
        ({"train": "lama-3.1-8b"}, "llama-3.1-8b"),
        ({"batch": 0}, "at least 1"),
        ({"batch": -3}, "at least 1"),
        ({"seq": 10**15}, "at most"),
        ({"zero": 4}, "zero"),
        ({"precision": "int7"}, "precision"),
        ({"optimizer": "adamm"}, "adamw"),
        ({"lora_targets": "q_proj,w_proj"}, "w_proj"),
        ({"engine": "vllm"}, "vllm"),
        ({"confidence": 1}, "confidence"),
        ({"free": "200GiB"}, "free"),
        ({"keep": "sequence"}, "sequence"),
        ({"bach": 2}, "batch"),
        ({"train": None, "infer": "7b", "prompt": 8192}, "prompt"),
        ({"train": None, "infer": "7b", "zero": 2}, "zero"),
        ({"train": None, "infer": "7b", "method": "lora"}, "method"),
        ({"offload": "disk"}, "offload"),
        ({"compile": "yes"}, "compile"),
        ({"engine_version": "banana"}, "a version such as 4.46.2"),
        ({"engine_version": -1}, "a version such as 4.46.2"),
        ({"memory_fraction": 0}, "above 0"),
        ({"nodes": 2}, "2 machines are more than the 1 GPUs"),
        ({"lora_targets": ""}, "at least one module"),
        ({"method": "qlora", "quantization": "none"}, "--method lora"),
        ({"kv_precision": "fp8"}, "training has no KV cache"),
        ({"prompt": 512}, "whole sequences"),
        ({"batch": 10**30}, "at most"),
        ({"train": None, "infer": "7b", "engine": "llama.cpp", "quantization": "awq-int4"}, "such as q4_k_m"),
        ({"gpu": "m4-max-128", "train": None, "infer": "7b", "engine": "vllm"}, "does not run on"),
        ({"gpu": "v100-16", "train": None, "infer": "7b", "engine": "vllm"}, "compute capability 7.5"),
        ({"offload": "parameters", "zero": 2, "gpus": 2}, "add --zero 3"),
        ({"offload": "kv"}, "kv is for inference"),
        ({"offload_layers": 4}, "--offload layers"),
        ({"gpus": 8, "ep": 2}, "no experts"),
        ({"train": "mixtral-8x7b", "gpus": 4, "ep": 8}, "does not divide the 4 GPUs"),
        ({"train": None, "infer": "mixtral-8x7b", "gpus": 4, "ep": 4}, "vllm and sglang do"),
        ({"train": None, "infer": "7b", "precision": "bf16-mixed"}, "take bf16"),
        ({"train": None, "infer": "7b", "engine": "vllm", "kv_precision": "q4_0"}, "vllm has no q4_0 cache"),
        ({"train": None, "infer": "7b", "engine": "llama.cpp", "kv_precision": "fp8"}, "q8_0, q4_0"),
        ({"train": None, "infer": "7b", "engine": "ollama", "tp": 2}, "give --gpus 2 alone"),
        ({"train": None, "infer": "7b", "optimizer": "sgd"}, "optimizer is for training"),
    ],
)
def test_a_wrong_request_gets_one_line(keys: dict[str, Any], says: str) -> None:
    """Each names what is wrong, or the nearest thing that is right."""
    assert says in refused(**keys)


def test_expandable_segments_are_pytorchs_on_cuda() -> None:
    """llama.cpp allocates for itself, and an MI300X is no CUDA card; a card known by its size counts as one."""
    assert decided().allocator == "default"
    assert decided(gpu="24GB", allocator="expandable").allocator == "expandable"
    assert "llama.cpp does not allocate with it" in refused(train=None, infer="7b", engine="llama.cpp", allocator="expandable")
    assert "is no CUDA card" in refused(gpu="mi300x", allocator="expandable")


def test_what_is_printed_is_accepted() -> None:
    """The decided job as JSON is a job again, and decides to the same."""
    for keys in (
        {},
        {"train": None, "infer": "qwen3-30b-a3b", "engine": "vllm", "tp": 4},
        {"method": "lora", "lora_targets": "q_proj"},
    ):
        w = decided(**keys)
        again = resolve(Job(**w.to_dict()))
        assert again.to_dict() == w.to_dict()
