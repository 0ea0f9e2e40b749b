"""What the command loads before it answers. Nothing here looks at a clock."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pydantic", "pydantic_core", "durable", "durable_rules_engine", "tabulate")
LOADED = f"""
import sys
from advisor.cli.run import run
code = run(sys.argv[1:])
loaded = [name for name in {HEAVY} if name in sys.modules]
print(code, *loaded, file=sys.stderr)
"""


def loaded(*words: str) -> list[str]:
    """The heavy modules that a command loads."""
    ended = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True)
    return ended.stderr.split()[1:]


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["--version"], ["gpus", "--help"], ["rules", "--help"], ["models", "--help"], ["largest", "--help"]],
)
def test_help_and_version_load_nothing_heavy(words: list[str]) -> None:
    """Neither pydantic nor the rules engine nor tabulate."""
    if words == ["--version"] and sys.version_info >= (3, 13):
        pytest.skip("there only loading the engine tells whether it loads")
    assert loaded(*words) == []


def test_lists_load_only_what_lays_them_out() -> None:
    """No job is made, so nothing checks one."""
    assert loaded("gpus", "v100") == ["tabulate"]
    assert loaded("gpus", "v100", "--format", "json") == []


def test_json_needs_no_tables() -> None:
    """The layout is not loaded for programs."""
    assert "tabulate" not in loaded("--gpu", "v100-16", "--infer", "7b", "--estimator", "quick", "--format", "json")


def test_a_job_that_fits_needs_no_rules() -> None:
    """The walk is over before it begins."""
    assert "durable_rules_engine" not in loaded("--gpu", "a100-80", "--infer", "7b", "--estimator", "quick")


def test_a_plan_needs_no_schema() -> None:
    """A job checks its own keys; the form of the rule files is checked where they are shown, and by the tests."""
    assert "pydantic" not in loaded("--gpu", "v100-16", "--train", "7b", "--estimator", "quick")
    assert "pydantic" in loaded("rules", "T1")


def test_importing_the_package_loads_nothing() -> None:
    """Names are found when they are asked for."""
    code = f"import sys, advisor; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
