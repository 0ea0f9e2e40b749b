"""Every family and version of the grammar, read from messages of our own."""

from __future__ import annotations

import tomllib
from itertools import pairwise

import pytest
from samples import SAMPLES, Sample

from advisor import diagnose
from advisor.data import data_folder
from advisor.triage import grammar
from advisor.triage.clues import BEFORE_NAME

RECORD = tomllib.loads((data_folder("catalog") / "messages.toml").read_text(encoding="utf-8"))
KEYS = {message.family: message.keys for message in grammar.load().messages}


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])
def test_a_message_is_read_as_its_family_writes_it(sample: Sample) -> None:
    """Family, values to 0.5 % (what two decimals leave), and where the message alone tells them cause and phase."""
    found = diagnose(sample.text)
    assert found.family == sample.family
    for name, value in sample.fields.items():
        expected = pytest.approx(value, rel=0.005) if isinstance(value, int | float) else value
        assert found.fields.get(name) == expected, name
    assert sample.cause is None or found.cause == sample.cause
    assert sample.phase is None or found.phase == sample.phase
    assert found.remedies
    assert found.evidence


def test_every_family_has_a_sample() -> None:
    """None is read on trust."""
    assert {sample.family for sample in SAMPLES} == {message.family for message in grammar.load().messages}


def test_a_key_is_in_the_line_as_printed() -> None:
    """Else the line would never be looked at."""
    for sample in SAMPLES:
        keys = [key for message in grammar.load().messages if message.family == sample.family for key in message.keys]
        assert any(key in sample.text for key in keys), sample.name


def test_a_gate_stands_wherever_its_keys_do() -> None:
    """A block without the gate is not searched for them: no sample has a key that only a missing gate opens."""
    gates = grammar.load().gates
    gate_of = {key: gate for gate, keys in gates.items() for key in keys}
    for sample in SAMPLES:
        raw = sample.text.encode()
        keys = [key.encode() for message in grammar.load().messages if message.family == sample.family for key in message.keys]
        opened = [key for key in keys if key in raw and (key not in gate_of or gate_of[key] in raw)]
        assert opened, sample.name


def test_tiers_and_phases_are_known() -> None:
    """A slip of the pen in the data is found here, not by a reader of a log."""
    phases = {"load", "forward", "backward", "optimizer-step", "kv-cache-init", "profile", "generate", "eval", "checkpoint-save",
              "host", "unknown"}  # fmt: skip
    for message in grammar.load().messages:
        assert message.tier in (0, 1, 2, 3), message.family
        assert {message.phase or "unknown", message.usual} <= phases, message.family
        assert (message.tier == 0) == (message.kind == "benign"), message.family


def every_pattern() -> list[str]:
    fields = [pattern for group in RECORD["fields"].values() for patterns in group.values() for pattern in patterns]
    messages = [pattern for message in RECORD["message"] for pattern in (*message["match"], *message.get("unless", ()))]
    clues = tomllib.loads((data_folder("catalog") / "clues.toml").read_text(encoding="utf-8"))
    return [*fields, *messages, *(pattern for table in clues.values() for clue in table for pattern in clue["match"])]


@pytest.mark.parametrize("pattern", every_pattern())
def test_no_pattern_repeats_a_repetition(pattern: str) -> None:
    """So none takes more than linear time: what is repeated without a limit repeats nothing itself."""
    import re._parser as parser  # the standard library's own reading of a pattern

    def unlimited(tree: object, inside: bool = False) -> bool:
        for operation, argument in tree:  # type: ignore[attr-defined]
            name = str(operation)
            if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
                _, most, body = argument
                endless = most is parser.MAXREPEAT
                if (endless and inside) or unlimited(body, inside or endless):
                    return True
            elif (name == "SUBPATTERN" and unlimited(argument[-1], inside)) or (
                name == "BRANCH" and any(unlimited(branch, inside) for branch in argument[1])
            ):
                return True
        return False

    expanded = grammar._expanded(pattern.replace("{I}", BEFORE_NAME))
    assert not unlimited(parser.parse(expanded))
    assert ".*" not in pattern  # a gap has a limit


def test_two_messages_of_one_kind_are_two() -> None:
    """The figures of the second do not fill gaps of the first."""
    first = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB."
    second = next(sample.text for sample in SAMPLES if sample.name == "torch 2.10")
    assert diagnose(f"{first}\n{second}").fields == {"tried_to_allocate_bytes": 3 * 2**30}


def test_the_order_of_the_grammar_is_from_special_to_general() -> None:
    """What would match anything that runs out of memory stands last."""
    families = [message.family for message in grammar.load().messages]
    assert families[-1] == "out-of-memory"
    assert all(
        families.index(a) < families.index(b)
        for a, b in pairwise(["vllm-sampler-warmup", "pytorch-cuda", "pytorch-out-of-memory"])
    )
