"""A model as facts: what its layers hold, and nothing of how large that is in bytes.

Sizes are counts of elements, heads, experts or tokens. A decoder layer is a mixer (attention of
some kind) and a feed-forward part, put together in one of a few arrangements; a model is an
embedding, its layers in order, a last norm and a head.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple, Self

from advisor.mixers import RECURRENT, Attention, AttentionBesideStateSpace, LatentAttention, Mixer, Recurrent

# How a norm is computed decides what autograd keeps of it:
#   rms         Llama: fp32 copy, normalised, times the weight in the model's dtype
#   rms-fp32    OLMo 2, OLMoE, Cohere...: the weight is multiplied before the copy goes back to 16-bit
#   rms-t5      T5: only the variance comes from an fp32 copy; the input itself is kept beside it
#   rms-gemma   Gemma: fp32 throughout, (1 + weight)
#   layer       torch's fused LayerNorm with weight and bias
#   layer-plain LayerNorm with a weight and no bias
#   layer-fp32  Cohere: a LayerNorm written out in fp32, with a weight
#   none        the fused LayerNorm on an fp32 copy, without weights (OLMo 1)
Norm = Literal["rms", "rms-fp32", "rms-t5", "rms-gemma", "layer", "layer-plain", "layer-fp32", "layer-written", "none"]

# Where the norms stand:
#   pre       x + mixer(norm(x)), then x + ffn(norm(x))                 Llama, GPT-2, most
#   sandwich  as pre, with a norm on each branch's output as well       Gemma 2 and 3, GLM-4
#   post      x + norm(mixer(x)), then x + norm(ffn(x))                 OLMo 2 and 3
#   parallel  x + mixer(norm(x)) + ffn(norm(x)), one norm for both      GPT-J, Phi, Cohere, Falcon 7B
#   parallel2 the same with a norm for each branch                      GPT-NeoX, Falcon 40B
#   after     norm(x + mixer(x)), then norm(x + ffn(x))                 BERT, BART
#   half      x + mixer(x), then x + ffn(norm(x))                       ModernBERT's first layer, behind the embedding's norm
#   scaled      n × α + mixer(n) × β with n = norm(x), then the same with the ffn         MiniMax-01
Arrangement = Literal["pre", "sandwich", "post", "parallel", "parallel2", "after", "half", "scaled"]


class Mlp(NamedTuple):
    """A dense feed-forward part; ``gated`` has three matrices (gate, up, down), else two."""

    width: int
    gated: bool = True
    bias: bool = False
    fused: bool = False  # gate and up are one matrix
    activation: Literal["silu", "gelu", "gelu-new", "gelu-tanh", "relu", "relu2", "xielu"] = "silu"
    dropout: float = 0.0  # before the last matrix


class Experts(NamedTuple):
    """A mixture of experts: ``active`` of ``total`` run for a token, and the shared ones always."""

    total: int
    active: int
    width: int
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    shared_width: int = 0
    shared_gate: bool = False
    router_fp32: bool = False  # the router computes in fp32, on copies
    beside: int = 0  # Arctic: width of a dense MLP that runs beside the experts
    shared_fused: bool = False  # gate and up of the shared expert are one matrix
    latent: int | None = None  # Nemotron 3: the experts work on vectors narrower than the hidden states
    weights_fp32: bool = False  # the router's weights stay fp32, and so does what they multiply
    routed: int | None = None  # experts that the router knows, where not all of them are here


class SharedBlock(NamedTuple):
    """Zamba: attention and an MLP before a layer's own mixer, whose weights several layers have in common. They read the layer's
    input and the embedding side by side, and a matrix of the layer's own hands on what they make."""

    attention: Attention
    mlp: Mlp
    number: int = 0  # which of the model's blocks
    rank: int = 0  # Zamba 2: of the layer's own adapter of the MLP's first matrix
    attention_rank: int = 0  # and of its adapters of queries, keys and values
    first: bool = True  # the layer whose weights are counted: the forward pass comes to it first
    last: bool = True  # the layer that makes the block's gradients, to which the others add


