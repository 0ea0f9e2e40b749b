"""`largest`, `which-gpu` and `limits` on the command line."""

from __future__ import annotations

import json

import pytest

from advisor import largest, limits, which_gpu
from advisor.cli.run import run

QUESTIONS = {
    "largest": ["largest", "--gpu", "rtx-4090", "--method", "full"],
    "which-gpu": ["which-gpu", "--infer", "llama-3.1-8b", "--family", "ada"],
    "limits": ["limits", "--gpu", "rtx-4090", "--infer", "qwen3-8b"],
}


@pytest.mark.parametrize("words", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_page_keeps_to_80_columns_and_begins_with_the_answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence, tables, remarks."""
    assert run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0][0].isupper()


def test_json_is_what_python_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """The same dictionary."""
    answers = (
        largest(gpu="rtx-4090", method="full"),
        which_gpu(infer="llama-3.1-8b", family="ada"),
        limits(gpu="rtx-4090", infer="qwen3-8b"),
    )
    for words, answer in zip(QUESTIONS.values(), answers, strict=True):
        assert run([*words, "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(answer.to_dict()))


@pytest.mark.parametrize("words", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_markdown_has_the_same_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In bold, with tables below."""
    run(words)
    said = " ".join(capsys.readouterr().out.partition("\n\n")[0].split())
    run([*words, "--format", "markdown"])
    out = capsys.readouterr().out
    assert out.startswith(f"**{said}**\n")
    assert "|:--" in out


def test_the_frontier_is_a_chart(capsys: pytest.CaptureFixture[str]) -> None:
    """Bars that end where the scale above them says: 4 signs for each doubling from 128."""
    found = limits(gpu="rtx-4090", infer="qwen3-8b")
    run(QUESTIONS["limits"])
    bars = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.endswith("#")]
    assert len(bars) == len(found.frontier)
    for bar, (_, seq) in zip(bars, found.frontier, strict=True):
        assert 2 ** (len(bar) / 4 + 6 - 0.13) <= seq <= 2 ** (len(bar) / 4 + 6 + 0.13)


@pytest.mark.parametrize(
    "words",
    [
        ["largest", "--gpu", "2GB", "--batch", "64", "--seq", "128k"],
        ["limits", "--gpu", "rtx-4090", "--infer", "llama-3.1-70b"],
        ["which-gpu", "--infer", "llama-3.1-405b", "--memory", "8GB", "--max-gpus", "1", "--keep", "quantization,offload"],
    ],
)
def test_nothing_fits_is_3(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An answer all the same."""
    assert run(words) == 3
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["largest"], "name the card with --gpu"),
        (["largest", "--gpu", "a100-40", "--infer", "7b"], "leave --infer away"),
        (["which-gpu", "--infer", "7b", "--gpu", "a100-40"], "the card is what is looked for"),
        (["which-gpu", "--infer", "7b", "--vendor", "nvidiaa"], "there are amd"),
        (["limits", "--gpu", "a100-40"], "name the model"),
        (["limits", "--gpu", "a100-40", "--infer", "7b", "--sequence", "1"], "no such option"),
        (["--gpu", "a100-40", "limits"], "stands before limits"),
        (["which-gpus"], "did you mean which-gpu?"),
    ],
)
def test_a_wrong_request_is_2_and_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr."""
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert said in err
    assert err.count("\n") == 1


def test_help_shows_a_jobs_options_without_what_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Under the same headings as the main command's."""
    run(["which-gpu", "--help"])
    out = capsys.readouterr().out
    assert "--gpu " not in out
    assert "--vendor" in out
    assert "The card:" in out
    run(["largest", "--help"])
    out = capsys.readouterr().out
    assert "--train" not in out
    assert "--gpu " in out


def test_observations_are_used_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Without any, that is said."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    run([*QUESTIONS["limits"], "--use-observations", "--format", "json"])
    assert "no observations yet" in str(json.loads(capsys.readouterr().out)["notes"])
