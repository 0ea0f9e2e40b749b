"""Zamba's blocks that several layers share: once in the weights and gradients, at each use in activations, caches and adapters."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.job import Job
from advisor.memory.kv_cache import cache_bytes
from advisor.memory.net import Recipe
from advisor.memory.parameters import layer_weights, module_weights, parameter_count
from advisor.memory.passes import blocks_of
from advisor.memory.sharding import Rank, narrowed, ranks
from advisor.memory.weights import adapter_weights
from advisor.model import Model
from advisor.model_files.config import model_from_config
from advisor.references import find_model
from advisor.workload import resolve

BF16 = 2


def small(**keys: Any) -> Model:
    """A Zamba 2 whose third, fourth and sixth layers have a block before them."""
    kinds = ["mamba", "mamba", "hybrid", "hybrid", "mamba", "hybrid"]
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "n_mamba_heads": 4, "vocab_size": 100, "adapter_rank": 8}
    config = {"model_type": "zamba2", "num_hidden_layers": 6, "layers_block_type": kinds, "dtype": "bfloat16", **sizes, **keys}
    return model_from_config(config, "small")


def test_a_block_counts_once() -> None:
    """One block for three layers: two blocks are as many parameters as one, and those of a block more."""
    one, two = small(num_mem_blocks=1), small(num_mem_blocks=2)
    block = 4 * 128 * 128 - 128 * 64 + 3 * 64 * 256 + 128 + 64  # q, k, v, o; gate, up, down; the norms
    assert parameter_count(two) - parameter_count(one) == block


def test_blocks_take_turns() -> None:
    """Zamba2-2.7B has nine layers with a block before them and two blocks, one after the other (the first is a layer's first)."""
    shared = [layer.shared for layer in find_model("zamba2-2.7b").layers if layer.shared]
    assert [block.number for block in shared] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert [block.first for block in shared] == [True, True, *[False] * 7]
    assert [block.last for block in shared] == [*[False] * 7, True, True]


def test_adapters_of_the_model_itself_are_each_layers_own() -> None:
    """Zamba 2's adapters make the three uses of a block different; Zamba has none (arXiv 2411.15242)."""
    plain, adapted = small(), small(use_shared_attention_adapter=True)
    assert parameter_count(adapted) - parameter_count(plain) == 3 * 3 * 2 * 8 * 128
    names = {weight.name for layer, _ in find_model("zamba-7b").kinds for weight in layer_weights(layer, 3712)}
    assert not any("adapter" in name for name in names)


def test_every_use_has_its_own_keys_and_values() -> None:
    """13 of Zamba-7B's 76 layers and 9 of Zamba2-2.7B's 54 cache keys and values of two hidden sizes each."""
    assert cache_bytes(find_model("zamba-7b"), 1, 1, "bf16") == 13 * 2 * 2 * 3712 * BF16
    assert cache_bytes(find_model("zamba2-2.7b"), 1, 1, "bf16") == 9 * 2 * 2 * 2560 * BF16


def test_lora_adapts_every_use() -> None:
    """The uses are modules of their own, whatever weights they share, and PEFT puts an adapter on each."""
    users = [layer for layer in small().layers if layer.shared]
    sizes = {sum(x.elements for x in adapter_weights(layer, 64, 16, frozenset({"q_proj"}))) for layer in users}
    assert sizes == {16 * (128 + 128)}
    assert module_weights(users[0], 64) == layer_weights(users[0], 64)
    assert module_weights(users[1], 64) != layer_weights(users[1], 64)


def test_each_stage_of_a_pipeline_has_the_block() -> None:
    """The layers that a stage has share one copy of the block between them."""
    job = Job(gpu="h100-80", gpus=2, engine="transformers", infer="zamba2-2.7b", batch=1, prompt=128, seq=256, pp=2)
    stages = list(ranks(resolve(job)))
    assert len(stages) == 2
    for stage in stages:
        firsts = [layer.shared.number for layer in stage.model.layers if layer.shared and layer.shared.first]
        assert sorted(firsts) == [0, 1]


def test_tensor_parallel_ranks_divide_the_block() -> None:
    """Heads and the MLP's width are dealt out as in any layer."""
    half = next(layer.shared for layer in narrowed(find_model("zamba2-2.7b"), 2).layers if layer.shared)
    assert (half.attention.heads, half.mlp.width) == (16, 5120)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_backward_pass_leaves_one_gradient_for_each_parameter(checkpointed: bool, autocast: bool) -> None:
    """Its layers' gradients are as many bytes as their parameters, and none are new where earlier ones exist."""
    model = small()
    width = 4 if autocast else BF16
    recipe = Recipe(train=True, weight=width, stream=width, autocast=autocast)
    inside = sum(weight.elements for layer in model.layers for weight in layer_weights(layer, model.hidden))
    for adding, expected in ((False, width * inside), (True, 0)):
        blocks = blocks_of(recipe, Rank(model), checkpointed, adding, 0)
        assert sum(block.gradients[0] for block in blocks) == expected
