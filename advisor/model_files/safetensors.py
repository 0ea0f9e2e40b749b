"""Names, dtypes and sizes of tensors from safetensors headers. The weights themselves are never read.

A file is 8 bytes with the header's length (little endian), the header as a JSON object, and the data. Each
entry has a dtype, a shape and where its data begins and ends. The limits are those of the reference
implementation (huggingface/safetensors, safetensors/src/tensor.rs): 100 MB of header, data without gaps or overlap.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor.errors import RequestError
from advisor.model import StoredTensor
from advisor.model_files.files import opened, parse_object, read_json_file, shown

MOST_HEADER_BYTES = 100_000_000
# A tensor a line: 91,991 lines are 8.9 MB for DeepSeek-V3, and larger mixtures have three times as many.
MOST_INDEX_BYTES = 100_000_000
MOST_DIMENSIONS = 64
DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


def read_header(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of one file, in the order of their data."""
    with opened(path) as (file, size):
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > size - 8:
            raise RequestError(f"{shown(path)} is cut off: {size:,} bytes cannot hold its header of {length:,}")
        if length > MOST_HEADER_BYTES:
            raise RequestError(f"{shown(path)}: a header of {length:,} bytes, the format allows {MOST_HEADER_BYTES:,}")
        header = parse_object(file.read(length), f"the header of {shown(path)}")
    header.pop("__metadata__", None)
    return tuple(_in_order(path, header, size - 8 - length))


def read_index(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of a checkpoint in several files, as its ``model.safetensors.index.json`` lists them."""
    weight_map = read_json_file(path, MOST_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise RequestError(f"{shown(path)} has no weight_map")
    shards = {name: _shard(path, name) for name in dict.fromkeys(map(_plain_name, weight_map.values()))}
    for tensor, name in weight_map.items():
        if tensor not in shards[name]:
            raise RequestError(f"{shown(path)}: {shown(name)} does not hold {shown(tensor)}")
    return tuple(shards[name][tensor] for tensor, name in weight_map.items())


def _plain_name(name: object) -> str:
    """A shard lies beside its index: a name with a path in it could lead anywhere."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise RequestError(f"a shard of an index must be a plain file name, not {shown(name)}")
    return name


def _shard(index: Path, name: str) -> dict[str, StoredTensor]:
    shard = index.parent / name
    if not os.path.exists(shard):
        raise RequestError(f"{shown(index.parent)} lacks the shard {shown(name)} that its index names")
    return {tensor.name: tensor for tensor in read_header(shard)}


def _in_order(path: Path, header: dict[str, Any], data_bytes: int) -> Iterator[StoredTensor]:
    """Every tensor, checked to begin where the one before it ends."""
    entries = [(_offsets(path, name, entry), name, entry) for name, entry in header.items()]
    position = 0
    for (begin, end), name, entry in sorted(entries, key=lambda entry: entry[:2]):
        elements, wanted = _size(path, name, entry)
        if begin != position:
            raise RequestError(f"{shown(path)}: the data of {shown(name)} begins at {begin:,}, expected {position:,}")
        if end - begin != wanted:
            raise RequestError(f"{shown(path)}: {shown(name)} has {end - begin:,} bytes, its shape and dtype make {wanted:,}")
        position = end
        yield StoredTensor(name, entry["dtype"], elements, wanted)
    if position != data_bytes:
        raise RequestError(f"{shown(path)} holds {data_bytes:,} bytes of data, its header says {position:,}")


def _offsets(path: Path, name: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)) or offsets[0] > offsets[1]:
        raise RequestError(f"{shown(path)}: {shown(name)} has no usable data_offsets")
    return offsets[0], offsets[1]


def _size(path: Path, name: str, entry: dict[str, Any]) -> tuple[int, int]:
    """Elements and bytes of a tensor by its shape and dtype."""
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise RequestError(f"{shown(path)}: {shown(name)} has the dtype {shown(dtype)}, which is not known")
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or not all(map(_is_count, shape)):
        raise RequestError(f"{shown(path)}: {shown(name)} has no usable shape")
    elements = math.prod(shape)
    if elements * DTYPE_BITS[dtype] % 8:
        raise RequestError(f"{shown(path)}: {shown(name)} does not end at a whole byte")
    return elements, elements * DTYPE_BITS[dtype] // 8


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
