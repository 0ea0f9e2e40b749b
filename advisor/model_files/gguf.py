"""A model from a GGUF file: its metadata and the exact size of each tensor. The weights themselves are never read.

The file is read by the reader of llama.cpp's own ``gguf`` package (an optional extra), which maps it into memory. Three of its
steps are done otherwise here: nothing is believed beyond the end of the file, a tokenizer's list is not made one object an entry,
and of a tensor only the size is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.gguf_reader import GGUFReader, ReaderField

from advisor.errors import RequestError
from advisor.model import Model, StoredTensor
from advisor.model_files.config import model_from_config
from advisor.model_files.files import opened, shown
from advisor.model_files.gguf_config import config_of, quantization_of

MAGIC = b"GGUF"
MOST_HEADER_BYTES = 100_000_000  # the tokenizers of large vocabularies make 10 MB
MOST_TENSORS = 100_000  # experts are stacked: DeepSeek-V3 has 1,086
MOST_KEYS = 10_000
MOST_PARTS = 1_000
MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
PART = re.compile(r"-(\d{5})-of-(\d{5})$")


def read_gguf(path: Path) -> Model:
    """The model of a GGUF file; of a split one, the first part has the metadata and the others lie beside it."""
    parts = list(_parts(path))
    header = _read(parts[0])
    stored = tuple(tensor for part in (header, *map(_read, parts[1:])) for tensor in part.stored)
    try:
        model = model_from_config(config_of(header.values, stored, header.shapes), PART.sub("", path.stem))
    except RequestError as problem:
        raise RequestError(f"{shown(path)}: {problem}") from None
    quantization, note = quantization_of(header.values, stored)
    notes = (*model.notes, note) if note else model.notes
    return model._replace(stored=stored, source=shown(path), quantization=quantization, notes=notes)


def _parts(path: Path) -> Iterator[Path]:
    split = PART.search(path.stem)
    if split is None:
        yield path
        return
    count = int(split[2])
    if not 1 <= count <= MOST_PARTS:
        raise RequestError(f"{shown(path)} says that it has {count} parts")
    for number in range(1, count + 1):
        yield path.with_name(f"{path.stem[: split.start()]}-{number:05}-of-{count:05}{path.suffix}")


def _read(path: Path) -> Header:
    with opened(path) as (file, size):
        first = file.read(24)
        if first[:4] != MAGIC:
            raise RequestError(f"{shown(path)} is not a GGUF file: it does not begin with {MAGIC.decode()}")
        if len(first) < 24:
            raise RequestError(f"{shown(path)} is cut off: {size} bytes cannot hold a GGUF header")
        order: Any = (
            "little" if int.from_bytes(first[4:6], "little") else "big"
        )  # a version beyond 65,535 is one written backwards
        tensors, keys = (int.from_bytes(first[at : at + 8], order) for at in (8, 16))
        if tensors > MOST_TENSORS or keys > MOST_KEYS:
            raise RequestError(f"{shown(path)} claims {tensors:,} tensors and {keys:,} keys: no model has as many")
        try:
            return Header(path)
        except (ValueError, KeyError, IndexError, TypeError, OverflowError) as problem:
            raise RequestError(f"{shown(path)} is no sound GGUF file: {shown(problem)}") from None


class Header(GGUFReader):
    """The metadata of a file, its tensors' sizes, and the shapes by name (columns first, as GGML has them)."""

    def __init__(self, path: Path) -> None:
        self.stored: list[StoredTensor] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        super().__init__(path)
        self.values: dict[str, Any] = {name: field.contents() for name, field in self.fields.items()}

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"it is cut off at {len(self.data):,} bytes")
        if end > MOST_HEADER_BYTES:
            raise ValueError(f"its header goes beyond {MOST_HEADER_BYTES:,} bytes")
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        """A list in one piece, where the package makes an array of each entry; of texts only their number is kept."""
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, int(raw_type))
        kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        start, of = orig_offs + 12, GGUFValueType(int(kind[0]))
        if of == GGUFValueType.STRING:
            return (
                self._after_texts(start, int(count[0])) - orig_offs,
                [kind, count],
                [1],
                [GGUFValueType.ARRAY, GGUFValueType.UINT64],
            )
        scalar = self.gguf_scalar_to_np.get(of)
        if scalar is None:
            raise ValueError("it has a list of lists")
        values = self._get(start, scalar, count[0])
        return 12 + values.nbytes, [kind, count, values], [2], [GGUFValueType.ARRAY, of]

    def _after_texts(self, offset: int, count: int) -> int:
        limit = min(len(self.data), MOST_HEADER_BYTES)
        order: Any = "little" if self.endianess == 0 else "big"
        view = self.data.data
        for _ in range(count):
            if offset + 8 > limit:
                raise ValueError(f"it is cut off at {len(self.data):,} bytes, in a list of {count:,} texts")
            offset += 8 + int.from_bytes(view[offset : offset + 8], order)
        return offset

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        for field in fields:
            _, _, _, dims, kind, offset = field.parts
            shape = tuple(int(side) for side in dims)
            weights, block = GGML_QUANT_SIZES[GGMLQuantizationType(int(kind[0]))]
            elements = math.prod(shape)
            if not 1 <= len(shape) <= MOST_DIMENSIONS or elements == 0 or shape[0] % weights:
                raise ValueError(f"the shape {shape} of {field.name} does not go with its type")
            size = elements // weights * block
            if int(start_offs) + int(offset[0]) + size > len(self.data):
                raise ValueError(f"{field.name} ends beyond the file's {len(self.data):,} bytes")
            if field.name in self.shapes:
                raise ValueError(f"{field.name} is there twice")
            self.shapes[field.name] = shape
            self.stored.append(StoredTensor(field.name, GGMLQuantizationType(int(kind[0])).name, elements, size))
