"""The memory habits of an engine, as facts (catalog/engines.jsonl has one a line, each with its source)."""

from typing import Literal, NamedTuple


class Engine(NamedTuple):
    """What a framework does with memory that the job does not say.

    ``task`` is what it can do. ``serving`` engines divide the model by tensor and pipeline parallel and run
    replicas of it on what is left; the others divide the layers over all GPUs.
    """

    name: str
    task: Literal["train", "infer", "both"]
    serving: bool = False
    ggml: bool = False  # runs GGUF files with llama.cpp's library
    memory_fraction: float | None = None  # share of the card's total that it takes by default
    loss: Literal["plain", "chunked"] = "plain"
    loss_full: Literal["plain", "chunked"] | None = None  # of full training, where it is another one
    masters: bool = False  # fp32 masters of 16-bit trained weights, without ZeRO too
    fp32_gradients: bool = False  # gradients are summed in fp32 buffers that are there all the time
    bucket_elements: int = 200_000_000  # of ZeRO's reduce buckets
    holds_outputs: bool = False  # the logits stay referenced through the backward pass
    adapter_precision: Literal["fp32", "bf16", "compute"] = "fp32"
    kbit_upcast: bool = False  # embeddings, head and norms of a k-bit model become fp32 (PEFT)
    sharding: Literal["deepspeed", "fsdp"] = "deepspeed"
    preallocates_kv: bool = False  # fills its share of the card with KV cache whatever the job needs
    int8: str = "int8"  # what `--quantization int8` means here
    int4: str = "nf4"
    graphs_bytes: int = 0  # CUDA graphs
    vendors: tuple[str, ...] = ()  # whose cards it runs on; none: whatever PyTorch runs on
    capability: float = 0.0  # least compute capability of its current packages
    notes: tuple[str, ...] = ()
    source: str = ""
