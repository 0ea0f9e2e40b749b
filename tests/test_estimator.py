"""The detailed estimator as a whole: parts, phases, budgets, and what more of anything does to them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from advisor.catalog import find_engine
from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.results import PARTS, Estimate
from advisor.workload import resolve

GIB = 2**30


def estimated(**keys: Any) -> Estimate:
    return estimate_workload(resolve(Job(**{"gpu": "a100-80", **keys})))


def part(estimate: Estimate, name: str) -> int:
    return sum(part.bytes for part in estimate.parts if part.name == name)


MODELS = (
    "smollm-135m",
    "llama-3.2-1b",
    "qwen3-0.6b",
    "gemma-2-2b",
    "gemma-3-1b",
    "gpt2",
    "olmoe-1b-7b",
    "deepseek-v2-lite",
    "7b",
)
jobs = st.one_of(
    st.fixed_dictionaries(
        {
            "train": st.sampled_from(MODELS),
            "batch": st.sampled_from((1, 2, 5)),
            "seq": st.sampled_from((256, 1024)),
            "precision": st.sampled_from(("fp32", "bf16", "bf16-mixed", "fp16-mixed")),
            "optimizer": st.sampled_from(
                ("adamw", "adamw-fused", "adamw-8bit", "paged-adamw-8bit", "sgd", "adafactor", "muon", "none")
            ),
            "checkpointing": st.sampled_from(("none", "selective", "full")),
            "attention": st.sampled_from(("auto", "eager", "math")),
            "loss": st.sampled_from(("plain", "chunked")),
            "method": st.sampled_from(("full", "lora", "qlora")),
            "accumulation": st.sampled_from((1, 4)),
            "gpus": st.sampled_from((1, 2, 8)),
            "zero": st.sampled_from((0, 1, 2, 3)),
            "sharding": st.sampled_from(("deepspeed", "fsdp")),
            "engine": st.sampled_from(("trainer", "transformers", "trl", "torchtune", "deepspeed")),
            "offload": st.sampled_from((None, "optimizer", "activations", "optimizer,activations")),
        }
    ),
    st.fixed_dictionaries(
        {
            "train": st.sampled_from(MODELS),
            "objective": st.sampled_from(("dpo", "kto", "orpo", "simpo", "grpo")),
            "engine": st.sampled_from(("trl", "axolotl")),
            "batch": st.sampled_from((1, 2, 5)),
            "seq": st.sampled_from((256, 1024)),
            "precision": st.sampled_from(("bf16", "bf16-mixed")),
            "method": st.sampled_from(("full", "lora")),
            "gpus": st.sampled_from((1, 2)),
            "zero": st.sampled_from((0, 3)),
        }
    ),
    st.fixed_dictionaries(
        {
            "infer": st.sampled_from(MODELS),
            "batch": st.sampled_from((1, 2, 5)),
            "seq": st.sampled_from((256, 1024)),
            "quantization": st.sampled_from(("none", "int8", "nf4", "gptq-int4", "q4_k_m", "fp8")),
            "kv_precision": st.sampled_from(("bf16", "fp8", "q8_0")),
            "prompt": st.sampled_from((None, 64)),  # with a short one the last token is the peak
            "engine": st.sampled_from(("transformers", "vllm", "llama.cpp")),
            "offload": st.sampled_from((None, "kv", "layers")),
            "gpus": st.sampled_from((1, 2)),
        }
    )
    .filter(lambda keys: (keys["engine"], keys["offload"]) != ("vllm", "kv"))  # which are refused
    .filter(lambda keys: keys["engine"] != "llama.cpp" or keys["quantization"] not in ("nf4", "gptq-int4", "fp8"))
    .filter(lambda keys: keys["kv_precision"] in find_engine(keys["engine"]).kv_precisions),
)


@settings(max_examples=150, deadline=None)
@given(jobs)
def test_parts_add_up(keys: dict[str, Any]) -> None:
    """The parts are the device total, in the promised order, each positive; reserved lies between allocated and device."""
    found = estimated(**keys)
    names = [part.name for part in found.parts]
    assert sum(part.bytes for part in found.parts) == found.device_bytes
    assert names == sorted(names, key=PARTS.index)
    assert all(part.bytes > 0 for part in found.parts)
    assert found.allocated_bytes <= found.reserved_bytes <= found.device_bytes
    assert found.low_bytes <= found.device_bytes <= found.high_bytes


@settings(max_examples=60, deadline=None)
@given(jobs)
def test_the_peak_is_the_highest_phase(keys: dict[str, Any]) -> None:
    """Allocated memory is the largest of the phases, which is the one named."""
    found = estimated(**keys)
    assert found.peak_phase == max(found.phases, key=lambda phase: found.phases[phase])
    assert found.allocated_bytes == found.phases[found.peak_phase]


@settings(max_examples=80, deadline=None)
@given(jobs, st.sampled_from(("batch", "seq")))
def test_more_never_needs_less(keys: dict[str, Any], more: str) -> None:
    """Twice the batch or the sequence never takes less memory."""
    assert estimated(**keys).device_bytes <= estimated(**{**keys, more: 2 * keys[more]}).device_bytes


@settings(max_examples=60, deadline=None)
@given(jobs)
def test_higher_precision_never_needs_less(keys: dict[str, Any]) -> None:
    """fp32 takes no less than 16 bits, but with DeepSpeed: fp32 masters and gradients beside the 16-bit ones are 20 B a parameter,
    and fp32 with the fused AdamW is 16."""
    assume(keys.get("engine") != "deepspeed")
    half = estimated(**{**keys, "precision": "bf16", "quantization": None, "method": None})
    full = estimated(**{**keys, "precision": "fp32", "quantization": None, "method": None})
    assert half.device_bytes <= full.device_bytes


@settings(max_examples=60, deadline=None)
@given(jobs)
def test_every_part_can_say_how_it_came_about(keys: dict[str, Any]) -> None:
    """Each part has a formula in one line and a source."""
    for row in estimated(**keys).to_dict()["parts"]:
        assert row["formula"]
        assert "\n" not in row["formula"]
        assert row["source"]


def worked_out(formula: str) -> float:
    """The arithmetic before the colon of a formula, in bytes; nothing but arithmetic may stand there."""
    shown = re.sub(r" \(\d+ to \d+\) on .*", "", formula.split(":")[0].replace(",", ""))  # the context's range, and its card
    shown = shown.replace("KiB", "× 1024").replace("MiB", "× 1048576").replace("B", "")
    assert re.fullmatch(r"[0-9.+×÷() -]+", shown), formula
    return float(eval(shown.replace("×", "*").replace("÷", "/")))


@settings(max_examples=150, deadline=None)
@given(jobs)
def test_the_shown_arithmetic_is_the_arithmetic(keys: dict[str, Any]) -> None:
    """What stands before the colon gives the part's bytes, within a millionth (and a few bytes of division)."""
    for row in estimated(**keys).to_dict()["parts"]:
        assert worked_out(row["formula"]) == pytest.approx(row["bytes"], rel=1e-6, abs=1024), row


