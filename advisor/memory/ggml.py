"""llama.cpp's types and mixtures: which type `llama-quantize` gives each matrix of a file type, and the bytes that makes.

Sources: llama.cpp src/llama-quant.cpp (tensor_allows_quantization, llama_tensor_get_type_impl, tensor_type_fallback); an
importance matrix changes a few types, and only the 2-bit types and iq3_xxs are taken to have one; ggml-common.h for the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

# Weights in a block, and its bytes.
BLOCKS = {
    "f16": (1, 2), "q4_0": (32, 18), "q4_1": (32, 20), "q5_0": (32, 22), "q5_1": (32, 24), "q8_0": (32, 34), "mxfp4": (32, 17),
    "iq4_nl": (32, 18), "q2_k": (256, 84), "q3_k": (256, 110), "q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210),
    "iq4_xs": (256, 136), "iq3_s": (256, 110), "iq3_xxs": (256, 98), "iq2_s": (256, 82), "iq2_xxs": (256, 66),
}  # fmt: skip
# What a matrix becomes whose rows are no whole number of 256-weight blocks.
FALLBACK = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
FALLBACK |= dict.fromkeys(("iq4_xs", "iq3_s", "iq3_xxs", "iq2_s", "iq2_xxs"), "iq4_nl")
VECTOR = 4  # norms, biases, routers and position tables stay fp32 (convert_hf_to_gguf.py)

# The part that a matrix plays, by Llama's name of it. The fused qkv counts as the values, a fused gate and up as up.
PARTS = {
    "q_proj": "query", "k_proj": "key", "v_proj": "value", "qkv_proj": "value", "o_proj": "output", "down_proj": "down",
    "lm_head": "head", "embed_tokens": "embedding",
}  # fmt: skip


class Place(NamedTuple):
    """Where a matrix stands: its layer of how many, and what of its model the rules ask for."""

    layer: int = 0
    layers: int = 1
    experts: int = 0
    queries: int = 1  # per KV head
    tied: bool = False
    falcon: bool = False

    @property
    def of_70b(self) -> bool:
        """LLM_TYPE_70B: 80 layers with grouped queries; its values are an eighth of its queries and get more bits."""
        return self.layers == 80 and self.queries > 1


When = Callable[[Place], bool]
Rule = tuple[tuple[When, str], ...]


def _always(kind: str) -> Rule:
    return ((lambda place: True, kind),)


def _first(layers: int, kind: str) -> Rule:
    return ((lambda place: place.layer < layers, kind),)


def _share(of: int, kind: str) -> Rule:
    """The first 1/``of`` of the layers."""
    return ((lambda place: place.layer < place.layers // of, kind),)


def _grouped(kind: str) -> Rule:
    return ((lambda place: place.queries >= 4, kind),)


def _more_bits(kind: str) -> Rule:
    """use_more_bits: the first and the last eighth of the layers, and each third between."""

    def chosen(place: Place) -> bool:
        eighth = place.layers // 8
        return place.layer < eighth or place.layer >= 7 * place.layers // 8 or (place.layer - eighth) % 3 == 2

    return ((chosen, kind),)


class Mixture(NamedTuple):
    """A file type: the type of most matrices, and of each part that has another one. ``eight``: attention's output in models of
    eight experts."""

    base: str
    head: str = "q6_k"
    embedding: str = ""
    query: Rule = ()
    key: Rule = ()
    value: Rule = ()
    output: Rule = ()
    down: Rule = ()
    eight: str = ""


MIXTURES: dict[str, Mixture] = {
    "q8_0": Mixture("q8_0", head="q8_0"),
    "q6_k": Mixture("q6_k"),
    "q5_k_m": Mixture("q5_k", value=_more_bits("q6_k"), down=_more_bits("q6_k")),
    "q5_k_s": Mixture("q5_k"),
    "q5_0": Mixture("q5_0"),
    "q5_1": Mixture("q5_1"),
    "q4_k_m": Mixture("q4_k", value=_more_bits("q6_k"), down=_more_bits("q6_k"), eight="q5_k"),
    "q4_k_s": Mixture("q4_k", value=_first(4, "q5_k"), down=_share(8, "q5_k"), eight="q5_k"),
    "q4_0": Mixture("q4_0"),
    "q4_1": Mixture("q4_1"),
    "iq4_xs": Mixture("iq4_xs", value=_grouped("q5_k"), down=_share(8, "q5_k"), eight="q5_k"),
    "iq4_nl": Mixture("iq4_nl", value=_grouped("q5_k"), down=_share(8, "q5_k"), eight="q5_k"),
    "q3_k_l": Mixture("q3_k", value=_always("q5_k"), output=_always("q5_k"), down=_always("q5_k")),
    "q3_k_m": Mixture(
        "q3_k",
        value=_first(2, "q5_k") + _always("q4_k"),
        output=_always("q4_k"),
        down=_share(16, "q5_k") + _always("q4_k"),
        eight="q5_k",
    ),
    "q3_k_s": Mixture("q3_k", eight="q5_k"),
    "iq3_m": Mixture("iq3_s", value=_always("q4_k"), output=_always("q4_k"), down=_share(8, "q4_k"), eight="q5_k"),
    "iq3_xxs": Mixture(
        "iq3_xxs",
        head="q5_k",
        embedding="iq3_s",
        query=_always("iq2_s"),
        key=_always("iq2_s"),
        value=_grouped("q4_k"),
        output=_always("iq3_s"),
        eight="q5_k",
    ),
    "q2_k": Mixture(
        "q2_k", value=_grouped("q4_k") + _always("q3_k"), output=_always("q3_k"), down=_always("q3_k"), eight="q5_k"
    ),
    "iq2_m": Mixture(
        "iq2_s",
        head="q5_k",
        embedding="iq3_s",
        value=_grouped("q4_k") + _always("iq3_s"),
        output=_always("iq3_s"),
        down=_share(8, "iq3_s"),
        eight="q5_k",
    ),
    "iq2_xxs": Mixture(
        "iq2_xxs",
        head="q5_k",
        embedding="q2_k",
        value=_grouped("q4_k") + _always("q2_k"),
        down=_share(8, "q2_k"),
        eight="q5_k",
    ),
    "mxfp4": Mixture("mxfp4", head="q8_0", embedding="q8_0"),  # MXFP4_MOE: the experts; the rest is q8_0
}


def type_of(part: str, mixture: Mixture, place: Place, expert: bool = False) -> str:
    """The type that one part of a layer, the embedding or the head gets, before the rows are looked at."""
    if part == "head" or (part == "embedding" and place.tied):
        return "q8_0" if place.falcon else mixture.head
    if part == "embedding":
        return mixture.embedding or mixture.base
    if mixture.base == "mxfp4":
        return "mxfp4" if expert else "q8_0"
    if place.experts == 8 and part in ("key", "value"):
        return "q4_k" if mixture.base.startswith("iq2") else "q8_0"
    if part == "output" and place.experts == 8:
        return mixture.eight or mixture.base
    rule: Rule = getattr(mixture, part, ()) if part in ("query", "key", "value", "output", "down") else ()
    kind = next((kind for when, kind in rule if when(place)), mixture.base)
    return "q5_k" if part == "value" and place.of_70b and kind in ("q3_k", "q4_k") else kind


def size(kind: str, rows: int, cols: int) -> int:
    """Bytes of a matrix; a row is a whole number of blocks, else the matrix is of a type with smaller ones."""
    if cols % BLOCKS[kind][0]:
        kind = FALLBACK.get(kind, "f16")
    if cols % BLOCKS[kind][0]:
        kind = "f16"
    weights, nbytes = BLOCKS[kind]
    return rows * cols // weights * nbytes
