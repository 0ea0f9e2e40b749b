"""The benchmark of the triage counts as it says, on labels of our own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

benchmark = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "triage" / "run.py")))

MESSAGE = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 8.00 GiB total capacity; 7.50 GiB already allocated; 100.00 MiB free; 7.60 GiB reserved in total by PyTorch)"
LABEL = {
    "id": "ours",
    "fields": {"tried_to_allocate_bytes": 2**31, "free_bytes": 1, "gpu_index": 0},
    "phase": "unknown",
    "phase_in_log": True,
    "root_cause": "real_overflow",
    "cause_decidable_from_log": True,
    "right_remedies": [{"action": "reduce_batch"}, {"action": "reduce_seq"}],
}


def test_the_score_is_counted_measure_by_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A figure that is wrong is one of two, and is named."""
    (tmp_path / "labels.jsonl").write_text(json.dumps(LABEL) + "\n")
    (tmp_path / "ours.log").write_text(MESSAGE)
    benchmark.score(tmp_path / "labels.jsonl", tmp_path, None, verbose=True)
    said = capsys.readouterr().out
    assert "ours: byte fields: free_bytes 1: 104857600" in said
    assert [line.split()[-1] for line in said.splitlines() if " of " in line and "%" in line] == [
        "100.0%",
        "50.0%",
        "100.0%",
        "100.0%",
        "100.0%",
    ]


def test_a_half_is_half(tmp_path: Path) -> None:
    """By the hash of the id: every label is in one of the two."""
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps({**LABEL, "id": f"log {n}"}) + "\n" for n in range(200)))
    halves = [{label["id"] for label in benchmark.labels(file, half)} for half in (0, 1)]
    assert len(halves[0] | halves[1]) == 200
    assert not halves[0] & halves[1]
    assert min(map(len, halves)) > 60


def test_the_generated_log_is_harmless_but_for_its_end() -> None:
    """So that the speed is that of reading."""
    from advisor import diagnose

    log = benchmark.generated(1)
    assert diagnose(log).family == "pytorch-cuda"
    assert not diagnose(log.removesuffix(benchmark.FAILURE.encode())).found
