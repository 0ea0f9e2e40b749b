"""Models from the disk: what a header says is taken to the byte, and a hostile file gets one line."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.errors import RequestError
from advisor.model import StoredTensor
from advisor.model_files import read_model
from advisor.model_files.files import parse_object, read_json_file, shown
from advisor.model_files.safetensors import DTYPE_BITS, read_header, read_index

# A Llama of two layers: hidden 8, 2 heads, MLP 16, vocabulary 32, not tied
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32,
    "max_position_embeddings": 64, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5,
}  # fmt: skip
LAYER = {
    "q": [8, 8],
    "k": [8, 8],
    "v": [8, 8],
    "o": [8, 8],
    "gate": [16, 8],
    "up": [16, 8],
    "down": [8, 16],
    "n1": [8],
    "n2": [8],
}
EMBEDDING = {"embed": [32, 8], "norm": [8], "head": [32, 8]}


def write(path: Path, shapes: dict[str, list[int]], dtype: str = "BF16", **changes: Any) -> Path:
    """A safetensors file with data of zeros; ``changes`` are put into the header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        size = DTYPE_BITS[dtype] // 8
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    return raw(path, json.dumps(header | changes).encode(), position)


def raw(path: Path, header: bytes, data: int = 0, length: int | None = None) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + bytes(data))
    return path


def folder(path: Path, **changes: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(
        json.dumps({key: value for key, value in (CONFIG | changes).items() if value is not None})
    )
    return path


def layers() -> dict[str, list[int]]:
    return {f"layers.{index}.{name}": shape for index in range(2) for name, shape in LAYER.items()}


def refused(path: str | Path) -> str:
    with pytest.raises(RequestError) as problem:
        read_model(path)
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_a_folder_with_a_config_alone(tmp_path: Path) -> None:
    """Without weights the model is what its config says, under the folder's name."""
    model = read_model(folder(tmp_path / "tiny"))
    assert (model.name, model.hidden, len(model.layers), model.stored) == ("tiny", 8, 2, None)


def test_the_config_by_its_own_path(tmp_path: Path) -> None:
    """config.json is called after its folder, another name after itself."""
    here = folder(tmp_path / "tiny")
    assert read_model(here / "config.json").name == "tiny"
    (here / "config.json").rename(here / "mine.json")
    assert read_model(str(here / "mine.json")).name == "mine"


def test_stored_sizes_of_one_file(tmp_path: Path) -> None:
    """The header's elements and bytes: 2 × (4·64 + 3·128 + 16) + 2·256 + 8 parameters of 2 bytes."""
    here = folder(tmp_path / "tiny")
    file = write(here / "model.safetensors", layers() | EMBEDDING)
    for path in (here, file):
        stored = read_model(path).stored
        assert stored is not None
        assert sum(tensor.elements for tensor in stored) == 2 * (4 * 64 + 3 * 128 + 16) + 2 * 256 + 8
        assert sum(tensor.bytes for tensor in stored) == 2 * sum(tensor.elements for tensor in stored)
        assert stored[0] == StoredTensor("layers.0.q", "BF16", 64, 128)


def test_stored_sizes_of_shards(tmp_path: Path) -> None:
    """An index adds up its shards, whether the folder, the index or one of the shards is named."""
    here = folder(tmp_path / "tiny")
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    write(here / first, layers())
    write(here / second, EMBEDDING)
    index = here / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(layers(), first) | dict.fromkeys(EMBEDDING, second)}))
    for path in (here, index, here / first):
        stored = read_model(path).stored
        assert stored is not None
        assert len(stored) == 2 * len(LAYER) + 3
        assert sum(tensor.elements for tensor in stored) == 2 * (4 * 64 + 3 * 128 + 16) + 2 * 256 + 8
    index.unlink()
    assert "needs the model.safetensors.index.json" in refused(here / first)


@pytest.mark.parametrize(("dtype", "expected"), [("BF16", "bf16"), ("F16", "fp16"), ("F32", "fp32")])
def test_the_dtype_of_the_weights_where_the_config_names_none(tmp_path: Path, dtype: str, expected: str) -> None:
    """The float dtype that most elements have; a dtype in the config wins."""
    here = folder(tmp_path / "tiny", torch_dtype=None)
    write(here / "model.safetensors", layers() | EMBEDDING, dtype)
    assert read_model(here).dtype == expected
    folder(tmp_path / "tiny", torch_dtype="float32")
    assert read_model(here).dtype == "fp32"


