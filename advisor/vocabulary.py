"""The words of a job: every key, what it takes and what it means.

The command line makes its options of this table and ``Job`` its checks. It loads nothing, because
``advise --help`` needs no more than this.
"""

from typing import NamedTuple

ESTIMATORS = ("detailed", "checklist", "quick")
PRECISIONS = ("fp32", "fp16", "bf16", "fp16-mixed", "bf16-mixed")
GGUF_TYPES = ("q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_0", "q5_1", "q4_k_m", "q4_k_s", "q4_0", "q4_1", "iq4_xs", "iq4_nl",
              "q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_xxs", "q2_k", "iq2_m", "iq2_xxs")  # fmt: skip
QUANTIZATIONS = ("none", "int8", "int4", "fp8", "nf4", "nf4-dq", "gptq-int4", "gptq-int8", "awq-int4",
                 "mxfp4", "nvfp4", *GGUF_TYPES)  # fmt: skip
KV_PRECISIONS = ("fp32", "fp16", "bf16", "fp8", "int8", "q8_0", "q4_0")
METHODS = ("full", "lora", "qlora")
OBJECTIVES = ("lm", "dpo", "kto", "orpo", "simpo", "reward", "grpo", "ppo", "rloo", "online-dpo", "distillation")
OPTIMIZERS = ("adamw", "adamw-fused", "adamw-8bit", "paged-adamw", "paged-adamw-8bit", "sgd", "sgd-momentum",
              "adafactor", "lion", "lion-8bit", "muon", "galore-adamw", "adamw-bf16", "none")  # fmt: skip
CHECKPOINTINGS = ("none", "selective", "full")
ATTENTIONS = ("auto", "sdpa", "flash", "efficient", "math", "eager")
LOSSES = ("plain", "chunked")
SHARDINGS = ("deepspeed", "fsdp")
ALLOCATORS = ("default", "expandable")
OFFLOADS = ("optimizer", "parameters", "activations", "layers", "kv")
ENGINES = ("trainer", "transformers", "trl", "litgpt", "torchtune", "torchtitan", "axolotl", "llama-factory", "unsloth",
           "deepspeed", "megatron", "vllm", "sglang", "llama.cpp", "ollama", "tgi", "tensorrt-llm")  # fmt: skip
OBSERVABLE = ("allocated", "reserved", "device")


class Key(NamedTuple):
    """One key of a job. ``kind``: text, version (4.46.2), model, count (8192, 8k), size (24GiB), share (0..1), whole (an integer), flag, list, keys, choice,
    sizes (allocated=13.2GiB,device=14GiB) or settings (batch=8,seq=4k: other keys and their values)."""

    name: str
    kind: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    least: float = 1


KEYS: tuple[Key, ...] = (
    Key("gpu", "text", "", "The card: a name of `advise gpus`, or a size such as 24GB."),
    Key("gpus", "whole", "1, or tp x pp x cp", "GPUs that the job runs on."),
    Key("max_gpus", "whole", "8", "GPUs that a plan may go up to."),
    Key("nodes", "whole", "as few as hold the GPUs", "Machines that the GPUs are in."),
    Key("free", "size", "all usable memory", "Memory free now, when others share the card."),
    Key("memory_fraction", "share", "the engine's own", "Share of the card that the job may take.", least=0),
    Key("train", "model", "", "Train this model: a name of `advise models`, 7b, a folder or a config.json."),
    Key("infer", "model", "", "Run this model: a name of `advise models`, 7b, a folder or a config.json."),
    Key("batch", "count", "1", "Sequences per GPU and micro-step; for inference, sequences at once."),
    Key("seq", "count", "2048 train, 4096 infer", "Tokens per sequence; for inference, prompt plus output."),
    Key("prompt", "count", "seq", "Inference: tokens prefilled in one pass."),
    Key("accumulation", "whole", "1", "Micro-steps per optimizer step."),
    Key("precision", "choice", "bf16, or what the card can do", "Number format of weights and computation.", PRECISIONS),
    Key("quantization", "choice", "none", "Format of the frozen weights.", QUANTIZATIONS),
    Key("kv_precision", "choice", "as computed", "Format of the KV cache.", KV_PRECISIONS),
    Key("method", "choice", "full", "What is trained.", METHODS),
    Key("objective", "choice", "lm", "What it is trained for; a pair of sequences counts as one of the batch.", OBJECTIVES),
    Key("lora_rank", "whole", "16", "Rank of the adapters."),
    Key("lora_targets", "list", "all-linear", "Modules that get an adapter: q_proj,v_proj."),
    Key("lora_dropout", "share", "0", "Dropout before the adapters.", least=0),
    Key("adapter_precision", "choice", "the engine's", "Number format of the adapters.", ("fp32", "bf16", "fp16")),
    Key("optimizer", "choice", "adamw", "The optimizer.", OPTIMIZERS),
    Key("checkpointing", "choice", "none", "Activations recomputed in the backward pass.", CHECKPOINTINGS),
    Key("attention", "choice", "auto", "Attention kernel.", ATTENTIONS),
    Key("loss", "choice", "the engine's", "How the loss over the vocabulary is computed.", LOSSES),
    Key("zero", "whole", "0", "ZeRO stage over the data-parallel GPUs, 0 to 3; FSDP full shard is 3.", least=0),
    Key("sharding", "choice", "the engine's", "Whose habits ZeRO follows.", SHARDINGS),
    Key("tp", "whole", "1", "Tensor parallel degree."),
    Key("pp", "whole", "1", "Pipeline parallel degree."),
    Key("cp", "whole", "1", "Context parallel degree."),
    Key("ep", "whole", "1", "Expert parallel degree, within the data-parallel GPUs."),
    Key("offload", "list", "nothing", "What the host's memory holds: any of optimizer, parameters, activations, layers, kv.", OFFLOADS),
    Key("offload_layers", "whole", "as many as needed", "Layers that the host's memory holds.", least=0),
    Key("host_ram", "size", "not limited", "Host memory per machine."),
    Key("engine", "choice", "trainer; transformers to infer", "Whose memory habits to follow.", ENGINES),
    Key("engine_version", "version", "the newest known", "Version of the engine, where habits changed."),
    Key("compile", "flag", "off", "torch.compile is on."),
    Key("allocator", "choice", "default", "How PyTorch's allocator takes memory from the driver.", ALLOCATORS),
    Key("estimator", "choice", "detailed", "How memory is worked out.", ESTIMATORS),
    Key("confidence", "share", "0.9", "Share of runs that the interval should hold.", least=0),
    Key("keep", "keys", "nothing", "Keys that no plan may change: seq,precision."),
    Key("min_seq", "count", "1024", "A plan never goes below this length."),
    Key("min_batch", "count", "1", "A plan never goes below this batch."),
    Key("observed", "sizes", "nothing", "What the job took, to correct the estimate by: any of allocated, reserved, device.", OBSERVABLE),
    Key("observed_with", "settings", "the job as asked", "Keys that were otherwise when it was observed: batch=8,gpu=a100-80."),
    Key("policy", "text", "documented", "Order of the remedies: documented, practical, or a TOML file of rule ids."),
)  # fmt: skip
BY_NAME = {key.name: key for key in KEYS}
