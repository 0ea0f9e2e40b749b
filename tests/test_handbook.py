"""The quick and checklist estimators against the memory guide (asidefine.tistory.com, 6 July 2025), to the digit."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import advisor
from advisor.engines import Engine
from advisor.errors import RequestError
from advisor.hardware import Gpu
from advisor.job import Job
from advisor.memory import handbook
from advisor.mixers import Attention
from advisor.model import Layer, Mlp, Model
from advisor.results import Estimate
from advisor.vocabulary import KV_PRECISIONS, OPTIMIZERS, PRECISIONS, QUANTIZATIONS
from advisor.workload import Workload

GB = 10**9
SHAPES = {7: (4096, 32, 32), 13: (5120, 40, 40), 30: (6656, 60, 52), 70: (8192, 80, 64)}  # §1.3: hidden, layers, heads


def size_class(billions: int) -> Model:
    """A model of §1.3; the estimators look at its nominal count, hidden size and number of layers."""
    hidden, layers, heads = SHAPES[billions]
    layer = Layer(Attention(heads, heads, hidden // heads), Mlp(4 * hidden))
    return Model(f"{billions}b", "llama", hidden, 32000, (layer,) * layers, nominal=billions * GB)


def workload(task: str, billions: int = 7, *, gpu: Gpu | None = None, **keys: Any) -> Workload:
    """A job with every key decided, as a user who says nothing more gets it."""
    serving = keys.pop("serving", False)
    defaults: dict[str, Any] = {
        "asked": Job(gpu="a100-80", **{task: f"{billions}b"}),
        "gpu": gpu or Gpu("a100-80", "A100", marketed_gb=80, total_bytes=80 * 2**30, usable_bytes=79 * 2**30),
        "model": size_class(billions),
        "engine": Engine("some", "both", serving=serving),
        "task": task,
        "gpus": 1,
        "max_gpus": 8,
        "nodes": 1,
        "free": None,
        "memory_fraction": None,
        "batch": 1,
        "seq": 2048 if task == "train" else 4096,
        "prompt": 4096,
        "accumulation": 1,
        "precision": "fp16",
        "quantization": "none",
        "kv_precision": "fp16",
        "method": "full",
        "lora_rank": 16,
        "lora_targets": (),
        "lora_dropout": 0.0,
        "adapter_precision": "fp32",
        "optimizer": "adamw",
        "checkpointing": "none",
        "attention": "flash",
        "loss": "plain",
        "zero": 0,
        "sharding": "deepspeed",
        "tp": 1,
        "pp": 1,
        "cp": 1,
        "ep": 1,
        "offload": (),
        "offload_layers": None,
        "host_ram": None,
        "engine_version": None,
        "compile": False,
        "estimator": "checklist",
        "confidence": 0.9,
        "keep": (),
        "min_seq": 1024,
        "min_batch": 1,
        "policy": "documented",
    }
    return Workload(**{**defaults, **keys})


def infer(billions: int = 7, **keys: Any) -> Estimate:
    return handbook.estimate(workload("infer", billions, **keys))


def train(billions: int = 7, **keys: Any) -> Estimate:
    return handbook.estimate(workload("train", billions, **keys))


def parts(answer: Estimate) -> dict[str, float]:
    """The parts in the guide's GB."""
    return {part.name: part.bytes / GB for part in answer.parts}


def gb(answer: Estimate) -> float:
    """The total in the guide's GB, to the digit that the guide prints."""
    return round(answer.device_bytes / GB, 1)


# The formulas


def test_inference_checklist_is_the_five_lines_of_3_1() -> None:
    """§3.1 for 13B FP16 at batch 2 and 4K: 26, 6.25, 0.15625, 6.2 and a tenth of the sum."""
    answer = infer(13, batch=2, seq=4096)
    assert [(part.name, part.bytes) for part in answer.parts] == [
        ("model", 26_000_000_000),
        ("kv-cache", 6_250_000_000),
        ("input-data", 156_250_000),
        ("system-overhead", 6_200_000_000),
        ("safety-margin", 3_860_625_000),
    ]
    assert answer.device_bytes == 42_466_875_000


