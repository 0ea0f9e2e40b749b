"""Each part in words: the arithmetic with its numbers put in, then what they are, and who says so.

What stands before the colon gives the part's bytes, up to the rounding of the allocator's blocks. The texts are made when they
are shown; an estimate carries functions.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.memory import (
    collectives,
    completions,
    encoder_inference,
    generate,
    inference,
    llama_cpp,
    loading,
    optimizers,
    reference,
    runtime,
    serving,
    trained,
    training,
)
from advisor.memory.extent import Extent, less
from advisor.memory.formats import BYTES, FORMATS, KV_BYTES_PER_32
from advisor.memory.kv_cache import largest_layer, token_elements
from advisor.memory.loading import Moment
from advisor.memory.losses import held_logits
from advisor.memory.pieces import gates_and_ups
from advisor.memory.recipe import compute_width, keeps_masters, recipe_of, resident_width, storing
from advisor.memory.sharding import Rank, shares_of
from advisor.memory.weights import adapter_targets, is_gguf, rank_sum, taken_as_published
from advisor.results import Origin
from advisor.workload import Workload

SHADOW = "the layers' code in transformers 5.23 and PyTorch's derivatives.yaml, tensor by tensor"
LOSS = "transformers 5.23 loss_utils.py, ForCausalLMLoss"
HOLDING = f"{LOSS}; outputs = model(**batch) as in the published PEFT loops (Trainer's compute_loss lets go of them)"
CHUNKED_LOSS = "Liger-Kernel 0.8 fused_linear_cross_entropy.py"
HEADS = {
    "log-probs": (
        "logits in fp32, their log-softmax, its gradient",
        "LLaMA-Factory 0.9.5 train/trainer_utils.py, get_batch_logps",
    ),
    "odds": ("logits, the softmax of the chosen half, their gradients", "TRL 1.16 experimental/orpo and cpo"),
    "odds-of-one": ("logits, the softmax of the chosen one, their gradients", "TRL 1.16 experimental/orpo and cpo"),
    "tiles": ("a tile of logits, and fp32 gradients of states and head", "TRL 1.16 kernels/chunked_logprob.py"),
    "score": ("last norm, and a number a token", "transformers 5.23 modeling_layers.py, GenericForSequenceClassification"),
}
GENERATED = "TRL 1.16 models/utils.py, unwrap_model_for_generation"
SAVED = {
    "deepspeed": "DeepSpeed 0.19 runtime/engine.py, _zero3_consolidated_16bit_state_dict",
    "fsdp": "accelerate 1.15 accelerator.py, get_state_dict: full_state_dict with cpu_offload",
}


def origin(name: str, w: Workload, rank: Rank, phase: str) -> Origin:
    """The arithmetic behind a part at the peak, and its source."""
    if phase == "load":
        moment = _loading(w, rank)
        if moment.text and name in ("step-temporaries", "gathered-parameters"):
            return Origin(f"{moment.parts[name]:,} B: {moment.text}", moment.source)
    if phase == "decode" and name in ("kv-cache", "activations", "logits-and-loss"):
        w = completions.as_inference(w) if w.task == "train" else w
    return _ORIGINS[name](w, rank, phase)


def _loading(w: Workload, rank: Rank) -> Moment:
    if w.task == "infer":
        return loading.inference(w, rank, {})
    recipe = recipe_of(w)
    return loading.training(w, rank, recipe, training.standing(w, rank, recipe))


def terms(extent: Extent, batch: int, seq: int) -> str:
    """An extent with its numbers: tokens × bytes, and whatever else it has."""
    tokens = batch * seq
    products = (
        f"{extent[0]:,} B",
        f"{tokens:,} × {extent[1]:,} B",
        f"{tokens:,} × {seq:,} × {extent[2]:,} B",
        f"{seq:,} × {extent[3]:,} B",
        f"{seq:,} × {seq:,} × {extent[4]:,} B",
        f"{batch:,} × {extent[5]:,} B",
    )
    order = (1, 2, 0, 3, 4, 5)
    return " + ".join(products[i] for i in order if extent[i]) or "0 B"


def _blocks(elements: int, width: int, held: int) -> str:
    """Elements × width, and what the allocator's blocks add to that."""
    product = f"{elements:,} × {width} B"
    return product if held == elements * width else f"{product} + {held - elements * width:,} B"


