"""Weights in bytes: as a checkpoint has them, or by shape and format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.parameters import Weight, parameter_count
from advisor.memory.sharding import Rank
from advisor.memory.weights import Storing, adapter_targets, adapter_weights, rank_sum, tensor_bytes
from advisor.references import find_model
from advisor.workload import resolve

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


Tensors = dict[str, tuple[str, list[int], int]]  # dtype, shape, bytes per element


def whole(dtype: str = "BF16", width: int = 2) -> Tensors:
    """All 68,160 parameters of the config above."""
    layer = {
        "input_layernorm": [64],
        "self_attn.q_proj": [64, 64],
        "self_attn.k_proj": [32, 64],
        "self_attn.v_proj": [32, 64],
        "self_attn.o_proj": [64, 64],
        "post_attention_layernorm": [64],
        "mlp.gate_proj": [96, 64],
        "mlp.up_proj": [96, 64],
        "mlp.down_proj": [64, 96],
    }
    shapes = {"embed_tokens": [100, 64], "norm": [64]}
    shapes |= {f"layers.{depth}.{name}": shape for depth in range(2) for name, shape in layer.items()}
    return {f"model.{name}.weight": (dtype, shape, width) for name, shape in shapes.items()}


def checkpoint(folder: Path, tensors: Tensors) -> Path:
    """A model folder: the config above and one safetensors file of zeros."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape, width) in tensors.items():
        start, end = end, end + width * _product(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return folder


def _product(shape: list[int]) -> int:
    result = 1
    for side in shape:
        result *= side
    return result


def weights_of(folder: Path, **keys: Any) -> int:
    found = estimate_workload(resolve(Job(gpu="a100-80", infer=str(folder), **keys)))
    return next(part.bytes for part in found.parts if part.name == "weights")


def test_a_checkpoint_counts_as_it_is(tmp_path: Path) -> None:
    """Norms kept in fp32 beside bf16 matrices are 4 bytes an element, whatever the config says."""
    folder = checkpoint(tmp_path / "m", whole() | {"model.norm.weight": ("F32", [64], 4)})
    assert weights_of(folder) == 2 * 68_160 + 2 * 64


def test_fp32_files_of_a_bf16_model_are_loaded_in_bf16(tmp_path: Path) -> None:
    """What the config says is what transformers makes of them: 2 bytes for each of 68,160 parameters."""
    assert weights_of(checkpoint(tmp_path / "m", whole("F32", 4))) == 2 * 68_160


def test_a_checkpoint_that_is_not_the_configs_model(tmp_path: Path) -> None:
    """With files missing it is refused; with more in them than the config tells of, the files count and a note says so."""
    lacking = {name: tensor for name, tensor in whole().items() if ".1." not in name}
    with pytest.raises(RequestError, match=r"hold 37,312 of the 68,160 parameters"):
        find_model(str(checkpoint(tmp_path / "lacking", lacking)))
    more = find_model(str(checkpoint(tmp_path / "more", whole() | {"vision.patches.weight": ("BF16", [100, 640], 2)})))
    assert more.notes[-1].startswith("The weights hold 132,160 parameters, the config tells of 68,160")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """A second estimate in the same process sees the new weights under the old name."""
    folder = checkpoint(tmp_path / "m", whole())
    before = weights_of(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float32"}))
    assert weights_of(folder) == 2 * before


def test_what_is_not_loaded_does_not_count(tmp_path: Path) -> None:
    """A tied head's second copy, rotary buffers and a prediction layer behind the last are in the file and not on the card."""
    beside = {
        "lm_head.weight": ("BF16", [100, 64], 2),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [8], 4),
        "model.layers.2.eh_proj.weight": ("BF16", [64, 128], 2),
    }
    assert weights_of(checkpoint(tmp_path / "m", whole() | beside)) == weights_of(checkpoint(tmp_path / "n", whole()))


def test_another_precision_goes_by_shape(tmp_path: Path) -> None:
    """Asked for in fp32, the model counts 4 bytes for each parameter of its shape, not what the file holds."""
    folder = checkpoint(tmp_path / "m", whole())
    assert weights_of(folder, precision="fp32") == 4 * parameter_count(find_model(str(folder)))


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("none", 4096 * 4096 * 2),
        ("int8", 4096 * 4096 + 4096 * 4),
        ("nf4", 4096 * 4096 // 2 + 4096 * 4096 // 64 * 4),
        ("nf4-dq", 4096 * 4096 // 2 + 4096 * 4096 // 64 + 4096 * 4096 // 64 // 256 * 4),
        ("gptq-int4", 4096 * 4096 // 2 + 4096 * 32 * 2 + 4096 * 32 // 2 + 4096 * 4),
        ("awq-int4", 4096 * 4096 // 2 + 4096 * 32 * 2 + 4096 * 32 // 2),
        ("fp8", 4096 * 4096 + 32 * 32 * 4),
        ("q8_0", 4096 * 4096 * 34 // 32),
        ("mxfp4", 4096 * 4096 * 17 // 32),
        ("nvfp4", 4096 * 4096 // 2 + 4096 * 256 + 8),
    ],
)
def test_a_matrix_in_each_format(quantization: str, expected: int) -> None:
    """4,096 × 4,096: the packed values, and the scales and zero points that come with them."""
    matrix = Weight("q_proj", 4096, 4096, "linear")
    assert tensor_bytes(matrix, Storing(quantization, 2, blocks=False)) == expected


def test_formats_leave_embedding_head_and_norms_alone() -> None:
    """nf4 touches the layers' matrices only; GGUF types quantize the embedding and the head as well."""
    embedding = Weight("embed_tokens", 32000, 4096, "embedding")
    norm = Weight("norm", 4096, 1, "norm")
    for weight in (embedding, norm):
        assert tensor_bytes(weight, Storing("nf4", 2, blocks=False)) == 2 * weight.elements
    assert tensor_bytes(embedding, Storing("q8_0", 2, blocks=False)) == embedding.elements * 34 // 32


@pytest.mark.parametrize(
    ("model", "rank", "trained"),
    [("llama-2-7b", 16, 39_976_960), ("llama-3.1-8b", 16, 41_943_040), ("llama-3.2-1b", 16, 11_272_192)],
)
def test_adapters_on_all_linear_layers(model: str, rank: int, trained: int) -> None:
    """Trainable parameters that PEFT 0.21 prints for rank 16 on all linear layers."""
    facts = find_model(model)
    targets = adapter_targets(facts, ("all-linear",))
    assert sum(x.elements for layer in facts.layers for x in adapter_weights(layer, facts.hidden, rank, targets)) == trained


def test_adapters_on_experts() -> None:
    """PEFT 0.21 on Qwen3-30B-A3B, rank 4: each expert's gate and up get rank 8 together, its down rank 4, the router 4."""
    facts = find_model("qwen3-30b-a3b")
    targets = adapter_targets(facts, ("all-linear",))
    shapes = {x.name: (x.rows, x.cols) for x in adapter_weights(facts.layers[0], facts.hidden, 4, targets)}
    assert shapes["experts.gate_up_proj.lora_A"] == (1024, 2048)
    assert shapes["experts.gate_up_proj.lora_B"] == (1536, 1024)
    assert shapes["experts.down_proj.lora_A"] == (512, 768)
    assert shapes["experts.down_proj.lora_B"] == (2048, 512)
    assert shapes["gate.lora_A"] == (4, 2048)


def test_blocks_cost_something() -> None:
    """Qwen2.5-14B: 13,824 × 5,120 matrices take 136 MiB blocks for 135 MiB, 144 of them."""
    model = find_model("qwen2.5-14b")
    tight, rounded = (rank_sum(Rank(model), Storing("none", 2, blocks)).bytes for blocks in (False, True))
    assert tight == 2 * parameter_count(model)
    assert 144 * 2**20 <= rounded - tight < 160 * 2**20


def test_mxfp4_is_for_experts() -> None:
    """gpt-oss-20b as published: experts in MXFP4, all else bf16: the 13,761,264,768 bytes of its safetensors index."""
    found = estimate_workload(resolve(Job(gpu="h100", infer="gpt-oss-20b", quantization="mxfp4", engine="vllm", seq=1024)))
    weights = next(part.bytes for part in found.parts if part.name == "weights")
    assert weights == pytest.approx(13_761_264_768, rel=0.005)


def test_bitsandbytes_leaves_stacked_experts_alone() -> None:
    """transformers 5 has a layer's experts in one parameter, and bitsandbytes replaces linear modules only (its issue 1849)."""
    settings = {"gpu": "h200", "infer": "qwen3-30b-a3b", "quantization": "nf4", "seq": 1024}

    def weights(**keys: str) -> int:
        found = estimate_workload(resolve(Job(**settings, **keys)))
        return next(part.bytes for part in found.parts if part.name == "weights")

    experts = 48 * 128 * 3 * 2048 * 768
    old = weights(engine="transformers", engine_version="4.57")
    new = weights(engine="transformers", engine_version="5.23")
    assert new - old == pytest.approx(experts * 11.5 / 8, rel=0.01)
    assert weights(engine="vllm") == pytest.approx(old, rel=0.01)
    assert any("leaves the experts" in note for note in resolve(Job(**settings)).notes)


def test_an_fp8_checkpoint_of_a_tied_model_has_a_head() -> None:
    """Qwen3-0.6B in FP8 with transformers 4.51 holds a 16-bit head beside the embedding: Qwen's published figures show it."""
    model = find_model("qwen3-0.6b")
    tied, copied = (rank_sum(Rank(model), Storing("fp8", 2, False, head_copy=copy)).bytes for copy in (False, True))
    assert copied - tied == 2 * model.vocab * model.hidden
