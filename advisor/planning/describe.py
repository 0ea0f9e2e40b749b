"""What a plan tells of its job: the model, the budget, and amounts of memory in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.model import Model
    from advisor.results import Estimate
    from advisor.workload import Workload

LARGEST = 3  # parts that are named


def amount(size: int, w: Workload) -> str:
    """``12.6 GiB``; the two handbook estimators speak their guide's GB."""
    return f"{size / 2**30:.1f} GiB" if w.estimator == "detailed" else f"{size / 10**9:.1f} GB"


def makeup(estimate: Estimate, w: Workload) -> str:
    """The largest parts of an estimate, in words."""
    largest = sorted(estimate.parts, key=lambda part: -part.bytes)[:LARGEST]
    return ", ".join(f"{part.name} {amount(part.bytes, w)}" for part in largest) or "nothing"


def budget(w: Workload) -> tuple[int, int]:
    """Total and usable bytes of the card, as the job's estimator counts them."""
    if w.estimator == "detailed":
        return w.gpu.total_bytes, w.usable_bytes
    from advisor.memory.handbook import budget_bytes

    nominal = budget_bytes(w)
    return nominal, nominal


def describe_model(model: Model) -> dict[str, Any]:
    """The model in plain values. Heads are those of the first layer that has attention."""
    from advisor.memory.parameters import active_parameters, parameter_count

    mixer = next((layer.attention for layer in model.layers if layer.attention), None)
    heads = getattr(mixer, "heads", None)
    return {
        "name": model.name,
        "model_type": model.model_type,
        "parameters": parameter_count(model),
        "active_parameters": active_parameters(model),
        "hidden": model.hidden,
        "layers": len(model.layers),
        "heads": heads,
        "kv_heads": getattr(mixer, "kv_heads", heads),
        "vocab": model.vocab,
        "max_context": model.max_context,
        "dtype": model.dtype,
        "source": model.source,
    }
