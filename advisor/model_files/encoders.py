"""The layers of encoders and encoder-decoders, and what a config's ``architectures`` says of the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.mixers import Attention, Mixer
from advisor.model import Audio, Ends, Head, Layer
from advisor.model_files.config import attention_of, mlp_of
from advisor.model_files.families import Family
from advisor.model_files.keys import Keys, shown

# What a class is called behind its family's name -> the head it has, and its rows of labels where the config does not decide.
HEADS: dict[str, tuple[Head, int | None]] = {
    "ForMaskedLM": ("masked-lm", None),
    "ForSequenceClassification": ("sequence", None),
    "ForMultipleChoice": ("sequence", 1),
    "ForTokenClassification": ("tokens", None),
    "ForQuestionAnswering": ("tokens", 2),
}


def head_of(config: Mapping[str, Any], bare: Head) -> tuple[Head, int]:
    """The head of the class that ``architectures`` names, ``bare`` where it names none, and how many labels it tells apart."""
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    head, fixed = next((HEADS[tail] for tail in HEADS if name.endswith(tail)), (bare, None))
    labels = config.get("id2label")
    return head, fixed or (len(labels) if isinstance(labels, dict) and labels else 2)


def encoder(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """One kind of layer in which every token sees all others."""
    attention = attention_of(keys, family, None)
    assert isinstance(attention, Attention)
    attention = attention._replace(causal=False, drops_output=keys.model_type != "distilbert")
    return (Layer(attention, mlp_of(keys, family), family.arrangement, family.norm, family.names),) * layers


def encoder_ends(keys: Keys, config: Mapping[str, Any], layers: int) -> Ends:
    """BERT and its kin."""
    head, labels = head_of(config, "none" if keys.model_type in ("distilbert", "electra") else "pooler")
    dense, activation = _DENSE[keys.model_type][head == "masked-lm"]
    return Ends(
        encoder=layers,
        head=head,
        labels=labels,
        dense=dense,
        dense_activation=activation,
        token_types=keys.optional("type_vocab_size", least=0) or 0,
        dropout=keys.share("resid_pdrop"),
    )


# model_type -> the dense layer of the classification head, and that of the masked-LM head, each with its activation.
_BERT: Any = (("pooler.dense", "tanh"), ("cls.predictions.transform.dense", "gelu"))
_ROBERTA: Any = (("classifier.dense", "tanh"), ("lm_head.dense", "gelu"))
_DENSE: dict[str, Any] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": (("classifier.dense", "gelu"), ("generator_predictions.dense", "gelu")),
    "distilbert": (("pre_classifier", "relu"), ("vocab_transform", "gelu")),
}


def modernbert(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """A window in two layers of three, and no norm before the first attention, which has the embedding's."""
    kinds = keys.each("layer_types", layers)
    interval = keys.count("global_attn_every_n_layers")
    if not kinds:
        kinds = ["sliding_attention" if depth % interval else "full_attention" for depth in range(layers)]
    window = keys.count("local_attention")
    attention = attention_of(keys, family, None)
    assert isinstance(attention, Attention)
    attention = attention._replace(causal=False, fp32_rotary=True)
    part = mlp_of(keys, family)._replace(dropout=keys.share("mlp_dropout"))
    made = []
    for depth, kind in enumerate(kinds):
        if kind not in ("sliding_attention", "full_attention"):
            raise keys.fail("layer_types", "has a kind of layer that is not estimated yet")
        mixer = attention._replace(window=window if kind == "sliding_attention" else None)
        made.append(Layer(mixer, part, "half" if depth == 0 else "pre", family.norm, family.names))
    return tuple(made)


def modernbert_ends(keys: Keys, config: Mapping[str, Any], layers: int) -> Ends:
    head, labels = head_of(config, "none")
    return Ends(
        encoder=layers,
        head=head,
        labels=labels,
        dense="head.dense",
        dense_bias=keys.says("classifier_bias"),
        dense_norm=True,
        dropout=keys.share("embedding_dropout"),
        loss_fp32=True,
    )


