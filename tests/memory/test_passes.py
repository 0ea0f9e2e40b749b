"""The passes of a whole model: what a training loop still holds while they run."""

import pytest

from advisor import estimate
from advisor.catalog import find_model
from advisor.memory.net import AS_IF_PLAIN, Recipe
from advisor.memory.passes import blocks_of, recomputed_block, stored_block
from advisor.memory.sharding import whole_rank

GIB = 2**30
PUBLISHED = (
    # can-i-finetune-this 053ce9e, benchmarks/results (RTX 4080, transformers 5.8.1, peft 0.19.1): peak_allocated_gb, in GiB.
    ("rtx-4080", "qwen2.5-0.5b", "bf16", 2048, 16, "paged-adamw-8bit", 5.522),
    ("rtx-4080", "qwen2.5-7b", "bf16", 1024, 16, "paged-adamw-8bit", 10.002),
    # fitcheck-llm 0.3.1, data/measurements (Tesla T4, transformers 5.0.0, peft 0.19.1, fp16, no autocast): peak_allocated_mib.
    ("t4", "llama-3.2-1b", "fp16", 1024, 16, "adamw", 3723.08 / 1024),
    ("t4", "mistral-7b-v0.3", "fp16", 1024, 16, "adamw", 5.914),
)


@pytest.mark.parametrize(("gpu", "model", "precision", "seq", "rank", "optimizer", "gib"), PUBLISHED)
def test_published_qlora_steps(gpu: str, model: str, precision: str, seq: int, rank: int, optimizer: str, gib: float) -> None:
    """Loops that keep `outputs` hold fp32 logits beside their softmax and its gradient: 16 bytes a logit, not 12."""
    seen = estimate(
        gpu=gpu, train=model, seq=seq, precision=precision, method="qlora", lora_rank=rank, checkpointing="full",
        lora_targets="q_proj,k_proj,v_proj,o_proj", optimizer=optimizer, attention="sdpa", engine="trainer",
        quantization="nf4-dq" if gpu == "rtx-4080" else "nf4",
    )  # fmt: skip
    assert seen.allocated_bytes == pytest.approx(gib * GIB, rel=0.01)


def test_held_logits_are_there_in_every_phase() -> None:
    """A forward pass has those of the step before, a backward pass and the optimizer's step their own: 2 bytes a logit in bf16."""
    job = {"gpu": "a100-80", "train": "llama-3.2-1b", "seq": 4096, "precision": "bf16"}
    held, dropped = estimate(**job, engine="trainer"), estimate(**job, engine="transformers")
    logits = 2 * 4096 * 128_256
    assert {phase: held.phases[phase] - dropped.phases[phase] for phase in ("forward", "backward", "step")} == dict.fromkeys(
        ("forward", "backward", "step"), logits
    )


def test_a_kbit_model_is_computed_without_autocast() -> None:
    """PEFT makes the head fp32 and its bitsandbytes layers compute in 16 bits by themselves, so mixed precision changes nothing."""
    job = {"gpu": "a100-80", "train": "llama-3.2-1b", "method": "qlora", "engine": "trainer"}
    assert estimate(**job, precision="bf16-mixed").phases == estimate(**job, precision="bf16").phases


ANOTHER_END = Recipe(
    train=True, loss="fused", chunks=8, chunk_tokens=128, outputs_fp32=True, shifted=True, narrow_loss=True, quantized_head=True
)  # fmt: skip


def test_layers_know_nothing_of_the_loss() -> None:
    """So what is worked out for them with one serves for all; every key that is left out of it differs here."""
    plain = Recipe(train=True)
    assert {name for name, one in plain._asdict().items() if one != getattr(ANOTHER_END, name)} == AS_IF_PLAIN.keys()
    for name in ("llama-3.2-1b", "mixtral-8x7b", "gemma-2-2b", "deepseek-v2-lite", "falcon-h1-0.5b", "bert-base-uncased"):
        model = find_model(name)
        for layer, _ in model.kinds:
            for make in (stored_block, recomputed_block):
                rest = (layer, model.hidden, 0.1, *([False] if make is stored_block else []), False, 64)
                assert make(ANOTHER_END, *rest) == make(plain, *rest)


def test_layers_are_worked_out_once_for_all_losses() -> None:
    """A plan tries several on one model."""
    rank = whole_rank(find_model("llama-3.2-1b"))
    for checkpointed in (False, True):
        one, other = (blocks_of(recipe, rank, checkpointed, False, 0) for recipe in (Recipe(train=True), ANOTHER_END))
        assert all(a is b for a, b in zip(one, other, strict=True))
