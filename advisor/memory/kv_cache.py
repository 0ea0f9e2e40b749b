"""The KV cache: what each layer keeps of each token, and of how many tokens."""

from __future__ import annotations

from advisor.memory.formats import KV_BYTES_PER_32
from advisor.mixers import Attention, LatentAttention
from advisor.model import Layer, Model


def token_elements(layer: Layer, expanded: bool = False) -> int:
    """Cached elements per token: keys and values of the KV heads, or MLA's latent vector and shared rotary key; ``expanded``:
    the keys and values that each head makes of them."""
    mixer = layer.attention
    if isinstance(mixer, LatentAttention):
        if expanded:
            return mixer.heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
        return mixer.kv_rank + mixer.rope_dim
    if isinstance(mixer, Attention) and mixer.causal:
        return 2 * mixer.kv_width
    return 0


def kept_tokens(layer: Layer, tokens: int) -> int:
    """Tokens of a sequence that a layer remembers once decoding goes on.

    transformers' sliding cache holds window − 1 between steps (cache_utils.py, DynamicSlidingWindowLayer).
    """
    window = layer.attention.window if layer.attention else None
    return tokens if window is None else min(tokens, window - 1)


def in_blocks(tokens: int, block: int) -> int:
    """Tokens that whole blocks have room for."""
    return -(-tokens // block) * block


def layer_bytes(layer: Layer, batch: int, tokens: int, precision: str, expanded: bool = False) -> int:
    """Bytes that one layer caches for ``batch`` sequences of ``tokens`` tokens."""
    return batch * tokens * token_elements(layer, expanded) * KV_BYTES_PER_32[precision] // 32


def cache_bytes(model: Model, batch: int, tokens: int, precision: str, *, whole: bool = False, expanded: bool = False) -> int:
    """The cache of all layers; ``whole``: windows are not applied yet, as right after a prefill."""
    return sum(
        many * layer_bytes(layer, batch, tokens if whole else kept_tokens(layer, tokens), precision, expanded)
        for layer, many in model.kinds
    )


def cross_bytes(model: Model, batch: int, tokens: int, precision: str) -> int:
    """What a decoder's layers keep of the ``tokens`` that its encoder has read."""
    elements = sum(many * 2 * layer.cross.kv_width for layer, many in model.kinds if layer.cross)
    return batch * tokens * elements * KV_BYTES_PER_32[precision] // 32


def largest_layer(model: Model, batch: int, tokens: int, precision: str, *, whole: bool = False, expanded: bool = False) -> int:
    """The cache of the layer that has the most of it."""
    return max(
        layer_bytes(layer, batch, tokens if whole else kept_tokens(layer, tokens), precision, expanded)
        for layer, _ in model.kinds
    )
