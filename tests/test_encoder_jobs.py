"""What a job with an encoder in it means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.api import advise
from advisor.errors import RequestError
from advisor.job import Job
from advisor.memory.parameters import parameter_count
from advisor.workload import resolve


def notes(**keys: Any) -> str:
    return " ".join(resolve(Job(gpu="a100-80", **keys)).notes)


@pytest.mark.parametrize(
    ("architecture", "parameters", "says"),
    [
        ("BertForMaskedLM", 109_514_298, "a masked-LM head, with logits of every token: as its config says"),
        ("BertForSequenceClassification", 109_483_778, "a classification head of 2 labels a sequence: as its config says"),
        ("BertForTokenClassification", 108_893_186, "a head of 2 labels a token: as its config says"),
        ("BertModel", 109_483_778, "a classification head of 2 labels a sequence: assumed"),
    ],
)
def test_architectures_decide_the_head(architecture: str, parameters: int, says: str) -> None:
    """Counts of the transformers 5.23 classes; an encoder without a head is trained with a classifier, and a note says so."""
    config = {"model_type": "bert", "architectures": [architecture]}
    assert parameter_count(resolve(Job(gpu="a100-80", train=config)).model) == parameters
    assert says in notes(train=config)


def test_labels_come_from_the_config() -> None:
    """``id2label`` lists them."""
    config = {
        "model_type": "bert",
        "architectures": ["BertForTokenClassification"],
        "id2label": {str(i): "x" for i in range(9)},
    }
    assert "9 labels a token" in notes(train=config)


def test_inference_leaves_the_model_as_it_is() -> None:
    """BertModel: 109,482,240 parameters, with its pooler (transformers 5.23)."""
    model = resolve(Job(gpu="a100-80", infer="bert-base")).model
    assert parameter_count(model) == 109_482_240
    assert not model.generates


def test_what_the_lengths_mean_is_said() -> None:
    """The encoder's tokens and the decoder's."""
    assert "The encoder reads 512 tokens (seq, for want of a shorter --prompt), and the decoder writes 512." in notes(
        infer="flan-t5-base"
    )
    assert "The encoder sees 400 tokens (--prompt), and the decoder is taught 112." in notes(
        train="flan-t5-base", prompt=400, seq=512
    )


def test_sound_has_a_length_of_its_own() -> None:
    """Whisper pads every recording to 30 s; ``seq`` is the decoder's, by default all the positions that it has."""
    said = notes(infer="whisper-tiny")
    assert "reads 30 s of sound for each sequence, padded to 1,500 positions" in said
    assert "the decoder writes 448 tokens (seq)" in said
    assert "the decoder is taught 128 tokens" in notes(train="whisper-tiny", seq=128)
    assert "was made for 448 tokens; 1,000 are more" in notes(train="whisper-tiny", seq=1000)


@pytest.mark.parametrize("architecture", ["WhisperForAudioClassification", "WhisperForCausalLM"])
def test_other_heads_and_halves_of_whisper_are_refused(architecture: str) -> None:
    """They are neither an encoder with a decoder nor trained with its loss."""
    with pytest.raises(RequestError, match="architectures"):
        resolve(Job(gpu="a100-80", train={"model_type": "whisper", "architectures": [architecture]}))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"infer": "whisper-tiny", "prompt": 100, "seq": 300}, "reads 30 s of sound, whatever is written"),
        ({"infer": "whisper-tiny", "engine": "vllm"}, "what vllm does with an encoder"),
        ({"infer": "bert-base", "engine": "vllm"}, "what vllm does with an encoder"),
        ({"infer": "bert-base", "gpus": 2}, "not dealt out over GPUs"),
        ({"train": "bert-base", "tp": 2}, "tp: bert-base has an encoder"),
        ({"train": "t5-base", "pp": 2}, "pp: t5-base has an encoder"),
        ({"infer": "bert-base", "prompt": 100, "seq": 300}, "bert-base generates nothing"),
        ({"infer": "bert-base", "kv_precision": "fp8"}, "has no KV cache"),
        ({"infer": "t5-base", "offload": "kv"}, "not moved to the host"),
        ({"train": "bert-base", "loss": "chunked"}, "chunked losses are for decoders"),
        ({"train": "bert-base", "checkpointing": "selective"}, "selective is not worked out"),
        ({"train": "t5-base", "attention": "flash"}, "adds learned numbers to the scores"),
    ],
)
def test_what_is_not_worked_out_is_refused(keys: dict[str, Any], says: str) -> None:
    """In one line that names the key."""
    with pytest.raises(RequestError, match=says) as caught:
        resolve(Job(gpu="a100-80", **keys))
    assert "\n" not in str(caught.value)


def test_a_decided_job_is_the_same_job_again() -> None:
    """Whatever is printed is accepted, and means the same: a prompt as long as the sequence divides nothing."""
    for keys in (
        {"infer": "whisper-base"},
        {"infer": "t5-base"},
        {"train": "t5-base", "prompt": 300, "seq": 500},
        {"train": "bert-base"},
    ):
        first = resolve(Job(gpu="a100-80", **keys))
        again = resolve(Job(**first.to_dict()))
        assert (first.source, first.length, first.prompt, first.seq) == (again.source, again.length, again.prompt, again.seq)


def test_t5_keeps_one_matrix_in_fp32_when_the_rest_is_fp16() -> None:
    """transformers' T5PreTrainedModel._keep_in_fp32_modules: wo, 48 of 5120 × 2048 in flan-t5-xl."""
    from advisor.estimator import estimate_workload

    def weights(**keys: Any) -> int:
        estimate = estimate_workload(resolve(Job(gpu="a100-80", infer="flan-t5-xl", **keys)))
        return next(part.bytes for part in estimate.parts if part.name == "weights")

    assert weights(precision="fp16") - weights(precision="bf16") == 2 * 48 * 5120 * 2048


def test_no_remedy_of_a_plan_speaks_of_generating_with_an_encoder() -> None:
    """BERT in inference is cut in batches, and called as a module."""
    plan = advise(Job(gpu="t4", infer="bert-large", batch=4096, seq=512)).to_dict()
    assert plan["verdict"] == "fits-after-changes"
    assert {step["rule"] for step in plan["steps"]} <= {"I1", "I3"}
    assert "generate" not in str([step["how"] for step in plan["steps"]])
    assert "kv-cache" not in {part["name"] for part in plan["initial"]["parts"]}


@pytest.mark.parametrize(
    "keys",
    [
        {"train": "whisper-large-v3", "batch": 64},
        {"infer": "whisper-large-v3", "batch": 4096},
        {"infer": "whisper-large-v3", "batch": 1024, "min_seq": 64, "keep": ("batch",)},
    ],
)
def test_a_plan_for_sound_never_shortens_what_is_heard(keys: dict[str, Any]) -> None:
    """No step sets a prompt, and a length only where ``min_seq`` allows one below the decoder's."""
    plan = advise(Job(gpu="t4", **keys)).to_dict()
    changed = {key for step in plan["steps"] for key in step["change"]}
    assert plan["steps"]
    assert "prompt" not in changed
    assert "min_seq" in keys or "seq" not in changed
