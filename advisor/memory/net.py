"""How a model is run, and the linear layers and norms that every part of it is made of."""

from typing import Literal, NamedTuple

from advisor.memory import operations as ops
from advisor.memory.extent import Extent
from advisor.memory.operations import per_token
from advisor.memory.shadow import FP32, HALF, Parameter, Tape, Tensor, op

QKV = ("q_proj", "k_proj", "v_proj")


class Recipe(NamedTuple):
    """How a model is run, as far as its tensors depend on it. Widths are bytes per element."""

    train: bool
    weight: int = HALF  # weights that are not quantized
    compute: int = HALF
    stream: int = HALF  # the residual stream, which has the embedding's type
    autocast: bool = False
    trainable: bool = True  # the base weights; False under LoRA
    quantized: bool = False  # linear weights are unpacked for each product
    rank: int = 0  # of the adapters; 0: none
    targets: frozenset[str] = frozenset()
    adapter: int = FP32
    dropout: bool = False  # before the adapters
    kernel: str = "flash"
    masked: bool = False  # sliding layers take an explicit mask, which no flash kernel accepts
    loss: str = "plain"  # over all logits at once; fused: chunk by chunk, and none kept; chunks: chunk by chunk, and all kept
    chunks: int = 0  # of a sequence
    chunk_tokens: int = 0  # in a chunk, where that is fixed
    outputs_fp32: bool = False  # logits leave the model in fp32
    shifted: bool = False  # the loss is over a copy of them
    narrow_loss: bool = False  # a loss that does not ask for fp32 has the logits' own type
    compiled: bool = False  # torch.compile fuses what is elementwise, and keeps what matrix products and kernels read
    joined: bool = False  # queries, keys and values are one product
    cuts_distances: bool = False  # the first DeBERTa: the table of distances has more rows than the sequence can tell apart
    expands_keys: bool = False  # keys and values are copied to every query head, whatever the kernel
    unpacked: int = HALF  # bytes an element that unpacking a k-bit weight takes
    quantized_head: bool = False
    keeps_inputs: bool = False  # k-bit products hold their inputs as long as the graph is there
    caches: bool = False  # keys and values go to a cache
    parts: int = 1  # tensor-parallel ranks that share out the tokens of the residual stream (sequence parallel)
    routed_parts: int = 1  # the same of the tokens that go to experts, which are not cut then
    ring: bool = False  # keys and values go round the context-parallel ranks
    exchanged: bool = False  # tokens go to the ranks of their experts and come back
    clamped: bool = False  # Whisper bounds what each layer of its encoder makes, where that is fp16
    fused: bool = False  # norms, rotary embedding, SwiGLU with the experts' weights, cross-entropy: a kernel each

    @property
    def before_head(self) -> "Recipe":
        """The same for all before the head, where logits and loss make no difference: what is worked out there serves all of them."""
        return self._replace(**AS_IF_PLAIN)


AS_IF_PLAIN = {
    name: Recipe._field_defaults[name]
    for name in ("loss", "chunks", "chunk_tokens", "outputs_fp32", "shifted", "narrow_loss", "quantized_head")
}