def t5(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Numbers for the distances are added to the scores; the first layer of each stack has their table, UMT5's layers all do."""
    attention = attention_of(keys, family, None)
    assert isinstance(attention, Attention)
    rate, buckets = keys.share("resid_pdrop"), keys.count("relative_attention_num_buckets")
    part = mlp_of(keys, family)._replace(dropout=rate, gated=keys.get("gated") is True)
    own = keys.model_type == "umt5"
    attention = attention._replace(dropout=rate, position_bias="own" if own else "shared")
    names = family.names if part.gated else tuple((ours, _PLAIN.get(ours, theirs)) for ours, theirs in family.names)

    def stack(depth: int, causal: bool) -> tuple[Layer, ...]:
        cross = attention._replace(causal=False) if causal else None
        mixer = attention._replace(causal=causal)
        layer = Layer(mixer, part, family.arrangement, family.norm, names, cross=cross)
        first = layer._replace(mixer=mixer._replace(buckets=buckets))
        return (first,) * depth if own else (first, *(layer,) * (depth - 1))

    read = stack(layers, causal=False)
    if keys.get("encoder_only"):
        return read
    return (*read, *stack(keys.optional("num_decoder_layers") or layers, causal=True))


_PLAIN = {"up_proj": "DenseReluDense.wi"}  # T5 1.0 has two matrices in its MLP


def t5_ends(keys: Keys, config: Mapping[str, Any], layers: int) -> Ends:
    rate = keys.share("resid_pdrop")
    alone = keys.get("encoder_only") is True
    tied = keys.says("tie_word_embeddings")
    return Ends(
        encoder=layers,
        head="none" if alone else "causal-lm",
        dropout=rate,
        final_dropout=True,
        scaled_head=tied and not alone,
        fp32_modules=("wo",),
    )


def bart(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """Two stacks whose heads and widths a config counts apart."""
    rate = keys.share("activation_dropout")

    def stack(depth: int, heads: str, width: str, causal: bool) -> tuple[Layer, ...]:
        attention = attention_of(keys, family, None)
        assert isinstance(attention, Attention)
        many = keys.count(heads)
        attention = attention._replace(heads=many, kv_heads=many, head_dim=keys.count("hidden_size") // many, causal=causal)
        cross = attention._replace(causal=False) if causal else None
        part = mlp_of(keys, family)._replace(width=keys.count(width), dropout=rate)
        return (Layer(attention, part, family.arrangement, family.norm, family.names, cross=cross, stepwise=True),) * depth

    return (
        *stack(layers, "num_attention_heads", "intermediate_size", causal=False),
        *stack(keys.count("decoder_layers"), "decoder_attention_heads", "decoder_ffn_dim", causal=True),
    )


def bart_ends(keys: Keys, config: Mapping[str, Any], layers: int) -> Ends:
    return Ends(encoder=layers, head="causal-lm", dropout=keys.share("resid_pdrop"), scaled=True, logits_bias=True)


def whisper(keys: Keys, family: Family, layers: int) -> tuple[Layer, ...]:
    """BART's stacks, with an attention of their own."""

    def own(attention: Mixer | None) -> Attention | None:
        return attention._replace(unbiased_keys=True, head_by_head=True) if isinstance(attention, Attention) else None

    return tuple(layer._replace(mixer=own(layer.mixer), cross=own(layer.cross)) for layer in bart(keys, family, layers))


def whisper_ends(keys: Keys, config: Mapping[str, Any], layers: int) -> Ends:
    named = config.get("architectures")
    if named and named not in (["WhisperForConditionalGeneration"], ["WhisperModel"]):
        raise keys.fail("architectures", f"= {shown(named)} is not estimated yet")
    audio = Audio(keys.count("num_mel_bins"), keys.count("max_source_positions"))
    return Ends(encoder=layers, head="causal-lm", dropout=keys.share("resid_pdrop"), audio=audio)
