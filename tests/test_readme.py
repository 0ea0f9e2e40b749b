"""What the README shows is what the program prints. `python tests/test_readme.py --write` renews its console blocks."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
CONSOLE = re.compile(r"```console\n\$ (.*)\n((?:.*\n)*?)```\n")
TEST_LINE = 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]" && .venv/bin/python -m pytest'
RUN_LINE = "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/advise --gpu v100-16 --train 7b"


def printed(command: str) -> str:
    """What a shell prints where `advise` is this program."""
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS", "PYTHONIOENCODING")}
    script = f'advise() {{ "$0" -m advisor "$@"; }}; {command}'
    ended = subprocess.run(
        ["sh", "-c", script, sys.executable], capture_output=True, encoding="utf-8", env=plain, cwd=ROOT, check=False
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(("command", "shown"), CONSOLE.findall(TEXT), ids=[command for command, _ in CONSOLE.findall(TEXT)])
def test_a_console_block_is_what_the_program_prints(command: str, shown: str) -> None:
    """Word for word."""
    assert shown == printed(command)


def test_the_main_job_and_the_help_are_shown() -> None:
    """The blocks that nobody may drop."""
    commands = [command for command, _ in CONSOLE.findall(TEXT)]
    assert "advise --gpu v100-16 --train 7b" in commands
    assert "advise --help" in commands


def test_the_python_block_says_what_python_says() -> None:
    """It is a doctest."""
    tests = doctest.DocTestParser().get_doctest(TEXT.replace("```\n", "\n"), {}, "README", str(README), 0)
    assert tests.examples
    runner = doctest.DocTestRunner(verbose=False)
    problems: list[str] = []
    runner.run(tests, out=problems.append)
    assert not problems, "".join(problems)


@pytest.mark.parametrize("line", re.findall(r"^advise .*(?:--train|--infer|gpus|models|rules).*$", TEXT, re.MULTILINE))
def test_every_question_that_is_named_is_one(line: str) -> None:
    """No example is refused, but for files that the reader has."""
    if "./" not in line:
        assert not printed(line).startswith("advise: ")


def test_the_two_lines_are_the_first_code() -> None:
    """One sets up and runs, one passes the tests."""
    assert re.findall(r"```sh\n(.*)\n```", TEXT)[:2] == [RUN_LINE, TEST_LINE]


def test_ci_runs_the_readmes_test_line() -> None:
    """The same line, taken from here: .ci/run looks for the first line that ends in pytest."""
    found = next(line for line in TEXT.splitlines() if "python -m pytest" in line)
    assert found == TEST_LINE
    assert "grep -m 1 'python -m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


def test_the_extra_that_is_named_exists() -> None:
    """oom-advisor[engine] and [dev]."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"engine", "dev"} <= project["optional-dependencies"].keys()


def write() -> None:
    """Put what the program prints into the console blocks."""
    renewed = CONSOLE.sub(lambda block: f"```console\n$ {block[1]}\n{printed(block[1])}```\n", TEXT)
    README.write_text(renewed, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("python tests/test_readme.py --write")
    write()
