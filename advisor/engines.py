"""The memory habits of an engine, as facts (catalog/engines.jsonl has one a line, each with its source)."""

from typing import Any, Literal, NamedTuple

Tiers = tuple[tuple[int, int], ...]  # (GiB that a card has at least, what is taken there), the largest cards first


class Reserves(NamedTuple):
    """What a serving engine sets aside when it starts. Counts are of tokens and sequences.

    ``windows``: what a sliding layer caches of a sequence: the window and one ``chunk``, a ``share`` of all tokens, or ``full``.
    """

    memory_fraction: float | None = None  # share of the card's total that it takes
    chunk: Tiers = ((0, 8192),)  # tokens of prompts that are computed in one pass
    whole_prompt: int = 0  # a prompt up to this length is computed in one pass
    sequences: Tiers = ()  # sampled together in the profile
    modest: str = ""  # the card that takes the last tier whatever its size
    profiles: bool = False  # runs a full chunk and samples all sequences at its start, and has their memory left over
    logit_bytes: int = 6  # the sampler's tensors, a logit
    graphs_bytes: int = 0  # CUDA graphs
    block: int = 1  # tokens of a KV block
    windows: Literal["chunk", "share", "full"] = "full"
    state: Literal["compute", "fp32"] = "compute"  # of recurrent layers
    fp32_states: tuple[str, ...] = ()  # model types whose states are fp32 all the same
    graph_batch: Tiers = ()  # SGLang: sequences of the largest graph, which its headroom grows with
    source: str = ""


