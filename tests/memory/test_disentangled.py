"""DeBERTa: its parameters, and what its attention keeps."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.errors import RequestError
from advisor.estimator import estimate_workload
from advisor.job import Job
from advisor.memory.disentangled import convolution_block
from advisor.memory.extent import size
from advisor.memory.net import Recipe
from advisor.memory.parameters import layer_weights, parameter_count
from advisor.memory.passes import stored_block
from advisor.memory.runtime import workspace
from advisor.model_files.config import model_from_config
from advisor.workload import resolve

ALIKE: dict[str, Any] = {"max_position_embeddings": 512, "relative_attention": True, "position_biased_input": False}
V1 = ALIKE | {"model_type": "deberta", "pos_att_type": "c2p|p2c"}
V3 = ALIKE | {
    "model_type": "deberta-v2",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
}
XLARGE = V3 | {
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
}
SMALL: dict[str, Any] = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048}


def built(config: dict[str, Any], **keys: Any) -> Any:
    return model_from_config(config | keys, "deberta")


def kept(config: dict[str, Any], batch: int, seq: int, **keys: Any) -> int:
    """Bytes that one layer keeps in bf16."""
    model = built(config, **keys)
    cuts = model.ends.cuts_distances and 2 * seq < model.ends.distances
    recipe = Recipe(train=True, cuts_distances=cuts)
    return size(stored_block(recipe, model.layers[0], model.hidden, 0.1, False, False).kept, batch, seq)


@pytest.mark.parametrize(
    ("config", "architecture", "parameters"),
    [
        (V3, "DebertaV2Model", 183_831_552),
        (V3, "DebertaV2ForSequenceClassification", 184_423_682),
        (V3, "DebertaV2ForTokenClassification", 183_833_090),
        (V3, "DebertaV2ForQuestionAnswering", 183_833_090),
        (V3, "DebertaV2ForMultipleChoice", 184_422_913),
        (V3, "DebertaV2ForMaskedLM", 184_551_780),
        (V3 | {"share_att_key": False, "norm_rel_ebd": "none"}, "DebertaV2Model", 198_004_224),
        (XLARGE, "DebertaV2ForMaskedLM", 887_085_156),
        ({"model_type": "deberta-v2"}, "DebertaV2Model", 877_507_584),
        (
            {"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": ["c2p"], "max_relative_positions": 100}
            | {"type_vocab_size": 2},
            "DebertaV2Model",
            934_477_824,
        ),
        (V1, "DebertaModel", 138_601_728),
        (V1, "DebertaForMaskedLM", 139_244_121),
        ({"model_type": "deberta"}, "DebertaModel", 124_043_520),
    ],
)
def test_parameters_are_those_of_the_real_class(config: dict[str, Any], architecture: str, parameters: int) -> None:
    """Counts of the transformers 5.23 classes on torch's meta device."""
    assert parameter_count(built(config, architectures=[architecture])) == parameters


def test_modules_have_their_own_names() -> None:
    """PEFT's targets for DeBERTa are query_proj and value_proj, for the first one in_proj (peft/utils/constants.py)."""
    second = {weight.name for weight in layer_weights(built(V3).layers[0], 768)}
    first = {weight.name for weight in layer_weights(built(V1).layers[0], 768)}
    assert {"attention.self.query_proj", "attention.self.value_proj.bias"} <= second
    assert {"attention.self.in_proj", "attention.self.q_bias", "attention.self.pos_proj", "attention.self.pos_q_proj"} <= first
    assert not {name for name in second if "pos_" in name}  # shared with the content


def test_both_terms_keep_the_scores_of_all_distances() -> None:
    """What position-to-content adds, in bf16: the scores of 12 heads with 512 distances, the distances' queries for each sequence,
    the keys before they are scaled, and the place of each pair in whole numbers of 8 bytes."""
    both, one = kept(V3, 4, 512), kept(V3, 4, 512, pos_att_type="c2p")
    assert both - one == 2 * 4 * (512 * 12 * 512 + 512 * 768 + 512 * 768) + 512 * 512 * 8


def test_the_first_generation_looks_no_farther_than_the_sequence() -> None:
    """Its table is cut to two rows a token, behind a dropout over all of it; the second's buckets meet every sequence whole."""
    dropped = (2 * 4096 - 2 * 512) * 768 * (2 + 1)
    assert kept(V1, 8, 256, max_relative_positions=4096) - kept(V1, 8, 256) == dropped
    assert kept(V1, 8, 2048) < kept(V1, 8, 2048, max_relative_positions=4096)
    assert kept(V3, 8, 64) > kept(V3, 8, 64, position_buckets=64)


