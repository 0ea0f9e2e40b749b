"""The table of published measurements: every row is a job with a source, and what the estimate is good at stays good."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from advisor.job import Job

FOLDER = Path(__file__).parents[2] / "benchmarks" / "accuracy"


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    """The benchmark, which is a script and no package."""
    spec = importlib.util.spec_from_file_location("accuracy_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # typing.NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def outcome(accuracy):
    return accuracy.work_out(accuracy.read_rows())


def test_ids_are_unique_and_no_scored_row_is_left_out(accuracy):
    """A published run is in one of the two files, once."""
    scored = [row.id for row in accuracy.read_rows()]
    left = [json.loads(line) for line in (FOLDER / "left_out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(Counter([*scored, *(row["id"] for row in left)]).values()) == 1
    assert all(row["reason"] and row["source"] for row in left)


def test_every_row_is_a_job_with_a_source_and_something_measured(accuracy):
    """Keys are those of a job; sizes are positive whole bytes; an outcome is fit or oom."""
    for row in accuracy.read_rows():
        Job(**row.job)
        assert row.source, row.id
        assert row.measured or row.outcome, row.id
        assert row.outcome in (None, "fit", "oom"), row.id
        assert set(row.measured) <= {"allocated", "reserved", "device", *accuracy.PARTS_OF}, row.id
        for figure in row.measured.values():
            low, high = accuracy.readings(figure)
            assert isinstance(low, int), row.id
            assert 0 < low <= high <= 1.08 * low, row.id  # GB and GiB are 7.4 % apart


def test_every_row_is_estimated_or_refused_by_name(accuracy, outcome):
    """Nothing but a RequestError comes out, and it names the model."""
    assert len(outcome.verdicts) + len(outcome.refused) == len(accuracy.read_rows())
    for row, why in outcome.refused:
        assert row.model in why


def test_models_of_one_publisher_are_not_split(accuracy):
    """Rows that share a model and a page are on the same side."""
    sides: dict[tuple[str, str], set[str]] = {}
    for row in accuracy.read_rows():
        sides.setdefault((row.source, row.model), set()).add(row.split)
    assert all(len(side) == 1 for side in sides.values())
    assert {side for each in sides.values() for side in each} == set(accuracy.SPLIT)


def test_an_error_counts_from_the_nearer_reading(accuracy):
    """Between GB and GiB there is no error; outside, it is relative to the nearer one."""
    assert accuracy.relative_error(105, 100, 107) == 0
    assert accuracy.relative_error(90, 100, 107) == pytest.approx(-0.10)
    assert accuracy.relative_error(214, 100, 107) == pytest.approx(1.0)


def test_llama_cpp_caches_are_exact(outcome):
    """KV caches of llama.cpp logs, with and without sliding windows, are met to the printed rounding."""
    found = [score for score in outcome.scores if score.what == "kv-cache"]
    assert len(found) == 12
    assert max(abs(score.error) for score in found) < 0.001


def test_generation_with_transformers_4_46_stays_within_half_a_percent(accuracy, outcome):
    """Qwen2.5's speed benchmark, 64 rows: the median error was 0.3 % when the floor was set."""
    found = [abs(s.error) for s in outcome.scores if s.row.job.get("engine_version") == "4.46.0" and s.what == "allocated"]
    assert len(found) == 64
    assert accuracy.quantile(found, 0.5) < 0.005
    assert accuracy.quantile(found, 0.9) < 0.025


def test_the_results_are_those_of_this_version(accuracy, outcome):
    """RESULTS.md has the lines that the script would write today (python benchmarks/accuracy/run.py --write)."""
    results = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    for line in accuracy.table(accuracy.by_class(outcome.scores), ["class"] * 9).splitlines()[2:]:
        assert re.sub(r" +", " ", line) in re.sub(r" +", " ", results)


def test_the_readme_tells_what_the_results_tell(accuracy):
    """Its table is that of RESULTS.md, without the bias, and so is the share that the interval holds."""
    results = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    told = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme.splitlines() if line.startswith("| ")]
    told = [cells for cells in told if cells[0] in accuracy.CLASSES]
    assert len(told) == 5
    for cells in told:
        found = next(line for line in results.splitlines() if line.startswith(f"| {cells[0]} "))
        name, figures, median, p90, _, _, held_median, held_p90, _ = [cell.strip() for cell in found.split("|")[1:-1]]
        assert cells == [name, figures, median, p90, held_median, held_p90]
    inside = re.search(r"^\| all +\| 138 +\| (\d+)%", results, re.MULTILINE)
    assert inside
    assert f"holds {inside[1]} % of the device totals" in readme
