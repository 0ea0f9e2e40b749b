"""The remedies: which keys change, and to what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_toy import workload

from advisor.job import Job
from advisor.memory.sharding import undivided
from advisor.mixers import Attention, LatentAttention
from advisor.model import Experts, Layer, Mlp, Model
from advisor.planning.dividing import doublings, next_degrees, on_gpus
from advisor.planning.remedies import (
    BITS,
    NotApplicable,
    accumulate_gradients,
    faster_attention,
    halve_batch,
    limit_sequence,
    mixed_precision,
    more_gpus,
    offload_kv,
    offload_layers,
    offload_optimizer,
    offload_parameters,
    optimizer_in_8_bits,
    page_optimizer,
    prefill_in_chunks,
    quantize_base,
    quantize_kv,
    quantize_weights,
    shard,
    shard_with_fsdp,
    shorten,
    split_model,
    weight_bits,
)
from advisor.vocabulary import QUANTIZATIONS
from advisor.workload import resolve


def train(**keys):
    return workload(train="7b", **keys)


def infer(**keys):
    return workload(infer="7b", **keys)


def test_every_quantization_has_its_bits():
    """Only ``none`` leaves it to the precision."""
    assert BITS.keys() == set(QUANTIZATIONS) - {"none"}
    assert weight_bits(infer()) == 16
    assert weight_bits(infer(precision="fp32")) == 32


@pytest.mark.parametrize(("batch", "floor", "then"), [(8, 1, 4), (7, 1, 3), (2, 1, 1), (8, 6, 6), (3, 2, 2)])
def test_the_batch_is_halved_rounding_down_and_not_below_its_floor(batch, floor, then):
    """I1."""
    assert halve_batch(infer(batch=batch, min_batch=floor)) == [{"batch": then}]


@pytest.mark.parametrize(
    ("seq", "lengths"),
    [(131072, [32768, 16384, 8192]), (32768, [16384, 8192]), (32769, [32768, 16384, 8192]), (10000, [8192]), (8193, [8192])],
)
def test_the_sequence_goes_to_the_next_of_32k_16k_8k(seq, lengths):
    """I2: strictly below the present length, and no further than 8K."""
    assert [changes["seq"] for changes in limit_sequence(infer(seq=seq))] == lengths


def test_the_sequence_does_not_go_below_its_floor():
    """min_seq 16,000 leaves 16K and refuses 8K."""
    assert limit_sequence(infer(seq=32768, min_seq=16000)) == [{"seq": 16384}]
    assert limit_sequence(infer(seq=16384, min_seq=16000)) == NotApplicable(
        "the next shorter length is below the 16000 tokens of min_seq"
    )


def test_a_prompt_that_the_user_set_is_cut_and_named():
    """A prompt left to its default follows the sequence by itself."""
    assert limit_sequence(infer(seq=16384)) == [{"seq": 8192}]
    assert limit_sequence(infer(seq=16384, prompt=12000)) == [{"seq": 8192, "prompt": 8192}]
    assert limit_sequence(infer(seq=16384, prompt=4096)) == [{"seq": 8192}]


@pytest.mark.parametrize(
    ("engine", "now", "kinds"),
    [
        ("transformers", "none", ["int8", "nf4"]),
        ("llama.cpp", "none", ["q8_0", "q4_k_m"]),
        ("vllm", "none", ["fp8", "awq-int4"]),
        ("transformers", "gptq-int8", ["nf4"]),
        ("llama.cpp", "q6_k", ["q4_k_m"]),
    ],
)
def test_quantization_starts_where_the_model_is_in_the_engines_own_formats(engine, now, kinds):
    """I3."""
    assert quantize_weights(infer(engine=engine, quantization=now)) == [{"quantization": kind} for kind in kinds]


def test_four_bits_are_the_end():
    """Nothing below is offered."""
    assert quantize_weights(infer(quantization="nf4")) == NotApplicable("the weights are nf4 already")


def test_layers_are_dealt_out_over_twice_the_gpus():
    """I4 with transformers and llama.cpp changes only ``gpus``; the last step goes to max_gpus."""
    assert split_model(infer()) == [{"gpus": 2}, {"gpus": 4}, {"gpus": 8}]
    assert split_model(infer(engine="llama.cpp", gpus=3, max_gpus=8)) == [{"gpus": 6}, {"gpus": 8}]


def test_a_serving_engine_doubles_the_degree_with_the_gpus():
    """I4: 32 heads are divided by 2, 4 and 8."""
    assert split_model(infer(engine="vllm")) == [{"tp": 2, "gpus": 2}, {"tp": 4, "gpus": 4}, {"tp": 8, "gpus": 8}]
    assert split_model(infer(engine="vllm", tp=2, gpus=4)) == [{"tp": 4, "gpus": 8}, {"tp": 8, "gpus": 8}]


def test_replicas_give_up_their_gpus_when_there_are_no_more():
    """Eight replicas on eight GPUs become four of two GPUs."""
    assert split_model(infer(engine="vllm", gpus=8))[0] == {"tp": 2}


def test_pipeline_parallel_where_the_heads_cannot_be_divided():
    """GPT-2 XL has 25 heads and 48 layers."""
    xl = model(Attention(heads=25, kv_heads=25, head_dim=64), Mlp(width=6400), 48)
    assert next_degrees(xl, 1, 1) == (1, 2)
    assert next_degrees(model(Attention(heads=12, kv_heads=12, head_dim=64), Mlp(width=3072), 12), 4, 1) == (4, 2)
    assert next_degrees(model(Attention(heads=25, kv_heads=25, head_dim=64), Mlp(width=6400), 1), 1, 1) is None


def model(mixer, feed_forward, layers=2):
    return Model(name="m", model_type="m", hidden=64, vocab=100, layers=(Layer(mixer, feed_forward),) * layers)


@pytest.mark.parametrize(
    ("mixer", "feed_forward", "degree", "can"),
    [
        (Attention(heads=32, kv_heads=8, head_dim=128), Mlp(width=14336), 8, True),  # Llama 3.1 8B
        (Attention(heads=32, kv_heads=8, head_dim=128), Mlp(width=14336), 16, True),  # KV heads are copied
        (Attention(heads=28, kv_heads=4, head_dim=128), Mlp(width=18944), 8, False),  # Qwen2 7B: 28 heads
        (Attention(heads=32, kv_heads=6, head_dim=128), Mlp(width=14336), 4, False),
        (Attention(heads=32, kv_heads=32, head_dim=128), Mlp(width=11009), 2, False),
        (LatentAttention(128, 512, 128, 64, 128, 1536), Experts(256, 8, 2048, shared_width=2048), 8, True),  # DeepSeek V3
        (Attention(heads=16, kv_heads=16, head_dim=128), Experts(60, 4, 1408, shared_width=5633), 2, False),
        (None, Mlp(width=64), 2, True),
    ],
)
def test_a_degree_must_divide_heads_and_widths(mixer, feed_forward, degree, can):
    """vLLM raises where it does not; fewer KV heads than GPUs are copied."""
    assert (undivided(model(mixer, feed_forward), degree) == "") is can


@pytest.mark.parametrize(
    ("batch", "accumulation", "floor", "then"),
    [
        (8, 1, 1, (4, 2)),
        (5, 1, 1, (1, 5)),
        (5, 2, 1, (2, 5)),
        (6, 1, 1, (3, 2)),
        (7, 3, 1, (3, 7)),
        (6, 2, 4, (4, 3)),
        (3, 2, 2, (2, 3)),
    ],
)
def test_accumulation_makes_up_for_the_batch(batch, accumulation, floor, then):
    """T2: at most half the batch, or its floor, and the product stays."""
    keys = {"batch": batch, "accumulation": accumulation, "min_batch": floor}
    assert accumulate_gradients(train(**keys)) == [{"batch": then[0], "accumulation": then[1]}]


def test_a_floor_that_no_divisor_reaches_is_a_reason():
    """Seven sequences are 1 × 7 or 7 × 1."""
    settings = accumulate_gradients(train(batch=7, min_batch=2))
    assert settings == NotApplicable("no batch from 2 to 3 keeps the 7 sequences of one GPU's step")


@given(st.integers(2, 2**31), st.integers(1, 2**17))
def test_the_sequences_of_a_step_stay_whatever_the_batch(batch, accumulation):
    """The product is kept, and the batch falls to half or less; also for the largest batch that a job takes."""
    [changes] = accumulate_gradients(train(batch=batch, accumulation=accumulation))
    assert changes["batch"] * changes["accumulation"] == batch * accumulation
    assert 1 <= changes["batch"] <= batch // 2


@pytest.mark.parametrize(("stage", "then"), [(0, [2, 3]), (1, [2, 3]), (2, [3])])
def test_zero_goes_to_stage_2_then_3(stage, then):
    """T3."""
    assert shard(train(zero=stage, gpus=2)) == [{"zero": later} for later in then]


def test_mixed_precision_is_what_the_card_can_do():
    """T5: a V100 has no bf16."""
    assert mixed_precision(train(precision="fp32")) == [{"precision": "bf16-mixed"}]
    assert mixed_precision(train(precision="fp32", gpu="old")) == [{"precision": "fp16-mixed"}]


def test_fp32_masters_beside_16_bit_weights_are_mixed_precision_too():
    """T5: what Megatron-LM's --bf16 does, after autocast, which DeepSpeed has as well."""
    keys = {"gpu": "a100-40", "train": "llama-3.1-8b", "precision": "fp32", "engine": "megatron"}
    assert mixed_precision(resolve(Job(**keys))) == [{"precision": "bf16-mixed"}, {"precision": "bf16"}]