@pytest.mark.parametrize(("model", "logits"), [("llama-3.1-8b", 2048 * 128_256 * 6), ("mamba-130m", 50_280 * 2)])
def test_the_shown_arithmetic_of_an_old_version(model: str, logits: int) -> None:
    """transformers 4.38 made all logits of a prompt: the highest moment of Llama's prefill, not of Mamba's, whose scan is higher."""
    found = estimated(infer=model, engine="transformers", engine_version="4.38", seq=2048, precision="bf16")
    assert part(found, "logits-and-loss") == logits
    for row in found.to_dict()["parts"]:
        assert worked_out(row["formula"]) == pytest.approx(row["bytes"], rel=1e-6, abs=1024), row


def test_the_guides_first_question() -> None:
    """7B in pure bf16 with AdamW: 10 bytes a parameter at the step, 62.8 GiB of tensors for 6,738,415,616 parameters."""
    found = estimated(train="7b", engine="transformers")
    tensors = found.phases["step"] - part(found, "cublas-workspace")
    assert found.peak_phase == "step"
    assert tensors == pytest.approx(10 * 6_738_415_616, rel=1e-3)


def test_checkpointing_can_save_nothing() -> None:
    """Llama-2 7B, batch 2 × 1,024: the optimizer's step is the peak with and without checkpointing (62.76 GiB counted)."""
    keys: dict[str, Any] = {"train": "llama-2-7b", "batch": 2, "seq": 1024, "engine": "transformers"}
    assert estimated(**keys).device_bytes == estimated(**keys, checkpointing="full").device_bytes


