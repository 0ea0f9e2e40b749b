"""Where the data files are: rules/ and catalog/ beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path


def data_folder(name: str) -> Path:
    """The folder ``rules`` or ``catalog``."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
