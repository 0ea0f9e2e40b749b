"""From the log to a plan: the job that it tells, corrected by what it saw, from the remedy that comes first."""

from __future__ import annotations

import pytest
from samples import FROM_2_2, SAMPLES, torch

from advisor import RequestError, diagnose, explain_oom
from advisor.triage.plan import RULES, with_plan
from advisor.triage.rulebook import actions

TEXT = {sample.name: sample.text for sample in SAMPLES}
GIB = 2**30
SMALL = {"train": "llama-3.2-1b", "batch": "4"}


def test_every_remedy_that_a_rule_does_is_one() -> None:
    """And every rule is one of the plans'."""
    from advisor.planning import rulebook

    assert RULES.keys() <= actions().keys()
    assert set(RULES.values()) <= {rule.id for rule in rulebook.rules()}


def test_what_is_not_known_is_asked_for_by_name() -> None:
    """Model and card; nothing is guessed."""
    notes = with_plan(diagnose("RuntimeError: CUDA out of memory."), {}).notes
    assert [note.partition(":")[0] for note in notes] == [
        "For a plan, say --train MODEL or --infer MODEL",
        "For a plan, say --gpu CARD",
    ]
    assert with_plan(diagnose("RuntimeError: CUDA out of memory."), {}).plan is None


def test_the_card_is_the_one_of_the_log() -> None:
    """Of the size that the runtime reported, all of which the job could have, less what others held."""
    found = with_plan(diagnose(TEXT["torch 2.10"]), SMALL)
    assert found.plan is not None
    assert found.plan.usable_bytes == pytest.approx(11.5 * GIB, rel=1e-3)
    shared = with_plan(diagnose(TEXT["torch, another process"]), SMALL)
    assert shared.plan is not None
    assert shared.plan.usable_bytes == pytest.approx((11.5 - 6.25) * GIB, rel=1e-2)


def test_another_card_that_is_asked_about_has_its_own_memory() -> None:
    """What the log saw of a small card does not limit a large one."""
    found = with_plan(diagnose(TEXT["torch 2.10"]), {**SMALL, "gpu": "a100-80"})
    assert found.plan is not None
    assert found.plan.usable_bytes > 70 * GIB


def test_more_than_was_estimated_corrects_the_estimate() -> None:
    """A job that failed needs at least what it had and what it asked for."""
    failed = torch(FROM_2_2, tried="2.00 GiB", total="23.60 GiB", alloc="20.50 GiB", free="600.00 MiB", gap="300.00 MiB")
    found = with_plan(diagnose(failed), {"train": "llama-3.2-1b", "method": "lora"})
    assert found.plan is not None
    assert found.plan.initial.allocated_bytes == pytest.approx(22.5 * GIB, rel=0.01)
    assert not found.plan.initial.fits
    assert any("observed" in note for note in found.plan.notes)


def test_less_than_was_estimated_says_nothing() -> None:
    """The job had not ended."""
    found = with_plan(diagnose(TEXT["torch 2.10"]), {"train": "llama-3.1-8b"})
    assert any(note.startswith("The estimate of") for note in found.notes)


def test_the_plan_starts_at_the_first_remedy() -> None:
    """Weights that do not fit are quantized before the batch is touched."""
    trace = '  File "x.py", line 1, in main\n    AutoModelForCausalLM.from_pretrained(name)\n'
    found = with_plan(diagnose(trace + TEXT["torch 2.10"]), {"infer": "llama-3.1-8b", "batch": "2"})
    assert found.remedies[0].action == "quantize_weights"
    assert found.plan is not None
    assert found.plan.steps[0].rule == "I3"


def test_the_log_names_the_job() -> None:
    """vLLM prints its settings; the length is the one that was refused."""
    said = "INFO [core.py:58] Initializing a V1 LLM engine (v0.9.1) with config: model='Qwen/Qwen3-8B', dtype=torch.bfloat16, max_seq_len=65536, tensor_parallel_size=1\n"
    found = with_plan(diagnose(said + TEXT["vLLM v1, length"]), {"gpu": "rtx-4090"})
    assert found.plan is not None
    assert (found.plan.job["infer"], found.plan.job["seq"], found.plan.job["engine"]) == ("Qwen/Qwen3-8B", 65536, "vllm")
    assert found.plan.steps[0].rule == "I2"


