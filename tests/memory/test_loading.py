"""What loading and saving hold beside the weights, engine by engine."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.runtime import workspace
from advisor.results import Estimate
from advisor.workload import resolve

MIXTRAL = 46_702_792_704
GATES_AND_UPS = 2 * 8 * 14_336 * 4_096  # of the eight experts of a layer of Mixtral
LLAMA = 8_030_261_248


def estimated(**keys: Any) -> Estimate:
    return estimate_workload(resolve(Job(**{"gpu": "h200", "seq": 64, **keys})))


def tensors(phase: str, **keys: Any) -> int:
    w = resolve(Job(**{"gpu": "h200", "seq": 64, **keys}))
    return estimate_workload(w).phases[phase] - workspace(w).point


def test_a_plain_model_loads_at_its_size() -> None:
    """The Trainer reads a checkpoint into the host's memory and moves it: weights, and nothing beside them."""
    assert tensors("load", train="llama-3.1-8b") == pytest.approx(2 * LLAMA, rel=1e-3)


def test_kbit_preparation_has_the_head_twice() -> None:
    """The 16-bit head of Llama-3.1 8B, 128,256 × 4,096, is there while its fp32 copy is made."""
    after = tensors("save", train="llama-3.1-8b", method="qlora", optimizer="sgd")
    adapters = 41_943_040 * 4
    assert tensors("load", train="llama-3.1-8b", method="qlora") == after - adapters + 128_256 * 4_096 * 2


def test_a_matrix_is_unpacked_beside_the_packed_one() -> None:
    """bitsandbytes packs in 4 bits what comes in 16: the largest matrix, 14,336 × 4,096; LLM.int8 makes an fp16 copy first."""
    matrix = 14_336 * 4_096
    for kind, copies in (("nf4", 1), ("int8", 2)):
        keys: dict[str, Any] = {"infer": "llama-3.1-8b", "quantization": kind, "precision": "bf16"}
        w = resolve(Job(gpu="h200", **keys))
        weights = next(part.bytes for part in estimate_workload(w).parts if part.name == "weights")
        assert tensors("load", **keys) - weights == copies * 2 * matrix


def test_experts_are_made_one_tensor() -> None:
    """transformers 5 stacks gate and up of all experts of a layer: once more that tensor while it does; version 4 did not."""
    keys: dict[str, Any] = {"infer": "mixtral-8x7b", "precision": "bf16"}
    new, old = (tensors("load", **keys, engine_version=version) for version in ("5.23", "4.50"))
    assert new - old == 2 * GATES_AND_UPS


def test_experts_are_taken_apart_to_be_saved() -> None:
    """save_pretrained copies gate and up of every layer before it writes the first file: counted on a small Qwen3-MoE of real
    tensors, where the extra was exactly all of them. Fused checkpoints, as gpt-oss has, are left as they are."""
    keys: dict[str, Any] = {"train": "mixtral-8x7b", "optimizer": "sgd"}
    assert tensors("save", **keys) == pytest.approx(2 * (MIXTRAL + 32 * GATES_AND_UPS), rel=1e-3)
    assert tensors("save", train="gpt-oss-20b", optimizer="sgd") == pytest.approx(
        tensors("load", train="gpt-oss-20b"), rel=1e-3
    )


def test_a_sharded_save_gathers_the_largest_piece() -> None:
    """FSDP makes one tensor whole at a time, here the embedding of Llama-3.1 8B; adapters are too small to count."""
    keys: dict[str, Any] = {"train": "llama-3.1-8b", "gpus": 8, "zero": 3, "sharding": "fsdp"}
    shard = 2 * LLAMA // 8
    assert tensors("save", **keys, optimizer="sgd") == pytest.approx(shard + 128_256 * 4_096 * 2, rel=1e-3)
    assert tensors("save", **keys, method="lora", optimizer="sgd") == pytest.approx(shard + 4 * 41_943_040 // 8, rel=1e-3)


def test_megatron_holds_the_parameters_twice() -> None:
    """With the distributed optimizer the parameters move into a buffer beside the fp32 gradients: 2 + 2 + 4 bytes a parameter, more
    than the 6 + 12 / 64 that stay."""
    found = estimated(train="llama-3.1-8b", engine="megatron", gpus=64, max_gpus=64, zero=1, checkpointing="full")
    assert found.phases["load"] == pytest.approx(8 * LLAMA, rel=0.01)
    assert found.peak_phase == "load"


def test_an_old_awq_model_has_a_head_for_a_moment() -> None:
    """transformers 4 made a head of Qwen2.5-0.5B's AWQ checkpoint and tied it afterwards: 151,936 × 896 more."""
    keys: dict[str, Any] = {"infer": "qwen2.5-0.5b", "quantization": "awq-int4", "precision": "fp16"}
    new, old = (tensors("load", **keys, engine_version=version) for version in ("5.23", "4.46"))
    assert old - new == pytest.approx(151_936 * 896 * 2, rel=0.01)


def test_states_come_with_the_first_step() -> None:
    """AdamW's two moments are not there when a model has been loaded, and are in every phase after the first step."""
    found = estimated(train="llama-3.1-8b", engine="torchtitan")
    for phase in ("forward", "eval", "save"):
        assert found.phases[phase] - found.phases["load"] >= 4 * LLAMA


def test_deepspeed_sets_its_gradients_up() -> None:
    """ZeRO-1 on one GPU: 16-bit weights, fp32 masters, and fp32 zeros for once, 10 bytes a parameter."""
    assert tensors("load", train="llama-3.1-8b", engine="deepspeed", zero=1) == pytest.approx(
        10 * LLAMA + 2 * 2 * 500_000_000, rel=1e-3
    )
