"""What FSDP and ZeRO gather and send, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory import collectives
from advisor.memory.recipe import recipe_of
from advisor.memory.sharding import ranks
from advisor.workload import Workload, resolve

LAYER = 8192 * (2 * 8192 + 2 * 1024 + 3 * 28672 + 2)  # parameters of one of Llama-3.1 70B's, with its two norms
TABLE = 128_256 * 8192


def workload(**keys: Any) -> Workload:
    return resolve(Job(**{"gpu": "a100-80", "gpus": 8, "train": "llama-3.1-70b", "zero": 3, "sharding": "fsdp", **keys}))


def gathered(w: Workload) -> int:
    return collectives.gathered(w, next(ranks(w)), recipe_of(w))


def test_what_fsdp_gathers() -> None:
    """The layer at work, the next one, and the root's embedding, head and norm; torchtune's recipes for full training have embedding
    and head in units of their own (custom_sharded_layers), so that one of them and a layer are the most."""
    assert gathered(workload(engine="trainer")) == pytest.approx(2 * (2 * LAYER + 2 * TABLE), rel=1e-3)
    assert gathered(workload(engine="torchtune")) == pytest.approx(2 * (LAYER + TABLE), rel=1e-3)
    assert gathered(workload(engine="torchtune", method="lora")) == pytest.approx(2 * (2 * LAYER + 2 * TABLE), rel=1e-3)


@pytest.mark.parametrize(("engine", "width"), [("torchtune", 2 + 2), ("torchtitan", 2 + 4)])
def test_what_fsdp_reduces(engine: str, width: int) -> None:
    """A layer's whole gradients, and the buffer of the one before: in their type, or fp32 with torchtitan (mixed_precision_reduce)."""
    w = workload(engine=engine)
    assert collectives.unreduced(w, next(ranks(w)), recipe_of(w)) == pytest.approx(width * LAYER, rel=1e-3)


def test_a_published_run_with_everything_on_the_host() -> None:
    """torchtune's README: Llama-3.1 70B in full on eight A100s with fsdp_cpu_offload, 13.9 GiB allocated on each."""
    w = workload(
        engine="torchtune", offload="optimizer,parameters", batch=2, checkpointing="full", loss="chunked", compile=True
    )
    assert estimate_workload(w).allocated_bytes == pytest.approx(13.9 * 2**30, rel=0.045)


def test_zero_3_gathers_up_to_a_billion() -> None:
    """stage3_max_live_parameters, 1e9 by default."""
    assert gathered(workload(sharding="deepspeed")) == 2 * 10**9


@pytest.mark.parametrize(("engine", "late"), [("trainer", True), ("litgpt", True), ("torchtune", False)])
def test_who_reduces_in_the_last_micro_step_only(engine: str, late: bool) -> None:
    """accelerate's and Lightning's no_sync: between micro-steps FSDP's gradients are whole, 2 bytes a parameter, not an eighth of it."""
    parts = {
        part.name: part.bytes for part in estimate_workload(workload(engine=engine, precision="bf16", accumulation=4)).parts
    }
    whole = 2 * (80 * LAYER + 2 * TABLE + 8192)
    assert parts["gradients"] == pytest.approx(whole if late else whole / 8, rel=0.02)