def test_the_room_that_the_engine_found_is_the_plans() -> None:
    """It had measured weights and peak; what it left for the KV cache is known, and the plan's cache fits in it."""
    found = with_plan(diagnose(TEXT["vLLM v1, length"]), {"infer": "qwen3-8b", "gpu": "rtx-4090"})
    assert found.plan is not None
    assert found.plan.final is not None
    cache = next(part.bytes for part in found.plan.final.estimate.parts if part.name == "kv-cache")
    assert cache <= 6.25 * GIB
    assert any("6.25 GiB" in note for note in found.notes)


def test_what_the_plan_takes_for_granted_is_said() -> None:
    """Batch and length, where neither the log nor the user tells them."""
    found = with_plan(diagnose(TEXT["torch 2.10"]), {"train": "llama-3.2-1b", "seq": "1k"})
    assert any("--batch" in note and "--seq" not in note for note in found.notes)
    found = with_plan(diagnose("per_device_train_batch_size=2\n" + TEXT["torch 2.10"]), {"train": "llama-3.2-1b", "seq": "1k"})
    assert not any("--batch" in note for note in found.notes)
    assert found.plan is not None
    assert found.plan.job["batch"] == 2


def test_the_format_of_the_checkpoint_is_the_logs() -> None:
    """Else its weights would be counted in 16 bits."""
    said = "INFO config: model='Qwen/Qwen3-8B', quantization=awq_marlin, max_seq_len=65536, tensor_parallel_size=1\n"
    found = with_plan(diagnose(said + TEXT["vLLM v1, length"]), {"gpu": "rtx-4090"})
    assert found.plan is not None
    assert found.plan.job["quantization"] == "awq-int4"


def test_from_python_the_keys_of_a_job_bring_a_plan() -> None:
    """As options do on the command line; without them there is none."""
    plan = diagnose(TEXT["torch 2.10"], **SMALL).plan
    assert plan is not None
    assert plan.job["train"] == SMALL["train"]
    assert diagnose(TEXT["torch 2.10"]).plan is None
    assert explain_oom(RuntimeError(TEXT["torch 2.10"]), train="llama-3.2-1b").plan is not None


def test_a_model_that_nobody_knows_is_asked_for() -> None:
    """With the name that the log has."""
    found = with_plan(diagnose("--model_name_or_path /data/my-own-model\n" + TEXT["torch 2.10"]), {})
    assert found.plan is None
    assert "/data/my-own-model" in found.notes[0]


def test_no_plan_where_the_card_is_not_the_matter() -> None:
    """Host memory, kernels' shared memory, warnings."""
    for name in ("the kernel", "Triton's shared memory", "vLLM, preempted"):
        found = with_plan(diagnose(TEXT[name]), {"gpu": "a100-80", "train": "7b"})
        assert found.plan is None
        assert found.notes


def test_what_the_user_says_wrong_is_refused() -> None:
    """What the log says wrong is left out."""
    with pytest.raises(RequestError):
        with_plan(diagnose(TEXT["torch 2.10"]), {"train": "no-such-model-9000"})
    with pytest.raises(RequestError):
        with_plan(diagnose(TEXT["torch 2.10"]), {"train": "7b", "batch": "many"})
    strange = "tensor_parallel_size=977 gradient_accumulation_steps=0\n" + TEXT["torch 2.10"]
    assert with_plan(diagnose(strange), SMALL).plan is not None


def test_the_words_have_the_figures_of_the_log() -> None:
    """The longest sequence that fits: as vLLM estimates it, or by the share of the cache that there is."""
    assert diagnose(TEXT["vLLM v1, length"]).remedies[0].how == "--max-model-len 45504"
    without = TEXT["vLLM v1, length"].partition(" Based")[0]
    assert diagnose(without).remedies[0].how == f"--max-model-len {int(65536 * 6.25 / 9) // 16 * 16}"
    assert diagnose(TEXT["vLLM v0, length"]).remedies[0].how == "--max-model-len 11344"
