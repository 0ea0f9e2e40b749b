"""DeBERTa's layers and what stands around them (transformers 5.23, modeling_deberta.py and modeling_deberta_v2.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advisor.mixers import Attention, Distances
from advisor.model import Convolution, Ends, Layer
from advisor.model_files.config import ACTIVATIONS, attention_of, mlp_of
from advisor.model_files.encoders import head_of
from advisor.model_files.families import Family
from advisor.model_files.keys import Keys, shown


def layers(keys: Keys, family: Family, many: int) -> tuple[Layer, ...]:
    """One kind of layer, whose scores have a part for content and others for positions."""
    attention = attention_of(keys, family, None)
    assert isinstance(attention, Attention)
    for key, there in (
        ("attention_head_size", attention.head_dim),
        ("embedding_size", keys.count("hidden_size")),
        ("pooler_hidden_size", keys.count("hidden_size")),
    ):
        if keys.optional(key) not in (None, there):
            raise keys.fail(key, f"= {keys.get(key)} where {there} follows from the other keys is not estimated yet")
    attention = attention._replace(causal=False, disentangled=True, distances=_distances(keys))
    return (Layer(attention, mlp_of(keys, family), family.arrangement, family.norm, family.names),) * many


def _distances(keys: Keys) -> Distances | None:
    """The first DeBERTa has a row for each distance; the second has buckets, and may share the content's projections."""
    if not keys.says("relative_attention"):
        return None
    written = keys.get("pos_att_type")
    terms = [term.strip() for term in written.lower().split("|")] if isinstance(written, str) else keys.each("pos_att_type")
    if "c2p" not in terms and "p2c" not in terms:
        raise keys.fail("pos_att_type", f"= {shown(written)} has neither c2p nor p2c, one of which relative_attention asks for")
    second = keys.model_type == "deberta-v2"
    return Distances(
        span=_span(keys),
        to_keys="c2p" in terms,
        to_queries="p2c" in terms,
        shared=second and keys.says("share_att_key"),
        dropout=keys.share("resid_pdrop"),
    )


def _span(keys: Keys) -> int:
    for key in (
        ("position_buckets", "max_relative_positions") if keys.model_type == "deberta-v2" else ("max_relative_positions",)
    ):
        wide = keys.optional(key, least=-1)
        if wide and wide > 0:
            return wide
    return keys.count("max_position_embeddings")


def ends(keys: Keys, config: Mapping[str, Any], many: int) -> Ends:
    head, labels = head_of(config, "none")
    masked, second, rate = head == "masked-lm", keys.model_type == "deberta-v2", keys.share("resid_pdrop")
    own_bias = masked and not keys.says("legacy")
    if own_bias and not keys.says("tie_word_embeddings"):
        raise keys.fail(
            "legacy", "= False multiplies by the embedding, and tie_word_embeddings = False is not estimated yet with it"
        )
    far = 2 * _span(keys) if keys.says("relative_attention") else 0
    return Ends(
        encoder=many,
        head=head,
        labels=labels,
        dense="cls.predictions.transform.dense" if masked else "pooler.dense",
        dense_activation="gelu" if masked else _activation(keys, "pooler_hidden_act"),
        token_types=keys.optional("type_vocab_size", least=0) or 0,
        dropout=rate,
        head_dropout=rate if head == "tokens" and "TokenClass" in str(config.get("architectures")) else 0.0,
        logits_bias=own_bias,
        masks_embedding=True,
        distances=far,
        cuts_distances=not second,
        distances_norm=second and far > 0 and "layer_norm" in str(keys.get("norm_rel_ebd")).lower(),
        convolution=_convolution(keys) if second else None,
    )


def _convolution(keys: Keys) -> Convolution | None:
    kernel = keys.optional("conv_kernel_size", least=0)
    if not kernel:
        return None
    groups = keys.count("conv_groups")
    if keys.count("hidden_size") % groups:
        raise keys.fail("conv_groups", f"= {groups} does not divide the hidden size")
    return Convolution(kernel, groups, _activation(keys, "conv_act"))


def _activation(keys: Keys, key: str) -> Any:
    written = keys.get(key)
    if written == "tanh" or (isinstance(written, str) and written in ACTIVATIONS):
        return "tanh" if written == "tanh" else ACTIVATIONS[written]
    raise keys.fail(key, f"= {shown(written)} is not known")
