"""Encoders, and what an encoder and a decoder keep of each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory import encoder_inference
from advisor.memory.encoders import at_length
from advisor.memory.extent import NOTHING, size
from advisor.memory.kv_cache import cache_bytes, cross_bytes
from advisor.memory.shadow import Block, Peak
from advisor.memory.sharding import whole_rank
from advisor.results import Estimate
from advisor.workload import resolve

T5: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 512,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 8,
    "d_kv": 64,
    "architectures": ["T5ForConditionalGeneration"],
}
BERT: dict[str, Any] = {"model_type": "bert", "num_hidden_layers": 4, "architectures": ["BertForMaskedLM"]}


def estimated(**keys: Any) -> Estimate:
    return estimate_workload(resolve(Job(gpu="h200", **keys)))


def part(estimate: Estimate, name: str) -> int:
    return next((part.bytes for part in estimate.parts if part.name == name), 0)


def decoding(**keys: Any) -> dict[str, int]:
    w = resolve(Job(gpu="h200", precision="bf16", **keys))
    return encoder_inference.phases(w, whole_rank(w.model))["decode"]


def test_a_decoder_caches_what_it_writes_and_what_its_encoder_has_read() -> None:
    """T5 with two decoder layers: keys and values of 8 × 64 numbers for each token, of both kinds (EncoderDecoderCache)."""
    model = resolve(Job(gpu="h200", infer=T5)).model
    assert cache_bytes(model, 3, 100, "bf16") == 3 * 100 * 2 * 2 * 512 * 2
    assert cross_bytes(model, 3, 700, "bf16") == 3 * 700 * 2 * 2 * 512 * 2
    assert decoding(infer=T5, batch=3, prompt=700, seq=800)["kv-cache"] == 3 * 800 * 2 * 2 * 512 * 2


def test_the_cache_is_what_the_real_class_holds() -> None:
    """9,437,184 bytes: storages of the EncoderDecoderCache of T5ForConditionalGeneration in transformers 5.23, after 256 tokens
    read and 128 written in bf16 by four sequences and three layers."""
    job = {"infer": T5 | {"num_decoder_layers": 3}, "batch": 4, "prompt": 256, "seq": 384}
    assert decoding(**job)["kv-cache"] == 9_437_184


def test_an_encoder_decodes_nothing() -> None:
    """One pass: no KV cache, no decoding, and logits only where the class has a masked-LM head."""
    with_head = estimated(infer=BERT, batch=8, seq=512, precision="bf16")
    bare = estimated(infer=BERT | {"architectures": ["BertModel"]}, batch=8, seq=512, precision="bf16")
    assert set(with_head.phases) == set(bare.phases) == {"load", "prefill"}
    assert part(with_head, "kv-cache") == part(bare, "kv-cache") == 0
    assert part(with_head, "logits-and-loss") == 8 * 512 * 30522 * 2
    assert part(bare, "logits-and-loss") == 0


def test_the_two_lengths_count_apart() -> None:
    """A longer source costs the encoder and the cross-attention, a longer target the decoder and the logits."""
    base = estimated(train=T5, batch=4, prompt=256, seq=384, precision="bf16").allocated_bytes
    longer_source = estimated(train=T5, batch=4, prompt=512, seq=640, precision="bf16")
    longer_target = estimated(train=T5, batch=4, prompt=256, seq=640, precision="bf16")
    assert base < longer_source.allocated_bytes < longer_target.allocated_bytes  # 32,128 logits for each token that is taught


def test_both_stacks_see_the_whole_length_unless_a_prompt_divides_it() -> None:
    """A job that names no prompt is the same as one that divides twice its length in two."""
    whole = estimated(train=T5, batch=4, seq=256, precision="bf16")
    divided = estimated(train=T5, batch=4, prompt=256, seq=512, precision="bf16")
    assert whole.phases == divided.phases


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_grow_with_both_lengths(attention: str) -> None:
    """Eager attention keeps a score for each pair of tokens; T5's table of biases is as large in SDPA, once for each layer."""
    short, long = (estimated(train=T5, seq=seq, batch=1, attention=attention).allocated_bytes for seq in (1024, 4096))
    assert long > 4 * short


@given(st.integers(1, 64), st.integers(1, 4096), st.tuples(*[st.integers(0, 1000)] * 6))
def test_a_block_at_a_length_is_as_large_as_it_was(batch: int, length: int, extent: Any) -> None:
    """Whatever the decoder's length, the encoder's bytes stay those of its own."""
    block = Block(extent, extent, (Peak(extent),), (), NOTHING)
    fixed = at_length(block, length)
    assert size(fixed.kept, batch, 7) == size(fixed.forward[0].live, batch, 1) == size(extent, batch, length)
