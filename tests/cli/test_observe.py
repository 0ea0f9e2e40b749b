"""Observations are kept by one command, and used only when that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.cli import observe
from advisor.cli.run import run

JOB = ["--gpu", "a100-80", "--train", "llama-3.2-1b", "--method", "lora"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where observations are kept in a home of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "advise" / "observations.jsonl"


def seen(*sizes: str) -> None:
    for batch, size in enumerate(sizes, start=1):
        assert run(["observe", *JOB, "--batch", str(batch), "--observed", f"device={size}"]) == 0


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    run([*JOB, *words, "--format", "json"])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_only_the_command_makes_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asking does not, with or without --use-observations, and says where it would be."""
    assert "no observations yet" in str(answer(capsys, "--use-observations")["notes"])
    assert not file.exists()
    seen("12GiB")
    assert str(file) in capsys.readouterr().out
    assert file.exists()


def test_a_line_is_the_job_and_its_sizes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In bytes, and --format json prints the same line."""
    seen("12GiB", "20GiB")
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert (first["observed"], first["job"]["batch"], second["job"]["batch"]) == ({"device": 12 * 2**30}, 1, 2)
    capsys.readouterr()
    run(["observe", *JOB, "--observed", "device=12GiB", "--format", "json"])
    assert json.loads(capsys.readouterr().out) == first


def test_the_observed_job_is_kept_not_the_asked_one(file: Path) -> None:
    """What --observed-with says is how it was."""
    run(["observe", *JOB, "--batch", "64", "--observed", "device=12GiB", "--observed-with", "batch=1"])
    assert json.loads(file.read_text())["job"]["batch"] == 1


def test_a_model_on_disk_is_kept_by_its_full_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later questions come from other folders."""
    config = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
              "intermediate_size": 8192, "vocab_size": 32000}  # fmt: skip
    monkeypatch.chdir(file.parents[2])
    Path("config.json").write_text(json.dumps(config))
    assert run(["observe", "--gpu", "a100-80", "--train", "config.json", "--observed", "device=20GiB"]) == 0
    assert json.loads(file.read_text())["job"]["train"] == str(Path("config.json").resolve())


def test_three_observations_change_the_answer_where_it_is_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not without --use-observations."""
    before = answer(capsys)["initial"]
    seen("12GiB", "20GiB", "28GiB")
    assert answer(capsys)["initial"] == before
    after = answer(capsys, "--use-observations")
    assert after["initial"] != before
    assert "3 earlier observations: device is" in str(after["notes"])


@pytest.mark.parametrize(
    "line",
    ["no JSON", "[]", '{"job": {}}', '{"job": {"gpu": "a100-80", "train": "gone/"}, "observed": {"device": 1}}',
     '{"job": {"gpu": "a100-80", "train": "7b"}, "observed": {}}', '{"job": {"gpu": "a100-80", "train": "7b"}, "observed": {"device": 5}}'],
)  # fmt: skip
def test_a_bad_line_is_left_out_and_named(line: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one note, and the others count."""
    seen("12GiB", "20GiB", "28GiB")
    good = answer(capsys, "--use-observations")
    file.write_text(f"{line}\n{file.read_text()}\n")
    found = answer(capsys, "--use-observations")
    assert found["initial"] == good["initial"]
    notes = found["notes"]
    assert isinstance(notes, list)
    assert notes[-1] == f"{file}: no observation in line 1, left out."


def test_what_says_nothing_is_not_kept(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No size, or one that cannot be: a wrong request."""
    assert run(["observe", *JOB]) == 2
    assert run(["observe", *JOB, "--observed", "device=1GiB"]) == 2
    assert "say with --observed" in capsys.readouterr().err
    assert not file.exists()


def test_a_folder_that_cannot_be_is_a_wrong_request(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line."""
    file.parents[1].write_text("a file where the folder should be")
    assert run(["observe", *JOB, "--observed", "device=12GiB"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_without_xdg_it_is_dot_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where XDG_CONFIG_HOME is relative, which the specification says to ignore."""
    monkeypatch.setenv("HOME", "/somewhere")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert observe.path() == Path("/somewhere/.config/advise/observations.jsonl")