def test_training_checklist_is_the_seven_lines_of_4_1() -> None:
    """§4.1 for 7B with Adam at batch 4 and 2K: 14, 14, 28, 2, 0.25, 6.2 and a tenth of the sum."""
    answer = train(7, batch=4)
    assert [(part.name, part.bytes) for part in answer.parts] == [
        ("model", 14_000_000_000),
        ("gradients", 14_000_000_000),
        ("optimizer-state", 28_000_000_000),
        ("activations", 2_000_000_000),
        ("input-data", 250_000_000),
        ("system-overhead", 6_200_000_000),
        ("safety-margin", 6_445_000_000),
    ]
    assert answer.device_bytes == 70_895_000_000


def test_quick_is_the_code_of_8_1() -> None:
    """§8.1 prints inference(7, 2, 4096) = 21.8 and training(7, 4, 2048) = 64.2."""
    inference = infer(7, batch=2, seq=4096, estimator="quick")
    assert parts(inference) == {"model": 14, "kv-cache": 4, "system-overhead": 3.8}
    training = train(7, batch=4, seq=2048, estimator="quick")
    assert parts(training) == {"model": 14, "gradients": 14, "optimizer-state": 28, "activations": 2, "system-overhead": 6.2}
    assert (inference.device_bytes, training.device_bytes) == (21_800_000_000, 64_200_000_000)


def test_quick_has_the_shape_of_a_7b_in_it() -> None:
    """§8.1 writes 4096 × 32 whatever the model, so a 70B has the KV cache of a 7B."""
    assert parts(infer(70, estimator="quick"))["kv-cache"] == parts(infer(7, estimator="quick"))["kv-cache"] == 2


@pytest.mark.parametrize(("quantization", "model", "kv"), [("none", 14, 2), ("int8", 7, 1), ("int4", 3.5, 0.5)])
@pytest.mark.parametrize("estimator", ["checklist", "quick"])
def test_one_size_serves_weights_and_cache(estimator: str, quantization: str, model: float, kv: float) -> None:
    """§1.2 and §8.1: FP16 2 bytes, INT8 1, INT4 0.5, for weights and KV cache alike."""
    found = parts(infer(7, quantization=quantization, estimator=estimator))
    assert (found["model"], found["kv-cache"]) == (model, kv)


# The tables


@pytest.mark.parametrize(("billions", "size"), [(7, 14), (13, 26), (30, 60), (70, 140)])
def test_fp16_sizes_of_1_3(billions: int, size: int) -> None:
    """§1.3: nominal billions × 2, decimal."""
    assert parts(infer(billions))["model"] == size


@pytest.mark.parametrize(
    ("batch", "row"), [(1, (0.25, 1, 4, 8)), (2, (0.5, 2, 8, 16)), (4, (1, 4, 16, 32)), (8, (2, 8, 32, 64))]
)
def test_kv_table_of_3_2_is_half_of_3_1(batch: int, row: tuple[float, ...]) -> None:
    """§3.2's cells at 1K, 4K, 16K and 32K are each half of what §3.1 gives for 7B FP16."""
    gives = [parts(infer(7, batch=batch, seq=k * 1024))["kv-cache"] for k in (1, 4, 16, 32)]
    assert gives == [2 * says for says in row]


@pytest.mark.parametrize(("optimizer", "state", "together"), [("sgd", 14, 42), ("adamw", 28, 56), ("adafactor", 10, 38)])
def test_optimizers_of_4_2(optimizer: str, state: int, together: int) -> None:
    """§4.2: the state, and weights + gradients + state, of a 7B."""
    found = parts(train(7, optimizer=optimizer))
    assert found["optimizer-state"] == state
    assert found["model"] + found["gradients"] + found["optimizer-state"] == together


@pytest.mark.parametrize(("batch", "row"), [(1, (0.25, 0.5, 1)), (4, (1, 2, 4)), (8, (2, 4, 8)), (16, (4, 8, 16))])
def test_activations_of_4_3(batch: int, row: tuple[float, ...]) -> None:
    """§4.3 at 1K, 2K and 4K is what §4.1 gives, to the digit."""
    assert tuple(parts(train(7, batch=batch, seq=k * 1024))["activations"] for k in (1, 2, 4)) == row


# The guide's own figures, each beside what its formula gives


def test_fixed_parts_of_2_2() -> None:
    """§2.2: 14 GB against 14 + 14 + 28 = 56 are the formulas' own parts."""
    found = parts(train(7))
    assert (found["model"], found["gradients"], found["optimizer-state"]) == (14, 14, 28)