def _divided(w: Workload, rank: Rank, product: str, amount: int, ranks: int) -> str:
    """What one of several ranks keeps of a product; where experts are divided otherwise than the rest, the amount alone."""
    if ranks == 1:
        return product
    if w.ep > 1:
        return f"{collectives.per_rank(w, rank, amount, ranks):,} B"
    return f"({product}) ÷ {ranks}" if "+" in product else f"{product} ÷ {ranks}"


def _weights(w: Workload, rank: Rank, phase: str) -> Origin:
    width = _loading(w, rank).width if phase == "load" else resident_width(w)
    held = rank_sum(rank, storing(w)._replace(width=width))
    away = inference.on_host(w, rank) if w.task == "infer" else 0
    if away:
        text = f"{held.bytes:,} B - {away:,} B: all weights, less the layers that the host holds"
        return Origin(text, "accelerate dispatch_model")
    ranks = shares_of(w).weights
    towers = rank.model.extra_parameters if rank.embeds else 0
    more = f", {towers:,} of them {rank.model.extra_name or 'outside the language model'}" if towers else ""
    amount = _divided(w, rank, f"{held.bytes:,} B", held.bytes, ranks)
    if is_gguf(rank.model) and taken_as_published(rank.model, storing(w)):
        return Origin(f"{amount}: {held.elements:,} parameters as the GGUF file has them", rank.model.source)
    if w.quantization != "none":
        form = FORMATS[w.quantization]
        rest = "" if form.everything else f"; what stays unquantized at {width} B"
        return Origin(f"{amount}: {held.elements:,} parameters{more}, {w.quantization} at {form.text}{rest}", form.source)
    if rank.model.stored:
        return Origin(f"{amount}: {held.elements:,} parameters as the checkpoint has them", rank.model.source)
    product = _divided(w, rank, _blocks(held.elements, width, held.bytes), held.bytes, ranks)
    text = f"{product}: parameters{more}, in the allocator's blocks"
    return Origin(text, "the model's shape; PyTorch CUDACachingAllocator.cpp")


def _adapters(w: Workload, rank: Rank, phase: str) -> Origin:
    recipe = recipe_of(w)
    names = len(adapter_targets(w.model, w.lora_targets))
    elements, held = trained.elements(w, rank, recipe), trained.in_blocks(w, rank, recipe, recipe.adapter)
    ranks = shares_of(w).weights
    product = _blocks(elements, recipe.adapter, held)
    product = f"({product}) ÷ {ranks}" if ranks > 1 else product
    text = f"{product}: rank {w.lora_rank} on {names} modules a layer"
    return Origin(text, "LoRA, arXiv 2106.09685; PEFT 0.21 makes adapters fp32 by default")


def _reference(w: Workload, rank: Rank, phase: str) -> Origin:
    width, held = reference.width(w), reference.weights(w, rank)
    elements = rank_sum(rank, storing(w)).elements
    product = _divided(w, rank, _blocks(elements, width, held), held, shares_of(w).weights)
    return Origin(f"{product}: the model as it was at first", "TRL 1.16 trainer/dpo_trainer.py, ref_model")


def _kv(w: Workload, rank: Rank, phase: str) -> Origin:
    if rank.model.ends:
        return Origin(encoder_inference.kv_text(w, rank, phase), "transformers 5.23 cache_utils.py, EncoderDecoderCache")
    expanded = w.engine.expands_latents
    if "kv" in w.offload:
        tokens = w.prompt if phase == "prefill" else w.seq
        largest = largest_layer(rank.model, w.batch, tokens, w.kv_precision, whole=True, expanded=expanded)
        text = f"2 × {largest:,} B: the cache of the layer at work, and of the next"
        return Origin(text, "transformers 5.23 cache_utils.py, OffloadedCache")
    whole = phase == "prefill" and not w.engine.serving and not w.engine.ggml and not generate.still_to_come(w, rank)
    tokens = w.prompt if whole else w.seq
    each = sum(
        many * token_elements(x, expanded) * (tokens if whole else inference.held_tokens(w, x, tokens))
        for x, many in rank.model.kinds
    )
    text = f"{w.batch:,} × {each:,} × {KV_BYTES_PER_32[w.kv_precision] / 32:g} B: sequences × elements of {tokens:,} tokens"
    windows = {window for layer, _ in rank.model.kinds if layer.attention and (window := layer.attention.window)}
    if windows and not whole:
        text += f", fewer in layers that slide over {min(windows):,}"
    return Origin(text, _cache_source(w))


