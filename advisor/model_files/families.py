"""How each ``model_type`` writes its architecture: the facts that all its models share, and its configuration class's defaults.

One record a family, in Llama's spelling of the keys; ``aliases`` turns a family's own spelling into that. Defaults and structure
are those of transformers 5.23 (``models/*/configuration_*.py``, ``modeling_*.py``).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from advisor.model import Arrangement, Ends, Layer, Norm

Rule = bool | str  # a fact of the whole family, or the key of the config that says so
QkNorm = Literal["head", "projection", "per-head"]

# Which layers see only a window, when the config has no ``layer_types``:
#   none        no layer
#   every       every layer, if ``sliding_window`` is set
#   pattern     all but each ``sliding_window_pattern``-th
#   from-max    those from ``max_window_layers`` on
#   below-max   every second one below ``max_window_layers``
Windows = Literal["none", "every", "pattern", "from-max", "below-max"]

# Which layers hold experts:
#   all         every layer
#   after-dense those from ``first_k_dense_replace`` on
#   step        each ``decoder_sparse_step``-th, save those in ``mlp_only_layers``
#   range       each ``moe_layer_interval``-th between ``moe_layer_start_index`` and ``moe_layer_end_index``
# A list ``mlp_layer_types`` in the config goes before all of these.
Sparse = Literal["all", "after-dense", "step", "range"]


class Family(NamedTuple):
    """What the models of one ``model_type`` have in common."""

    defaults: Mapping[str, Any]
    aliases: Mapping[str, str] = {}
    translate: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # for spellings that an alias cannot mend
    fixed: Mapping[str, Any] = {}  # keys that are understood at this value only
    harmless: frozenset[str] = frozenset()  # keys that look structural and change no weight
    norm: Norm = "rms"
    arrangement: Arrangement = "pre"  # a translation may say otherwise for one model
    qkv_bias: Rule = False
    out_bias: Rule = False
    qk_norm: QkNorm | None = None
    qk_norm_when: Rule = True
    fused_qkv: bool = False
    copies_heads: bool = False
    latent: bool = False
    fp32_rotary: bool = False
    rotary: bool = True
    partial_rotary: bool = False
    sinks: bool = False
    softmax_fp32: bool = True
    windows: Windows = "none"
    layer_types: bool = False  # the config may list what each layer sees
    gated: bool = True
    fused_mlp: bool = False
    mlp_bias: Rule = False
    positions: Rule = False  # a learned position table of ``max_position_embeddings`` rows
    position_offset: int = 0  # rows more than that
    unused_positions: int = 0  # rows of the table that no token has
    embedding_norm: bool = False
    last_norm: bool = True
    head_bias: Rule = False
    sparse: Sparse | None = None
    expert_width: str = "moe_intermediate_size"
    router_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False
    router_fp32: bool = False
    beside: str | None = None  # key of the width of a dense MLP beside the experts
    names: tuple[tuple[str, str], ...] = ()  # modules that transformers calls otherwise than in Llama
    output_gate: bool = False
    logits_fp32: bool = False
    shifted_loss: bool = False
    layers: Callable[[Any, "Family", int], tuple[Layer, ...]] | None = (
        None  # for layers of several kinds, put together by itself
    )
    ends: Callable[[Any, Mapping[str, Any], int], Ends] | None = None  # of an encoder: what stands around the layers
    note: str = ""  # said with every estimate


def like(family: Family, defaults: Mapping[str, Any], **changes: Any) -> Family:
    """The family with other defaults and some facts changed."""
    return family._replace(defaults={**family.defaults, **defaults}, **changes)


# Known architectures with something that the estimators cannot work out yet, and what that is.
NOT_YET: dict[str, str] = {
    "kimi_k3": "layers whose code is not in transformers 5.23",
    **dict.fromkeys(("recurrent_gemma", "rwkv", "xlstm"), "recurrent layers"),
    **dict.fromkeys(("deepseek_v32", "deepseek_v4", "glm_moe_dsa"), "sparse-attention indexers"),
    **dict.fromkeys(("minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"), "sparse-attention indexers"),
    **dict.fromkeys(("gemma3n", "gemma3n_text", "gemma4", "gemma4_text"), "per-layer embeddings and shared KV caches"),
    **dict.fromkeys(("mllama", "mllama_text_model"), "cross-attention layers"),
    "longcat_flash": "layers of two attentions with experts beside them",
    "mimo_v2_flash": "heads that differ from layer to layer",
    "nemotron-nas": "layers of different widths",
    "phi3small": "block-sparse attention layers",
    **dict.fromkeys(("grok-2", "step3p5", "step3p7"), "its layers"),
    **dict.fromkeys(("pegasus", "marian"), "encoder layers"),
}


class Wrapper(NamedTuple):
    """A language model with towers beside it, whose config has the language model's in ``text_config``."""

    model_type: str  # of the language model where its part does not name it
    tied: bool  # default of the wrapper's class
    either: bool = False  # a part of older checkpoints that says the head is tied goes before the wrapper


WRAPPERS: dict[str, Wrapper] = {
    "gemma3": Wrapper("gemma3_text", tied=True),
    "kimi_k25": Wrapper("deepseek_v3", tied=True),
    "llama4": Wrapper("llama4_text", tied=False),
    "llava": Wrapper("llama", tied=False, either=True),
    "mistral3": Wrapper("mistral", tied=True),
    "qwen3_5": Wrapper("qwen3_5_text", tied=False),
    "qwen3_5_moe": Wrapper("qwen3_5_moe_text", tied=False),
    "qwen2_vl": Wrapper("qwen2_vl_text", tied=False, either=True),
    "qwen2_5_vl": Wrapper("qwen2_5_vl_text", tied=False, either=True),
    "qwen3_vl": Wrapper("qwen3_vl_text", tied=False, either=True),
    "qwen3_vl_moe": Wrapper("qwen3_vl_moe_text", tied=False),
}
