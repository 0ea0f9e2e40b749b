"""GGUF files, written by the gguf package: the same facts as a config gives, sizes to the byte, and one line for what is broken."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.catalog import find_model
from advisor.defaults import decide
from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.model import Model
from advisor.model_files import read_model
from advisor.model_files.gguf_config import ARCHITECTURES
from advisor.workload import resolve

gguf = pytest.importorskip("gguf")
import numpy as np  # noqa: E402

Shapes = dict[str, tuple[str, tuple[int, ...]]]

# Metadata as llama.cpp's converter writes them for published models, and the model of the catalogue that they describe.
PUBLISHED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama-3.1-8b": ("llama", {
        "block_count": 32, "context_length": 131072, "embedding_length": 4096, "feed_forward_length": 14336,
        "attention.head_count": 32, "attention.head_count_kv": 8, "attention.key_length": 128, "rope.dimension_count": 128,
    }, ("output.weight",)),
    "mixtral-8x7b": ("llama", {
        "block_count": 32, "context_length": 32768, "embedding_length": 4096, "feed_forward_length": 14336,
        "attention.head_count": 32, "attention.head_count_kv": 8, "expert_count": 8, "expert_used_count": 2,
    }, ("output.weight",)),
    "qwen2.5-7b": ("qwen2", {
        "block_count": 28, "context_length": 131072, "embedding_length": 3584, "feed_forward_length": 18944,
        "attention.head_count": 28, "attention.head_count_kv": 4,
    }, ("output.weight", "blk.0.attn_q.bias")),
    "qwen3-30b-a3b": ("qwen3moe", {
        "block_count": 48, "context_length": 40960, "embedding_length": 2048, "feed_forward_length": 6144,
        "attention.head_count": 32, "attention.head_count_kv": 4, "attention.key_length": 128, "attention.value_length": 128,
        "expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768,
    }, ("output.weight",)),
    "gemma-2-9b": ("gemma2", {
        "block_count": 42, "context_length": 8192, "embedding_length": 3584, "feed_forward_length": 14336,
        "attention.head_count": 16, "attention.head_count_kv": 8, "attention.key_length": 256, "attention.value_length": 256,
        "attention.sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    }, ()),
    "gpt-oss-20b": ("gpt-oss", {
        "block_count": 24, "context_length": 131072, "embedding_length": 2880, "feed_forward_length": 2880,
        "attention.head_count": 64, "attention.head_count_kv": 8, "attention.key_length": 64, "attention.sliding_window": 128,
        "expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 2880,
    }, ("output.weight", "blk.0.attn_q.bias")),
    "deepseek-v2-lite": ("deepseek2", {
        "block_count": 27, "context_length": 163840, "embedding_length": 2048, "feed_forward_length": 10944,
        "attention.head_count": 16, "attention.head_count_kv": 1, "attention.kv_lora_rank": 512, "attention.key_length": 576,
        "attention.value_length": 512, "attention.key_length_mla": 192, "attention.value_length_mla": 128,
        "rope.dimension_count": 64, "expert_count": 64, "expert_used_count": 6, "expert_shared_count": 2,
        "expert_feed_forward_length": 1408, "leading_dense_block_count": 1, "expert_gating_func": 1,
    }, ("output.weight",)),
    "phi-3-mini-4k": ("phi3", {
        "block_count": 32, "context_length": 4096, "embedding_length": 3072, "feed_forward_length": 8192,
        "attention.head_count": 32, "attention.head_count_kv": 32, "attention.sliding_window": 2047, "rope.dimension_count": 96,
    }, ("output.weight",)),
    "falcon-7b": ("falcon", {
        "block_count": 32, "context_length": 2048, "embedding_length": 4544, "feed_forward_length": 18176,
        "attention.head_count": 71, "attention.head_count_kv": 1,
    }, ()),
}  # fmt: skip


def write(
    path: Path, architecture: str, keys: dict[str, Any], tensors: Shapes, *, file_type: int = 15, tokens: int = 3
) -> Path:
    """A GGUF file with these tensors (type, and shape with rows first); the data are a hole in the file."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_file_type(file_type)
    writer.add_token_list([f"token {number}" for number in range(tokens)])
    for key, value in keys.items():
        name = f"{architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    total = 0
    for name, (kind, shape) in tensors.items():
        of = gguf.GGMLQuantizationType[kind]
        weights, block = gguf.GGML_QUANT_SIZES[of]
        stored = (*shape[:-1], shape[-1] // weights * block)
        size = int(np.prod(stored))
        as_bytes = of not in (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32)
        dtype = np.dtype(np.uint8 if as_bytes else kind.lower().replace("f", "float"))
        writer.add_tensor_info(name, stored if as_bytes else shape, dtype, size, of)
        total += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with open(path, "r+b") as file:
        header = file.seek(0, 2)
        file.truncate(header + 32 + total)
    return path


def tiny(path: Path, **changes: Any) -> Path:
    """A Llama of one layer, hidden 256, with a head of its own."""
    keys = {
        "block_count": 1, "context_length": 64, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4,
        "attention.head_count_kv": 2,
    } | changes  # fmt: skip
    return write(path, "llama", keys, TINY)


TINY: Shapes = {
    "token_embd.weight": ("Q4_K", (1000, 256)),
    "blk.0.attn_norm.weight": ("F32", (256,)),
    "blk.0.attn_q.weight": ("Q4_K", (256, 256)),
    "output_norm.weight": ("F32", (256,)),
    "output.weight": ("Q6_K", (1000, 256)),
}


def published(folder: Path, name: str) -> Model:
    architecture, keys, there = PUBLISHED[name]
    model = find_model(name)
    tensors: Shapes = {"token_embd.weight": ("F16", (model.vocab, model.hidden))}
    return read_model(
        write(folder / "m.gguf", architecture, keys, tensors | dict.fromkeys(there, ("F16", (4, 4))), file_type=1)
    )


def refused(path: Path) -> str:
    with pytest.raises(RequestError) as problem:
        read_model(path)
    assert "\n" not in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_metadata_give_the_facts_of_the_config(tmp_path: Path, name: str) -> None:
    """The layers, the head and the vocabulary are those of the model's config.json."""
    ours, theirs = published(tmp_path, name), find_model(name)
    same = ("model_type", "hidden", "vocab", "layers", "tied", "norm", "positions", "logit_softcap", "embedding_width")
    assert {key: getattr(ours, key) for key in same} == {key: getattr(theirs, key) for key in same}


def test_every_tensor_to_the_byte(tmp_path: Path) -> None:
    """A type's blocks make the bytes: 144 for 256 weights in q4_K, 210 in q6_K, 4 for each in F32."""
    model = read_model(tiny(tmp_path / "tiny.Q4_K_M.gguf"))
    sizes = {x.name: x.bytes for x in model.stored or ()}
    assert sizes == {
        "token_embd.weight": 1000 * 144, "blk.0.attn_norm.weight": 1024, "blk.0.attn_q.weight": 256 * 144,
        "output_norm.weight": 1024, "output.weight": 1000 * 210,
    }  # fmt: skip
    assert (model.name, model.quantization, model.dtype, model.vocab) == ("tiny.Q4_K_M", "q4_k_m", "fp16", 1000)


def test_a_gguf_runs_on_llama_cpp(tmp_path: Path) -> None:
    """Without --engine it is llama.cpp, which leaves the embedding to the CPU: all other bytes of the file are on the card."""
    path = str(tiny(tmp_path / "tiny.gguf"))
    found = estimate_workload(resolve(Job(gpu="rtx-4090", infer=path, seq=64)))
    weights = next(part.bytes for part in found.parts if part.name == "weights")
    assert decide(Job(gpu="rtx-4090", infer=path)).engine.name == "llama.cpp"
    assert weights == 1024 + 256 * 144 + 1024 + 1000 * 210
    assert decide(Job(gpu="rtx-4090", infer=path, engine="vllm")).engine.name == "vllm"


def test_training_unpacks_it(tmp_path: Path) -> None:
    """transformers trains no GGUF types: QLoRA on such a file is nf4."""
    work = decide(Job(gpu="rtx-4090", train=str(tiny(tmp_path / "tiny.gguf")), method="qlora"))
    assert (work.engine.name, work.quantization) == ("trainer", "nf4")


def test_transformers_unpacks_it(tmp_path: Path) -> None:
    """Its weights take 16 bits on the card then, and a note says so."""
    work = decide(Job(gpu="rtx-4090", infer=str(tiny(tmp_path / "tiny.gguf")), engine="transformers"))
    assert work.quantization == "none"
    assert any("unpacks a GGUF file" in note for note in work.notes)


def test_a_tied_embedding_is_on_the_card(tmp_path: Path) -> None:
    """Without an output.weight the embedding is the head, and llama.cpp puts it on the card."""
    keys = {"block_count": 1, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4}
    path = write(tmp_path / "tied.gguf", "llama", keys, {"token_embd.weight": ("Q6_K", (1000, 256))})
    found = estimate_workload(resolve(Job(gpu="rtx-4090", infer=str(path), seq=64)))
    assert next(part.bytes for part in found.parts if part.name == "weights") == 1000 * 210


def test_a_split_file_is_one_model(tmp_path: Path) -> None:
    """The first part has the metadata; the tensors of all parts count, whichever part is named, or their folder."""
    keys = {"block_count": 1, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4}
    write(tmp_path / "m-00001-of-00002.gguf", "llama", keys, {"token_embd.weight": ("Q4_K", (1000, 256))})
    second = write(tmp_path / "m-00002-of-00002.gguf", "llama", {}, {"blk.0.attn_q.weight": ("Q4_K", (256, 256))})
    for path in (second, tmp_path):
        model = read_model(path)
        assert (model.name, len(model.stored or ())) == ("m", 2)
    second.unlink()
    assert "m-00002-of-00002.gguf: no such file" in refused(tmp_path)


def test_a_folder_with_two_models(tmp_path: Path) -> None:
    """Which one is meant has to be said; a vision tower beside a model is none."""
    tiny(tmp_path / "a.gguf")
    (tmp_path / "mmproj-a.gguf").write_bytes(b"GGUF")
    assert read_model(tmp_path).name == "a"
    tiny(tmp_path / "b.gguf")
    assert "has 2 GGUF models, such as a.gguf" in refused(tmp_path)


def test_a_file_type_without_a_name(tmp_path: Path) -> None:
    """IQ3_XS is no word of a job: the nearest stands for it, said in a note, and its bytes are the file's."""
    keys = {"block_count": 1, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4}
    model = read_model(write(tmp_path / "m.gguf", "llama", keys, {"token_embd.weight": ("IQ3_S", (1000, 256))}, file_type=22))
    assert (model.quantization, sum(x.bytes for x in model.stored or ())) == ("iq3_xxs", 110_000)
    assert any("iq3_xs is called iq3_xxs here" in note for note in model.notes)


def test_large_files_and_vocabularies(tmp_path: Path) -> None:
    """A file of 40 GB with 200,000 tokens: neither weights nor tokens are loaded, so it is a matter of a moment."""
    keys = {"block_count": 1, "embedding_length": 8192, "feed_forward_length": 512, "attention.head_count": 4}
    tensors: Shapes = {"token_embd.weight": ("F16", (200_000, 8192)), "blk.0.ffn_up.weight": ("F16", (2_400_000, 8192))}
    path = write(tmp_path / "large.gguf", "llama", keys, tensors, file_type=1, tokens=200_000)
    before = time.process_time()
    model = read_model(path)
    assert sum(x.bytes for x in model.stored or ()) == 2 * 8192 * 2_600_000 > 40 * 10**9
    assert time.process_time() - before < 5


HEADER = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not begin with GGUF"),
        (b"GGML" + bytes(40), "does not begin with GGUF"),
        (HEADER, "cut off"),
        (HEADER + struct.pack("<QQ", 2**63, 1), "claims 9,223,372,036,854,775,808 tensors"),
        (HEADER + struct.pack("<QQ", 1, 2**63), "9,223,372,036,854,775,808 keys"),
        (HEADER + struct.pack("<QQ", 5, 5), "cut off"),
        (HEADER + struct.pack("<QQQ", 0, 1, 2**62), "cut off"),
        (HEADER + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 4, 2**60), "cut off"),
        (HEADER + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**60), "cut off"),
        (HEADER + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 9, 2), "list of lists"),
        (HEADER + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IQ", 99, 2), "99 is not a valid"),
        (HEADER + struct.pack("<QQQ", 1, 0, 1) + b"a" + struct.pack("<IQQIQ", 2, 2**63, 4, 0, 0), "ends beyond"),
        (HEADER + struct.pack("<QQQ", 1, 0, 1) + b"a" + struct.pack("<IqIQ", 1, -1, 0, 0), "ends beyond"),
        (HEADER + struct.pack("<QQQ", 1, 0, 1) + b"a" + struct.pack("<IQIQ", 1, 5, 12, 0), "does not go with its type"),
        (HEADER + struct.pack("<QQQ", 1, 0, 1) + b"a" + struct.pack("<II", 2**31, 0), "cut off"),
        (
            HEADER + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IQ", 8, 1) + b"\xff" + bytes(40),
            "can't decode byte 0xff",
        ),
        (b"GGUF" + struct.pack("<IQQ", 77, 0, 0), "version 77"),
        (HEADER + struct.pack("<QQ", 0, 0) + bytes(64), "no general.architecture"),
    ],
)
def test_hostile_files(tmp_path: Path, content: bytes, said: str) -> None:
    """Whatever a file claims, one line says what is wrong with it."""
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert said in refused(path)