def test_a_chunked_loss_removes_the_logits() -> None:
    """Llama-3.2 1B at 8,192 tokens with checkpointing: the plain loss is the job, 11.7 GiB of it; a chunked one is under 1 GiB."""
    keys: dict[str, Any] = {"train": "llama-3.2-1b", "seq": 8192, "checkpointing": "full", "engine": "transformers"}
    assert part(estimated(**keys, loss="plain"), "logits-and-loss") > 11.7 * GIB
    assert part(estimated(**keys, loss="chunked"), "logits-and-loss") < GIB


def test_zero_divides_what_it_shards() -> None:
    """ZeRO-3 of a 7B on 8 GPUs: 16 bytes a parameter of state, an eighth of them on each."""
    found = estimated(train="7b", precision="bf16", seq=128, gpus=8, zero=3)
    count = 6_738_415_616
    state = sum(part(found, name) for name in ("weights", "gradients", "optimizer-state", "master-weights"))
    assert state == pytest.approx(16 * count / 8, rel=0.01)


def test_zero_on_one_gpu_saves_nothing() -> None:
    """A stage on one rank is accepted; its masters and buffers only add."""
    assert estimated(train="7b", zero=3).device_bytes > estimated(train="7b").device_bytes


def test_tensor_parallel_halves_weights_and_cache() -> None:
    """Two ranks hold half the matrices and half the KV heads each, and whole norms."""
    one, two = (estimated(infer="llama-3.1-8b", engine="vllm", tp=tp) for tp in (1, 2))
    assert part(two, "kv-cache") * 2 == part(one, "kv-cache")
    assert part(two, "weights") == pytest.approx(part(one, "weights") / 2, rel=1e-3)


def test_a_degree_that_does_not_divide_the_heads_is_refused() -> None:
    """32 heads cannot be shared out to 3 ranks."""
    with pytest.raises(RequestError, match="does not divide the 32 attention heads"):
        estimated(infer="llama-3.1-8b", engine="vllm", tp=3)


def test_layers_are_divided_over_the_gpus() -> None:
    """transformers puts 16 of 32 layers on each of two cards; the one with the embedding or head is the fullest."""
    one, two = (estimated(infer="llama-3.1-8b", gpus=gpus) for gpus in (1, 2))
    embedding = 128_256 * 4096 * 2
    layers = part(one, "weights") - 2 * embedding
    assert part(two, "weights") == pytest.approx(layers / 2 + embedding, rel=1e-3)


def test_older_transformers_made_all_logits() -> None:
    """Qwen2-7B, 30,720 tokens, BF16: 42.62 GiB with transformers 4.38, published (Qwen2 speed benchmark); 4.46 needs less than half
    of the difference to the weights."""
    keys: dict[str, Any] = {"infer": "qwen2-7b", "prompt": 30720, "seq": 32768, "engine": "transformers"}
    old = estimated(**keys, engine_version="4.38").allocated_bytes
    assert old == pytest.approx(42.62 * GIB, rel=0.001)
    assert estimated(**keys, engine_version="4.46").allocated_bytes < old / 2