def test_minimum_of_2_2() -> None:
    """§2.2 says that 7B takes at least 18 GB and 65 GB; the formulas give 18.3 and 20.1 at 1K, 62.7 and 69.0 at 2K."""
    assert (gb(infer(seq=1024, estimator="quick")), gb(infer(seq=1024))) == (18.3, 20.1)
    assert (gb(train(seq=2048, estimator="quick")), gb(train(seq=2048))) == (62.7, 69.0)


def test_variable_parts_of_2_2() -> None:
    """§2.2 says 0-8 GB of KV cache, half of the 16 that §3.1 gives at 32K; its 10 GB of activations is batch 10 at 4K."""
    assert parts(infer(seq=32 * 1024))["kv-cache"] == 16
    assert parts(train(batch=10, seq=4096))["activations"] == 10


SGD_ONE = {"optimizer": "sgd", "checkpointing": "full"}


@pytest.mark.parametrize(
    ("says", "gives", "billions", "keys"),
    [
        (63.5, 70.9, 7, {"batch": 4}),
        (46.6, 53.2, 7, SGD_ONE),
        (32.6, 53.2, 7, {"zero": 2, **SGD_ONE}),
        (32.6, 37.8, 7, {"zero": 2, "gpus": 2, **SGD_ONE}),
        (75, 82.5, 13, {"zero": 2, "gpus": 2, "checkpointing": "full", "precision": "bf16-mixed"}),
    ],
)
def test_examples_of_4_4(says: float, gives: float, billions: int, keys: dict[str, Any]) -> None:
    """§4.4's totals are below the checklist's: they leave the margin out; ZeRO-2 saves what it says on two GPUs, on one nothing."""
    assert gb(train(billions, **keys)) == gives > says


def test_parts_of_4_4() -> None:
    """§4.4 writes 0.5 GB of input data and 5 of overhead where §4.1 gives 0.25 and 6.2; the rest agrees."""
    found = parts(train(7, batch=4))
    assert (found["activations"], found["input-data"], found["system-overhead"]) == (2, 0.25, 6.2)
    halved = parts(train(7, zero=2, gpus=2, **SGD_ONE))
    assert (halved["model"], halved["gradients"], halved["optimizer-state"]) == (14, 7, 7)


ZERO_2_AT_BEST = {"gpus": 2**17, "zero": 2, "checkpointing": "full"}

# card's GB, what the guide says of it, what the checklist gives
CLAIMS = [
    ("5.1", 16, True, 11.5, "infer", 7, {"quantization": "int8"}),
    ("5.1", 16, False, 21.8, "infer", 7, {}),
    ("5.1", 16, False, 68.6, "train", 7, {"checkpointing": "full"}),
    ("5.2", 40, True, 37.7, "infer", 7, {"batch": 4, "seq": 8192}),
    ("5.2", 40, True, 42.5, "infer", 13, {"batch": 2}),
    ("5.2", 40, True, 32.4, "infer", 13, {"batch": 4, "seq": 8192, "quantization": "int8"}),
    ("5.2", 40, True, 38.2, "train", 7, {"optimizer": "sgd", "zero": 2, "gpus": 2}),
    ("5.2", 40, False, 125.4, "train", 13, {"checkpointing": "full"}),
    ("5.3", 80, True, 91.8, "infer", 13, {"batch": 8, "seq": 8192}),
    ("5.3", 80, True, 93.9, "infer", 30, {"batch": 2}),
    ("5.3", 80, True, 96.3, "infer", 70, {"seq": 2048, "quantization": "int8"}),
    ("5.3", 80, True, 135.9, "train", 7, {"precision": "fp32"}),
    ("5.3", 80, True, 139.6, "train", 7, {"precision": "fp32", "batch": 4}),
    ("5.3", 80, True, 82.5, "train", 13, {"zero": 2, "gpus": 2, "checkpointing": "full"}),
    ("5.3", 80, True, 88.4, "train", 30, ZERO_2_AT_BEST),
    ("5.4", 80, True, 134.8, "infer", 30, {"batch": 4, "seq": 8192}),
    ("5.4", 80, True, 104.6, "infer", 70, {"batch": 2, "quantization": "int8"}),
    ("5.4", 80, True, 125.4, "train", 13, {"checkpointing": "full"}),
    ("5.4", 80, True, 88.4, "train", 30, ZERO_2_AT_BEST),
    ("5.4", 80, True, 76.5, "train", 70, {"gpus": 9, "zero": 3, "checkpointing": "full"}),
    ("8.2", 16, True, 11.5, "infer", 7, {"quantization": "int8"}),
    ("8.2", 16, False, 21.8, "infer", 7, {}),
    ("8.2", 24, True, 21.8, "infer", 7, {}),
    ("8.2", 24, True, 11.1, "train", 7, {"gpus": 8, "zero": 3}),
    ("8.2", 40, True, 38.9, "infer", 13, {}),
    ("8.2", 40, True, 69.0, "train", 7, {}),
    ("8.2", 80, True, 87.1, "infer", 30, {}),
    ("8.2", 80, True, 125.4, "train", 13, {"checkpointing": "full"}),
    ("8.2", 80, True, 135.9, "train", 7, {"precision": "fp32"}),
]
CONTRADICTED = {42.5, 91.8, 93.9, 96.3, 135.9, 139.6, 82.5, 88.4, 134.8, 104.6, 125.4, 69.0, 87.1}


