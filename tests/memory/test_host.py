"""Host memory as a budget of its own: what is offloaded, what loading takes, the processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.api import advise, estimate
from advisor.job import Job
from advisor.memory.host import PROCESS, host
from advisor.memory.parameters import parameter_count
from advisor.results import Estimate
from advisor.workload import resolve

GIB = 2**30
P = 8_030_261_248  # parameters of Llama-3.1 8B
TRAINED = {"gpu": "a100-80", "train": "llama-3.1-8b", "checkpointing": "full"}


def needs(**keys: Any) -> dict[str, int]:
    """The parts of a machine's own memory, in bytes."""
    return {part.name: part.bytes for part in host(resolve(Job(**keys))).parts}


def test_nothing_is_worked_out_unasked() -> None:
    """The field is null where nothing is offloaded and the host's memory is not limited."""
    assert estimate(**TRAINED).host is None
    assert estimate(**TRAINED).to_dict()["host"] is None


def test_the_host_is_worked_out_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search looks at the card of hundreds of jobs, and at the host of those that it shows."""
    asked = []
    monkeypatch.setattr("advisor.memory.host.host", lambda w: asked.append(w) or host(w))
    found = estimate(**TRAINED, gpus=2, zero=2, offload="optimizer")
    assert not asked
    assert found.host is not None
    assert found.host is found.host
    assert len(asked) == 1
    assert not found._replace(host=None).host


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_zero_offload_takes_18_bytes_a_parameter(zero: int) -> None:
    """fp32 master 4, fp32 gradient 4, Adam's moments 8, and a 16-bit buffer 2 (DeepSpeed 0.19, zero/stage_1_and_2.py, zero/stage3.py)."""
    found = needs(**TRAINED, gpus=8, zero=zero, offload="optimizer")
    assert found.pop("processes") == 8 * PROCESS
    found.pop("state-dict", None)
    assert found == {
        "optimizer-state": pytest.approx(8 * P, rel=1e-6),
        "master-weights": pytest.approx(4 * P, rel=1e-6),
        "gradients": pytest.approx(4 * P, rel=1e-6),
        "staging-buffers": pytest.approx(2 * P, rel=1e-6),
    }


def test_zero_3_may_move_the_weights_too() -> None:
    """Two bytes more; DeepSpeed's own estimator says 18 for both of them, without the gradients' partition."""
    found = needs(**TRAINED, gpus=8, zero=3, offload="optimizer,parameters")
    assert found["weights"] == pytest.approx(2 * P, rel=1e-3)
    assert sum(found.values()) - found["processes"] - found["state-dict"] == pytest.approx(20 * P, rel=1e-3)


def test_fsdp_moves_everything_with_the_parameters() -> None:
    """CPUOffloadPolicy: parameters, gradients and optimizer state, in their own types: 2 + 2 + 4 bytes; none of it is on the card."""
    keys = {**TRAINED, "gpus": 8, "engine": "torchtitan", "zero": 3, "offload": "parameters"}
    found = needs(**keys)
    assert sum(found.values()) - found["processes"] == pytest.approx(8 * P, rel=1e-3)
    on_card = {part.name for part in estimate(**keys).parts}
    assert not on_card & {"weights", "optimizer-state", "master-weights"}
    assert estimate(**keys).phases["step"] < 0.01 * P  # nothing is stepped there


def test_saving_gathers_the_model_on_one_process() -> None:
    """ZeRO-3 and FSDP: a state dict of 16 bits a parameter beside what is offloaded; with bf16-mixed FSDP's weights are fp32."""
    found = estimate(**TRAINED, gpus=8, zero=3, offload="optimizer").host
    assert found is not None
    assert (found.phase, {part.name: part.bytes for part in found.parts}["state-dict"]) == ("save", 2 * P)
    assert (
        needs(**TRAINED, gpus=8, zero=3, offload="parameters", sharding="fsdp", precision="bf16-mixed")["state-dict"] == 4 * P
    )
    assert "state-dict" not in needs(**TRAINED, gpus=8, zero=2, offload="optimizer")


def test_an_optimizer_on_the_cpu_of_one_card() -> None:
    """torchao's CPUOffloadOptimizer pins a copy of the parameters and one of the gradients, in their type."""
    found = needs(**TRAINED, offload="optimizer")
    assert (found["master-weights"], found["gradients"]) == (2 * P, 2 * P)


def test_parked_activations() -> None:
    """Checkpointed, 32 layers keep their inputs, less the one on its way: 31 × tokens × 4,096 × 2 bytes."""
    assert needs(**TRAINED, seq=8192, offload="activations")["activations"] == 31 * 8192 * 4096 * 2