def test_a_download_that_broke_off(tmp_path: Path) -> None:
    """The tensors must end within the file."""
    path = tiny(tmp_path / "m.gguf")
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 4096)
    assert "output.weight ends beyond the file" in refused(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """A header with bytes changed is read or refused, and nothing else happens."""
    path = tiny(tmp_path / "m.gguf")
    content = bytearray(path.read_bytes()[:800])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, 799))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(bytes(content) + path.read_bytes()[800:])
    said = ""
    try:
        read_model(damaged)
    except RequestError as problem:
        said = str(problem)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("architecture", "keys", "said"),
    [
        ("clip", {}, "vision tower"),
        ("mamba", {"block_count": 2}, "architecture mamba of this GGUF file is not estimated yet"),
        ("llama", {"attention.head_count": [4, 8], "block_count": 2}, "attention.head_count differs from layer to layer"),
        ("llama", {"attention.head_count": 4}, "its metadata have no llama.block_count"),
    ],
)
def test_what_is_not_understood(tmp_path: Path, architecture: str, keys: dict[str, Any], said: str) -> None:
    """A model that the estimators do not know is refused by its name or key."""
    config = {"embedding_length": 256, "feed_forward_length": 512} | keys
    path = write(tmp_path / "m.gguf", architecture, config, {"token_embd.weight": ("F16", (100, 256))})
    assert said in refused(path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(tmp_path: Path, architecture: str) -> None:
    """All that are in the table are read, with the layers and heads that the metadata tell."""
    keys = {
        "block_count": 3, "context_length": 64, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4,
        "attention.head_count_kv": 4, "nextn_predict_layers": 1, "rope.dimension_count": 16,
    }  # fmt: skip
    mixture = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 64}
    if "moe" in architecture or architecture in ("deepseek2", "dots1", "gpt-oss", "minimax-m2"):
        keys |= mixture
    if architecture == "deepseek2":
        keys |= {"attention.kv_lora_rank": 32, "attention.key_length": 48, "attention.value_length": 32}
    model = read_model(write(tmp_path / "m.gguf", architecture, keys, {"token_embd.weight": ("F16", (100, 256))}, file_type=1))
    mixers = [layer.mixer for layer in model.layers]
    assert [getattr(mixer, "heads", 0) for mixer in mixers] == [4, 4]
    assert (model.hidden, model.vocab, model.tied, model.dtype, model.quantization) == (256, 100, True, "fp16", "none")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line tells what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    monkeypatch.delitem(sys.modules, "advisor.model_files.gguf", raising=False)
    assert 'pip install "oom-advisor[gguf]"' in refused(tiny_bytes(tmp_path / "m.gguf"))


def tiny_bytes(path: Path) -> Path:
    path.write_bytes(HEADER + bytes(16))
    return path
