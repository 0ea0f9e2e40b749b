"""What an optimizer keeps for each trained tensor, and what its step takes for a moment."""

from typing import NamedTuple

from advisor.memory.parameters import Weight

BLOCKWISE = "bitsandbytes 8-bit optimizers: blocks of 256 with an fp32 maximum, tensors under 4,096 elements in 32 bits"


class Optimizer(NamedTuple):
    """``states``: copies of the parameters, in their own type; ``bits8``, ``bf16``: such copies instead; ``foreach``: the step takes one
    more copy (torch's multi-tensor loops allocate a result list); ``on_device``: False when states live in paged host memory."""

    states: int
    text: str
    source: str
    bits8: bool = False
    bf16: bool = False
    foreach: bool = False
    factored: bool = False
    on_device: bool = True


BF16_MOMENTS = (
    "Megatron-LM --use-precision-aware-optimizer --exp-avg-dtype bf16 --exp-avg-sq-dtype bf16, DeepSpeed bf16_optimizer_states, "
    "torchtitan fused_opt_states_bf16: fused kernels"
)
ADAM = "torch.optim.AdamW: exp_avg and exp_avg_sq in the parameters' type"
OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer(2, "two moments", f"{ADAM}; _foreach_sqrt makes a copy", foreach=True),
    "adamw-fused": Optimizer(2, "two moments", f"{ADAM}; the fused kernel needs no copy"),
    "adamw-bf16": Optimizer(2, "two moments in bf16", BF16_MOMENTS, bf16=True),
    "adamw-8bit": Optimizer(2, "two 8-bit moments", BLOCKWISE, bits8=True),
    "paged-adamw": Optimizer(2, "two moments in paged host memory", "bitsandbytes paged optimizers", on_device=False),
    "paged-adamw-8bit": Optimizer(2, "two 8-bit moments in paged host memory", BLOCKWISE, bits8=True, on_device=False),
    "sgd": Optimizer(0, "nothing", "torch.optim.SGD without momentum"),
    "sgd-momentum": Optimizer(1, "one momentum", "torch.optim.SGD with momentum"),
    "adafactor": Optimizer(0, "row and column sums", "torch.optim.Adafactor; the foreach step makes a copy", foreach=True, factored=True),
    "lion": Optimizer(1, "one momentum", "bitsandbytes Lion, arXiv 2302.06675"),
    "lion-8bit": Optimizer(1, "one 8-bit momentum", BLOCKWISE, bits8=True),
    "muon": Optimizer(1, "one momentum for matrices, Adam's two for the rest", "torch.optim.Muon"),
    "galore-adamw": Optimizer(2, "two moments of rank 128, and the projection", "galore-torch, arXiv 2403.03507"),
    "none": Optimizer(0, "nothing", "no optimizer"),
}  # fmt: skip
GALORE_RANK = 128


def state_bytes(name: str, weight: Weight, width: int) -> int:
    """Bytes of optimizer state for one tensor whose states are ``width`` bytes an element, wherever they live."""
    optimizer = OPTIMIZERS[name]
    elements = weight.elements
    if optimizer.factored:
        sums = (weight.rows + weight.cols) * weight.copies if weight.cols > 1 else elements
        return width * sums
    if name == "muon" and (weight.cols == 1 or weight.kind in ("embedding", "head")):
        return 2 * width * elements
    if name == "galore-adamw" and min(weight.rows, weight.cols) > GALORE_RANK:
        longer, shorter = max(weight.rows, weight.cols), min(weight.rows, weight.cols)
        return width * GALORE_RANK * (2 * longer + shorter) * weight.copies
    if optimizer.bits8 and elements >= 4096:
        return optimizer.states * (elements + 4 * -(-elements // 256))
    return optimizer.states * (4 if optimizer.bits8 else 2 if optimizer.bf16 else width) * elements


def step_copy(name: str) -> int:
    """Copies of the gradients' size that the step makes and lets go."""
    return 1 if OPTIMIZERS[name].foreach else 0
