"""The end of a step: which logits are there when, by engine; and LitGPT's published fine-tunes."""

import pytest

from advisor import estimate

GB = 10**9
ALL = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,lm_head"
# litgpt config_hub/finetune/README.md, peak memory on one A10G (max_memory_allocated in units of 1e9), bf16-true, 512 tokens, run
# between March and September 2024; ranks, targets and dropout of the YAML files beside it.
PUBLISHED = (
    ("llama-3-8b", "lora", 1, 32, "q_proj,v_proj", 0.05, 19.73),
    ("llama-3.2-1b", "lora", 1, 32, "q_proj,v_proj", 0.05, 4.49),
    ("llama-3.2-3b", "lora", 1, 32, "q_proj,v_proj", 0.05, 9.67),
    ("mistral-7b-v0.1", "lora", 2, 32, "q_proj,v_proj", 0.05, 20.66),
    ("gemma-2b", "lora", 2, 8, ALL, 0.1, 12.62),
    ("gemma-2-2b", "lora", 2, 8, ALL, 0.1, 14.31),
    ("llama-3-8b", "qlora", 2, 32, "q_proj,v_proj", 0.05, 17.41),
    ("llama-3.2-1b", "qlora", 2, 32, "q_proj,v_proj", 0.05, 5.53),
    ("llama-3.2-3b", "qlora", 2, 32, "q_proj,v_proj", 0.05, 10.30),
    ("mistral-7b-v0.1", "qlora", 2, 32, "q_proj,v_proj", 0.05, 14.29),
    ("gemma-2b", "qlora", 2, 16, ALL, 0.1, 11.58),
    ("gemma-2-9b", "qlora", 1, 16, ALL, 0.1, 20.92),
)


@pytest.mark.parametrize(("model", "method", "batch", "rank", "targets", "dropout", "gb"), PUBLISHED)
def test_published_litgpt_runs(model: str, method: str, batch: int, rank: int, targets: str, dropout: float, gb: float) -> None:
    """Within 5 %, LoRA within 3.5 %, with no constant that was read off them."""
    seen = estimate(
        gpu="a10g", train=model, engine="litgpt", engine_version="0.4.13", method=method, batch=batch, seq=512, precision="bf16",
        lora_rank=rank, lora_targets=targets, lora_dropout=dropout, accumulation=4,
    )  # fmt: skip
    assert seen.allocated_bytes == pytest.approx(gb * GB, rel=0.035 if method == "lora" else 0.05)


def test_litgpt_has_a_head_of_its_own() -> None:
    """Llama 3.2's tied head is a second matrix there; beside k-bit weights it is k-bit as well, 4.5 bits a weight."""
    matrix = 128_256 * 2048
    job = {"gpu": "a100-80", "train": "llama-3.2-1b", "method": "qlora", "precision": "bf16", "quantization": "nf4"}
    own, tied = (
        next(part.bytes for part in estimate(**job, engine=engine).parts if part.name == "weights")
        for engine in ("litgpt", "axolotl")
    )
    assert own - tied == pytest.approx(matrix * 4.5 / 8, rel=0.01)


def test_what_litgpt_does_beside_kbit_weights_by_version() -> None:
    """0.5.0 began to make a gradient of the embedding that nothing drops: 2 bytes an element, in every phase. bitsandbytes 0.42, to
    which versions before 0.5.5 were pinned, held the inputs of all products as long as the graph was there."""
    job = {"gpu": "a100-80", "train": "llama-3-8b", "method": "qlora", "precision": "bf16", "seq": 1024, "engine": "litgpt",
           "lora_targets": "q_proj,v_proj"}  # fmt: skip
    first, second, newest = (estimate(**job, engine_version=version).phases for version in ("0.4.13", "0.5.4", "0.5.5"))
    embedding = 128_256 * 4096 * 2
    assert second["step"] - first["step"] == second["backward"] - first["backward"] == embedding
    assert second["step"] == newest["step"]
    tokens, hidden, wide, layers = 1024, 4096, 14_336, 32
    of_the_step_before = 2 * (3 * hidden + wide)  # into qkv and proj, into both of fc_1 and fc_2, into the last
    not_kept_anyway = 2 * (hidden + wide)
    held = tokens * layers * (of_the_step_before + not_kept_anyway)
    assert second["forward"] - newest["forward"] == pytest.approx(held, rel=0.02)