def test_sub_byte_and_scalar_tensors(tmp_path: Path) -> None:
    """A scalar has one element, an empty side none, and two F4 share a byte."""
    header = {"scalar": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
              "nothing": {"dtype": "F32", "shape": [0, 7], "data_offsets": [4, 4]},
              "packed": {"dtype": "F4", "shape": [2, 3], "data_offsets": [4, 7]}}  # fmt: skip
    tensors = read_header(raw(tmp_path / "x.safetensors", json.dumps(header).encode(), 7))
    assert [(tensor.elements, tensor.bytes) for tensor in tensors] == [(1, 4), (0, 0), (6, 3)]


def test_headers_are_read_without_the_weights(tmp_path: Path) -> None:
    """A terabyte of data is fine: the file is sparse, and nothing of it is read but the header."""
    header = {"w": {"dtype": "BF16", "shape": [2**39], "data_offsets": [0, 2**40]}}
    file = raw(tmp_path / "big.safetensors", json.dumps(header).encode())
    try:
        os.truncate(file, file.stat().st_size + 2**40)
    except OSError:
        pytest.skip("no sparse files of a terabyte here")
    assert read_header(file) == (StoredTensor("w", "BF16", 2**39, 2**40),)


# --- what is refused ---


def test_a_config_of_ten_gigabytes(tmp_path: Path) -> None:
    """A sparse 10 GB "config.json" is refused by its size, unread."""
    here = folder(tmp_path / "tiny")
    os.truncate(here / "config.json", 10 * 10**9)
    assert "larger than 16 MiB" in refused(here)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"", "not valid JSON"),
        (b'{"model_type": "llama"', "not valid JSON"),
        (b'["model_type"]', "no JSON object"),
        (b'{"model_type": "llama", "hidden_size": NaN}', "NaN"),
        (b'{"model_type": "llama", "hidden_size": 1e999}', "too large"),
        (b'{"model_type": "llama", "hidden_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"hidden_size": 8, "hidden_size": 9}', "hidden_size stands there twice"),
        (b'{"model_type": "\xff"}', "not UTF-8"),
        (b"\x1f\x8b\x08\x00", "not UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_config_that_is_no_config(tmp_path: Path, content: bytes, why: str) -> None:
    """Nested, cut off, not an object, not a number, twice, not text: one line with the file's name."""
    (tmp_path / "config.json").write_bytes(content)
    said = refused(tmp_path)
    assert why in said
    assert "config.json" in said


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder, a pipe and a device in a file's place are refused without being opened."""
    (tmp_path / "config.json").mkdir()
    assert "not a regular file" in refused(tmp_path)
    (tmp_path / "config.json").rmdir()
    os.mkfifo(tmp_path / "config.json")
    assert "not a regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(RequestError, match="not a regular file"):
        read_header(tmp_path / "x.safetensors")
    with pytest.raises(RequestError, match="not a regular file"):
        read_json_file(Path("/dev/zero"), 100)


def test_what_is_not_there(tmp_path: Path) -> None:
    """Nothing at the path, no config in the folder or beside the weights, a name that no file can have."""
    assert "no such file" in refused(tmp_path / "config.json")
    assert "has no config.json" in refused(tmp_path)
    assert "no model folder" in refused(tmp_path / "nothing")
    assert "no such file" in refused(tmp_path / "model.safetensors")
    assert "beside it" in refused(write(tmp_path / "model.safetensors", EMBEDDING))
    assert "cannot be read" in refused("a\0b.json")
    assert "cannot be read" in refused("x" * 5000 + ".json")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    """A file without permission says so."""
    here = folder(tmp_path / "tiny")
    (here / "config.json").chmod(0)
    assert "cannot be read" in refused(here)


def test_a_file_name_cannot_break_the_line(tmp_path: Path) -> None:
    """Names are shown on one line, escaped and cut where they must be."""
    refused(tmp_path / "a\nb.json")
    assert shown("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
    assert len(shown("x" * 5000)) == 200


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 3], ids=["2**63", "2**64-1", "above the limit", "too short"])
def test_a_header_length_that_is_a_lie(tmp_path: Path, length: int) -> None:
    """A claim beyond the file, beyond the format's 100 MB, or in the middle of the JSON."""
    file = raw(tmp_path / "x.safetensors", b"{}      ", length=length)
    if length == 100_000_001:
        os.truncate(file, 200_000_000)
    with pytest.raises(RequestError):
        read_header(file)


