"""Around the tensors: context, workspace, NCCL, slack, interval."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.job import Job
from advisor.memory import runtime
from advisor.memory.correction import NONE, Around
from advisor.workload import Workload, resolve

MIB = 2**20


def workload(gpu: str = "a100-80", **keys: Any) -> Workload:
    return resolve(Job(**{"gpu": gpu, "train": "llama-3.2-1b", **keys}))


def test_a_t4_context() -> None:
    """141 MiB, as nvidia-smi showed beside the allocator in all 32 T4 runs of fitcheck-llm 0.3.1."""
    assert runtime.context(workload("t4")).point == 141 * MIB


def test_cublas_workspace() -> None:
    """8.125 MiB for a handle, 32 MiB on Hopper (CublasHandlePool.cpp)."""
    assert runtime.workspace(workload()).point == 8_519_680
    assert runtime.workspace(workload("h100-80")).point == 32 * MIB


def test_nccl_needs_company() -> None:
    """Nothing on one GPU; 544 MB for a pair of A100s, 688 MB for more (NCCL issue 964)."""
    assert [runtime.nccl(workload(gpus=gpus)).point for gpus in (1, 2, 8)] == [0, 544_000_000, 688_000_000]


@pytest.mark.parametrize(("gpu", "bytes_"), [("v100-32", 688_000_000), ("v100-32-pcie", 200_000_000), ("l40s", 200_000_000)])
def test_what_nccl_takes_hangs_on_the_link(gpu: str, bytes_: int) -> None:
    """A V100 SXM2 has NVLink; the PCIe card and the L40S have none."""
    assert runtime.nccl(workload(gpu, gpus=8)).point == bytes_


def test_every_way_of_dividing_has_its_communicator() -> None:
    """tp 2, pp 2 and two data-parallel ranks: three pairs."""
    divided = workload(gpus=8, tp=2, pp=2)
    assert runtime.communicators(divided) == {"tp": 2, "pp": 2, "dp": 2}
    assert runtime.nccl(divided).point == 3 * 544_000_000


def test_layers_in_a_chain_need_no_communicator() -> None:
    """transformers hands hidden states on by copies between devices."""
    assert runtime.nccl(workload(train=None, infer="llama-3.2-1b", gpus=2)).point == 0


def test_eager_attention_leaves_holes() -> None:
    """Two fp32 score matrices more are reserved: 4 bytes × batch × heads × sequence²."""
    fused, eager = workload(seq=4096), workload(seq=4096, attention="eager")
    more = runtime.slack(eager, 10**10, 0).point - runtime.slack(fused, 10**10, 0).point
    assert more == 2 * 4 * 32 * 4096 * 4096


@pytest.mark.parametrize("keys", [{}, {"attention": "eager"}, {"method": "qlora"}])
def test_expandable_segments_waste_less(keys: dict[str, Any]) -> None:
    """An estimate: each end of the range is the one before; the tidiest of the measured steps is the usual one."""
    usual, less = (runtime.slack(workload(**keys, allocator=kind), 10**9, 10**9) for kind in ("default", "expandable"))
    assert (less.low, less.point, less.high) == (0, usual.low, usual.point)
    assert "estimate" in less.source
    assert "estimate" not in usual.source


def test_the_interval_is_longer_upwards() -> None:
    """Hidden allocations are missed more often than invented: measured rows lie 2 % below to 4 % above."""
    none = Around(*[runtime.Range(0, 0, 0, "", "")] * 3)
    low, high = runtime.interval(10**10, 0.9, NONE.errors(workload(), 10**10, none))
    assert (10**10 - low, high - 10**10) == (200_000_000, 400_000_000)


@pytest.mark.parametrize(("confidence", "factor"), [(0.9, 1.0), (0.5, 0.41), (0.99, 1.57)])
def test_confidence_scales_the_interval(confidence: float, factor: float) -> None:
    """By the quantiles of a normal distribution."""
    low, _ = runtime.interval(10**10, confidence, [(200_000_000, 400_000_000)])
    assert (10**10 - low) / 200_000_000 == pytest.approx(factor, abs=0.01)
