"""A model from files on the disk: config.json and safetensors headers, or GGUF. Never the network, never the weights."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from advisor.errors import RequestError
from advisor.model import Model, StoredTensor
from advisor.model_files.files import read_json_file, shown
from advisor.model_files.safetensors import read_header, read_index

MOST_CONFIG_BYTES = 16 * 2**20
CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
SHARD = re.compile(r"-\d+-of-\d+$")
# What a config calls the dtypes that a model is computed in
CONFIG_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def read_model(path: str | Path) -> Model:
    """The model of a folder, a config.json, a *.safetensors file with its config beside it, an index of such files, or a GGUF."""
    gguf = _gguf(Path(path))
    if gguf:
        return _read_gguf(gguf)
    config_path, stored = _parts(Path(path))
    config = read_json_file(config_path, MOST_CONFIG_BYTES)
    if stored and not (config.get("dtype") or config.get("torch_dtype")):
        config = {**config, "dtype": _main_dtype(stored)}
    from advisor.model_files.config import model_from_config

    model = model_from_config(config, _name(config_path))
    return _checked(model._replace(stored=stored, source=shown(config_path)))


# A checkpoint has buffers beside its parameters, or a tied head twice: as many elements as the config says only within a percent.
MATCHES = 0.01


def _checked(model: Model) -> Model:
    """The model, if its files hold what its config says; with a note where they hold more. Quantized ones are packed."""
    if not model.stored or model.quantization != "none":
        return model
    from advisor.memory.parameters import parameter_count
    from advisor.memory.weights import Storing, loaded

    said, there = parameter_count(model), sum(tensor.elements for tensor in model.stored)
    if there < (1 - MATCHES) * said:
        raise RequestError(
            f"{model.source}: its weights hold {there:,} of the {said:,} parameters that the config tells of; files are missing"
        )
    held = sum(tensor.elements for tensor in loaded(model, Storing("none", 1)))
    if held <= (1 + MATCHES) * said:
        return model
    more = f"The weights hold {held:,} parameters, the config tells of {said:,}: memory of the weights is that of the files."
    return model._replace(notes=(*model.notes, more))


def _gguf(path: Path) -> Path | None:
    """The GGUF file that the path is, or that is the only model in a folder without a config; of a split one the first part."""
    if path.suffix.lower() == ".gguf":
        return path
    if not os.path.isdir(path) or os.path.exists(path / CONFIG):
        return None
    try:
        names = sorted(name for name in os.listdir(path) if name.lower().endswith(".gguf") and "mmproj" not in name.lower())
    except OSError:
        return None
    first = [name for name in names if "-of-" not in name or "-00001-of-" in name]
    if len(first) > 1:
        raise RequestError(f"{shown(path)} has {len(first)} GGUF models, such as {shown(first[0])}: name one of them")
    return path / first[0] if first else None


def _read_gguf(path: Path) -> Model:
    try:
        from advisor.model_files.gguf import read_gguf
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in ("gguf", "numpy"):
            raise
        raise RequestError(f'{shown(path)}: reading GGUF needs `pip install "oom-advisor[gguf]"`') from None
    return read_gguf(path)


def _parts(path: Path) -> tuple[Path, tuple[StoredTensor, ...] | None]:
    """Where the config is, and the tensors if the path leads to any."""
    if os.path.isdir(path):
        return path / CONFIG, _stored_in(path)
    if path.name.endswith(".index.json"):
        return _beside(path), read_index(path)
    if path.suffix == ".safetensors":
        return _beside(path), _stored_with(path)
    if path.suffix == ".json":
        return path, None
    raise RequestError(f"{shown(path)} is no model folder, config.json, *.safetensors or *.gguf file")


def _stored_in(folder: Path) -> tuple[StoredTensor, ...] | None:
    if not os.path.exists(folder / CONFIG):
        raise RequestError(f"{shown(folder)} has no {CONFIG}")
    if os.path.exists(folder / INDEX):
        return read_index(folder / INDEX)
    return read_header(folder / WEIGHTS) if os.path.exists(folder / WEIGHTS) else None


def _stored_with(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of the checkpoint that a file is, or is a part of."""
    if path.name == WEIGHTS:
        return read_header(path)
    index = path.with_name(INDEX)
    if os.path.exists(index):
        return read_index(index)
    if SHARD.search(path.stem):
        raise RequestError(f"{shown(path)} is a part of a checkpoint; it needs the {INDEX} beside it")
    return read_header(path)


def _beside(path: Path) -> Path:
    config = path.with_name(CONFIG)
    if os.path.exists(path) and not os.path.exists(config):
        raise RequestError(f"{shown(path)} needs the {CONFIG} of its model beside it")
    return config


def _name(config: Path) -> str:
    """The folder's name; a config under another name than config.json is called as it is."""
    return config.absolute().parent.name or "model" if config.name == CONFIG else config.stem


def _main_dtype(stored: tuple[StoredTensor, ...]) -> str | None:
    """The float dtype that most elements have, as a config writes it."""
    elements = Counter[str]()
    for tensor in stored:
        if tensor.dtype in CONFIG_DTYPES:
            elements[tensor.dtype] += tensor.elements
    return CONFIG_DTYPES[elements.most_common(1)[0][0]] if elements else None