def test_the_convolution_stands_beside_the_first_layer_alone() -> None:
    """Of v2 xlarge; its weights are the model's, not a layer's, and what it keeps does not grow with the depth."""
    model, plain = built(XLARGE), built(XLARGE, conv_kernel_size=0)
    assert model.layers == plain.layers
    assert parameter_count(model) - parameter_count(plain) == 1536 * 1536 * 3 + 3 * 1536
    recipe = Recipe(train=True)
    block = convolution_block(recipe, model, graded=True)
    vector = (
        8 * 256 * 1536
    )  # its input, its output behind the dropout, the sum, in bf16; the dropout's mask; the norm's moments
    assert size(block.kept, 8, 256) == vector * (3 * 2 + 1) + 8 * 256 * 2 * 4


def test_only_transformers_own_attention_runs() -> None:
    """No fused kernel takes the scores apart: whatever is asked for, or no flash (DebertaV2PreTrainedModel names no SDPA)."""
    for asked in (None, "sdpa", "efficient"):
        assert resolve(Job(gpu="h100", train="deberta-v3-base", attention=asked)).attention == "eager"
    with pytest.raises(RequestError, match="scores content and positions apart"):
        resolve(Job(gpu="h100", train="deberta-v3-base", precision="bf16", attention="flash"))


def test_a_pass_without_gradients_holds_every_layers_states() -> None:
    """DebertaV2Model asks its encoder for all hidden states: 24 layers hold 18 times 8 × 512 × 768 bf16 numbers more than 6."""
    config = V3 | {"architectures": ["DebertaV2ForSequenceClassification"]}

    def activations(layers: int) -> int:
        job = Job(gpu="h100", infer=config | {"num_hidden_layers": layers}, batch=8, seq=512, precision="bf16")
        estimate = estimate_workload(resolve(job))
        return next(part.bytes for part in estimate.parts if part.name == "activations")

    assert activations(24) - activations(6) == 18 * 8 * 512 * 768 * 2


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"pos_att_type": None}, "pos_att_type = None has neither c2p nor p2c"),
        ({"pos_att_type": 3}, "pos_att_type must be a list"),
        ({"embedding_size": 128}, "embedding_size = 128 where 768 follows"),
        ({"attention_head_size": 32}, "attention_head_size = 32 where 64 follows"),
        ({"conv_kernel_size": 3, "conv_groups": 5}, "conv_groups = 5 does not divide"),
        ({"conv_kernel_size": 3, "conv_act": "sine"}, "conv_act = 'sine' is not known"),
        (
            {"legacy": False, "tie_word_embeddings": False, "architectures": ["DebertaV2ForMaskedLM"]},
            "tie_word_embeddings = False is not estimated yet",
        ),
    ],
)
def test_what_is_not_understood_is_refused(keys: dict[str, Any], says: str) -> None:
    """One line, with the key."""
    with pytest.raises(RequestError, match=says):
        built(V3, **keys)


@pytest.mark.parametrize(
    ("config", "architecture", "precision", "peak"),
    [
        (V3, "DebertaV2ForSequenceClassification", "fp32", 1_152_191_488),
        (V3, "DebertaV2ForSequenceClassification", "bf16-mixed", 950_779_392),
        (V3, "DebertaV2ForMaskedLM", "bf16-mixed", 6_025_935_360),
        (V1, "DebertaForSequenceClassification", "bf16-mixed", 770_372_608),
    ],
)
def test_an_evaluation_is_within_one_percent(config: dict[str, Any], architecture: str, precision: str, peak: int) -> None:
    """Four layers, 8 × 512 tokens with labels under ``no_grad``, counted as in test_tensor_accounting.py: the weights included, and
    autocast's copies of all of them."""
    train = config | {"num_hidden_layers": 4, "architectures": [architecture]}
    w = resolve(
        Job(
            gpu="h200",
            engine="transformers",
            train=train,
            batch=8,
            seq=512,
            precision=precision,
            optimizer="none",
            loss="plain",
        )
    )
    assert estimate_workload(w).phases["eval"] - workspace(w).point == pytest.approx(peak, rel=0.01)