def _cache_source(w: Workload) -> str:
    if w.engine.ggml:
        return "llama.cpp 0c1e5709 src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp"
    return w.engine.reserves.source if w.engine.serving else "transformers 5.23 cache_utils.py"


def _recurrent(w: Workload, rank: Rank, phase: str) -> Origin:
    each = inference.states_bytes(w, rank)
    text = f"{w.batch:,} × {each:,} B: sequences × the states of their recurrent layers, whatever their length"
    return Origin(text, _cache_source(w))


def _gradients(w: Workload, rank: Rank, phase: str) -> Origin:
    recipe = recipe_of(w)
    elements, held = trained.elements(w, rank, recipe), trained.gradient_bytes(w, rank, recipe)
    ranks = shares_of(w).gradients
    whole = _divided(w, rank, _blocks(elements, trained.gradient_width(w, recipe), held), held, ranks)
    source = "autograd: a gradient has the type of its parameter"
    forgotten = trained.forgotten_gradient_bytes(w, rank)
    if forgotten:
        here = training.phases(w, rank)[phase]["gradients"] - forgotten
        return Origin(
            f"{here:,} B + {forgotten:,} B: of what is trained, and the embedding's, which nothing drops", w.engine.source
        )
    if phase == "step":
        return Origin(f"{whole}: one for each trained parameter", source)
    if phase in ("load", "decode", "save"):
        return Origin(f"{whole}: buffers that are there all the time", source)
    made = training.peak_of(w, rank, phase)[0].gradients[0]
    here = training.kept_gradients(w, recipe, made)
    if training.reduces_late(w):
        summed = training.whole_gradients(w, rank, recipe)
        return Origin(f"{summed:,} B + {here:,} B: a whole sum, which the last micro-step divides", w.engine.source)
    if training.keeps_gradients(w):
        return Origin(f"{whole} + {here:,} B: a sum that is there all the time, and what waits to be added to it", source)
    return Origin(f"{here:,} B: those of {elements:,} that exist at this moment", source)


def _states(w: Workload, rank: Rank, phase: str) -> Origin:
    recipe = recipe_of(w)
    optimizer = optimizers.OPTIMIZERS[w.optimizer]
    elements, width = trained.elements(w, rank, recipe), trained.state_width(w, recipe)
    width = 2 if optimizer.bf16 else width
    plain = optimizer.states and not optimizer.bits8 and w.optimizer not in ("muon", "galore-adamw")
    amount = trained.state_bytes(w, rank, recipe)
    product = f"{elements:,} × {optimizer.states} × {width} B" if plain else f"{amount:,} B"
    text = _divided(w, rank, product, amount, shares_of(w).states)
    return Origin(f"{text}: {optimizer.text}", optimizer.source)


def _masters(w: Workload, rank: Rank, phase: str) -> Origin:
    elements = trained.elements(w, rank, recipe_of(w))
    text = _divided(w, rank, f"{elements:,} × 4 B", 4 * elements, shares_of(w).states)
    return Origin(f"{text}: fp32 masters", "DeepSpeed 0.19 memory requirements, zero/stage_1_and_2.py; Megatron-LM optimizers")


