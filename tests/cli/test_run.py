"""Exit codes, one line for what is wrong, and answers that reach their reader."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from advisor.cli import app as app_module
from advisor.cli.run import run

ADVISE = [sys.executable, "-m", "advisor"]
FITS = ["--gpu", "v100-16", "--infer", "7b", "--quantization", "int8", "--estimator", "checklist"]
PLAN = ["--gpu", "a100-40", "--gpus", "2", "--train", "7b", "--precision", "fp16", "--batch", "4", "--estimator", "checklist"]
HOPELESS = ["--gpu", "v100-16", "--train", "70b", "--max-gpus", "1", "--estimator", "checklist"]


def environment(**more: str) -> dict[str, str]:
    """The environment of this process without what changes colours, width or encoding."""
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING")}
    return {**plain, **more}


def advise(*words: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own."""
    return subprocess.run([*ADVISE, *words], capture_output=True, env=environment(**more), check=False)


@pytest.mark.parametrize(("words", "code", "begin"), [
    (FITS, 0, "Fits: "),
    (PLAN, 1, "Does not fit as asked; "),
    (HOPELESS, 3, "Does not fit, and nothing within the limits"),
])  # fmt: skip
def test_the_exit_code_says_what_the_verdict_says(
    words: list[str], code: int, begin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that `advise … && sbatch job.sh` starts only what fits as asked."""
    assert run(words) == code
    shown = capsys.readouterr()
    assert shown.out.startswith(begin)
    assert shown.err == ""


@pytest.mark.parametrize("question", [
    "--gpu 8GB --infer gpt2 --batch 131072 --seq 128k",
    "--gpu 8GB --infer gpt2 --batch 2147483647 --seq 2147483647",
    "--gpu 8GB --train 7b --batch 2147483647 --seq 2147483647",
    "--gpu b200 --infer llama-3.1-405b --max-gpus 4",
    "--gpu rtx-4090 --infer llama-3.1-70b --engine vllm",
    "--gpu v100-16 --train 7b --engine torchtitan --precision fp32 --gpus 2 --batch 8",
])  # fmt: skip
def test_no_line_is_wider_than_80_columns(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The frameworks' words and figures of any size included."""
    run(question.split())
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(("words", "message"), [
    (["--gppu", "v100-16"], "no such option --gppu; did you mean --gpu?"),
    (["--qqqqqq"], "no such option --qqqqqq; advise --help lists them"),
    (["--gpu"], "option '--gpu' requires an argument"),
    (["--compile=yes"], "option '--compile' does not take a value"),
    (["rulez"], "no such command 'rulez'; did you mean rules?"),
    (["7b"], "no such command '7b'; a model goes after --train or --infer; advise --help tells more"),
    (["--gpu", "v100-16"], "neither is given"),
    (["--gpu", "v100-16", "--train", "7b", "--infer", "7b"], "both"),
    (["--train", "7b"], "--gpu"),
    (["--gpu", "v100-61", "--train", "7b"], "did you mean v100-16"),
    (["--gpu", "v100-16", "--train", "lama-2-7b"], "did you mean llama-2-7b"),
    (["--gpu", "v100-16", "--train", "8b"], "did you mean llama-3-8b, llama-3.1-8b, "),
    (["--gpu", "v100-16", "--train", "1b"], "llama-3.2-1b"),
    (["--gpu", "ti", "--train", "7b"], "rtx-3060-ti"),
    (["--gpu", "v100-16", "--train", "7b", "--batch", "-1"], "batch: '-1' does not do"),
    (["--gpu", "v100-16", "--train", "7b", "--seq", "9" * 30], "seq: "),
    (["--gpu", "v100-16", "--train", "7b", "--optimizer", "adam"], "optimizer: 'adam' does not do: did you mean adamw?"),
    (["--gpu", "v100-16", "--train", "./nowhere"], "nowhere"),
    (["--gpu", "v100-16", "--train", "7b", "--quantization", "int8"], "quantization"),
    (["--format", "jsn"], "no format 'jsn'; did you mean json?"),
    (["--gpu", "v100-16", "gpus"], "--gpu stands before gpus; its options go after it"),
    (["gpus", "zzzz"], 'no GPU "zzzz"'),
    (["models", "zzzz"], 'no model "zzzz"'),
    (["rules", "T99"], "there is no rule 'T99'"),
    (["gpus", "--gpu", "x"], "no such option --gpu"),
])  # fmt: skip
def test_a_wrong_request_is_one_line_and_two(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong and what to type instead, on stderr; nothing on stdout."""
    assert run(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("advise: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


def test_a_fault_of_ours_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, unless ADVISE_DEBUG asks for it."""
    monkeypatch.setattr(app_module.app, "callback", lambda **values: 1 / 0)
    assert run(["--gpu", "v100-16"]) == 2
    assert capsys.readouterr().err.startswith("advise: internal error: ZeroDivisionError: division by zero; please report it")
    monkeypatch.setenv("ADVISE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["--gpu", "v100-16"])


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_is_shown_when_nothing_is_asked(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`advise` alone is a question for help."""
    assert run(words) == 0
    assert capsys.readouterr().out.startswith("Usage: advise [OPTIONS] [COMMAND]")


def test_the_version_names_the_rules_engine(capsys: pytest.CaptureFixture[str]) -> None:
    """The same that planning would use."""
    from advisor import __version__
    from advisor.planning.engine import engine_name

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"oom-advisor {__version__} (rules engine: {engine_name()})\n"


def test_a_closed_pipe_ends_quietly_with_the_verdicts_code() -> None:
    """`advise … | true`: nobody reads, nobody complains, and pipefail still sees the plan."""
    process = subprocess.Popen([*ADVISE, *PLAN, "--explain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("words", [["rules"], ["--version"], ["--help"], ["rules", "--help"], ["observe", "-h"]])
def test_a_full_disk_is_one_line(words: list[str]) -> None:
    """ENOSPC on stdout, which click would not catch where it prints the help by itself."""
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([*ADVISE, *words], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert ended.returncode == 2
    assert ended.stderr == b"advise: the answer cannot be written: No space left on device\n"


def test_an_interrupt_ends_quietly() -> None:
    """Ctrl-C is 130, without a traceback."""
    code = (
        "import os, signal, sys, advisor.cli.app as a\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"a.app.callback = lambda **values: os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "sys.argv = ['advise', '--gpu', 'x']\n"
        "from advisor.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment(), check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    """The same answer in ASCII."""
    ended = advise(*PLAN, "--explain", PYTHONIOENCODING="ascii")
    assert ended.returncode == 1
    text = ended.stdout.decode("ascii")
    assert "none -> full" in text
    assert "?" not in text


def test_json_stays_json_where_there_is_no_unicode() -> None:
    """Signs become escapes, not question marks."""
    plain = json.loads(advise(*PLAN, "--format", "json", PYTHONIOENCODING="ascii").stdout.decode("ascii"))
    assert plain == json.loads(advise(*PLAN, "--format", "json", PYTHONIOENCODING="utf-8").stdout)


def test_a_name_that_is_no_text_is_refused_in_one_line() -> None:
    """Bytes that are no UTF-8 reach the command as surrogates."""
    ended = subprocess.run(
        [*ADVISE, "--gpu", b"\xff\xfe", "--train", "7b"], capture_output=True, env=environment(), check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("more", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "0"}, False),
                                                ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)])  # fmt: skip
def test_a_pipe_has_no_colours_unless_they_are_forced(more: dict[str, str], coloured: bool) -> None:
    """NO_COLOR wins (no-color.org, force-color.org)."""
    assert (b"\x1b[" in advise(*FITS, **more).stdout) is coloured


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("more", "coloured"), [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False),
                                                ({"TERM": "xterm", "NO_COLOR": "1"}, False)])  # fmt: skip
@pytest.mark.parametrize(("columns", "widest"), [(60, 80), (200, 100)])
def test_a_terminal_has_colours_and_its_own_width(more: dict[str, str], coloured: bool, columns: int, widest: int) -> None:
    """From 80 to 100 columns; a dumb terminal stays plain."""
    text = in_terminal([*PLAN], columns, **more)
    assert ("\x1b[" in text) is coloured
    lengths = [len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    assert widest - 20 < max(lengths) <= widest


def in_terminal(words: list[str], columns: int, **more: str) -> str:
    """What the command writes to a pseudo-terminal."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen([*ADVISE, *words], stdout=theirs, stderr=theirs, stdin=theirs, env=environment(**more))
    os.close(theirs)
    read = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not block:
            break
        read += block
    os.close(ours)
    process.wait()
    return read.decode().replace("\r\n", "\n")