@pytest.mark.parametrize(("section", "card", "says_fits", "gives", "task", "billions", "keys"), CLAIMS)
def test_claims_of_5_and_8_2(
    section: str, card: int, says_fits: bool, gives: float, task: str, billions: int, keys: dict[str, Any]
) -> None:
    """Each claim of §5 and §8.2 beside the checklist's figure, and whether the figure bears it out."""
    assert gb(handbook.estimate(workload(task, billions, **keys))) == gives
    borne_out = (gives <= card) == says_fits
    assert borne_out == (not says_fits or gives not in CONTRADICTED)


def test_savings_of_6() -> None:
    """§6: INT8 and INT4 save 50 and 75 % of weights and cache, mixed precision 30-50 % in all, checkpointing 80 % of activations."""
    fp16, int8, int4 = (parts(infer(7, quantization=name)) for name in ("none", "int8", "int4"))
    for part in ("model", "kv-cache"):
        assert (int8[part], int4[part]) == (0.5 * fp16[part], 0.25 * fp16[part])
    saved = 1 - train(7, precision="fp16-mixed").device_bytes / train(7, precision="fp32").device_bytes
    assert 0.3 < saved < 0.5
    assert parts(train(7, batch=4, checkpointing="full"))["activations"] == 0.4


# What the guide leaves open


@pytest.mark.parametrize(
    ("zero", "expected"), [(0, (14, 14, 28, 6.2)), (1, (14, 14, 7, 6.2)), (2, (14, 3.5, 7, 6.2)), (3, (3.5, 3.5, 7, 3.05))]
)
def test_zero_divides_state_then_gradients_then_weights(zero: int, expected: tuple[float, ...]) -> None:
    """§6.2 over four GPUs; the overhead follows the weights that this GPU holds, as ZeRO-2 of §4.4 leaves it whole."""
    found = parts(train(7, gpus=4, zero=zero))
    assert tuple(found[name] for name in ("model", "gradients", "optimizer-state", "system-overhead")) == expected


def test_zero_on_one_gpu_saves_nothing() -> None:
    """ZeRO shards over data-parallel ranks, and one GPU is one rank."""
    assert train(7, zero=3).device_bytes == train(7).device_bytes


def test_tensor_parallel_takes_its_gpus_from_zero() -> None:
    """Of eight GPUs at tp = 4 two are data-parallel: weights / 4, and ZeRO-2 gradients / 8."""
    found = parts(train(7, gpus=8, tp=4, zero=2))
    assert (found["model"], found["gradients"], found["optimizer-state"]) == (3.5, 1.75, 3.5)


@pytest.mark.parametrize(
    ("keys", "model"),
    [
        ({"gpus": 4}, 3.5),
        ({"gpus": 4, "tp": 2}, 7),
        ({"gpus": 4, "serving": True}, 14),
        ({"gpus": 4, "serving": True, "pp": 2}, 7),
    ],
)
def test_splitting_divides_the_model(keys: dict[str, Any], model: float) -> None:
    """Layers go over all GPUs of a plain library; a serving engine divides over tp · pp. KV cache stays whole, overhead follows."""
    found = parts(infer(7, **keys))
    assert found["model"] == model
    assert found["kv-cache"] == 2
    assert found["system-overhead"] == pytest.approx(0.2 * model + 1)