def _activations(w: Workload, rank: Rank, phase: str) -> Origin:
    layers = len(rank.model.layers)
    if w.task == "train":
        peak, beside = training.peak_of(w, rank, phase)
        extent = less(less(peak.live, peak.gradients), peak.loss)
        more = f" + {beside:,} B" if beside else ""
        kept = "their inputs" if w.checkpointing == "full" else "what their derivatives need"
        if phase == "eval":
            return Origin(f"{terms(extent, w.sequences, training.local_seq(w))}: one layer at work, nothing is kept", SHADOW)
        text = f"{terms(extent, w.sequences, training.local_seq(w))}{more}: {layers} layers keep {kept}, and one is at work"
        return Origin(text, SHADOW)
    if rank.model.ends:
        return Origin(encoder_inference.activations_text(w, rank, phase), SHADOW)
    if w.engine.ggml:
        return Origin(llama_cpp.buffer(w, rank).text, llama_cpp.SOURCE)
    if w.engine.serving and serving.samples_highest(w, rank):
        states = f"{serving.chunk_tokens(w):,} × {rank.model.hidden:,} × {compute_width(w)} B"
        return Origin(f"{states}: the hidden states beside the logits", w.engine.reserves.source)
    if phase == "decode":
        held = inference.phases(w, rank)[phase]["activations"]
        words = "one layer's keys, old and appended to, its unpacked cache or its states; an unpacked matrix"
        return Origin(f"{held:,} B: {words}", "transformers 5.23 cache_utils.py: torch.cat makes a new tensor")
    if w.engine.serving:
        tokens = serving.chunk_tokens(w)
        extent = generate.working_extent(recipe_of(w), rank, 1, tokens)
        return Origin(f"{terms(extent, 1, tokens)}: one layer at work, beside the embedding", SHADOW)
    coming = generate.still_to_come(w, rank)
    less_ = f" - {coming:,} B" if coming else ""
    words = ", less what is shown of the cache and still to come" if coming else ""
    if generate.all_logits_are_highest(w, rank):
        states = f"{w.batch * w.prompt:,} × {rank.model.hidden:,} × {recipe_of(w).stream} B"
        return Origin(f"{states}{less_}: the hidden states beside the logits{words}", "transformers before 4.45")
    extent = generate.working_extent(recipe_of(w), rank, w.batch, w.prompt)
    unpacked = generate.unpacked_layer(w, rank, w.prompt)
    more = f" + {unpacked:,} B" if unpacked else ""
    return Origin(f"{terms(extent, w.batch, w.prompt)}{more}{less_}: one layer at work, beside the embedding{words}", SHADOW)


def _loss(w: Workload, rank: Rank, phase: str) -> Origin:
    if w.task == "infer" and rank.model.ends:
        return Origin(*encoder_inference.logits_text(w, rank))
    if w.task == "infer":
        return Origin(*inference.logits_text(w, rank, phase))
    seq = training.local_seq(w)
    if phase == "step":
        held = terms(held_logits(recipe_of(w), rank.model), w.sequences, seq)
        return Origin(f"{held}: logits that the loop still holds", HOLDING)
    product = terms(training.peak_of(w, rank, phase)[0].loss, w.sequences, seq)
    head = reference.head(w, rank, recipe_of(w))
    if head:
        words, source = HEADS[head.kind]
        return Origin(f"{product}: {words}", source)
    recipe = recipe_of(w)
    if recipe.loss == "chunks":
        words = (
            f"last norm, {rank.model.vocab:,} logits a token and their softmax, kept for every chunk; gradients of one chunk"
        )
        return Origin(f"{product}: {words}", w.engine.source)
    if recipe.loss == "fused":
        return Origin(f"{product}: last norm, a chunk of logits, gradients of head and states", CHUNKED_LOSS)
    words = f"last norm, and {rank.model.vocab:,} logits a token: as computed, in fp32, their softmax, their gradient"
    if rank.model.ends:
        outputs = f"{rank.model.vocab:,} logits" if rank.model.has_lm_head else f"{rank.model.ends.labels:,} labels"
        return Origin(f"{product}: what stands behind the last layer, with {outputs}, their softmax and gradient", SHADOW)
    if w.engine.holds_outputs:
        return Origin(f"{product}: {words}; the logits as computed are held by the loop throughout", HOLDING)
    return Origin(f"{product}: {words}", LOSS)