def test_offloading_moves_what_it_names() -> None:
    """On the host: the optimizer's state whole; of activations all but one layer's; of a cache all but two layers'."""
    train: dict[str, Any] = {"train": "llama-3.1-8b", "optimizer": "adamw", "engine": "transformers"}
    assert part(estimated(**train, offload="optimizer"), "optimizer-state") == 0
    kept, parked = (estimated(**train, seq=4096, offload=away).phases["forward"] for away in (None, "activations"))
    layer = 200_840 * 4096  # bytes that a Llama-3.1 8B layer keeps for 4,096 tokens
    assert kept - parked == pytest.approx(31 * layer, rel=0.01)
    whole, held = (part(estimated(infer="llama-3.1-8b", offload=away), "kv-cache") for away in (None, "kv"))
    assert held == whole // 16


def test_selective_recomputation_makes_the_scores_of_one_attention_layer_again() -> None:
    """In a hybrid too, whose first layer is recurrent: Qwen3.5 0.8B has 8 heads of 2,048² scores, in fp32 and once more in bf16."""
    keys: dict[str, Any] = {
        "train": "qwen3.5-0.8b",
        "checkpointing": "selective",
        "engine": "transformers",
        "optimizer": "none",
    }
    eager, fused = (estimated(**keys, attention=kernel).phases["backward"] for kernel in ("eager", "efficient"))
    assert eager - fused == pytest.approx(8 * 2048 * 2048 * (4 + 2), rel=1e-3)


def test_zero_offload_takes_the_gradients_along() -> None:
    """ZeRO-Offload keeps gradients and optimizer on the host, and with the parameters there no state of 16 B a parameter is left."""
    keys: dict[str, Any] = {"train": "llama-3.1-8b", "gpus": 8, "zero": 3, "engine": "deepspeed"}
    for away in ("optimizer", "optimizer,parameters"):
        found = estimated(**keys, offload=away)
        assert part(found, "gradients") == part(found, "optimizer-state") == part(found, "master-weights") == 0
    assert part(found, "weights") == 0


def test_as_many_layers_as_needed_go_to_the_host() -> None:
    """Llama-3.1 8B does not fit on a T4; with some of its layers on the host it does, and no layer more is moved than needed."""
    found = estimated(gpu="t4", infer="llama-3.1-8b", offload="layers")
    assert found.fits
    layer = 436_224_000  # bytes of one layer
    assert found.high_bytes + layer > resolve(Job(gpu="t4", infer="llama-3.1-8b")).usable_bytes


def test_the_share_of_the_card_that_the_engine_takes_is_the_budget() -> None:
    """vLLM takes 92 % of the card's total by default; `free` and `memory_fraction` say otherwise."""
    for keys, expected in (
        ({"engine": "vllm"}, lambda gpu: int(0.92 * gpu.total_bytes)),
        ({"engine": "vllm", "memory_fraction": 0.5}, lambda gpu: int(0.5 * gpu.total_bytes)),
        ({"free": "10GiB"}, lambda gpu: 10 * GIB),
        ({}, lambda gpu: gpu.usable_bytes),
    ):
        w = resolve(Job(gpu="a100-80", infer="7b", **keys))
        assert w.usable_bytes == expected(w.gpu)


def test_confidence_widens_the_interval() -> None:
    """99 % of runs take a wider interval than 50 %."""
    wide, narrow = (estimated(train="7b", confidence=c) for c in (0.99, 0.5))
    assert wide.low_bytes < narrow.low_bytes < narrow.high_bytes < wide.high_bytes


def test_qlora_upcasts_what_is_not_quantized() -> None:
    """PEFT's k-bit preparation leaves embedding, head and norms of Qwen2.5-7B in fp32: 4.1 GiB of the 7.5 that are loaded
    (fitcheck-llm measured 4,198 MiB of fp32 and 3,500 MiB of nf4 with its scales)."""
    found = estimated(train="qwen2.5-7b", method="qlora", engine="trainer")
    assert part(found, "weights") == pytest.approx((4198 + 3111 + 389) * 2**20, rel=0.01)
