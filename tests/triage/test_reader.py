"""A log of any size: what is found in it, and what is held in memory meanwhile."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from samples import FROM_2_2, NEW, SAMPLES, torch

from advisor import diagnose, explain_oom
from advisor.triage import reader
from advisor.triage.diagnosis import NOTHING, diagnose_stream

MESSAGE = torch(FROM_2_2)


class Stream(io.RawIOBase):
    """A stream that is made while it is read, and never held as a whole."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (part := next(self._parts, b"")):
            self._rest += part
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def repeated(line: str, times: int, last: str = "") -> Iterator[bytes]:
    block = (line * 1000).encode()
    for _ in range(times):
        yield block
    yield last.encode()


@pytest.mark.parametrize("shift", [-9000, -400, -60, -1, 0, 1, 60, 400, 9000])
def test_a_message_on_the_edge_of_a_block(shift: int) -> None:
    """Nothing is lost where a block ends."""
    filler = "step 17 of 100 is done, all is well\n"
    before = filler * ((reader.BLOCK + shift) // len(filler))
    found = diagnose(before + MESSAGE + "\n" + filler * 3000)
    assert found.fields == pytest.approx(NEW, rel=0.005)


@pytest.mark.parametrize("line", ["step 1 loss 2.0\n", "Epoch 1: 10%|#   |\r", "x", "CUDA out of memory. "])
def test_memory_is_bounded(line: str) -> None:
    """Whether lines end or not, what is held is a few blocks; 40 MB go through."""
    scan = reader._Scan()
    most = 0
    for block in repeated(line, 40_000_000 // (1000 * len(line))):
        for place in range(0, len(block), reader.BLOCK):
            scan.take(block[place : place + reader.BLOCK])
            most = max(most, len(scan.held))
    assert most <= 4 * reader.BLOCK
    assert sum(len(spot.before) + len(spot.after) for spot in scan.spots) <= 8 * (reader.BEFORE + reader.AFTER)


def test_a_failure_at_the_end_of_a_long_stream() -> None:
    """It is found with its figures."""
    found = diagnose_stream(Stream(repeated("step 5 | loss 1.234 | all is well\n", 400, MESSAGE)))  # type: ignore[arg-type]
    assert found.fields["allocated_bytes"] == NEW["allocated_bytes"]


def test_the_first_real_cause_stands_before_its_wrappers() -> None:
    """What other ranks and launchers say of it afterwards is not the cause, nor what was only a warning before."""
    log = [
        "WARNING scheduler.py:1099] Sequence group 4 is preempted by PreemptionMode.SWAP mode because there is not enough KV cache space.",
        "(EngineCore_DP0 pid=31) " + MESSAGE,
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "ray.exceptions.RayTaskError(OutOfMemoryError): ray::Worker.run() (pid=31, ip=10.0.0.1)",
        "[ERROR] failed (exitcode: -9) local_rank: 2 (pid: 78) of binary: python",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
        "trainer exited with code 137",
    ]
    assert diagnose("\n".join(log)).family == "pytorch-cuda"
    assert diagnose("\n".join(reversed(log))).family in ("docker", "pytorch-cuda")
    assert diagnose(log[0] + "\n" + log[4]).cause == "host-memory"


def test_of_two_failures_the_first() -> None:
    """Of the same weight."""
    samples = {sample.name: sample.text for sample in SAMPLES}
    first, second = samples["vLLM v1, length"], samples["torch 2.10"]
    assert diagnose(f"{first}\n{second}").family == "vllm-kv-cache"
    assert diagnose(f"{second}\n{first}").family == "pytorch-cuda"


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "all is well", "RuntimeError: CUDA error: device-side assert triggered",
        "RuntimeError: CUDA error: an illegal memory access was encountered", "AssertionError", "exited with code 1",
        "grpc: RESOURCE_EXHAUSTED: Received message larger than max (5242880 vs. 4194304)", "peak memory: 12.3 GiB",
        "GPU memory allocated: 12 GiB, free 4 GiB", "killed 3 zombies in the game", "process exited with code 0",
        "torch.cuda.max_memory_allocated() = 1234", "KV cache size: 12.3 GiB", "Available KV cache memory: 12.3 GiB",
        "loss 137.0", "model saved, exit code 0", "HTTP 137",
    ],
)  # fmt: skip
def test_what_is_no_such_failure(text: str) -> None:
    """Words about memory alone are not one."""
    assert diagnose(text) == NOTHING
    assert diagnose(text).exit_code == 4


def test_an_exception_explains_itself() -> None:
    """In an `except` block, with what it came from."""
    try:
        try:
            raise RuntimeError(MESSAGE.partition(": ")[2])
        except RuntimeError as problem:
            raise ValueError("the step failed") from problem
    except ValueError as outer:
        found = explain_oom(outer)
    assert found.family == "pytorch-cuda"
    assert found.fields == pytest.approx(NEW, rel=0.005)
    assert explain_oom(KeyError("x")) == NOTHING


FRAGMENTS = [key for message in __import__("advisor.triage.grammar", fromlist=["load"]).load().messages for key in message.keys]
NOISE = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.sampled_from([line for sample in SAMPLES for line in sample.text.split("\n")]),
    st.sampled_from(
        [
            "\n",
            "\r",
            " ",
            "\x1b[31m",
            "\x1b]",
            "\x1b[",
            "GiB",
            "0",
            "9" * 40,
            ",",
            ".",
            "1.2.3.4",
            "(",
            "|",
            "{",
            "\\n",
            "\x00",
            "內存",
            "\ud800",
            "-",
        ]
    ),
    st.text(max_size=20),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NOISE, max_size=60).map("".join))
@example("99999999999999999999999999999999 GiB free Tried to allocate ")
@example("Unable to allocate 1e GiB for an array with shape (" + "9," * 200 + ")")
@example("[" * 5000 + "CUDA out of memory. Tried to allocate " + "9" * 5000 + ".".join("1" * 3000))
def test_nothing_breaks_it(text: str) -> None:
    """Any text has an answer that JSON takes, and its lines are shown without control characters."""
    import json

    found = diagnose(text)
    json.dumps(found.to_dict())
    assert all(line.isprintable() and len(line) <= 400 for line in found.evidence)
    assert found.cause == "unknown" or found.family


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
def test_no_bytes_break_it(raw: bytes) -> None:
    """Nor does what is no text."""
    diagnose(raw)


LONG = {
    "digits": "9",
    "blanks": " ",
    "escapes": "\x1b[",
    "brackets": "[(",
    "points": "1.",
    "keys": "CUDA out of memory. Tried to allocate ",
    "sizes": "Tried to allocate 1.00 GiB ",
    "frames": 'File "x.py", line 1, in forward ',
    "names": "a/",
    "equals": "model=",
    "prefixes": "[rank1]: ",
    "pipes": "a |",
    "times": "2026-01-01 00:00:00 ",
}


@pytest.mark.parametrize("kind", LONG)
def test_the_work_on_a_text_does_not_grow_faster_than_the_text(kind: str) -> None:
    """Counted in calls, not in seconds: four times the text is at most about four times the calls."""

    def calls(times: int) -> int:
        count = 0

        def count_call(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        text = (LONG[kind] * times + "\n") * 3 + MESSAGE
        diagnose(text)  # what is made once
        sys.setprofile(count_call)
        try:
            diagnose(text)
        finally:
            sys.setprofile(None)
        return count

    assert calls(20_000) <= 4.5 * calls(5_000) + 2000
