"""Lightning attention, written with shadow operations (MiniMaxLightningAttention of transformers 5.23).

All is in the computing type: within a block of tokens scores as in attention without a softmax, between blocks a state.
"""

from __future__ import annotations

from advisor.memory import operations as ops
from advisor.memory.convolution import copied
from advisor.memory.extent import times
from advisor.memory.net import Net
from advisor.memory.operations import per_sequence, per_token
from advisor.memory.shadow import Tensor, op
from advisor.mixers import LightningAttention


def lightning(net: Net, a: LightningAttention, x: Tensor, hidden: int) -> Tensor:
    mixed = ops.activation(net.linear("qkv_proj", x, 3 * a.width), "silu")
    blocks = by_blocks(net, a, mixed)
    net.remembered(per_sequence(a.state_elements), mixed.width)
    out = copied(blocks)  # put together
    del blocks
    out = net.norm("rms", copied(out))
    out = ops.multiply(ops.sigmoid(net.linear("output_gate", x, a.width)), out)
    del mixed
    return net.linear("out_proj", out, hidden)


def by_blocks(net: Net, a: LightningAttention, mixed: Tensor) -> Tensor:
    """The loop over the blocks, as one operation. Of each the products keep copies of queries, keys and values as they are and
    decayed, laid out head by head (values twice), the scores, and the state before it.

    Its backward pass writes a gradient as large as the whole for each block's slice and adds them up out of place.
    """
    width = mixed.width
    states = per_token(-(-a.state_elements // a.block))
    kept = []
    if mixed.tape.grad:
        kept = [net.tape.tensor(per_token(6 * a.width), width), net.tape.tensor(per_token(a.heads * a.block), width)]
        kept.append(net.tape.tensor(states, width))
    working = net.tape.tensor(per_sequence(a.block * (4 * a.width + a.heads * a.block) + 2 * a.state_elements), width)
    gradients = times(per_token(3 * a.width), 2 * width)
    out = op([mixed], per_token(a.width), width, kept, scratch=gradients)
    del working
    return out