def _temporaries(w: Workload, rank: Rank, phase: str) -> Origin:
    if w.task == "infer":
        return _buffers_for_good(w, rank)
    recipe = recipe_of(w)
    if phase == "save":
        gates = gates_and_ups(rank, recipe.weight)
        text = f"{gates:,} B: gate and up of every expert, apart from each other as the file has them"
        return Origin(text, "transformers 5.23 modeling_utils.py, save_pretrained; core_model_loading.py, Chunk")
    amount = training.step_temporaries(w, rank, recipe)
    if keeps_masters(w):
        return Origin(f"{amount:,} B: fp32 gradients of what is stepped at once", "DeepSpeed 0.19, sub_group_size 1e9")
    if w.optimizer == "muon":
        widest = trained.widest_matrix(w, rank, recipe)
        return Origin(f"3 × {widest:,} × 2 B: the largest matrix in bf16, for Newton–Schulz", "torch.optim.Muon")
    elements, width = trained.elements(w, rank, recipe), trained.width(w, recipe)
    ranks = shares_of(w).states
    text = _divided(w, rank, f"{elements:,} × {width} B", elements * width, ranks)
    return Origin(f"{text}: one result for each parameter", optimizers.OPTIMIZERS[w.optimizer].source)


def _buffers_for_good(w: Workload, rank: Rank) -> Origin:
    unpacked = f"{generate.largest_unpacked(w, rank):,} × {BYTES['fp16']} B" if inference.unpacking_buffer(w, rank) else ""
    tables = generate.rotary_tables(w, rank)
    named = (
        (unpacked, "the largest matrix, unpacked", "AutoGPTQ's exllama kernel"),
        (f"{tables:,} B" if tables else "", "each layer's tables for the rotary embedding", "transformers before 4.45"),
    )
    terms_, words, sources = zip(*(each for each in named if each[0]), strict=True)
    return Origin(f"{' + '.join(terms_)}: {', '.join(words)}", "; ".join(sources))


def _gathered(w: Workload, rank: Rank, phase: str) -> Origin:
    recipe = recipe_of(w)
    if phase == "decode":
        return Origin(
            f"{completions.beside(w, rank, recipe)['gathered-parameters']:,} B: the whole model, to generate", GENERATED
        )
    if phase == "save":
        return Origin(f"{loading.whole_piece(w, rank):,} B: the largest piece, whole on its way to the host", SAVED[w.sharding])
    if w.sharding == "deepspeed":
        live = collectives.gathered(w, rank, recipe) // recipe.weight
        text = f"{live:,} × {recipe.weight} B: parameters gathered at once"
        return Origin(text, "DeepSpeed config-json, stage3_max_live_parameters")
    amount = collectives.gathered(w, rank, recipe)
    return Origin(
        f"{amount:,} B: two layers, and embedding and head, or what of them is at work, whole on every GPU",
        "torch.distributed.fsdp.fully_shard",
    )


def _buffers(w: Workload, rank: Rank, phase: str) -> Origin:
    nccl = runtime.nccl(w)
    if w.task == "infer":
        return Origin(nccl.formula, nccl.source)
    recipe = recipe_of(w)
    whole = collectives.unreduced(w, rank, recipe) if phase == "backward" else 0
    flat = training.phases(w, rank)[phase].get("communication-buffers", 0) - whole  # not there yet at each moment of loading
    named = (
        (flat, "DDP's copy of the gradients" if w.zero == 0 else "ZeRO's buckets"),
        (whole, "a layer's gradients, and the buffer that they are reduced in"),
    )
    terms_, words = zip(
        *((f"{many:,} B", what) for many, what in (*named, (nccl.point, "NCCL's buffers")) if many), strict=True
    )
    return Origin(f"{' + '.join(terms_)}: {', '.join(words)}", f"torch DistributedDataParallel; DeepSpeed; {nccl.source}")


def _graphs(w: Workload, rank: Rank, phase: str) -> Origin:
    return Origin(f"{w.engine.reserves.graphs_bytes:,} B: what capturing CUDA graphs takes", w.engine.source)


_ORIGINS: dict[str, Callable[[Workload, Rank, str], Origin]] = {
    "weights": _weights,
    "adapter-weights": _adapters,
    "reference-weights": _reference,
    "kv-cache": _kv,
    "recurrent-state": _recurrent,
    "gradients": _gradients,
    "optimizer-state": _states,
    "master-weights": _masters,
    "activations": _activations,
    "logits-and-loss": _loss,
    "step-temporaries": _temporaries,
    "gathered-parameters": _gathered,
    "communication-buffers": _buffers,
    "cuda-graphs": _graphs,
}