FeedForward = Mlp | Experts


class Layer(NamedTuple):
    mixer: Mixer | None
    feed_forward: FeedForward | None
    arrangement: Arrangement = "pre"
    norm: Norm = "rms"
    names: tuple[tuple[str, str], ...] = ()  # modules that transformers calls otherwise than in Llama: (Llama's, its own)
    residual_fp32: bool = False  # Mamba: the residual stream is fp32 whatever the weights are
    cross: Attention | None = None  # a decoder's attention to what its encoder has made
    shared: SharedBlock | None = None
    stepwise: bool = False  # BART, Whisper: a variable takes up each step of the MLP and the sum, and lets go of the one before

    @property
    def attention(self) -> Attention | LatentAttention | None:
        """The part of the mixer that caches keys and values."""
        if self.shared:
            return self.shared.attention
        mixer = self.mixer.attention if isinstance(self.mixer, AttentionBesideStateSpace) else self.mixer
        return mixer if isinstance(mixer, Attention | LatentAttention) else None

    @property
    def recurrent(self) -> Recurrent | None:
        """The part of the mixer that carries a state."""
        mixer = self.mixer.state_space if isinstance(self.mixer, AttentionBesideStateSpace) else self.mixer
        return mixer if isinstance(mixer, RECURRENT) else None


