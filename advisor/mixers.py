"""What a layer mixes its tokens with, as facts: attention of some kind, a recurrence, or both. Sizes are counts of elements and heads."""

from typing import Literal, NamedTuple


class Distances(NamedTuple):
    """DeBERTa's attention (arXiv 2006.03654): queries and keys meet each other, and both meet those of a table of distances."""

    span: int  # half the rows of the table, which all layers share
    to_keys: bool  # c2p: a query meets the keys of distances
    to_queries: bool  # p2c: a key meets the queries of distances
    shared: bool  # the content's projections make both; else each has one of its own
    dropout: float = 0.0  # on the table, anew in each layer


class Attention(NamedTuple):
    """Softmax attention over keys and values that are cached as they are (MHA, GQA, MQA)."""

    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False  # on q, k and v
    out_bias: bool = False
    qk_norm: Literal["head", "projection", "per-head"] | None = None  # weights: head_dim each, all q and k, or one per head
    window: int | None = None  # tokens that a query can see; None: all
    softcap: bool = False  # Gemma 2's tanh on the scores: no fused kernel
    sinks: bool = False  # gpt-oss: one learned logit per head
    fused: bool = False  # one projection makes q, k and v
    copies_heads: bool = False  # Falcon picks its heads out of the fused projection by index, which copies them
    rotary: bool = True
    partial_rotary: bool = False  # queries are put together again after the rotation, which changes their layout
    dropout: float = 0.0
    softmax_fp32: bool = True  # eager attention's softmax; GPT-2 leaves it in the scores' type
    output_gate: bool = False  # Qwen3-Next: q_proj makes a gate of the same width too
    causal: bool = True  # False: every token sees all others, as in an encoder
    drops_output: bool = True  # False in DistilBERT: no dropout behind it
    fp32_rotary: bool = False  # ModernBERT rotates queries and keys in fp32
    position_bias: Literal["shared", "own"] | None = None  # T5 adds a learned number for each head and distance to the scores,
    # from one table for a stack, or from each layer's own; in cross-attention they are all zero
    buckets: int = 0  # rows of the table, in the layers that have one
    unbiased_keys: bool = False  # Whisper: no bias on k where q and v have one
    head_by_head: bool = (
        False  # Whisper scales its queries itself, and lays queries, keys and values out anew, a head after the other
    )
    disentangled: bool = False  # DeBERTa: no kernel but the code of transformers
    distances: Distances | None = None

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim


class LatentAttention(NamedTuple):
    """DeepSeek's multi-head latent attention: keys and values live in one compressed vector per token."""

    heads: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    query_rank: int | None = None
    fp32_rotary: bool = False  # DeepSeek-V2 rotates complex numbers in fp32
    rotary: bool = True

    window: int | None = None


class DeltaRule(NamedTuple):
    """Gated delta rule (arXiv 2412.06464): a short convolution, then one state matrix of key × value for each value head."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    joined: bool  # Qwen3-Next: one projection for queries, keys, values and gate, another for the two scalars of a head
    apart: bool = False  # OLMo Hybrid: a projection for each of them; its betas are doubled

    @property
    def shared_heads(self) -> int:
        """Heads that tensor parallelism deals out."""
        return self.value_heads

    @property
    def key_width(self) -> int:
        return self.key_heads * self.key_dim

    @property
    def value_width(self) -> int:
        return self.value_heads * self.value_dim

    @property
    def mixed_width(self) -> int:
        """Channels of the convolution."""
        return 2 * self.key_width + self.value_width

    @property
    def state_elements(self) -> int:
        return self.value_heads * self.key_dim * self.value_dim


class KimiDelta(NamedTuple):
    """Kimi Delta Attention (arXiv 2510.26692): a delta rule whose state decays by each channel of the key at its own rate."""

    heads: int
    head_dim: int
    kernel: int
    kind: Literal["kimi-delta"] = "kimi-delta"

    @property
    def shared_heads(self) -> int:
        """Heads that tensor parallelism deals out."""
        return self.heads

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def mixed_width(self) -> int:
        """Channels of the convolution."""
        return 3 * self.width

    @property
    def state_elements(self) -> int:
        return self.width * self.head_dim


class StateSpace(NamedTuple):
    """Mamba 2 (arXiv 2405.21060): a short convolution, then a state of head_dim × state for each head, in chunks."""

    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    chunk: int
    bias: bool = False  # of the projections
    conv_bias: bool = True
    norm: bool = True  # a gated norm before the last projection

    @property
    def shared_heads(self) -> int:
        """Heads that tensor parallelism deals out."""
        return self.heads

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def mixed_width(self) -> int:
        """Channels of the convolution."""
        return self.width + 2 * self.groups * self.state

    @property
    def state_elements(self) -> int:
        return self.width * self.state


class SelectiveScan(NamedTuple):
    """Mamba 1 (arXiv 2312.00752): a short convolution, then ``state`` numbers for each channel, token by token."""

    width: int  # channels
    state: int
    rank: int  # of the step's projection
    kernel: int
    bias: bool = False  # of the projections
    conv_bias: bool = True
    norms: Literal["weights", "plain"] | None = None  # on the step, B and C: Jamba's, Falcon-Mamba's without weights
    heads: int = 1  # Zamba: each has projections of its own, and is scanned by itself

    @property
    def shared_heads(self) -> int:
        """What tensor parallelism deals out: channels."""
        return self.width

    @property
    def mixed_width(self) -> int:
        """Channels of the convolution."""
        return self.width

    @property
    def state_elements(self) -> int:
        return self.width * self.state


class LightningAttention(NamedTuple):
    """MiniMax-01 (arXiv 2501.08313): linear attention whose heads each decay at a rate of their own, in blocks of tokens."""

    heads: int
    head_dim: int
    block: int

    @property
    def mixed_width(self) -> int:
        """There is no convolution."""
        return 0

    @property
    def kernel(self) -> int:
        return 0

    @property
    def shared_heads(self) -> int:
        """Heads that tensor parallelism deals out."""
        return self.heads

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def state_elements(self) -> int:
        return self.width * self.head_dim

    @property
    def tables(self) -> int:
        """Buffers, not parameters: the decays of queries and keys by their place in a block, and of each pair of places."""
        return self.heads * (1 + 2 * self.block + self.block * self.block)


class ShortConvolution(NamedTuple):
    """LFM2: a convolution over the last tokens, gated before and after."""

    width: int
    kernel: int
    bias: bool = False

    @property
    def shared_heads(self) -> int:
        """What tensor parallelism deals out: channels."""
        return self.width

    @property
    def mixed_width(self) -> int:
        """Channels of the convolution."""
        return self.width

    @property
    def state_elements(self) -> int:
        return 0


class AttentionBesideStateSpace(NamedTuple):
    """Falcon-H1: both mix the same input, each scaled by numbers on its way in and out, and are added."""

    attention: Attention
    state_space: StateSpace


Recurrent = DeltaRule | KimiDelta | LightningAttention | StateSpace | SelectiveScan | ShortConvolution
RECURRENT = (DeltaRule, KimiDelta, LightningAttention, StateSpace, SelectiveScan, ShortConvolution)
Mixer = Attention | LatentAttention | Recurrent | AttentionBesideStateSpace