class Engine(NamedTuple):
    """What a framework does with memory that the job does not say.

    ``task`` is what it can do. ``serving`` engines divide the model by tensor and pipeline parallel and run
    replicas of it on what is left; the others divide the layers over all GPUs.
    """

    name: str
    task: Literal["train", "infer", "both"]
    serving: bool = False
    ggml: bool = False  # runs GGUF files with llama.cpp's library
    loss: Literal["plain", "chunked"] = "plain"
    loss_full: Literal["plain", "chunked"] | None = None  # of full training, where it is another one
    chunks: int = 0  # a chunked loss keeps its logits, and makes them in that many chunks a sequence,
    chunk_tokens: int = 0  # or in chunks of that many tokens; neither: a fused kernel keeps no logits
    shifts_logits: bool = False  # the loss is over a shifted copy of the logits, in fp32 both
    autocasts: bool = False  # runs 16-bit weights under autocast as well, where DeepSpeed does not run the step
    outputs_fp32: bool = False  # logits are copied to fp32 on their way out of the model
    fused_step: bool = False  # its AdamW is the fused kernel, which needs no copy of the gradients
    masters: bool = False  # fp32 masters of 16-bit trained weights, without ZeRO too
    without_bf16: Literal["fp16-mixed", "fp16", "fp32"] = "fp16-mixed"  # what it trains in on a card without bf16,
    without_bf16_full: Literal["fp16-mixed", "fp16", "fp32"] | None = None  # all weights, without ZeRO and FSDP, if another,
    without_bf16_kbit: Literal["fp16-mixed", "fp16", "fp32"] | None = None  # and adapters beside k-bit weights
    fp32_gradients: bool = False  # gradients are summed in fp32 buffers that are there all the time
    reduces_late: bool = False  # with FSDP, gradients are reduced and sharded in the last micro-step only, and whole until then
    bucket_elements: int = 200_000_000  # of ZeRO's reduce buckets
    holds_outputs: bool = False  # the logits stay referenced through the backward pass
    adapter_precision: Literal["fp32", "bf16", "compute"] = "fp32"
    untied_head: bool = False  # the head is a parameter of its own even where the model ties it to the embedding
    joined_projections: bool = False  # queries, keys and values are one product, with one adapter
    expands_keys: bool = False  # keys and values are copied to every query head before any kernel
    kbit_head: bool = False  # the head is quantized too
    kbit_from_fp16: bool = False  # k-bit weights unpack to fp16, whatever is computed in, and are cast then
    kbit_keeps_inputs: bool = False  # a k-bit product holds its input until the graph is dropped
    kbit_embedding_gradient: bool = False  # the embedding beside k-bit weights gets a gradient that nothing uses or frees
    kbit_upcast: bool = False  # embeddings, head and norms of a k-bit model become fp32 (PEFT)
    sharding: Literal["deepspeed", "fsdp"] = "deepspeed"
    ends_apart: bool = (
        False  # full training with FSDP: embedding and head are gathered when it is their turn, not with the root
    )
    reduces_in_fp32: bool = False  # FSDP sums gradients over the ranks in fp32, whatever their type
    objectives: tuple[str, ...] = ()  # what it trains for beside the next token, as far as that is estimated
    reference: Literal["same", "compute"] = "same"  # type of a reference model: the trained one's, or the computation's
    fp32_preferences: bool = False  # preferences are computed of fp32 logits, not as TRL's own trainers do
    loads_to_device: bool = False  # on one GPU, reads a checkpoint straight onto the card (device_map)
    remaps_parameters: bool = False  # with ZeRO, moves the parameters into a buffer of its own when all of it is there
    preallocates_kv: bool = False  # fills its share of the card with KV cache whatever the job needs
    int8: str = "int8"  # what `--quantization int8` means here, and so on
    int4: str = "nf4"
    nf4: str = "nf4"
    reserves: Reserves = Reserves()
    kv_precisions: tuple[str, ...] = ()  # that its KV cache can have
    expands_latents: bool = False  # caches MLA's keys and values head by head, not the latent vector
    unpacks_gguf: bool = False  # to 16 bits, when it loads a file
    splits_layers_only: bool = False  # over several GPUs, and takes no degree of tensor or pipeline parallelism
    flash_by_itself: bool = True  # llama.cpp: takes its flash attention without being told
    vocabulary: Literal["sharded", "head", "whole"] = "head"  # what tensor parallel cuts: embedding and head, the head, neither
    vocabulary_multiple: int = 1  # rows of a rank's shard of the vocabulary are a multiple of this
    sequence_parallel: bool = False  # training: tensor-parallel ranks share out the tokens of the residual stream and the norms
    fused: bool = False  # norms, rotary embedding and SwiGLU are a kernel each; the cross-entropy works in place
    deals_out: Literal["evenly", "balanced", "with-head"] = "evenly"  # layers over GPUs that work in turn
    head_on_first: bool = False  # a chain of devices has the head where the embedding is, and the remainder of the layers last
    unpacks_whole: bool = False  # tensor parallel cuts the packed bytes, and bitsandbytes unpacks by the shape before the cut
    made_on_host: bool = False  # trains what transformers' from_pretrained made in the host's memory, without a device_map
    maps_checkpoint: bool = True  # parameters are views of the checkpoint's pages as long as their type stays
    libraries_bytes: int = 0  # that the kernels of its libraries add to the context
    vendors: tuple[str, ...] = ()  # whose cards it runs on; none: whatever PyTorch runs on
    stacked_experts: bool = False  # all experts of a layer are one parameter, which bitsandbytes leaves alone
    reserves_once: bool = False  # inference: one block for the whole model, which the weights are cut out of
    all_logits: bool = False  # generate makes the logits of the whole prompt, and a copy of them in fp32
    keeps_stored_head: bool = False  # the head that an FP8 checkpoint of a tied model has is loaded and not tied
    ties_late: bool = False  # a tied AWQ checkpoint gets a head of its own, which is tied when it has been loaded
    capability: float = 0.0  # least compute capability of its current packages
    notes: tuple[str, ...] = ()
    source: str = ""


def of_version(record: dict[str, Any], version: str | None) -> dict[str, Any]:
    """The facts of that version. A record holds the newest; its ``versions`` tell, newest first, what was other *before* each,
    and what an older entry says goes before what a newer one does."""
    facts = dict(record)
    for change in facts.pop("versions", ()):
        if not version_at_least(version, change["before"]):
            facts |= {name: value for name, value in change.items() if name not in ("before", "source")}
    return facts


def version_at_least(version: str | None, wanted: str) -> bool:
    """Whether a version such as ``4.46.2`` is that new; no version is the newest."""
    return version is None or _numbers(version, wanted) >= _numbers(wanted, wanted)


def _numbers(version: str, like: str) -> list[int]:
    """As many numbers of a version as ``like`` has."""
    numbers = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    return (numbers + [0] * len(like))[: like.count(".") + 1]