def test_every_format_has_a_size_or_is_refused() -> None:
    """8-bit formats are INT8, 4-bit ones INT4 to the guide; it has no 2-, 3-, 5- or 6-bit ones."""
    refused = []
    for name in QUANTIZATIONS:
        try:
            size = handbook.bytes_per_value(workload("infer", quantization=name))
        except RequestError:
            refused.append(name)
        else:
            assert size == (2 if name == "none" else 1 if "8" in name else 0.5), name
    assert refused == ["q6_k", "q5_k_m", "q5_k_s", "q5_0", "q5_1", "q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_xxs",
                       "q2_k", "iq2_m", "iq2_xxs"]  # fmt: skip


def test_every_word_of_a_job_is_in_the_tables() -> None:
    """A new precision or optimizer has no size here until someone gives it one."""
    assert set(handbook.PRECISION_BYTES) == set(PRECISIONS)
    assert set(handbook.STATE_FACTOR) == set(OPTIMIZERS)
    assert set(handbook.KV_BYTES) == set(KV_PRECISIONS)


@pytest.mark.parametrize(
    ("task", "keys", "said"),
    [
        ("train", {"method": "lora"}, "--method lora needs --estimator detailed"),
        ("train", {"method": "qlora", "quantization": "nf4", "estimator": "quick"}, "--method qlora"),
        ("infer", {"precision": "fp32", "estimator": "quick"}, "no fp32"),
        ("train", {"precision": "fp32", "estimator": "quick"}, "no fp32"),
        ("train", {"quantization": "int8", "estimator": "quick"}, "16-bit weights only"),
        ("infer", {"quantization": "q5_k_m"}, "not q5_k_m: use --estimator detailed"),
    ],
)
def test_what_the_guide_does_not_know_is_refused(task: str, keys: dict[str, Any], said: str) -> None:
    """One line that names the estimator that can."""
    with pytest.raises(RequestError, match=said) as refused:
        handbook.estimate(workload(task, **keys))
    assert "\n" not in str(refused.value)


def test_what_saves_nothing_is_said() -> None:
    """Selective checkpointing, offload and a smaller KV format are not in the guide: counted whole, with a note."""
    selective = train(7, checkpointing="selective", offload=("optimizer",))
    assert selective.device_bytes == train(7).device_bytes
    assert any("selective" in note for note in selective.notes)
    assert any("offload" in note for note in selective.notes)
    assert any("not in fp8" in note for note in infer(7, kv_precision="fp8").notes)
    assert all("10⁹" in answer.notes[0] for answer in (selective, infer(7)))


def test_one_figure_fills_every_field() -> None:
    """allocated, reserved, device, low and high are the guide's total; it knows no phases."""
    answer = infer(7)
    fields = (answer.allocated_bytes, answer.reserved_bytes, answer.low_bytes, answer.high_bytes)
    assert set(fields) == {answer.device_bytes}
    assert (answer.phases, answer.peak_phase) == ({}, None)


def test_a_part_tells_its_arithmetic_and_section() -> None:
    """The formula has the numbers put in; the source is the guide's section."""
    model, cache, *_, overhead, margin = infer(7, seq=4096, gpus=2).parts
    assert (model.formula, model.source) == ("7 billion × 2 bytes / 2 GPUs", "memory guide §3.1")
    assert cache.formula == "batch 1 × 4096 tokens × hidden 4096 × 32 layers × 2 bytes × 2 / 1024³"
    assert (overhead.formula, margin.formula) == ("0.2 × 7 + 1", "0.1 × 11.4625")
    assert {part.source for part in train(7, estimator="quick").parts} == {"memory guide §8.1"}


def test_budget_is_the_nominal_size() -> None:
    """80 GB is 80 × 10⁹; less when the user says what is free, or the engine takes a share."""
    assert handbook.budget_bytes(workload("infer")) == 80 * GB
    assert handbook.budget_bytes(workload("infer", free=30 * 2**30)) == 30 * 2**30
    assert handbook.budget_bytes(workload("infer", memory_fraction=0.5)) == 40 * GB
    assert handbook.budget_bytes(workload("infer", memory_fraction=0.5, free=10 * GB)) == 10 * GB


