"""`advise oom`: what it reads, what it says, how it ends."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from advisor.cli.run import run

MESSAGE = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. GPU 3 has a total capacity of 11.50 GiB of which"
    " 310.25 MiB is free. Of the allocated memory 10.50 GiB is allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but"
    " unallocated.\n"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "train.log"
    file.write_text("step 1\n" + MESSAGE)
    return file


def test_a_file_a_dash_and_a_pipe(log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All three say the same."""
    answers = []
    for words in (["oom", str(log)], ["oom", "-"], ["oom"]):
        with log.open("rb") as stream:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
            assert run(words) == 0
            answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].startswith("Out of memory: the job needs more than the card has.")


def test_a_packed_log(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """gzip is unpacked while it is read, whatever its name; a broken one is a wrong request."""
    packed = log.with_name("packed.log")
    packed.write_bytes(gzip.compress(log.read_bytes()))
    assert run(["oom", str(packed)]) == 0
    packed.write_bytes(packed.read_bytes()[:-20])
    assert run(["oom", str(packed)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_explained_it_tells_every_remedy(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a terminal shows the first five, and of a plan every part."""
    log.write_text('  File "x.py", line 1, in f\n    loss.backward()\n' + MESSAGE)
    assert run(["oom", str(log)]) == 0
    assert "  6. " not in capsys.readouterr().out
    assert run(["oom", str(log), "--explain", "--train", "llama-3.2-1b"]) == 0
    said = capsys.readouterr().out
    assert "  6. " in said
    assert "Every part" in said


def test_the_json_is_the_contract(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every promised key, sizes in bytes, the remedies with their reason and words."""
    assert run(["oom", str(log), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    promised = ["schema", "family", "framework", "phase", "cause", "certainty", "fields", "evidence", "remedies", "plan"]
    assert [key for key in said if key in promised] == promised
    assert said["fields"]["tried_to_allocate_bytes"] == 5 * 2**28
    assert {"action", "why", "how"} <= said["remedies"][0].keys()
    assert said["plan"] is None


def test_a_plan_is_part_of_the_answer(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same plan as `advise` prints, and the exit code stays that of the diagnosis."""
    assert run(["oom", str(log), "--train", "llama-3.1-8b", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["verdict"] in ("fits-after-changes", "does-not-fit")
    for format in ("table", "markdown"):
        assert run(["oom", str(log), "--train", "llama-3.1-8b", "--format", format]) == 0
        assert "The plan" in capsys.readouterr().out


def test_a_log_without_a_cause_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also an empty one."""
    for text in ("", "epoch 1\nall is well\n"):
        file = tmp_path / "fine.log"
        file.write_text(text)
        assert run(["oom", str(file)]) == 4
        assert "no message of memory" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["/no/such/file"], ["."], ["--format", "jsno"], ["a", "b"], ["--gpus", "x"]])
def test_a_wrong_request_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2."""
    assert run(["oom", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("advise: ")
    assert said.err.count("\n") == 1


def test_a_terminal_is_not_waited_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would ever come."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert run(["oom"]) == 2
    assert "advise oom train.log" in capsys.readouterr().err


HOSTILE = "<script>alert(1)</script> ``` $(rm -rf /) `id` \x1b[2J\x1b]0;owned\x07 \u202e |x| *b* "


@pytest.mark.parametrize("format", ["table", "markdown", "json"])
def test_what_a_log_says_is_shown_and_no_more(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No control character passes, and in Markdown it stands in a fence that it cannot close."""
    file = tmp_path / "hostile.log"
    file.write_text(HOSTILE + MESSAGE)
    assert run(["oom", str(file), "--format", format]) == 0
    said = capsys.readouterr().out
    assert not any(sign in said for sign in "\x1b\x07\u202e")
    assert "alert(1)" in said
    if format == "markdown":
        fence = next(line for line in said.split("\n") if line.startswith("````"))
        assert said.partition(fence)[2].partition(fence)[0].count("<script>") == 1


def test_it_writes_nothing_but_the_answer(log: Path) -> None:
    """No file beside the log, and no network: the modules for it are not even loaded."""
    code = "import sys; from advisor.cli.run import run; run(sys.argv[1:]); print(sorted({'socket', 'ssl', 'urllib.request', 'http.client'} & sys.modules.keys()), file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code, "oom", str(log)], capture_output=True, text=True, check=True)
    assert ended.stderr == "[]\n"
    assert [file.name for file in log.parent.iterdir()] == ["train.log"]


def test_help_loads_nothing_heavy() -> None:
    """Neither pydantic nor the rules engine."""
    code = "import sys; from advisor.cli.run import run; run(['oom', '--help']); print([n for n in ('pydantic', 'durable_rules_engine', 'tomllib') if n in sys.modules], file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "[]\n"
    assert "Exit codes" in ended.stdout


def test_a_log_alone_needs_no_job(log: Path) -> None:
    """What decides a job is not loaded."""
    code = "import sys; from advisor.cli.run import run; run(sys.argv[1:]); print('advisor.defaults' in sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code, "oom", str(log)], capture_output=True, text=True, check=True)
    assert ended.stderr == "False\n"
