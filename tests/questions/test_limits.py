"""How far batch and sequence can go: what is named fits by `estimate`, and the next does not."""

from __future__ import annotations

from typing import Any

import pytest

from advisor import RequestError, estimate, limits

JOBS: dict[str, dict[str, Any]] = {
    "transformers": {"gpu": "rtx-4090", "infer": "qwen3-8b"},
    "a prompt shorter than the sequence": {"gpu": "rtx-4090", "infer": "qwen3-8b", "prompt": 512},
    "vllm, KV cache in blocks": {"gpu": "a100-40", "infer": "llama-3.1-8b", "engine": "vllm", "batch": 4},
    "llama.cpp, cells in 256s": {"gpu": "rtx-3060", "infer": "qwen3-8b", "engine": "llama.cpp", "quantization": "q4_k_m"},
    "sliding windows": {"gpu": "a100-80", "infer": "gemma-3-27b"},
    "two GPUs": {"gpu": "a100-40", "gpus": 2, "infer": "llama-3.1-8b", "engine": "vllm", "tp": 2},
    "full training": {"gpu": "h200", "train": "llama-3.1-8b", "checkpointing": "full"},
    "LoRA": {"gpu": "a100-80", "train": "llama-3.1-8b", "method": "lora"},
    "two micro-steps with ZeRO": {"gpu": "a100-80", "gpus": 4, "zero": 3, "train": "llama-3.1-8b", "accumulation": 2},
    "an encoder": {"gpu": "v100-16", "train": "bert-base"},
    "less certain": {"gpu": "rtx-4090", "infer": "qwen3-8b", "confidence": 0.99},
    "the guide's formulas": {"gpu": "a100-80", "infer": "13b", "estimator": "checklist"},
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_each_limit_fits_and_the_next_does_not(job: dict[str, Any]) -> None:
    """By the estimate that the verdict is made of, with its confidence."""
    found = limits(**job)
    assert found.batch
    assert found.seq
    seq, batch = found.job["seq"], found.job["batch"]
    for edge, last, beyond in (
        (found.batch, {"seq": seq, "batch": found.batch.value}, {"seq": seq, "batch": found.batch.value + 1}),
        (found.seq, {"batch": batch, "seq": found.seq.value}, {"batch": batch, "seq": found.seq.value + 1}),
    ):
        here, there = (estimate(**{**job, **changed}) for changed in (last, beyond))
        assert (here.fits, there.fits) == (True, False)
        assert (here.high_bytes, there.high_bytes) == (edge.high_bytes, edge.next_high_bytes)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_the_frontier_is_made_of_edges(job: dict[str, Any]) -> None:
    """Each length is the longest of its batch; a larger batch has shorter ones; both limits stand on it."""
    found = limits(**job)
    points = found.frontier
    assert found.batch
    assert found.seq
    assert (found.job["batch"], found.seq.value) in points
    assert found.batch.value in dict(points)
    assert [seq for _, seq in points] == sorted((seq for _, seq in points), reverse=True)
    for batch, seq in points[:: max(1, len(points) // 3)]:
        assert estimate(**{**job, "batch": batch, "seq": seq}).fits
        assert not estimate(**{**job, "batch": batch, "seq": seq + 1}).fits


def test_more_memory_never_allows_less() -> None:
    """Of cards that are known by their size alone."""
    found = [limits(gpu=f"{size}GB", infer="llama-3.2-3b") for size in (10, 12, 16, 24, 48)]
    batches = [each.batch.value for each in found if each.batch]
    lengths = [each.seq.value for each in found if each.seq]
    assert batches == sorted(batches)
    assert lengths == sorted(lengths)
    assert len(batches) == len(lengths) == 5


def test_more_certainty_never_allows_more() -> None:
    """The wider the interval, the less fits for sure."""
    lengths = [
        each.seq.value
        for confidence in (0.5, 0.9, 0.99)
        if (each := limits(gpu="rtx-4090", infer="qwen3-8b", confidence=confidence)).seq
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 3


def test_what_is_to_be_kept_stays() -> None:
    """The other one is looked for, and the frontier is one point."""
    kept = limits(gpu="rtx-4090", infer="qwen3-8b", keep="batch")
    assert kept.batch is None
    assert kept.seq
    assert kept.frontier == ((1, kept.seq.value),)
    kept = limits(gpu="rtx-4090", infer="qwen3-8b", keep="seq")
    assert kept.seq is None
    assert kept.batch
    assert kept.frontier == ((kept.batch.value, 4096),)
    kept = limits(gpu="rtx-4090", infer="qwen3-8b", keep="seq,batch")
    assert (kept.batch, kept.seq, kept.frontier, kept.exit_code) == (None, None, ((1, 4096),), 0)


def test_nothing_fits_is_said() -> None:
    """A model that is larger than the card."""
    found = limits(gpu="rtx-4090", infer="llama-3.1-70b")
    assert (found.batch, found.seq, found.frontier, found.exit_code) == (None, None, (), 3)


def test_less_of_both_is_an_answer() -> None:
    """A job that is too long for its batch and too wide for its length has a frontier."""
    found = limits(gpu="rtx-4090", infer="qwen3-8b", batch=4096, seq="128k", prompt=64)
    assert (found.batch, found.seq, found.exit_code) == (None, None, 0)
    assert found.frontier


def test_where_memory_sets_no_limit_that_is_said() -> None:
    """Mamba's state does not grow with what it writes."""
    found = limits(gpu="a100-80", infer="falcon-mamba-7b", prompt=100)
    assert found.seq
    assert (found.seq.value, found.seq.next_high_bytes) == (2**31, None)
    assert any("no limit" in note for note in found.notes)


def test_a_length_beyond_the_models_own_has_a_note() -> None:
    """BERT has 512 positions."""
    assert any("made for 512" in note for note in limits(gpu="a100-80", infer="bert-base").notes)


@pytest.mark.parametrize("job", [{}, {"gpu": "a100-80"}, {"infer": "7b"}, {"gpu": "a100-80", "infer": "no-such-model"}])
def test_bad_requests_are_refused_in_one_line(job: dict[str, Any]) -> None:
    """As everywhere."""
    with pytest.raises(RequestError) as refusal:
        limits(**job)
    assert "\n" not in str(refusal.value)