@pytest.mark.parametrize(
    ("keys", "then"),
    [
        ({}, [{"zero": 3, "gpus": 2}, {"zero": 3, "gpus": 4}, {"zero": 3, "gpus": 8}]),
        ({"gpus": 2, "zero": 3, "accumulation": 8}, [{"accumulation": 4, "gpus": 4}, {"accumulation": 2, "gpus": 8}]),
        ({"gpus": 4, "zero": 3, "accumulation": 3}, [{"gpus": 8}]),  # 3 is not halved
        ({"gpus": 6, "zero": 3, "accumulation": 4}, [{"accumulation": 3, "gpus": 8}]),  # 24 sequences on 8
        ({"gpus": 3, "zero": 3, "tp": 3, "max_gpus": 8}, [{"gpus": 6}]),  # groups of three
        ({"gpus": 4, "zero": 3, "accumulation": 8, "keep": "accumulation"}, [{"gpus": 8}]),
        ({"gpus": 4, "zero": 3, "nodes": 1, "max_gpus": 16}, [{"gpus": 8}, {"gpus": 16, "nodes": 2}]),
    ],
)
def test_gpus_double_and_accumulation_shrinks_as_far_as_it_divides(keys, then):
    """T6: the batch of a GPU stays, ZeRO 3 comes in the same step, machines are counted where the user counted them."""
    assert more_gpus(train(**keys)) == then


