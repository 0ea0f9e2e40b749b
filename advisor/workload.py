"""A job with every key decided: the model, the card and the engine looked up, the defaults filled in."""

from typing import Any, NamedTuple

from advisor.engines import Engine
from advisor.hardware import Gpu
from advisor.job import Job
from advisor.model import Model
from advisor.objectives import PAIRED


class Workload(NamedTuple):
    """What an estimate is made of. Names as in ``Job``; sizes in bytes, lengths in tokens."""

    asked: Job
    gpu: Gpu
    model: Model
    engine: Engine
    task: str  # train or infer
    gpus: int
    max_gpus: int
    nodes: int
    free: int | None
    memory_fraction: float | None
    batch: int
    seq: int
    prompt: int
    accumulation: int
    precision: str
    quantization: str
    kv_precision: str
    method: str
    lora_rank: int
    lora_targets: tuple[str, ...]
    lora_dropout: float
    adapter_precision: str
    optimizer: str
    checkpointing: str
    attention: str  # the kernel that runs: flash, efficient, math or eager
    loss: str
    zero: int
    sharding: str
    tp: int
    pp: int
    cp: int
    ep: int
    offload: tuple[str, ...]
    offload_layers: int | None
    host_ram: int | None
    engine_version: str | None
    compile: bool
    estimator: str
    confidence: float
    keep: tuple[str, ...]
    min_seq: int
    min_batch: int
    policy: str
    allocator: str = "default"
    notes: tuple[str, ...] = ()
    observed: dict[str, int] | None = None
    observed_with: dict[str, Any] | None = None
    objective: str = "lm"

    @property
    def source(self) -> int:
        """Tokens of a sequence that an encoder reads for the decoder behind it, or the positions of its sound, which the model
        fixes; 0 where there are no two."""
        ends = self.model.ends
        if ends is None or not self.model.is_encoder_decoder:
            return 0
        return ends.audio.positions if ends.audio else self.prompt

    @property
    def length(self) -> int:
        """Tokens of a sequence in the layers behind an encoder, or in all of them: all of ``seq``, less a shorter prompt that an
        encoder reads."""
        return self.seq - self.prompt if self.source and self.prompt < self.seq else self.seq

    @property
    def data_parallel(self) -> int:
        """Training: GPUs that hold a copy (or a ZeRO shard of one) of the model and see different sequences."""
        return self.gpus // (self.tp * self.pp * self.cp)

    @property
    def replicas(self) -> int:
        """Training: ranks that have the same weights, and so divide their gradients and optimizer state: the data-parallel ones, and
        the context-parallel ones of each (Megatron-Core get_data_parallel_group with context parallel; torchtitan's dp_shard_cp)."""
        return self.gpus // (self.tp * self.pp)

    @property
    def global_batch(self) -> int:
        return self.batch * self.accumulation * (self.data_parallel if self.task == "train" else 1)

    @property
    def sequences(self) -> int:
        """Sequences that go through the model at once: of a pair both, the chosen and the rejected one."""
        return self.batch * (2 if self.objective in PAIRED else 1)

    @property
    def deals_out_layers(self) -> bool:
        """Inference: whether the engine deals the layers out over all GPUs (device_map), instead of dividing each of them."""
        return self.task == "infer" and not self.engine.serving and self.tp == self.pp == 1

    @property
    def sharers(self) -> int:
        """GPUs that share one copy of the model."""
        return self.gpus if self.deals_out_layers else self.tp * self.pp

    @property
    def usable_bytes(self) -> int:
        """What the job may take of one card: usable memory, or what is free, or the engine's share of the total."""
        limits = [self.gpu.usable_bytes if self.free is None else self.free]
        if self.memory_fraction is not None:
            limits.append(int(self.memory_fraction * self.gpu.total_bytes))
        return min(limits)

    def to_dict(self) -> dict[str, Any]:
        """Every key of the job as decided, in plain JSON values; ``Job(**that)`` is the same job again."""
        from advisor.vocabulary import BY_NAME

        asked = {"gpu": self.asked.gpu, "train": self.asked.train, "infer": self.asked.infer}
        decided = {**self._asdict(), **asked, "engine": self.engine.name}
        return {name: list(value) if isinstance(value := decided[name], tuple) else value for name in BY_NAME}


def resolve(job: Job) -> Workload:
    """Look everything up, fill the defaults in, refuse what contradicts itself. Raises RequestError."""
    from advisor.defaults import decide

    return decide(job)
