"""The card in this machine, for ``--gpu auto``: asked of the driver, then looked up by name.

The only part of the ground that looks at the machine. It starts nothing on the GPU: a CUDA context
would take memory that the answer is about.
"""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any, NamedTuple

from advisor.catalog import DRIVER_RESERVE_MIB, MIB, find_gpu
from advisor.errors import RequestError
from advisor.hardware import Gpu

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
TIMEOUT_SECONDS = 10
# Driver generations show totals up to 1.4 % apart (V100: 16160 or 16384 MiB) with the same usable memory;
# ECC on GDDR6 takes 6.25 % of both. What is further off is another card of the same name.
SAME_TOTAL = 0.03
SAME_CARD = 0.10


class Seen(NamedTuple):
    """What the driver says of one card."""

    name: str
    total_mib: int
    free_mib: int


@cache
def local_gpu() -> Gpu:
    """The first card of this machine, with the total that its driver reports. Asked once a process: a plan decides many jobs."""
    cards = _by_nvml() or _by_nvidia_smi()
    if not cards:
        raise RequestError("no GPU found here; name one with --gpu")
    return _as_gpu(cards[0], len(cards))


def _by_nvml() -> list[Seen]:
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        try:
            return [_asked(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError, OSError):
        return []  # no driver, or a card that it does not know: nvidia-smi may still


def _asked(pynvml: Any, index: int) -> Seen:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    # bytes up to nvidia-ml-py 11.5
    return Seen(name.decode() if isinstance(name, bytes) else str(name), memory.total // MIB, memory.free // MIB)


def _by_nvidia_smi() -> list[Seen]:
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    fields = [line.rsplit(",", 2) for line in answer.stdout.splitlines()]
    return [Seen(line[0].strip(), _mib(line[1]), _mib(line[2])) for line in fields if len(line) == 3]


def _mib(text: str) -> int:
    """0 where memory is shared with the CPU: there nvidia-smi says ``[N/A]``."""
    return int(text) if text.strip().isdecimal() else 0


def _as_gpu(seen: Seen, cards: int) -> Gpu:
    others = f"; the first of {cards} cards" if cards > 1 else ""
    found = f"found here: {seen.name}, {seen.total_mib:,} MiB, {seen.free_mib:,} MiB free now{others}"
    listed = _listed(seen)
    if listed:
        lost = listed.total_bytes - seen.total_mib * MIB
        if not seen.total_mib or lost <= SAME_TOTAL * listed.total_bytes:
            lost = 0
        return listed._replace(
            total_bytes=listed.total_bytes - lost,
            usable_bytes=listed.usable_bytes - lost,
            note=found + (f"; {listed.note}" if listed.note else ""),
        )
    if seen.total_mib <= DRIVER_RESERVE_MIB:
        raise RequestError(f"the driver does not say how much memory {seen.name} has; name a size with --gpu, such as 24GB")
    return Gpu(
        slug="auto",
        name=seen.name,
        marketed_gb=float(round(seen.total_mib / 1024)),
        total_bytes=seen.total_mib * MIB,
        usable_bytes=(seen.total_mib - DRIVER_RESERVE_MIB) * MIB,
        source="driver of this machine",
        note=f"{found}; not in the catalogue, usable memory is that less {DRIVER_RESERVE_MIB} MiB",
    )


def _listed(seen: Seen) -> Gpu | None:
    """The card of the catalogue; where one name is sold in several sizes, that of the size seen."""
    for name in (seen.name, f"{seen.name} {round(seen.total_mib / 1024)}GB"):
        try:
            gpu = find_gpu(name)
        except RequestError:
            continue
        if not seen.total_mib or abs(gpu.total_bytes / MIB - seen.total_mib) <= SAME_CARD * seen.total_mib:
            return gpu
    return None