@pytest.mark.parametrize(
    ("keys", "bytes_"),
    [
        ({}, 0),  # the checkpoint's own type: its files are mapped
        ({"precision": "fp32"}, 8 * 4 * P),  # a copy in each of eight processes
        ({"engine_version": "4.50"}, 8 * 2 * P),  # transformers 4 copied in any case
        ({"precision": "fp32", "nodes": 2}, 4 * 4 * P),  # four of them on each machine
        ({"precision": "bf16-mixed", "zero": 3, "sharding": "fsdp"}, 4 * P),  # one copy for all of the machine
        ({"zero": 3}, 0),  # ZeRO-3 takes tensor by tensor
        ({"method": "qlora"}, 0),  # quantized straight to the card
    ],
)
def test_loading(keys: dict[str, Any], bytes_: int) -> None:
    """Anonymous memory of processes that load at once: transformers 5.23 on Linux mapped a checkpoint of 970 MiB, and took 1,941 MiB
    for it in fp32."""
    loaded = {part.name: part.bytes for part in estimate(**TRAINED, gpus=8, host_ram="1TB", **keys).host.parts}  # type: ignore[union-attr]
    assert loaded.get("loading", 0) == pytest.approx(bytes_, rel=1e-6)


def test_stacked_experts_are_copied() -> None:
    """transformers 5 puts a layer's experts into one tensor: the 768 MiB of a small Mixtral's were anonymous, the rest was mapped."""
    tiny = {"model_type": "mixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "vocab_size": 8000,
            "num_attention_heads": 16, "num_key_value_heads": 8, "num_local_experts": 8, "torch_dtype": "bfloat16"}  # fmt: skip
    assert needs(gpu="a100-80", train=tiny, host_ram="1TB")["loading"] == 768 * 2**20


def test_a_published_machine() -> None:
    """Llama-2 70B, QLoRA on two 24 GB cards with FSDP and offload took "around 107 GB" of CPU memory (PEFT docs,
    accelerate/fsdp.md): the quantized model in both processes, and its shards."""
    found = needs(gpu="rtx-3090", gpus=2, train="llama-2-70b", method="qlora", lora_rank=8, quantization="nf4-dq", zero=3,
                  sharding="fsdp", offload="parameters", batch=2, checkpointing="full")  # fmt: skip
    assert sum(found.values()) == pytest.approx(107e9, rel=0.1)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([0, 1, 2, 3]), st.sampled_from(["deepspeed", "fsdp"]))
def test_a_machine_holds_the_shards_of_its_processes(nodes: int, zero: int, sharding: str) -> None:
    """Summed over the machines there is at least one whole optimizer state, and eight at most."""
    found = needs(**TRAINED, gpus=8, nodes=nodes, zero=zero, sharding=sharding, offload="optimizer")
    width = 4 if zero and sharding == "deepspeed" else 2
    whole = 2 * width * P
    copies = 8 if zero == 0 else 1
    assert nodes * found["optimizer-state"] == pytest.approx(copies * whole, rel=1e-6)


def test_offloaded_layers_and_cache() -> None:
    """What the card does not hold the host does; one layer is on both."""
    layers = estimate(gpu="t4", infer="llama-3.1-8b", offload="layers", offload_layers=8)
    whole = estimate(gpu="t4", infer="llama-3.1-8b")
    assert layers.host is not None
    away = next(part.bytes for part in layers.host.parts if part.name == "weights")
    assert whole.phases["load"] - layers.phases["load"] == away * 7 // 8
    cache = needs(gpu="t4", infer="llama-3.1-8b", offload="kv", seq=4096)["kv-cache"]
    assert cache == 4096 * 32 * 2 * 1024 * 2


def short(**keys: Any) -> Estimate:
    return estimate(**TRAINED, gpus=8, zero=2, offload="optimizer", **keys)


def test_a_short_host_does_not_fit() -> None:
    """What the card would hold is refused where the host's memory ends, and the answer says so."""
    assert short().fits
    assert short(host_ram="256GiB").fits
    assert not short(host_ram="96GiB").fits
    plan = advise(**TRAINED, gpus=8, zero=2, offload="optimizer", host_ram="48GiB", keep="optimizer,method")
    assert plan.verdict == "does-not-fit"
    assert plan.missing is not None
    assert plan.missing["bytes"] == 0
    assert plan.missing["host_bytes"] > 0


def test_as_many_layers_go_as_the_card_needs() -> None:
    """A host that is short does not send more layers to itself."""
    plenty, scarce = (estimate(gpu="t4", infer="llama-3.1-8b", offload="layers", host_ram=ram) for ram in ("64GiB", "3GiB"))
    assert plenty.fits
    assert not scarce.fits
    assert plenty.parts[0].bytes == scarce.parts[0].bytes


def test_the_host_field_adds_up() -> None:
    """Integers; its parts are its bytes."""
    told = short().to_dict()["host"]
    assert told["phase"] == "run"
    assert told["bytes"] == sum(part["bytes"] for part in told["parts"])
    assert all(isinstance(part["bytes"], int) and part["formula"] and part["source"] for part in told["parts"])


def test_parameters_are_what_is_counted() -> None:
    """The figure that these tests stand on."""
    assert parameter_count(resolve(Job(**TRAINED)).model) == P
