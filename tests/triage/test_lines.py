"""What launchers, loggers, terminals and copying do to a log, undone."""

from __future__ import annotations

import pytest
from samples import FROM_2_2, NEW, READ, torch

from advisor import diagnose
from advisor.triage.text import lines, number, size, squeezed

MESSAGE = torch(FROM_2_2)
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/opt/x/train.py", line 88, in main',
    "    loss.backward()",
    MESSAGE,
]


def prefixed(prefix: str) -> str:
    return "\n".join(prefix + line for line in TRACEBACK)


def wrapped(text: str, width: int) -> str:
    """Broken in the middle of words, as a narrow terminal copies it."""
    return "\n".join(text[place : place + width] for place in range(0, len(text), width))


FORMS = {
    "plain": "\n".join(TRACEBACK),
    "Windows": "\r\n".join(TRACEBACK),
    "old Mac": "\r".join(TRACEBACK),
    "rank": prefixed("[rank3]: "),
    "colours": prefixed("\x1b[31m\x1b[1m").replace("CUDA", "\x1b[4mCUDA\x1b[0m"),
    "a title": "\x1b]0;train\x07" + "\n".join(TRACEBACK),
    "vLLM": prefixed("\x1b[1;36m(EngineCore_DP0 pid=811)\x1b[0;0m ERROR 11-03 04:05:06 [core.py:712] "),
    "Ray": prefixed("\x1b[36m(RayTrainWorker pid=411, ip=10.0.0.9)\x1b[0m "),
    "compose": prefixed("trainer-1  | "),
    "Kubernetes": prefixed("2026-03-04T05:06:07.089012345Z stderr F "),
    "logging": prefixed("2026-03-04 05:06:07,089 - root - ERROR - "),
    "glog": prefixed("E0304 05:06:07.089000 811 site-packages/torch/x.py:869] "),
    "mpirun": prefixed("[1,3]<stderr>:"),
    "pytest": prefixed("E       "),
    "quoted": prefixed("> "),
    "a collector of logs": prefixed("ERROR 2026-03-04T05:06:07.089012345Z [resource.labels.containerName: trainer] "),
    "a progress bar": "Epoch 1:  47%|████▋     | 470/999 [02:13<02:31,  3.49it/s]\r" + "\n".join(TRACEBACK),
    "one line": "\\n".join(TRACEBACK),
    "HTML": "\n".join(TRACEBACK).replace(">", "&gt;").replace('"', "&quot;"),
    "boxes": "\n".join(f"│ {line} │" for line in TRACEBACK),
    "wrapped": wrapped("\n".join(TRACEBACK), 61),
    "wrapped narrowly": wrapped("\n".join(TRACEBACK), 23),
    "wrapped, with other lines": wrapped("\n".join([*TRACEBACK, "worker 3 is gone", "shutting down"]), 97),
    "wrapped between words": "\n".join(TRACEBACK).replace(". ", ".\n"),
    "double spaces": "\n".join(TRACEBACK).replace(" ", "  "),
    "upper case": "\n".join(TRACEBACK[:3]) + "\n" + MESSAGE.replace("CUDA out of memory", "CUDA Out of memory"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_message_is_read_in_every_dress(form: str) -> None:
    """The values, the phase and the cause are those of the plain log."""
    found = diagnose(FORMS[form])
    assert found.family in ("pytorch-cuda", "pytorch-out-of-memory")
    for name, value in NEW.items():
        assert found.fields.get(name) == pytest.approx(value, rel=0.005), name
    assert (found.phase, found.cause) == ("backward", "capacity")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "gbk", "shift_jis"])
def test_any_encoding(encoding: str) -> None:
    """PowerShell writes UTF-16; the others have ASCII."""
    raw = "\n".join(TRACEBACK).encode(encoding)
    assert diagnose(raw).fields["tried_to_allocate_bytes"] == NEW["tried_to_allocate_bytes"]


def test_bytes_that_are_no_text() -> None:
    """Zeros and what is not UTF-8 are passed over."""
    raw = b"\x00\xff\xfe\x80 core \x00\n" + MESSAGE.encode() + b"\n\xff\x00"
    assert diagnose(raw).fields["free_bytes"] == NEW["free_bytes"]


def test_ranks_do_not_mix() -> None:
    """Of two ranks that failed and wrote into each other the first one's figures are told, and its number."""
    other = torch(FROM_2_2, tried="7.00 GiB", alloc="9.00 GiB").replace("GPU 3", "GPU 5")
    halves = MESSAGE.partition(" Of the allocated")
    log = "\n".join([
        "[rank3]: " + halves[0],
        "[rank5]: " + other,
        "[rank3]: " + "".join(halves[1:]),
    ])  # fmt: skip
    found = diagnose(log)
    assert found.fields["rank"] == 3
    assert found.fields["allocated_bytes"] == NEW["allocated_bytes"]
    assert found.fields["tried_to_allocate_bytes"] == READ["tried_to_allocate_bytes"]


def test_lines_broken_at_one_column_are_whole_again() -> None:
    """Several of one length and none longer; what ends before that column was not broken."""
    from advisor.triage.text import rejoined

    text = "first\n" + wrapped("0123456789 " * 9, 30) + "\nlast"
    whole, anchor = rejoined(lines(text), 2)
    assert [line.text for line in whole] == ["first", ("0123456789 " * 9).rstrip(), "last"]
    assert anchor == 1
    alike = ["a line of twenty-eight signs", "another, that is not as long"[:26]]
    assert [line.text for line in rejoined(lines("\n".join(alike)), 0)[0]] == alike


def test_prefixes_are_taken_off_and_name_the_process() -> None:
    """As many as are stacked."""
    line = "2026-03-04T05:06:07Z (LLMRayActor pid=77) INFO 03-04 05:06:07 x.py:45] # GPU blocks: 12"
    assert [each[:2] for each in lines(line)] == [("GPU blocks: 12", "(LLMRayActor pid=77)")]


def test_a_comma_is_a_point_before_two_digits() -> None:
    """llama.cpp prints 1900,00 MiB where the locale says so; elsewhere it parts thousands."""
    assert number("1900,00") == 1900
    assert number("12,345,678") == 12345678
    assert number("1,234.50") == 1234.5
    assert size("1.5", "GiB") == size("1.5", "GB") == size("1.5", "G") == 3 * 2**29
    assert size("64", "bytes") == size("64", "B") == 64


def test_squeezed_text_keeps_numbers_apart() -> None:
    """Blanks go, but not between a number and the next."""
    assert squeezed("GPU 0, 6.0 GB of\t7") == "GPU0, 6.0GBof7"
    assert len(squeezed("naïve … 内存")) == len("naïve…内存")
