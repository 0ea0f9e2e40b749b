"""What one layer keeps for the backward pass follows from its code: the coefficients, known from real classes, come out exactly.

The right-hand sides were read off transformers 5.23 layers with torch.autograd.graph.saved_tensors_hooks, 26 random shapes each,
on real and on fake tensors alike. h hidden, f feed-forward width, q and kv widths of queries and keys, a and k heads, t active of
E experts. "amp" is fp32 weights under autocast.
"""

from __future__ import annotations

import pytest

from advisor.memory.extent import Extent
from advisor.memory.net import Recipe
from advisor.memory.passes import recomputed_block, stored_block
from advisor.mixers import Attention
from advisor.model import Experts, Layer, Mlp

BF16 = Recipe(train=True)
AMP = Recipe(train=True, weight=4, stream=4, autocast=True)
FP32 = Recipe(train=True, weight=4, stream=4, compute=4, kernel="efficient")
EAGER = BF16._replace(kernel="eager")

LLAMA = Layer(Attention(32, 8, 128), Mlp(14336))
QWEN3 = Layer(Attention(32, 8, 128, qk_norm="head"), Mlp(12288))
PHI3 = Layer(Attention(32, 32, 96, fused=True, partial_rotary=True), Mlp(8192, fused=True))
GEMMA2 = Layer(Attention(8, 4, 256, softcap=True), Mlp(9216, activation="gelu-tanh"), "sandwich", "rms-gemma")
GPT2 = Layer(
    Attention(12, 12, 64, bias=True, out_bias=True, fused=True, rotary=False, dropout=0.1, softmax_fp32=False),
    Mlp(3072, gated=False, bias=True, activation="gelu-new"),
    "pre",
    "layer",
)
MIXTRAL = Layer(Attention(32, 8, 128), Experts(8, 2, 14336))

h, q, kv, a, k = 4096, 4096, 1024, 32, 8


def kept(recipe: Recipe, layer: Layer, hidden: int, dropout: float = 0.0) -> Extent:
    return stored_block(recipe, layer, hidden, dropout, False, False).kept


@pytest.mark.parametrize(
    ("recipe", "layer", "hidden", "per_token", "per_score"),
    [
        (BF16, LLAMA, h, 16 * h + 8 * 14336 + 4 * q + 4 * kv + 4 * a + 8, 0),
        (EAGER, LLAMA, h, 16 * h + 8 * 14336 + 8 * q + 8, 6 * a),
        (AMP, LLAMA, h, 26 * h + 8 * 14336 + 4 * q + 4 * kv + 4 * a + 8, 0),
        (FP32, LLAMA, h, 24 * h + 16 * 14336 + 16 * q + 4 * a + 8, 0),
        (BF16._replace(kernel="math"), LLAMA, h, 16 * h + 8 * 14336 + 14 * q + 8, 4 * a),
        (BF16._replace(kernel="efficient"), LLAMA, h, 16 * h + 8 * 14336 + 8 * q + 4 * a + 8, 0),
        (BF16, QWEN3, h, 16 * h + 8 * 12288 + 10 * q + 10 * kv + 8 * a + 4 * k + 8, 0),
        (BF16, PHI3, 3072, 24 * 3072 + 8 * 8192 + 6 * 3072 + 4 * 32 + 8, 0),
        (EAGER, GEMMA2, 2304, 36 * 2304 + 8 * 9216 + 8 * 2048 + 16, 8 * 8),
        (AMP._replace(kernel="eager"), GEMMA2, 2304, 42 * 2304 + 8 * 9216 + 8 * 2048 + 16, 8 * 8),
    ],
    ids=["llama", "llama-eager", "llama-amp", "llama-fp32", "llama-math", "llama-efficient", "qwen3", "phi3", "gemma2",
         "gemma2-amp"],
)  # fmt: skip
def test_a_layer_keeps_what_its_code_says(recipe: Recipe, layer: Layer, hidden: int, per_token: int, per_score: int) -> None:
    """Bytes per token, and per token and position where a kernel keeps scores, equal what the real layer saves."""
    assert kept(recipe, layer, hidden)[1:3] == (per_token, per_score)


@pytest.mark.parametrize(
    ("recipe", "per_token", "per_score"),
    [
        (BF16, 18 * 768 + 10 * 3072 + 4 * 12 + 16, 0),
        (EAGER, 18 * 768 + 10 * 3072 + 16, 5 * 12),
        (AMP, 22 * 768 + 16 * 3072 + 4 * 12 + 16, 0),
        (FP32, 34 * 768 + 20 * 3072 + 4 * 12 + 16, 0),
    ],
    ids=["bf16", "eager", "amp", "fp32"],
)
def test_gpt2_with_dropout(recipe: Recipe, per_token: int, per_score: int) -> None:
    """GPT-2's dropout masks, LayerNorm statistics and hand-written GELU are in the count."""
    assert kept(recipe, GPT2, 768, 0.1)[1:3] == (per_token, per_score)


def test_autocast_keeps_a_16_bit_copy_of_every_matrix() -> None:
    """Under autocast a Llama layer keeps 2 bytes for each weight of its matrices, beside its activations."""
    matrices = 2 * h * q + 2 * h * kv + 3 * h * 14336
    assert kept(AMP, LLAMA, h)[0] == 2 * matrices


def test_experts() -> None:
    """Mixtral keeps 16h + t (4h + 8f) per token beside attention; indices and router take under 0.1 %."""
    floor = 16 * h + 2 * (4 * h + 8 * 14336) + 4 * q + 4 * kv
    assert floor < kept(BF16, MIXTRAL, h)[1] < 1.001 * floor


def test_lora_keeps_an_fp32_copy_of_each_input() -> None:
    """PEFT's fp32 adapters on all seven matrices keep 4 bytes of each one's input and of each rank, and no input for the base."""
    names = frozenset(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
    recipe = Recipe(train=True, trainable=False, rank=16, targets=names)
    frozen = 8 * h + 6 * 14336 + 4 * q + 4 * kv + 4 * a + 8
    adapters = 4 * (5 * h + q + 14336) + 4 * 16 * 7
    assert kept(recipe, LLAMA, h)[1] == frozen + adapters


def test_a_checkpointed_layer_keeps_its_input_only() -> None:
    """2 bytes per hidden element: the residual stream, which is what the guide's activation formula counts."""
    assert recomputed_block(BF16, LLAMA, h, 0.0, False).kept == (0, 2 * h, 0, 0, 0, 0)


def test_gradients_are_as_large_as_the_weights() -> None:
    """After its backward pass a bf16 layer has left 2 bytes for each of its parameters."""
    parameters = 2 * h * q + 2 * h * kv + 3 * h * 14336 + 2 * h
    assert stored_block(BF16, LLAMA, h, 0.0, False, False).gradients[0] == 2 * parameters


@pytest.mark.parametrize(("kv_heads", "trainable", "bytes_a_token"), [(8, True, 16_680), (2, True, 15_144), (2, False, 10_280)])
def test_what_torch_compile_keeps_of_a_layer(kv_heads: int, trainable: bool, bytes_a_token: int) -> None:
    """Bytes a token that the min-cut partitioner hands to the backward graph of transformers' LlamaDecoderLayer (512 wide, 1,408
    inside, 8 heads, bf16, SDPA), weights and rotary tables aside: torch 2.13, transformers 5.23, aot_autograd on a CPU."""
    layer = Layer(Attention(8, kv_heads, 64), Mlp(1408))
    block = stored_block(BF16._replace(compiled=True, trainable=trainable), layer, 512, 0.0, False, False)
    assert block.kept == (0, bytes_a_token, 0, 0, 0, 0)