def share(whole: int, parts: int) -> int:
    """The fullest of several parts: what does not divide is rounded up."""
    return -(-whole // parts)


class Net:
    """A tape and the recipe: makes the linear layers, with their adapters, and the norms."""

    def __init__(self, tape: Tape, recipe: Recipe) -> None:
        self.tape = tape
        self.recipe = recipe
        self.cache: list[Tensor] = []
        self.memory: Tensor | None = None  # what an encoder has made, and a decoder layer attends to
        self.bias: Tensor | None = None  # T5's numbers for each head and distance, which all layers of a stack share
        self.embedding: Tensor | None = None  # what Zamba's shared blocks read beside their layer's input
        self.added: bool | None = None  # of the weights at hand, as Parameter has it
        self.copied: Literal["same", "again"] | None = None
        self.recomputed = False  # a checkpointed layer that runs again
        self.cross_bias: Tensor | None = None  # the zeros in their place in cross-attention
        self.distances: Tensor | None = None  # DeBERTa's table of them, which all layers share
        self.held: Tensor | None = None  # what a variable holds to the end of the layer: eager attention's weights, its output
        self.holds_inner = False  # a variable holds what goes into an MLP's last matrix, to the end of the layer (DebertaLayer)
        self.own_names: dict[str, str] = {}  # what the family calls its modules, where that is not Llama's name
        self._weights: list[Parameter] = []  # autocast's cache knows weights by identity: keep them

    def weight(self, elements: int, trainable: bool | None = None) -> Parameter:
        trains = self.recipe.trainable if trainable is None else trainable
        made = Parameter(elements, self.recipe.weight, trains, self.added, self.copied)
        self._weights.append(made)
        return made

    def linear(
        self, name: str, x: Tensor, out: int, *, bias: bool = False, quantized: bool = True, weight: Parameter | None = None
    ) -> Tensor:
        """A linear layer by its module name, and its adapter when the name is a target. ``weight``: one that is used before."""
        recipe = self.recipe
        weight = weight or self.weight(ops.width_of(x) * out)
        if recipe.quantized and quantized:
            result = ops.dequantized_linear(x, weight, out, recipe.compute, recipe.unpacked, holds=recipe.keeps_inputs)
        else:
            result = ops.linear(x, weight, out, self.weight(out) if bias else None)
        return self._adapted(x, result, out) if recipe.rank and self.is_target(name) else result

    def is_target(self, name: str) -> bool:
        if name == "qkv_proj" and self.recipe.joined:
            return any(map(self.is_target, QKV))
        return self.own_names.get(name, name).rsplit(".", 1)[-1] in self.recipe.targets

    def _adapted(self, x: Tensor, result: Tensor, out: int) -> Tensor:
        """PEFT's lora.Linear: result + B(A(dropout(x))) × scaling, in the adapters' type, cast back at the end."""
        recipe = self.recipe
        width = result.width
        down = Parameter(ops.width_of(x) * recipe.rank, recipe.adapter, True)
        up = Parameter(recipe.rank * out, recipe.adapter, True)
        self._weights += [down, up]
        x = ops.dropout(ops.to(x, recipe.adapter), 0.1 if recipe.dropout else 0.0)
        delta = ops.scaled(ops.linear(ops.linear(x, down, recipe.rank), up, out))
        result = ops.plus(result, delta)
        del delta
        return ops.to(result, width)

    def gathered(self, x: Tensor, hidden: int) -> Tensor:
        """All tokens, of which each rank has some. For the backward pass a rank keeps its own, and gathers again."""
        if self.recipe.parts == 1:
            return x
        whole = op([x], per_token(hidden), x.width)
        whole.kept_as = x
        return whole

    def scattered(self, x: Tensor) -> Tensor:
        """A rank's own of all tokens, as they are summed over the ranks."""
        parts = self.recipe.parts
        return x if parts == 1 else op([x], per_token(share(ops.width_of(x), parts)), x.width)

    def gated(self, gate: Tensor, up: Tensor, kind: str) -> Tensor:
        """activation(gate) × up. Compiled, the activation is made again in the backward pass."""
        if self.recipe.compiled:
            return op([gate, up], up.elements, up.width, [gate, up])
        return ops.multiply(ops.activation(gate, kind), up)

    def norm(self, kind: str, x: Tensor, rows: int = 1, weights: int | None = None) -> Tensor:
        """A norm over each of ``rows`` vectors of a token."""
        elements = weights or ops.width_of(x)
        if self.recipe.fused or self.recipe.compiled:
            return ops.fused_norm(
                x,
                None if kind == "none" else self.weight(2 * elements if kind in ("layer", "layer-written") else elements),
                rows,
            )
        if kind == "none":
            return ops.to(ops.layer_norm(ops.to(x, FP32), None, None), x.width)
        weight = self.weight(elements)
        if kind == "layer":
            return ops.layer_norm(x, weight, self.weight(elements))
        if kind == "layer-written":
            return ops.written_norm(x, weight, self.weight(elements))
        if kind == "layer-plain":
            return ops.layer_norm(x, weight, None)
        if kind == "layer-fp32":
            return ops.centred_norm(x, weight, rows)
        if kind == "rms-gemma":
            return ops.gemma_norm(x, weight, rows)
        if kind == "rms-t5":
            return ops.t5_norm(x, weight)
        return ops.rms_norm(x, weight, rows, fp32_weight=kind == "rms-fp32")

    def remembered(self, elements: Extent, width: int) -> None:
        """A recurrent state: a tensor of its own in the cache."""
        if self.recipe.caches:
            self.cache.append(self.tape.tensor(elements, width))

    def cached(self, x: Tensor) -> Tensor:
        """Appended to the cache: a new tensor that stays."""
        if not self.recipe.caches:
            return x
        kept = op([x], x.elements, x.width)
        self.cache.append(kept)
        return kept
