"""What leaves the card for the host's memory, by what the job offloads and whose habits it follows."""

from __future__ import annotations

from functools import lru_cache

from advisor.errors import RequestError
from advisor.workload import Workload

OF_TRAINING = ("optimizer", "parameters", "activations")
OF_INFERENCE = ("layers", "kv")

NOTHING: frozenset[str] = frozenset()
WITH_PARAMETERS = frozenset({"optimizer", "gradients"})  # what FSDP moves along (torch.distributed.fsdp, CPUOffloadPolicy)
WITH_OPTIMIZER = frozenset({"gradients"})


def refuse_unknown(offload: tuple[str, ...], task: str, engine: str, serving: bool, zero: int) -> None:
    """Raises RequestError where there is nothing to move, or nothing that moves it."""
    for kind in offload:
        if task == "train" and kind not in OF_TRAINING:
            raise RequestError(f"offload: {kind} is for inference; training can move {', '.join(OF_TRAINING)}")
        if task == "infer" and kind not in OF_INFERENCE:
            raise RequestError(f"offload: {kind} has nothing to move in inference; {' and '.join(OF_INFERENCE)} do")
        if kind == "kv" and serving:
            raise RequestError(f"offload: {engine} computes with the KV cache on the card; transformers can move it away")
        if kind == "parameters" and zero < 3:
            raise RequestError("offload: parameters go to the host with ZeRO-3 or FSDP only; add --zero 3")


def moved(w: Workload) -> frozenset[str]:
    """What is not on the card: what is offloaded, and what goes with it.

    ZeRO-Offload runs the optimizer on the CPU, where the gradients then go as soon as they are reduced (Ren et al., arXiv
    2101.06840); FSDP moves gradients and optimizer with the parameters.
    """
    return _moved(w.offload, w.zero, w.sharding) if w.offload else NOTHING


@lru_cache(maxsize=64)
def _moved(offload: tuple[str, ...], zero: int, sharding: str) -> frozenset[str]:
    asked = frozenset(offload)
    if "parameters" in asked and sharding == "fsdp":
        return asked | WITH_PARAMETERS
    if "optimizer" in asked and sharding == "deepspeed" and zero >= 2:
        return asked | WITH_OPTIMIZER
    return asked
