"""A Hugging Face ``config.json`` to facts.

A key that a config leaves out has the default of the transformers configuration class of its ``model_type``. What is not understood
and could change memory is refused by name, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from advisor.errors import RequestError
from advisor.mixers import Attention, LatentAttention, Mixer
from advisor.model import Experts, Layer, Mlp, Model
from advisor.model_files.families import NOT_YET, WRAPPERS, Family, Wrapper
from advisor.model_files.families_dense import DENSE
from advisor.model_files.keys import LARGEST, Keys, shown
from advisor.model_files.quantized import published_quantization

_MOST_LAYERS = 4096
_TOWERS = "Only the language model is counted: its vision or audio towers come on top."
_COUNTED = "Its vision or audio towers, {:,} parameters, are counted: a text-only class, or llama.cpp without --mmproj, leaves them out."
_PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_transformer_layers", "mtp_num_hidden_layers")
_NOT_PREDICTED = "Multi-token-prediction layers are not counted: engines load them for speculative decoding only."
# Keys that a family may know and one of its models not use, such as the window when it is switched off.
_MAYBE_UNUSED = (
    "head_dim",
    "intermediate_size",
    "max_window_layers",
    "moe_intermediate_size",
    "num_attention_heads",
    "num_experts",
    "num_key_value_heads",
    "sliding_window",
)
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "half": "fp16", "float": "fp32"}
ACTIVATIONS: dict[str, Any] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu-new",
    "gelu_fast": "gelu-new",
    "gelu_pytorch_tanh": "gelu-tanh",
    "relu": "relu",
    "relu2": "relu2",
    "xielu": "xielu",
}


@cache
def families() -> dict[str, Family]:
    """Every family that is understood, by its ``model_type``."""
    from advisor.model_files.families_encoder import ENCODERS
    from advisor.model_files.families_gpt import GPT
    from advisor.model_files.families_hybrid import HYBRID
    from advisor.model_files.families_mixtures import MIXTURES
    from advisor.model_files.families_remote import REMOTE
    from advisor.model_files.zamba import ZAMBA

    return DENSE | GPT | MIXTURES | REMOTE | HYBRID | ZAMBA | ENCODERS


def model_from_config(config: Mapping[str, Any], name: str) -> Model:
    """The facts of the model that a Hugging Face config describes."""
    model_type = config.get("model_type") if isinstance(config, Mapping) else None
    if not isinstance(model_type, str):
        raise RequestError(f"{name}: not a Hugging Face model config, it has no model_type")
    wrapper = WRAPPERS.get(model_type)
    if wrapper:
        return _with_towers(model_from_config(_language_part(config, wrapper), name), config)
    family = DENSE.get(model_type) or families().get(model_type)  # most models are dense: the other tables can wait
    if family is None:
        raise RequestError(f"{name}: {_unknown(model_type)}")
    return _model(Keys(config, family, model_type), family, config, name)


def _with_towers(model: Model, config: Mapping[str, Any]) -> Model:
    """The catalogue knows what the towers hold (``extra_parameters``); a config from the Hub does not say."""
    extra = config.get("extra_parameters")
    if extra is None:
        return model._replace(notes=(*model.notes, _TOWERS))
    if isinstance(extra, bool) or not isinstance(extra, int) or not 0 < extra <= LARGEST:
        raise RequestError(f"extra_parameters must be a whole number, not {shown(extra)}")
    notes = (*model.notes, _COUNTED.format(extra))
    return model._replace(extra_parameters=extra, extra_name="vision or audio towers", notes=notes)


def _language_part(config: Mapping[str, Any], wrapper: Wrapper) -> Mapping[str, Any]:
    """The config of the language model inside a multimodal one; the first Qwen-VL configs have its keys on top."""
    part = config.get("text_config", config)
    if not isinstance(part, Mapping):
        raise RequestError(f"text_config must be an object, not {shown(part)}")
    said = config.get("tie_word_embeddings")
    inner = part.get("tie_word_embeddings")
    tied = inner if said is None or (wrapper.either and inner is True) else said
    model_type = wrapper.model_type if part is config else part.get("model_type", wrapper.model_type)
    if model_type in WRAPPERS:
        raise RequestError(f"text_config is a {model_type}, which has a text_config itself")
    shared = {key: config[key] for key in ("dtype", "torch_dtype", "quantization_config") if config.get(key) is not None}
    return {**part, **shared, "model_type": model_type, "tie_word_embeddings": wrapper.tied if tied is None else tied}


def _unknown(model_type: str) -> str:
    if model_type in NOT_YET:
        return f"{NOT_YET[model_type]} ({model_type}) are not estimated yet"
    from difflib import get_close_matches

    near = get_close_matches(model_type[:80], [*families(), *WRAPPERS], n=1, cutoff=0.4)
    hint = f"; the nearest known is {near[0]}" if near else ""
    return f"the model_type {shown(model_type)} is not known{hint}"


def _model(keys: Keys, family: Family, config: Mapping[str, Any], name: str) -> Model:
    for key, value in family.fixed.items():
        if keys.get(key) not in (None, value):
            raise keys.fail(key, f"= {shown(keys.get(key))} is not estimated yet")
    layers = keys.count("num_hidden_layers")
    if layers > _MOST_LAYERS:
        raise keys.fail("num_hidden_layers", f"must be at most {_MOST_LAYERS}, not {layers}")
    hidden, narrow = keys.count("hidden_size"), keys.optional("word_embed_proj_dim")
    dtype, notes = _dtype(config)
    if family.note:
        notes += (family.note,)
    if any(config.get(key) for key in _PREDICTION):
        notes += (_NOT_PREDICTED,)
    model = Model(
        name=name,
        model_type=keys.model_type,
        hidden=hidden,
        vocab=keys.count("vocab_size"),
        layers=(family.layers or _layers)(keys, family, layers),
        tied=keys.says("tie_word_embeddings"),
        norm=family.norm,
        final_norm=family.last_norm and keys.get("final_norm") is not False,
        head_bias=keys.says(family.head_bias),
        positions=keys.count("max_position_embeddings") + family.position_offset if keys.says(family.positions) else 0,
        embedding_width=narrow if narrow != hidden else None,
        embedding_norm=family.embedding_norm,
        logit_softcap=keys.get("final_logit_softcapping") is not None,
        logits_fp32=family.logits_fp32,
        shifted_loss=family.shifted_loss,
        residual_dropout=keys.share("resid_pdrop"),
        ends=family.ends(keys, config, layers) if family.ends else None,
        max_context=_most_tokens(keys, family),
        dtype=dtype,
        quantization=published_quantization(config),
        notes=notes,
    )
    for key in _MAYBE_UNUSED:
        keys.get(key)
    keys.refuse_unread()
    return model


def _most_tokens(keys: Keys, family: Family) -> int | None:
    rows = keys.optional("max_position_embeddings")
    return rows - family.unused_positions if rows and rows > family.unused_positions else rows


def _layers(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    windows, sparse = _windows(keys, family, layers), sparse_layers(keys, family, layers)
    mixers = {window: attention_of(keys, family, window) for window in dict.fromkeys(windows)}
    parts = {here: experts_of(keys, family) if here else mlp_of(keys, family) for here in dict.fromkeys(sparse)}
    arrangement = keys.get("arrangement") or family.arrangement
    return tuple(
        Layer(mixers[window], parts[here], arrangement, family.norm, family.names)
        for window, here in zip(windows, sparse, strict=True)
    )


def attention_of(keys: Keys, family: Family, window: int | None) -> Mixer:
    heads, hidden = keys.count("num_attention_heads"), keys.count("hidden_size")
    if family.latent:
        return LatentAttention(
            heads=heads,
            kv_rank=keys.count("kv_lora_rank"),
            nope_dim=keys.count("qk_nope_head_dim"),
            rope_dim=keys.count("qk_rope_head_dim"),
            value_dim=keys.count("v_head_dim"),
            query_rank=keys.optional("q_lora_rank"),
            fp32_rotary=family.fp32_rotary,
            window=window,
        )
    kv_heads = keys.optional("num_key_value_heads") or heads
    if heads % kv_heads:
        raise keys.fail("num_key_value_heads", f"= {kv_heads} does not divide the {heads} attention heads")
    head_dim = keys.optional("head_dim")
    if head_dim is None:
        if hidden % heads:
            raise keys.fail("hidden_size", f"= {hidden} is not a multiple of the {heads} attention heads")
        head_dim = hidden // heads
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        bias=keys.says(family.qkv_bias),
        out_bias=keys.says(family.out_bias),
        qk_norm=family.qk_norm if keys.says(family.qk_norm_when) else None,
        window=window,
        softcap=keys.get("attn_logit_softcapping") is not None,
        sinks=family.sinks,
        fused=family.fused_qkv,
        copies_heads=family.copies_heads,
        rotary=family.rotary,
        partial_rotary=family.partial_rotary,
        dropout=keys.share("attention_dropout"),
        softmax_fp32=family.softmax_fp32,
        output_gate=family.output_gate,
    )


def mlp_of(keys: Keys, family: Family) -> Mlp:
    activation = keys.get("hidden_act")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise keys.fail("hidden_act", f"= {shown(activation)} is not known")
    width = keys.optional("intermediate_size")
    if width is None and family.gated:
        raise keys.fail("intermediate_size", "is missing from the config")
    return Mlp(
        width=width or 4 * keys.count("hidden_size"),  # null in GPT-2 and its kin
        gated=family.gated,
        bias=keys.says(family.mlp_bias),
        fused=family.fused_mlp,
        activation=ACTIVATIONS[activation],
    )


def experts_of(keys: Keys, family: Family) -> Experts:
    count, width = keys.count("num_experts"), keys.count(family.expert_width)
    active = keys.count("num_experts_per_tok")
    if active > count:
        raise keys.fail("num_experts_per_tok", f"= {active} is more than the {count} experts")
    shared = (
        keys.optional("shared_expert_intermediate_size", least=0) or (keys.optional("n_shared_experts", least=0) or 0) * width
    )
    return Experts(
        total=count,
        active=active,
        width=width,
        gated=family.gated,
        bias=family.expert_bias,
        router_bias=family.router_bias,
        shared_width=shared,
        shared_gate=family.shared_gate and shared > 0,
        router_fp32=family.router_fp32,
        beside=keys.count(family.beside) if family.beside else 0,
    )


def _windows(keys: Keys, family: Family, layers: int) -> list[int | None]:
    """The window of each layer; None where it sees everything."""
    kinds = keys.each("layer_types", layers) if family.layer_types else []
    wrong = [kind for kind in kinds if kind not in _SEEN]
    if wrong:
        raise keys.fail("layer_types", f"has {shown(wrong[0])}, which is not estimated yet")
    window = keys.optional("sliding_window", least=0)
    if "use_sliding_window" in family.defaults and not keys.says("use_sliding_window"):
        window = None
    if not window:
        return [None] * layers
    if kinds:
        return [None if kind == "full_attention" else window for kind in kinds]
    return [window if _WINDOWED[family.windows](keys, layer) else None for layer in range(layers)]


_SEEN = ("full_attention", "sliding_attention", "chunked_attention")
_WINDOWED: dict[str, Callable[[Keys, int], bool]] = {
    "none": lambda keys, layer: False,
    "every": lambda keys, layer: True,
    "pattern": lambda keys, layer: (layer + 1) % keys.count("sliding_window_pattern") != 0,
    "from-max": lambda keys, layer: layer >= (keys.optional("max_window_layers", least=0) or 0),
    "below-max": lambda keys, layer: layer % 2 == 0 and layer < (keys.optional("max_window_layers", least=0) or 0),
}


def sparse_layers(keys: Keys, family: Family, layers: int) -> list[bool]:
    """Whether each layer's feed-forward part is a mixture of experts."""
    if family.sparse is None:
        return [False] * layers
    kinds = keys.each("mlp_layer_types", layers)
    if kinds:
        wrong = [kind for kind in kinds if kind not in ("sparse", "dense")]
        if wrong:
            raise keys.fail("mlp_layer_types", f"has {shown(wrong[0])}, which is not known")
        return [kind == "sparse" for kind in kinds]
    return [_SPARSE[family.sparse](keys, layer) for layer in range(layers)]


_SPARSE: dict[str, Callable[[Keys, int], bool]] = {
    "all": lambda keys, layer: True,
    "after-dense": lambda keys, layer: layer >= (keys.optional("first_k_dense_replace", least=0) or 0),
    "step": lambda keys, layer: (
        layer not in keys.each("mlp_only_layers") and (layer + 1) % keys.count("decoder_sparse_step") == 0
    ),
    "range": lambda keys, layer: (
        (layer + 1) % keys.count("moe_layer_interval") == 0
        and (keys.optional("moe_layer_start_index", least=0) or 0) <= layer <= keys.count("moe_layer_end_index")
    ),
}


def _dtype(config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    written = config.get("dtype", config.get("torch_dtype"))
    if written is None:
        return "fp32", ("The config names no dtype: fp32, PyTorch's own default.",)
    dtype = _DTYPES.get(str(written).removeprefix("torch."))
    if dtype is None:
        raise RequestError(f"the dtype {shown(written)} is not one of bfloat16, float16, float32")
    return dtype, ()