def test_fits_compares_with_the_budget() -> None:
    """The checklist's total for 7B FP16 fits its own size exactly and not one byte less."""
    total = infer(7).device_bytes
    assert infer(7, free=total).fits
    assert not infer(7, free=total - 1).fits


JOBS = st.fixed_dictionaries(
    {
        "billions": st.sampled_from(sorted(SHAPES)),
        "batch": st.integers(1, 512),
        "seq": st.integers(1, 2**20),
        "gpus": st.sampled_from([1, 2, 3, 8]),
        "zero": st.integers(0, 3),
        "optimizer": st.sampled_from(OPTIMIZERS),
        "checkpointing": st.sampled_from(["none", "full"]),
        "estimator": st.sampled_from(["checklist", "quick"]),
        "task": st.sampled_from(["infer", "train"]),
    }
)


@given(JOBS)
def test_parts_add_up(job: dict[str, Any]) -> None:
    """Parts sum to the total exactly, none is zero, and rounding moves the last one by a few bytes at most."""
    answer = handbook.estimate(workload(**job))
    assert sum(part.bytes for part in answer.parts) == answer.device_bytes
    assert all(part.bytes > 0 for part in answer.parts)
    if job["estimator"] == "checklist":
        rest = sum(part.bytes for part in answer.parts[:-1])
        assert abs(answer.parts[-1].bytes - rest / 10) <= 5


@given(JOBS)
def test_shown_arithmetic_gives_the_part(job: dict[str, Any]) -> None:
    """The formula that is shown, evaluated, is the part: whoever checks it by hand gets the same figure."""
    for part in handbook.estimate(workload(**job)).parts:
        assert isinstance(part.formula, str)
        sum_text = re.sub("[A-Za-z]+", "", part.formula.replace("GPUs", "")).replace("×", "*").replace("1024³", "1024**3")
        assert eval(sum_text) == pytest.approx(part.bytes / GB, rel=1e-8, abs=5 / GB), part


@given(JOBS, st.sampled_from(["batch", "seq"]))
def test_more_never_needs_less(job: dict[str, Any], key: str) -> None:
    """A larger batch, a longer sequence or more bytes a value never shrink the total."""
    w = workload(**job)
    more = w._replace(**{key: job[key] + 1})
    assert handbook.estimate(more).device_bytes >= handbook.estimate(w).device_bytes
    wide = w._replace(precision="fp32", estimator="checklist")
    assert handbook.estimate(wide).device_bytes > handbook.estimate(w._replace(estimator="checklist")).device_bytes


# Through the front door


@pytest.mark.parametrize(
    ("keys", "total"),
    [
        ({"gpu": "a100-80", "infer": "7b", "batch": 2, "estimator": "quick"}, 21_800_000_000),
        ({"gpu": "a100-80", "train": "7b", "batch": 4, "estimator": "quick"}, 64_200_000_000),
        ({"gpu": "a100-40", "infer": "13b", "batch": 2, "estimator": "checklist"}, 42_466_875_000),
        ({"gpu": "a100-80", "train": "7b", "precision": "fp32", "estimator": "checklist"}, 135_877_500_000),
        ({"gpu": "v100-16", "infer": "7b", "quantization": "int8", "estimator": "checklist"}, 11_474_375_000),
    ],
)
def test_users_get_the_guides_figures(keys: dict[str, Any], total: int) -> None:
    """The catalogue's size classes have the shapes of §1.3 and the nominal counts, and the defaults are the guide's."""
    answer = advisor.estimate(**keys)
    assert answer.device_bytes == total
    assert answer.fits == (total <= {"v100-16": 16, "a100-40": 40, "a100-80": 80}[keys["gpu"]] * GB)


def test_a_model_of_the_catalogue_counts_its_own_parameters() -> None:
    """Llama 3.1 8B has 8,030,261,248 parameters (its safetensors index): 2 bytes each, × 4 with gradients and Adam."""
    found = {
        part.name: part.bytes for part in advisor.estimate(gpu="a100-80", train="llama-3.1-8b", estimator="checklist").parts
    }
    assert found["model"] == found["gradients"] == 2 * 8_030_261_248
    assert found["optimizer-state"] == 4 * 8_030_261_248
