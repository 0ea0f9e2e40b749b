"""The keys of a config, checked one by one as they are read, and those that nobody read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from reprlib import Repr
from typing import Any

from advisor.errors import RequestError
from advisor.model_files.families import Family, Rule

LARGEST = 2**40  # no size of a model comes near it
_REPR = Repr()
_REPR.maxlevel, _REPR.maxstring = 3, 40
_STRUCTURAL = re.compile(r"_(layers|experts|heads|dim|rank|size|window)$")
# Keys of every transformers configuration that end like a structural one and are settings of a run.
_HARMLESS = {"chunk_size_feed_forward", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"}


class Keys:
    """A config's keys in Llama's spelling, checked as they are read. A key that the family has no default for is not read."""

    def __init__(self, config: Mapping[str, Any], family: Family, model_type: str) -> None:
        self.model_type = model_type
        config = {key: value for key, value in config.items() if isinstance(key, str)}
        # Where a config has both spellings, the family's own goes first.
        self._written = {key: key for key in config if key not in family.aliases}
        self._written |= {family.aliases[key]: key for key in config if key in family.aliases}
        self._values = {**family.defaults, **{key: config[written] for key, written in self._written.items()}}
        if family.translate:
            self._values = family.translate(self._values)
        self._known = {*family.defaults, *family.fixed}
        self._read = set(family.harmless) | _HARMLESS

    def get(self, key: str) -> Any:
        """The value as it stands, or None."""
        if key not in self._known:
            return None
        self._read.add(key)
        return self._values.get(key)

    def fail(self, key: str, why: str) -> RequestError:
        written = self._written.get(key, key)
        return RequestError(f"{self.model_type}: {written} {why}")

    def count(self, key: str) -> int:
        """A whole number of at least 1."""
        value = self.optional(key)
        if value is None:
            raise self.fail(key, "is missing from the config")
        return value

    def optional(self, key: str, least: int = 1) -> int | None:
        """A whole number, or None where the config has null or nothing."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, f"must be a whole number, not {shown(value)}")
        if not least <= value <= LARGEST:
            raise self.fail(key, f"must be between {least} and 2**40, not {shown(value)}")
        return value

    def says(self, rule: Rule) -> bool:
        """A fact of the family, or what the config says under that key."""
        if isinstance(rule, bool):
            return rule
        value = self.get(rule)
        if value is not None and not isinstance(value, bool):
            raise self.fail(rule, f"must be true or false, not {shown(value)}")
        return bool(value)

    def share(self, key: str) -> float:
        """A probability; nothing and null are 0."""
        value = self.get(key)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.fail(key, f"must be between 0 and 1, not {shown(value)}")
        return float(value)

    def each(self, key: str, length: int | None = None) -> list[Any]:
        """A list, empty where the config has null or nothing."""
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or (length is not None and len(value) != length):
            raise self.fail(key, f"must be a list{f' of {length}, one for each layer' if length else ''}, not {shown(value)}")
        return value

    def refuse_unread(self) -> None:
        """Stop at a key that nobody read and that looks as if it changed the model's shape; null, 0 and empty change nothing."""
        for key, written in self._written.items():
            value = self._values.get(key)
            if key not in self._read and _STRUCTURAL.search(written) and value:
                raise self.fail(key, f"= {shown(value)} is not understood, and it looks as if it changed the model's size")


def shown(value: object) -> str:
    """The value on one line, short; what is nested or endless is cut before it is written out."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a number beyond 2**40"
    text = _REPR.repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