def in_order(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers with the first and the last user of each shared block marked."""
    users: dict[int, list[int]] = {}
    for depth, layer in enumerate(layers):
        if layer.shared:
            users.setdefault(layer.shared.number, []).append(depth)
    if not users:
        return tuple(layers)
    firsts, lasts = {depths[0] for depths in users.values()}, {depths[-1] for depths in users.values()}
    return tuple(
        layer._replace(shared=layer.shared._replace(first=depth in firsts, last=depth in lasts)) if layer.shared else layer
        for depth, layer in enumerate(layers)
    )


# What a forward pass ends with:
#   causal-lm   logits of the next token, in an encoder-decoder
#   masked-lm   logits of every token, behind a dense layer with a norm
#   sequence    one row of labels a sequence, behind a dense layer on its first token
#   tokens      one row of labels a token
#   pooler      the first token's dense layer alone
#   none        the hidden states
Head = Literal["causal-lm", "masked-lm", "sequence", "tokens", "pooler", "none"]


class Audio(NamedTuple):
    """Whisper: the encoder reads a spectrogram, through two convolutions of which the second makes one position of two frames."""

    bins: int  # mel bins of a frame
    positions: int  # of every sequence, however short its sound


class Convolution(NamedTuple):
    """DeBERTa v2 xlarge: of the embedding, added to what the first layer makes."""

    kernel: int
    groups: int = 1
    activation: str = "tanh"


class Ends(NamedTuple):
    """What stands around the layers of an encoder, or of an encoder and a decoder; a decoder alone has none of it."""

    encoder: int  # how many of the layers are the encoder's; they come first
    head: Head
    labels: int = 2
    dense: str = "dense"  # name of the head's dense layer
    dense_bias: bool = True
    dense_activation: Literal["gelu", "tanh", "relu"] = "gelu"
    dense_norm: bool = False  # behind it also where the head is no masked-lm
    token_types: int = 0
    dropout: float = 0.0  # behind the embedding
    final_dropout: bool = False  # T5: behind each stack's last norm too
    scaled: bool = False  # BART: the embedding is multiplied by a number
    scaled_head: bool = False  # T5 with a tied head: the last states are
    logits_bias: bool = False  # BART: a buffer is added to the logits
    loss_fp32: bool = False  # logits go to fp32 before the loss
    audio: Audio | None = None  # what the encoder reads in place of tokens
    fp32_modules: tuple[str, ...] = ()  # T5: what transformers leaves fp32 in an fp16 model, and never quantizes

    distances: int = 0  # DeBERTa: rows of the table of distances
    cuts_distances: bool = False  # no more of them than a sequence can tell apart
    distances_norm: bool = False  # a norm over them, once for all layers
    masks_embedding: bool = False  # it is multiplied by the mask of padding
    head_dropout: float = 0.0  # before the head of a number of labels a token
    convolution: Convolution | None = None  # behind the first layer, over what it was given


class StoredTensor(NamedTuple):
    """One tensor of a checkpoint as its header tells it."""

    name: str
    dtype: str
    elements: int
    bytes: int


class _Facts(NamedTuple):
    name: str
    model_type: str
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied: bool = False
    norm: Norm = "rms"  # the last norm
    final_norm: bool = True
    head_bias: bool = False
    positions: int = 0  # rows of a learned position table
    embedding_width: int | None = None  # OPT-350m: embeddings narrower than the layers
    embedding_norm: bool = False  # BLOOM
    logit_softcap: bool = False
    logits_fp32: bool = False  # the head's logits go to fp32 at once, and nothing holds them as they were computed
    scored: bool = False  # a head of one number a sequence in place of the language model's
    shifted_loss: bool = False  # the loss is over a shifted copy of the logits, in their own type
    residual_dropout: float = 0.0
    extra_parameters: int = 0  # in the checkpoint, outside the language model: vision and audio towers
    extra_name: str = ""
    ends: Ends | None = None  # None: a decoder alone
    max_context: int | None = None
    dtype: str = "bf16"  # as published
    quantization: str = "none"  # as published
    nominal: int | None = None  # the count that a size class is called by
    source: str = ""
    stored: tuple[StoredTensor, ...] | None = None
    notes: tuple[str, ...] = ()


class Model(_Facts):
    """The architecture of one model; hashable, so that what is worked out for it can be remembered."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Worked out once: estimates look up what they know of a model thousands of times a second."""
        return hash(tuple(self))

    @cached_property
    def kinds(self) -> tuple[tuple[Layer, int], ...]:
        """The distinct layers with how many there are of each, in order of first appearance."""
        return tuple(Counter(self.layers).items())

    @cached_property
    def unstored(self) -> Self:
        """The same by its shape alone, without the tensors of its files."""
        return self._replace(stored=None) if self.stored else self

    @cached_property
    def untied(self) -> Self:
        """The same with a head of its own."""
        return self._replace(tied=False) if self.tied else self

    @cached_property
    def generates(self) -> bool:
        """Whether it writes text, token by token."""
        return self.ends is None or self.ends.head == "causal-lm"

    @cached_property
    def is_encoder_decoder(self) -> bool:
        return self.ends is not None and self.ends.encoder < len(self.layers)

    @cached_property
    def has_lm_head(self) -> bool:
        """Whether it ends with logits over the vocabulary."""
        return self.ends is None or self.ends.head in ("causal-lm", "masked-lm")

    @cached_property
    def has_experts(self) -> bool:
        """Whether any layer is a mixture of experts."""
        return any(isinstance(layer.feed_forward, Experts) for layer, _ in self.kinds)

    @cached_property
    def residual_fp32(self) -> bool:
        """Whether the residual stream is fp32 whatever the weights are."""
        return any(layer.residual_fp32 for layer, _ in self.kinds)

    @cached_property
    def shortest_window(self) -> int | None:
        """Tokens that the attention of a sliding layer reaches back."""
        return min((x.window for layer, _ in self.kinds if (x := layer.attention) and x.window), default=None)

    @cached_property
    def eager_only(self) -> bool:
        """Whether the scores go through what PyTorch's own attention does not have: a soft-cap, or DeBERTa's distances."""
        return any(isinstance(x := layer.mixer, Attention) and (x.softcap or x.disentangled) for layer, _ in self.kinds)
