"""The command that a plan ends with fits, by the exit code of this very program."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from advisor import advise
from advisor.cli.run import run
from advisor.render.steps import command

QUESTIONS = [
    "--gpu v100-16 --train 7b",
    "--gpu v100-16 --train 7b --batch 4 --accumulation 3 --keep precision",
    "--gpu a100-40 --train 13b --gpus 4 --precision fp32 --seq 4k",
    "--gpu a100-80 --train llama-3.1-8b --optimizer adafactor --batch 16 --compile",
    "--gpu rtx-4090 --train llama-3.1-8b --method qlora --batch 32 --lora-targets q_proj,v_proj",
    "--gpu rtx-4090 --infer llama-3.1-8b --seq 64k --prompt 48k --batch 8",
    "--gpu 24GB --free 20GiB --infer 13b --batch 3",
    "--gpu h100-80 --infer llama-3.1-70b --engine vllm --batch 16",
    "--gpu a100-40 --gpus 2 --train 7b --precision fp16 --batch 4 --estimator checklist",
    "--gpu a100-80 --train llama-3.1-8b --method lora --batch 2 --seq 3k --observed allocated=79GiB",
    "--gpu v100-16 --infer 13b --estimator quick --batch 2 --seq 16k",
]


def shown_command(text: str) -> list[str]:
    """The words below the heading of the final command."""
    told = text.partition("The settings that fit, as a command\n")[2].partition("\n\n")[0]
    name, *words = shlex.split(told.replace("\\\n", ""))
    assert name == "advise"
    return words


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_printed_command_fits(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Given back word for word it ends with 0, and needs what the plan said."""
    assert run([*shlex.split(question), "--format", "json"]) == 1
    planned = json.loads(capsys.readouterr().out)["final"]["estimate"]
    run(shlex.split(question))
    words = shown_command(capsys.readouterr().out)
    assert run([*words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["initial"] == planned


def test_a_model_given_as_an_object_goes_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With config.json where the plan says, the command fits as well."""
    config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
              "intermediate_size": 11008, "vocab_size": 32000}  # fmt: skip
    plan = advise(gpu="v100-16", train=config)
    assert plan.verdict == "fits-after-changes"
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(config))
    assert run(command(plan)[1:]) == 0
    assert capsys.readouterr().out.startswith("Fits: ")
