"""What the process takes beside its tensors: context, libraries' workspaces, the allocator's slack; and the interval.

Sizes in bytes. Where a figure was read off real runs the source says so; the rest are estimates with a wide range.
"""

import math
from functools import cache, lru_cache
from typing import NamedTuple

from advisor.hardware import Gpu
from advisor.workload import Workload

MIB = 2**20
GIB = 2**30


class Range(NamedTuple):
    """A point estimate and the ends of its 90 % interval, in bytes; how it came about, and who says so."""

    point: int
    low: int
    high: int
    formula: str
    source: str


# CUDA context with lazily loaded modules (CUDA 11.7 and later), by architecture, in MiB: low, point, high.
# It grows with the multiprocessors and with the kernels that a run touches, so only the T4's is sharp.
CONTEXT_MIB = {
    "Turing": (138, 141, 200, "nvidia-smi less reserved on 32 T4 runs of fitcheck-llm 0.3.1: 140.875 MiB in each"),
    "Pascal": (150, 220, 420, "estimated between the T4's and older contexts"),
    "Volta": (250, 330, 560, "estimated; 1,343 MiB before lazy loading (transformers model_memory_anatomy)"),
    "Ampere": (300, 440, 700, "400 to 600 MiB in reports (pytorch issues 107667, 109888)"),
    "Ada": (280, 400, 650, "about 400 MiB (pytorch issue 109888)"),
    "Hopper": (380, 530, 800, "estimated from multiprocessor count"),
    "Blackwell": (380, 560, 900, "estimated from multiprocessor count"),
}
CONTEXT_ELSEWHERE = (250, 450, 900, "estimated: no measurement for this architecture")

# cuBLAS keeps a workspace for each handle and stream, and it comes from the caching allocator.
WORKSPACE = {"Hopper": 32 * MIB, "Blackwell": 32 * MIB}
WORKSPACE_ELSEWHERE = 8_519_680  # 4096 KiB × 2 + 16 KiB × 8: aten/src/ATen/cuda/CublasHandlePool.cpp

# NCCL's buffers per communicator, outside torch: over NVLink, and over PCIe.
NCCL_PAIR, NCCL_MORE, NCCL_PCIE = 544 * 10**6, 688 * 10**6, 200 * 10**6
CUBLAS_SOURCE = "aten/src/ATen/cuda/CublasHandlePool.cpp"
NCCL_SOURCE = "NCCL issue 964: 544 MB for a communicator of two A100, 688 MB for more; 0.13 to 0.25 GB over PCIe"

# Reserved over allocated at the peak, less one: 39 measured training steps (T4, RTX 4080; fitcheck-llm, can-i-finetune-this).
SLACK_16BIT = (0.04, 0.06, 0.14)
SLACK_KBIT = (0.055, 0.11, 0.14)  # the 16-bit copies of embedding and head stay behind as dead blocks
SLACK_SOURCE = "reserved over allocated in 39 measured training steps: 1.04 to 1.14, median 1.06 (k-bit 1.11)"
# Expandable segments leave holes between blocks, but no segment that nothing fits into: estimated from the tidiest of those
# steps to the usual one. The documentation of torch.cuda promises less fragmentation and gives no figure.
EXPANDABLE = "with expandable segments from none to the usual share, which is an estimate"
# Inference allocates its weights once, without waste; what comes and goes is rounded and fragmented like a training step.
SLACK_SERVED = (0.02, 0.10, 0.35)
# With eager attention the score matrices leave holes that nothing else fits: 1 to 3.3 of them, in fp32.
EAGER_SCORES = (1.0, 2.0, 3.3)


def context(w: Workload) -> Range:
    if w.gpu.vendor == "apple":
        return Range(0, 0, 0, "", "no context beside the buffers")
    return _context(w.gpu.architecture, w.engine.libraries_bytes)


@cache
def _context(architecture: str, more: int) -> Range:
    low, point, high, source = CONTEXT_MIB.get(_generation(architecture), CONTEXT_ELSEWHERE)
    text = f"{point} MiB ({low} to {high}) on {architecture or 'this architecture'}"
    if more:
        text += f" + {more:,} B of older libraries' kernels"
    return Range(
        point * MIB + more, low * MIB + more // 2, high * MIB + 3 * more // 2, f"{text}: the driver's state and kernels", source
    )


def _generation(architecture: str) -> str:
    return architecture.split()[0] if architecture else ""


def workspace(w: Workload) -> Range:
    """cuBLAS's workspace. The autograd thread's handle comes to the same stream, and so to the same workspace."""
    if w.gpu.vendor != "nvidia" or w.engine.ggml:
        return Range(0, 0, 0, "", CUBLAS_SOURCE)
    each = WORKSPACE.get(_generation(w.gpu.architecture), WORKSPACE_ELSEWHERE)
    text = "32 MiB" if each == 32 * MIB else "2 × 4,096 KiB + 8 × 16 KiB"
    return Range(each, each, each, f"{text}: for the handle of one stream", CUBLAS_SOURCE)