def test_no_room_for_another_group_is_a_reason():
    """Five GPUs at a time, and eight at most."""
    assert more_gpus(train(gpus=5, tp=5)) == NotApplicable("max_gpus 8 leaves no room for another 5 GPUs")


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_the_global_batch_never_shrinks(gpus, accumulation, most):
    """Whatever the numbers, and accumulation never grows."""
    w = train(gpus=gpus, accumulation=accumulation, max_gpus=max(gpus, most))
    settings = more_gpus(w)
    for changes in [] if isinstance(settings, NotApplicable) else settings:
        fewer = changes.get("accumulation", accumulation)
        assert fewer * changes["gpus"] >= accumulation * gpus
        assert fewer <= accumulation


def test_doublings_end_at_the_limit():
    """And there are none beyond it."""
    assert doublings(1, 8) == [2, 4, 8]
    assert doublings(5, 12) == [10, 12]
    assert doublings(8, 8) == doublings(9, 8) == []


def test_a_job_taken_to_so_many_gpus_at_once():
    """What ``missing`` tries beyond max_gpus; tensor parallel as far as 32 heads go, pipeline parallel beyond."""
    assert on_gpus(train(gpus=8, zero=3, accumulation=4), 32) == {"accumulation": 1, "gpus": 32}
    assert on_gpus(infer(), 16) == {"gpus": 16}
    assert on_gpus(infer(engine="vllm"), 64) == {"tp": 32, "pp": 2, "gpus": 64}
    assert on_gpus(infer(engine="vllm"), 2048) is None


