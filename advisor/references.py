"""What a job's model stands for: a name of the catalogue, a path, or the object of a config.json."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from advisor import catalog
from advisor.model import Model

Stamp = tuple[tuple[str, int, int], ...]


def find_model(reference: str | dict[str, Any] | None) -> Model:
    """The model that a name, a path or the object of a config.json stands for; a catalogue name wins over a folder."""
    if isinstance(reference, dict):
        from advisor.model_files.config import model_from_config

        return model_from_config(reference, str(reference.get("_name_or_path") or reference.get("model_type") or "model"))
    assert reference is not None
    if catalog.is_model_name(reference) or not _is_path(reference):
        return catalog.find_model(reference)
    path = os.path.expanduser(reference)
    return _model_on_disk(path, os.getcwd(), _stamp(path))


def _is_path(name: str) -> bool:
    return name.endswith((".json", ".safetensors", ".gguf")) or name.startswith((".", "/", "~")) or os.path.exists(name)


@lru_cache(maxsize=64)
def _model_on_disk(path: str, folder: str, stamp: Stamp) -> Model:
    """A plan decides dozens of jobs of one model: the files are read once, and again when they are not what they were."""
    from advisor.model_files import read_model

    return read_model(path)


def _stamp(path: str) -> Stamp:
    """Names, times and sizes of the model files at a path; nothing where there is none, which reading will tell better."""
    try:
        with os.scandir(path if os.path.isdir(path) else os.path.dirname(path) or ".") as entries:
            files = [(x.name, x.stat()) for x in entries if x.name.endswith((".json", ".safetensors", ".gguf"))]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in files))