@pytest.mark.parametrize("keep", [0, 7, 8, 20, -1])
def test_a_file_cut_off(tmp_path: Path, keep: int) -> None:
    """Cut in the length, in the header, or by one byte of the data."""
    file = write(tmp_path / "x.safetensors", EMBEDDING)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RequestError, match=r"x\.safetensors"):
        read_header(file)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"dtype": "BF16", "shape": [32, 8], "data_offsets": [0, 2**63]}, "data_offsets"),
        ({"dtype": "BF16", "shape": [32, 8], "data_offsets": [512, 0]}, "data_offsets"),
        ({"dtype": "BF16", "shape": [32, 8], "data_offsets": [-512, 0]}, "data_offsets"),
        ({"dtype": "BF16", "shape": [32, 8], "data_offsets": [0.0, 512.0]}, "data_offsets"),
        ({"dtype": "BF16", "shape": [32, 8], "data_offsets": [False, 512]}, "data_offsets"),
        ({"dtype": "BF16", "shape": [32, 8], "data_offsets": [16, 528]}, "expected"),
        ({"dtype": "BF16", "shape": [32, 9], "data_offsets": [0, 512]}, "shape and dtype make 576"),
        ({"dtype": "BF16", "shape": [-32, -8], "data_offsets": [0, 512]}, "shape"),
        ({"dtype": "BF16", "shape": [True] * 8, "data_offsets": [0, 512]}, "shape"),
        ({"dtype": "BF16", "shape": [2**62] * 64, "data_offsets": [0, 512]}, "shape and dtype"),
        ({"dtype": "BF16", "shape": "32", "data_offsets": [0, 512]}, "shape"),
        ({"dtype": "B17", "shape": [32, 8], "data_offsets": [0, 512]}, "B17"),
        ({"dtype": ["BF16"], "shape": [32, 8], "data_offsets": [0, 512]}, "dtype"),
        ({"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}, "whole byte"),
        ([1, 2], "data_offsets"),
        (None, "data_offsets"),
    ],
)
def test_a_header_entry_that_cannot_be(tmp_path: Path, entry: object, why: str) -> None:
    """Offsets outside the file, gaps, overlaps, shapes that do not make the bytes, unknown dtypes."""
    file = write(tmp_path / "x.safetensors", EMBEDDING, embed=entry)
    with pytest.raises(RequestError, match=why):
        read_header(file)


def test_data_behind_the_last_tensor(tmp_path: Path) -> None:
    """The header accounts for every byte of the file."""
    file = write(tmp_path / "x.safetensors", EMBEDDING)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(RequestError, match=r"holds 1,041 bytes of data, its header says 1,040"):
        read_header(file)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", "c:x", "a\0b", 7, None, ["x"]])
def test_a_shard_outside_the_folder(tmp_path: Path, name: object) -> None:
    """A shard is a plain name: an index cannot lead anywhere else."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(RequestError, match="plain file name"):
        read_index(index)


def test_an_index_that_does_not_fit_its_shards(tmp_path: Path) -> None:
    """A missing shard and a tensor that its shard lacks are named."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    with pytest.raises(RequestError, match=r"lacks the shard a\.safetensors"):
        read_index(index)
    write(tmp_path / "a.safetensors", EMBEDDING)
    with pytest.raises(RequestError, match=r"a\.safetensors does not hold w"):
        read_index(index)
    index.write_text('{"weight_map": {}}')
    with pytest.raises(RequestError, match="no weight_map"):
        read_index(index)


SCALARS = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.sampled_from(sorted(DTYPE_BITS)) | st.text(max_size=4)
ENTRIES = st.fixed_dictionaries({}, optional={
    "dtype": SCALARS,
    "shape": st.lists(SCALARS, max_size=4) | SCALARS,
    "data_offsets": st.lists(st.integers(-1, 64) | SCALARS, min_size=1, max_size=3) | SCALARS,
})  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(header=st.binary(max_size=80) | st.dictionaries(st.text(max_size=3), ENTRIES | SCALARS, max_size=3).map(
    lambda header: json.dumps(header).encode()), data=st.integers(0, 64))  # fmt: skip
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: bytes, data: int) -> None:
    """Whatever the bytes, the answer is tensors that fill the data, or a RequestError."""
    file = raw(tmp_path_factory.mktemp("fuzz") / "x.safetensors", header, data)
    with suppress(RequestError):
        assert sum(tensor.bytes for tensor in read_header(file)) == data


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(content: bytes) -> None:
    """JSON parsing raises nothing but RequestError."""
    with suppress(RequestError):
        assert isinstance(parse_object(content, "x"), dict)
