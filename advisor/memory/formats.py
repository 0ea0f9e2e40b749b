"""Number formats: bytes of a tensor in each, with the scales and zero points that come with it."""

from collections.abc import Callable
from typing import NamedTuple

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


class Format(NamedTuple):
    """A quantized format. ``tensors(rows, cols)``: sizes in bytes of the tensors that stand for one matrix.

    ``everything``: the embedding and the head are quantized too (GGUF); ``of_experts``: in a mixture of experts nothing but the
    experts is; ``unpacks``: a 16-bit copy of the matrix at hand is made for each product; ``buffer``: one such copy is kept for
    good by AutoGPTQ's kernels; ``stores_head``: checkpoints have a head of their own where the model ties it to the embedding.
    """

    tensors: Callable[[int, int], tuple[int, ...]]
    text: str
    source: str
    everything: bool = False
    of_experts: bool = False
    stores_head: bool = False
    unpacks: bool = False
    buffer: bool = False
    kbit: bool = False  # bitsandbytes: PEFT's k-bit preparation applies


BNB = "bitsandbytes 0.50: blocks of 64 with an fp32 maximum; nested: 8-bit maxima, in blocks of 256"
GPTQ = "GPTQ checkpoints with groups of 128: 16-bit scales, packed zero points, group index (AutoGPTQ)"
OCP = "OCP Microscaling 1.0: blocks of 32 with an 8-bit scale; gpt-oss: the experts only (transformers quantizer_mxfp4.py)"


def _gptq(bits: int, index: bool) -> Callable[[int, int], tuple[int, ...]]:
    def tensors(rows: int, cols: int) -> tuple[int, ...]:
        groups = _ceil(cols, 128)
        zeros = rows * groups * bits // 8
        return (rows * cols * bits // 8, 2 * rows * groups, zeros, *((4 * cols,) if index else ()))

    return tensors


def _bits(per_weight: float) -> Callable[[int, int], tuple[int, ...]]:
    return lambda rows, cols: (round(rows * cols * per_weight / 8),)


QUANTIZE = "llama.cpp src/llama-quant.cpp; bits per weight of Llama-3.1-8B: tools/quantize/README.md"


def _gguf(per_weight: float) -> Format:
    return Format(
        _bits(per_weight), f"{per_weight:g} bits a weight, a mixture of types, vectors in fp32", QUANTIZE, everything=True
    )


FORMATS: dict[str, Format] = {
    "int8": Format(lambda r, c: (r * c, 4 * r), "1 B a weight and an fp32 scale per row", "LLM.int8, arXiv 2208.07339", kbit=True),
    "nf4": Format(lambda r, c: (_ceil(r * c, 2), 4 * _ceil(r * c, 64)), "4.5 bits a weight", BNB, unpacks=True, kbit=True),
    "nf4-dq": Format(
        lambda r, c: (_ceil(r * c, 2), _ceil(r * c, 64), 4 * _ceil(r * c, 64 * 256)),
        "4.127 bits a weight",
        BNB,
        unpacks=True,
        kbit=True,
    ),
    "fp8": Format(
        lambda r, c: (r * c, 4 * _ceil(r, 128) * _ceil(c, 128)),
        "1 B a weight and an fp32 scale per 128 × 128",
        "DeepSeek-V3 block-wise FP8, arXiv 2412.19437",
        stores_head=True,
    ),
    "gptq-int4": Format(_gptq(4, True), "4.16 bits a weight", GPTQ, buffer=True),
    "gptq-int8": Format(_gptq(8, True), "8.19 bits a weight", GPTQ),
    "awq-int4": Format(_gptq(4, False), "4.16 bits a weight", "AWQ checkpoints with groups of 128 (AutoAWQ)"),
    "mxfp4": Format(lambda r, c: (r * _ceil(c, 32) * 16, r * _ceil(c, 32)), "4.25 bits a weight", OCP, of_experts=True),
    "nvfp4": Format(
        lambda r, c: (_ceil(r * c, 2), r * _ceil(c, 16), 4, 4),
        "4.5 bits a weight",
        "NVFP4: blocks of 16 with an FP8 scale, an fp32 scale each for weights and inputs (NVIDIA ModelOpt)",
    ),
    **{name: _gguf(bits) for name, bits in {
        "q8_0": 8.5, "q6_k": 6.56, "q5_k_m": 5.70, "q5_k_s": 5.57, "q5_1": 6.0, "q5_0": 5.5, "q4_k_m": 4.89, "q4_k_s": 4.67,
        "q4_1": 5.0, "q4_0": 4.5, "iq4_nl": 4.68, "iq4_xs": 4.46, "q3_k_l": 4.30, "q3_k_m": 4.00, "q3_k_s": 3.64,
        "iq3_m": 3.76, "iq3_xxs": 3.25, "q2_k": 3.16, "iq2_m": 2.93, "iq2_xxs": 2.38,
    }.items()},
}  # fmt: skip

# Bytes per 32 cached elements: llama.cpp's blocks hold 32 with an fp16 scale.
KV_BYTES_PER_32 = {"fp32": 128, "fp16": 64, "bf16": 64, "fp8": 32, "int8": 32, "q8_0": 34, "q4_0": 18}
