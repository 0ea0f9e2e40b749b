"""Answers into files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from advisor.cli.output import showable
from advisor.cli.run import run

QUESTION = ["--gpu", "v100-16", "--infer", "7b", "--quantization", "int8", "--estimator", "quick"]


def test_output_is_the_whole_answer_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would have been printed, and nothing printed; no other file is left."""
    run([*QUESTION, "--format", "json"])
    printed = capsys.readouterr().out
    assert run([*QUESTION, "--format", "json", "--output", str(tmp_path / "plan.json")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "plan.json").read_text(encoding="utf-8") == printed
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_file_keeps_its_rights_and_a_link_its_target(tmp_path: Path) -> None:
    """Writing through a link replaces what it points to, not the link."""
    target, link = tmp_path / "a", tmp_path / "b"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert run(["rules", "--output", str(link)]) == 0
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert "gradient-checkpointing" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["missing/plan.txt", ".", "x" * 300, "nul\0l"])
def test_a_file_that_cannot_be_written_is_one_line(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and nothing half written."""
    monkeypatch.chdir(tmp_path)
    assert run(["rules", "--output", path]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "cannot be written: " in shown.err
    assert os.listdir(tmp_path) == []


def test_an_old_file_survives_a_wrong_request(tmp_path: Path) -> None:
    """The file is opened when the answer is there."""
    path = tmp_path / "plan.txt"
    path.write_text("old")
    assert run(["--gpu", "nothing", "--train", "7b", "--output", str(path)]) == 2
    assert path.read_text() == "old"


def test_a_device_is_written_to_and_not_replaced() -> None:
    """`--output /dev/null` as root must leave /dev/null what it is."""
    assert run(["rules", "--output", os.devnull]) == 0
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)


def test_a_dash_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """As everywhere."""
    assert run(["rules", "--output", "-"]) == 0
    assert "halve-batch" in capsys.readouterr().out


def test_signs_that_an_encoding_lacks_are_told_otherwise() -> None:
    """Arrows and crosses in ASCII; escapes in JSON, also beyond the first plane."""
    assert showable("a → b × c· 10⁹ 2³⁰", "ascii") == "a -> b x c. 10^9 2^30"
    assert showable("a → b", "utf-8") == "a → b"
    assert showable("a → b     1\nlonger    2", "ascii") == "a -> b    1\nlonger    2"
    assert json.loads(showable('{"a": "→ 𝄞"}', "ascii")) == {"a": "→ 𝄞"}
