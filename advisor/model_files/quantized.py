"""The ``quantization_config`` of a published checkpoint to the name that a job has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.errors import RequestError

# (quant_method, bits or algorithm) -> our name. Sources: transformers ``utils/quantization_config.py``, NVIDIA ModelOpt.
_NAMES = {
    ("gptq", "4"): "gptq-int4",
    ("gptq", "8"): "gptq-int8",
    ("auto-round", "4"): "gptq-int4",
    ("awq", "4"): "awq-int4",
    ("bitsandbytes", "4"): "nf4",  # fp4 has the same layout
    ("bitsandbytes", "4-dq"): "nf4-dq",
    ("bitsandbytes", "8"): "int8",
    ("fp8", ""): "fp8",
    ("fbgemm_fp8", ""): "fp8",
    ("mxfp4", ""): "mxfp4",
    ("compressed-tensors", "float8"): "fp8",
    ("compressed-tensors", "float4"): "nvfp4",
    ("compressed-tensors", "int8"): "int8",
    ("compressed-tensors", "int4"): "int4",
    ("modelopt", "FP8"): "fp8",
    ("modelopt", "NVFP4"): "nvfp4",
}


def published_quantization(config: Mapping[str, Any]) -> str:
    """The format of the checkpoint's weights, ``none`` for a plain one."""
    settings = config.get("quantization_config")
    if settings is None:
        return "none"
    if not isinstance(settings, Mapping):
        raise RequestError("quantization_config must be an object")
    method, detail = _method(settings)
    try:
        return _NAMES[method, detail]
    except KeyError:
        raise RequestError(
            f"the quantization {method!r} {detail} of this checkpoint is not estimated yet".replace("  ", " ")
        ) from None


def _method(settings: Mapping[str, Any]) -> tuple[str, str]:
    # ModelOpt's older files name the algorithm only
    method = str(settings.get("quant_method") or ("modelopt" if "quant_algo" in settings else "without a method"))[:40]
    if method == "bitsandbytes":
        if settings.get("load_in_4bit") is True:
            return method, "4-dq" if settings.get("bnb_4bit_use_double_quant") is True else "4"
        return method, "8" if settings.get("load_in_8bit") is True else ""
    if method == "compressed-tensors":
        return method, _group(settings.get("config_groups"))
    if method in ("fp8", "fbgemm_fp8", "mxfp4"):
        return method, ""
    return method, str(settings.get("quant_algo") or settings.get("bits") or "")[:20]


def _group(groups: object) -> str:
    """Type and width of the first group's weights, such as int4."""
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            return f"{weights.get('type')}{weights.get('num_bits')}"[:20]
    return ""