def test_chunks_of_litgpt_are_kept() -> None:
    """The logits leave the model in fp32 (Lightning's convert_output) and stay until the next step's are there: at the end of its
    forward pass there are 4 bytes of the old, 2 of the new and 4 of their copy."""
    job = {"gpu": "a100-80", "train": "llama-3.2-1b", "method": "lora", "precision": "bf16", "seq": 4096, "engine": "litgpt"}
    parts = estimate(**job).to_dict()["parts"]
    loss = next(part["bytes"] for part in parts if part["name"] == "logits-and-loss")
    assert loss == pytest.approx(10 * 4096 * 128_256, rel=0.01)


# torchtune README at bd2a0fc, "Optimization flags": Llama 3.2 3B, batch 2, packed to 4096 tokens, bf16, A100, peak active memory in
# GiB. The rows after these step within the backward pass or move activations to the host.
TORCHTUNE = (
    (False, "plain", "none", 60.0),
    (True, "plain", "none", 51.0),
    (True, "chunked", "none", 42.9),
    (True, "chunked", "full", 24.9),
)


@pytest.mark.parametrize(("compiled", "loss", "checkpointing", "gib"), TORCHTUNE)
def test_published_torchtune_runs(compiled: bool, loss: str, checkpointing: str, gib: float) -> None:
    """Within 2.5 %: keys and values expanded, a step without copies, what torch.compile keeps, 2 bytes a logit in chunks."""
    seen = estimate(
        gpu="a100-80", train="llama-3.2-3b", engine="torchtune", precision="bf16", batch=2, seq=4096, optimizer="adamw",
        compile=compiled, loss=loss, checkpointing=checkpointing,
    )  # fmt: skip
    assert seen.allocated_bytes == pytest.approx(gib * 2**30, rel=0.025)


@pytest.mark.parametrize(("version", "held"), [("4.44", 4), ("4.45", 2), (None, 2)])
def test_old_transformers_held_fp32_logits(version: str | None, held: int) -> None:
    """Before 4.45 a Llama's logits became fp32 and stayed beside the shifted copy's softmax and two gradients of it."""
    job = {
        "gpu": "a100-80",
        "train": "llama-3.2-1b",
        "seq": 8192,
        "precision": "bf16",
        "checkpointing": "full",
        "method": "lora",
    }
    parts = estimate(**job, engine="trainer", engine_version=version).to_dict()["parts"]
    loss = next(part["bytes"] for part in parts if part["name"] == "logits-and-loss")
    assert loss == pytest.approx((held + 12) * 8192 * 128_256, rel=0.01)


def test_the_loss_of_remote_code_has_the_logits_type_without_autocast() -> None:
    """QWenLMHeadModel (Qwen-7B's modeling_qwen.py) does not ask for fp32: DeepSpeed's fp16 leaves 2 bytes in the logits that are held,
    the softmax, and two gradients; under accelerate's autocast the last three have 4."""
    job = {"gpu": "a100-80", "train": "qwen-7b", "seq": 8192, "checkpointing": "full", "method": "lora", "engine": "trainer"}

    def loss(**more: object) -> float:
        parts = estimate(**job, **more).to_dict()["parts"]
        return sum(part["bytes"] for part in parts if part["name"] == "logits-and-loss") / 8192 / 151_936

    assert loss(precision="fp16", zero=2, sharding="deepspeed") == pytest.approx(8, rel=0.03)
    assert loss(precision="bf16") == pytest.approx(14, rel=0.03)


def test_compiled_chunks_of_logits_that_came_back_in_fp32() -> None:
    """LitGPT with torch.compile and LoRA: the fp32 copies are what the model returned, and so what the loss keeps."""
    job = {"gpu": "a100-80", "train": "llama-3.2-1b", "engine": "litgpt", "seq": 4096, "method": "lora"}
    compiled, eager = estimate(**job, compile=True), estimate(**job)
    assert 0 < compiled.phases["backward"] <= eager.phases["backward"]