def nccl(w: Workload) -> Range:
    """Communicators: none on one GPU, none where layers are handed on by plain copies, else one for each way of dividing."""
    groups = communicators(w)
    if not groups or w.gpu.vendor == "apple":
        return Range(0, 0, 0, "", NCCL_SOURCE)
    return _nccl(linked(w.gpu), tuple(groups.items()))


@lru_cache(maxsize=1024)
def _nccl(linked: bool, groups: tuple[tuple[str, int], ...]) -> Range:
    pair, more = (NCCL_PAIR, NCCL_MORE) if linked else (NCCL_PCIE, NCCL_PCIE)
    sizes = [pair if ranks == 2 else more for _, ranks in groups]
    point = sum(sizes)
    named = " and ".join(f"{ranks} GPUs ({name})" for name, ranks in groups)
    many = "a communicator" if len(groups) == 1 else "communicators"
    text = f"{' + '.join(f'{size:,} B' for size in sizes)}: NCCL buffers for {many} of {named}"
    return Range(point, point // 2, 2 * point, text, NCCL_SOURCE)


def communicators(w: Workload) -> dict[str, int]:
    """The groups of ranks that talk, and how many are in each. NCCL gives every communicator buffers of its own (NCCL issue 986)."""
    ways = {"tp": w.tp, "pp": w.pp}
    if w.task == "train":
        ways |= {"cp": w.cp, "ep": w.ep, "dp": w.data_parallel}
    elif w.engine.serving:
        ways["ep"] = w.ep
    return {name: ranks for name, ranks in ways.items() if ranks > 1}


def linked(gpu: Gpu) -> bool:
    """Whether the cards of a machine talk over NVLink or Infinity Fabric. Of a card known by its size alone: most of those sold
    as 80 GB and more do."""
    return bool(gpu.link) or (not gpu.vendor and gpu.marketed_gb >= 80)


def slack(w: Workload, allocated: int, moving: int) -> Range:
    """Reserved by the caching allocator and not allocated. ``moving``: allocated bytes that come and go during a run."""
    if w.engine.ggml:
        return Range(0, 0, 0, "", "buffers are allocated once, at their size")
    shares, base, of_what = SLACK_16BIT, allocated, "allocated"
    if w.task == "infer":
        shares, base, of_what = SLACK_SERVED, moving, "that come and go"
    elif w.quantization != "none":
        shares = SLACK_KBIT
    shares = _left(shares, w)
    # Waste is where blocks come and go: where most of the memory is weights, it can be as little as a share of the rest.
    low, point, high = shares[0] * moving, shares[1] * base, shares[2] * base
    text = f"{base:,} B × {shares[1]:g}"
    if w.task == "train" and w.attention == "eager":
        heads = max((getattr(layer.attention, "heads", 0) for layer, _ in w.model.kinds), default=0) // w.tp
        holes = _left(EAGER_SCORES, w)
        scores = 4 * w.sequences * heads * (-(-max(w.source, w.length) // w.cp)) ** 2
        low, point, high = (part + many * scores for part, many in zip((low, point, high), holes, strict=True))
        text, of_what = (
            f"{text} + {holes[1]:g} × {scores:,} B",
            f"{of_what}, and holes of the size of the score matrices",
        )
    source = f"{SLACK_SOURCE}; {EXPANDABLE}" if w.allocator == "expandable" else SLACK_SOURCE
    return Range(round(point), round(low), round(high), f"{text}: a share of the bytes {of_what}", source)


def _left(shares: tuple[float, float, float], w: Workload) -> tuple[float, float, float]:
    """Low, point and high of what the allocator wastes; expandable segments take each down to the one before."""
    return (0.0, shares[0], shares[1]) if w.allocator == "expandable" else shares


def model_error(w: Workload) -> tuple[float, float]:
    """How far allocated memory itself may be off, as shares below and above, at 90 %.

    Known engine, one GPU: −2 to +4 % of measured rows; several GPUs −4 to +15 %.
    """
    several = w.gpus > 1
    return (0.04, 0.10) if several else (0.02, 0.04)


def interval(device: int, confidence: float, errors: list[tuple[float, float]]) -> tuple[int, int]:
    """The central interval around ``device``: independent errors, added in quadrature, each side for itself."""
    scale = _widths(confidence)
    below, above = (round(scale * math.hypot(*side)) for side in zip(*errors, strict=True))
    return max(0, device - below), device + above


def _widths(confidence: float) -> float:
    """Half-width of the central interval of a normal distribution, in units of the 90 % one."""
    if confidence == 0.9:
        return 1.0
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + confidence / 2) / NormalDist().inv_cdf(0.95)