@pytest.mark.parametrize(
    ("remedy", "keys", "then"),
    [
        (shorten, {"seq": 8192, "min_seq": 3000}, [{"seq": 4096}, {"seq": 3000}]),
        (shorten, {"seq": 5000}, [{"seq": 4096}, {"seq": 2048}, {"seq": 1024}]),
        (optimizer_in_8_bits, {"optimizer": "lion"}, [{"optimizer": "lion-8bit"}]),
        (optimizer_in_8_bits, {"optimizer": "paged-adamw"}, [{"optimizer": "paged-adamw-8bit"}]),
        (page_optimizer, {"optimizer": "adamw-8bit"}, [{"optimizer": "paged-adamw-8bit"}]),
        (page_optimizer, {"optimizer": "sgd"}, NotApplicable("AdamW has a paged form; the optimizer is sgd")),
        (offload_optimizer, {}, [{"offload": ("optimizer",), "zero": 2}]),
        (offload_optimizer, {"zero": 1, "keep": "zero"}, [{"offload": ("optimizer",)}]),
        (offload_optimizer, {"gpus": 2, "zero": 3}, [{"offload": ("optimizer",)}]),
        (offload_optimizer, {"gpus": 2, "sharding": "fsdp"}, [{"offload": ("optimizer",)}]),
        (
            offload_optimizer,
            {"gpus": 2, "zero": 2, "optimizer": "paged-adamw-8bit"},
            [{"offload": ("optimizer",)}, {"offload": ("optimizer",), "optimizer": "adamw"}],
        ),
        (offload_parameters, {"offload": ("optimizer",)}, [{"offload": ("optimizer", "parameters"), "zero": 3}]),
        (shard_with_fsdp, {"gpus": 8, "zero": 3}, [{"sharding": "fsdp"}]),
        (shard_with_fsdp, {"gpus": 4, "zero": 3, "sharding": "fsdp"}, [{"gpus": 8}]),
        (shard_with_fsdp, {"gpus": 8, "zero": 3, "sharding": "fsdp"}, []),
        (quantize_base, {"method": "lora"}, [{"method": "qlora", "quantization": "nf4"}]),
        (quantize_base, {"method": "lora", "quantization": "nf4-dq"}, [{"method": "qlora", "quantization": "nf4-dq"}]),
    ],
)
def test_remedies_of_training_beyond_the_guide(remedy, keys, then):
    """Each goes on from where the job is."""
    assert remedy(train(**keys)) == then


@pytest.mark.parametrize(
    ("remedy", "keys", "then"),
    [
        (prefill_in_chunks, {"prompt": 4096}, [{"prompt": 2048}, {"prompt": 512}]),
        (prefill_in_chunks, {"prompt": 2048}, [{"prompt": 512}]),
        (quantize_kv, {"engine": "llama.cpp"}, [{"kv_precision": "q8_0"}, {"kv_precision": "q4_0"}]),
        (quantize_kv, {"engine": "llama.cpp", "kv_precision": "q4_0"}, []),
        (quantize_kv, {"engine": "vllm"}, [{"kv_precision": "int8"}]),  # the card computes in no fp8
        (shorten, {"seq": 4096, "prompt": 3000}, [{"seq": 2048, "prompt": 2048}, {"seq": 1024, "prompt": 1024}]),
        (faster_attention, {"attention": "eager"}, [{"attention": "flash"}]),
        (faster_attention, {"attention": "eager", "precision": "fp32"}, [{"attention": "auto"}]),
    ],
)
def test_remedies_of_inference_beyond_the_guide(remedy, keys, then):
    """A prompt is read in pieces of 2,048 and 512 tokens; a cache goes to what engine and card have."""
    assert remedy(infer(**keys)) == then


def test_layers_go_to_the_host_an_eighth_at_a_time():
    """32 layers in fours; what bitsandbytes has quantized has to be unquantized to go."""
    counts = [changes["offload_layers"] for changes in offload_layers(infer())]
    assert counts == [4, 8, 12, 16, 20, 24, 28, 32]
    assert offload_layers(infer())[0] == {"offload": ("layers",), "offload_layers": 4}
    assert offload_layers(infer(offload="layers", offload_layers=24)) == [{"offload_layers": 28}, {"offload_layers": 32}]
    assert offload_layers(infer(quantization="nf4"))[8] == {
        "offload": ("layers",), "offload_layers": 4, "quantization": "none",
    }  # fmt: skip


def test_soft_capped_scores_need_flash_attention():
    """Gemma 2's: PyTorch's own kernels have no cap, so an old card has nothing faster."""
    from advisor.workload import resolve

    def offered(gpu):
        return faster_attention(resolve(Job(gpu=gpu, train="gemma-2-9b", precision="fp16-mixed", attention="eager")))

    assert offered("a100-80") == [{"attention": "flash"}]
    assert isinstance(offered("v100-16"), NotApplicable)


def test_a_cache_in_fewer_bits_may_be_moved_in_the_numbers_of_the_computation():
    """transformers 5.23.0, generation/utils.py: one argument quantizes the cache or moves it, so the second setting gives the bits back."""
    assert offload_kv(infer()) == [{"offload": ("kv",)}]
    assert offload_kv(infer(kv_precision="int8")) == [{"offload": ("kv",)}, {"offload": ("kv",), "kv_precision": "bf16"}]
