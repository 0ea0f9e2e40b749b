"""The card of this machine, asked of a driver that is made up."""

import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from advisor import advise, local_gpu
from advisor.catalog import DRIVER_RESERVE_MIB, find_gpu
from advisor.errors import RequestError

MIB = 2**20


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts an nvidia-smi on the PATH that runs these shell lines; no NVML."""
    local_gpu.local_gpu.cache_clear()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))

    def says(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        local_gpu.local_gpu.cache_clear()

    yield says
    local_gpu.local_gpu.cache_clear()


def test_a_card_of_the_catalogue(smi: Any) -> None:
    """auto is the card by the driver's name, with what is free now in the note."""
    smi('echo "NVIDIA A100-SXM4-80GB, 81920, 80000"')
    gpu = find_gpu("auto")
    assert gpu.slug == "a100-80"
    assert gpu.usable_bytes == find_gpu("a100-80").usable_bytes
    assert "80,000 MiB free" in gpu.note


def test_the_query_asks_for_numbers_alone(smi: Any) -> None:
    """The driver is asked once, for name, total and free memory in MiB without units."""
    smi('[ "$*" = "--query-gpu=name,memory.total,memory.free --format=csv,noheader,nounits" ] && echo "Tesla T4, 15360, 15000"')
    assert find_gpu("AUTO").slug == "t4"


def test_the_driver_is_asked_once_a_process(smi: Any, tmp_path: Path) -> None:
    """A plan of many steps starts one nvidia-smi, not one for every job that it tries."""
    smi(f'echo "Tesla T4, 15360, 15000"; echo asked >> {tmp_path}/log')
    assert len(advise(gpu="auto", train="7b").steps) > 1
    assert (tmp_path / "log").read_text() == "asked\n"


def test_one_name_in_two_sizes(smi: Any) -> None:
    """The driver calls both RTX 4060 Ti the same; the total tells them apart."""
    smi('echo "NVIDIA GeForce RTX 4060 Ti, 16380, 16000"')
    assert find_gpu("auto").slug == "rtx-4060-ti-16"


def test_ecc_takes_from_both(smi: Any) -> None:
    """RTX A6000 with ECC on: 46,068 MiB by nvidia-smi, and the runtime loses as much (45,493 MiB in an Unsloth log)."""
    smi('echo "NVIDIA RTX A6000, 46068, 45000"')
    gpu = find_gpu("auto")
    assert gpu.slug == "a6000"
    assert gpu.total_bytes == 46_068 * MIB
    assert gpu.usable_bytes == pytest.approx(45_493 * MIB, rel=0.001)


def test_newer_drivers_count_more_and_offer_the_same(smi: Any) -> None:
    """V100: 16,384 MiB by newer drivers, 16,160 by older ones, the same for the runtime."""
    smi('echo "Tesla V100-SXM2-16GB, 16384, 16000"')
    assert find_gpu("auto").usable_bytes == find_gpu("v100-16").usable_bytes


def test_a_card_that_is_not_listed(smi: Any) -> None:
    """Its total less the usual reserve, and a note that says so; the first of several."""
    smi('echo "NVIDIA Frobnicator 9000, 50000, 49000"; echo "Tesla T4, 15360, 15000"')
    gpu = find_gpu("auto")
    assert (gpu.slug, gpu.name) == ("auto", "NVIDIA Frobnicator 9000")
    assert gpu.usable_bytes == (50_000 - DRIVER_RESERVE_MIB) * MIB
    assert "first of 2 cards" in gpu.note
    assert "not in the catalogue" in gpu.note


def test_memory_shared_with_the_cpu(smi: Any) -> None:
    """nvidia-smi shows [N/A] for a DGX Spark: the catalogue knows it, and an unlisted card must be given a size."""
    smi('echo "NVIDIA GB10, [N/A], [N/A]"')
    assert find_gpu("auto").usable_bytes == find_gpu("dgx-spark").usable_bytes
    smi('echo "NVIDIA Frobnicator, [N/A], [N/A]"')
    with pytest.raises(RequestError, match="name a size with --gpu"):
        find_gpu("auto")


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found; exit 6", "echo", "printf '\\377\\376,\\n'"])
def test_no_card(smi: Any, script: str) -> None:
    """No driver, no card, or an answer that is none."""
    smi(script)
    with pytest.raises(RequestError, match="no GPU found here; name one with --gpu"):
        find_gpu("auto")


def test_no_driver(smi: Any) -> None:
    """Without nvidia-smi on the PATH there is no card."""
    with pytest.raises(RequestError, match="no GPU found here"):
        find_gpu("auto")


def test_a_driver_that_hangs(smi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that never answers is given up on."""
    monkeypatch.setattr(local_gpu, "TIMEOUT_SECONDS", 0.05)
    smi("while :; do :; done")
    with pytest.raises(RequestError, match="no GPU found here"):
        find_gpu("auto")


class NVMLError(Exception):
    """What pynvml raises."""


def nvml(count: int, fail: bool = False) -> SimpleNamespace:
    def start() -> None:
        if fail:
            raise NVMLError

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=start,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: b"NVIDIA L4",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=23_034 * MIB, free=22_000 * MIB),
    )


def test_nvml_is_asked_first(smi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nvidia-ml-py installed no program is started; without a driver nvidia-smi is tried."""
    smi('echo "Tesla T4, 15360, 15000"')
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1))
    assert find_gpu("auto").slug == "l4"
    local_gpu.local_gpu.cache_clear()
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, fail=True))
    assert find_gpu("auto").slug == "t4"
