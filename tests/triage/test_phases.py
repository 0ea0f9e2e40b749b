"""When memory ran out, from the frames next to the message and the lines before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from samples import FROM_2_2, torch

from advisor import diagnose

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB."


def frames(*calls: str) -> str:
    """A traceback of calls, `file:function:source` each, the outermost first."""
    lines = ["Traceback (most recent call last):"]
    for call in calls:
        file, function, source = call.split(":", 2)
        lines += [f'  File "/opt/x/{file}", line 77, in {function}', f"    {source}"]
    return "\n".join(lines)


PHASES = {
    "load": [
        frames("serve.py:main:model = AutoModelForCausalLM.from_pretrained(name)", "torch/nn/modules/module.py:convert:return t.to(device)"),
        frames("vllm/model_executor/model_loader/loader.py:load_model:self.load_weights(model)"),
        frames("run.py:main:model.cuda()"),
        frames("gen.py:main:state = torch.load(path, map_location='cuda')"),
    ],
    "forward": [
        frames("train.py:main:out = model(x)", "torch/nn/modules/conv.py:_conv_forward:return F.conv2d(x, w)"),
        frames("transformers/trainer.py:training_step:loss = self.compute_loss(model, inputs)", "modeling_x.py:forward:h = self.mlp(h)"),
    ],
    "backward": [
        frames("train.py:main:loss.backward()", "torch/_tensor.py:backward:torch.autograd.backward(self)"),
        # a checkpoint computes its layer again inside of the backward pass
        frames("train.py:main:loss.backward()", "torch/utils/checkpoint.py:recompute_fn:fn(*args)", "modeling_x.py:forward:a = F.scaled_dot_product_attention(q, k, v)"),
        frames("transformers/trainer.py:training_step:self.accelerator.backward(loss)"),
    ],
    "optimizer-step": [
        frames("train.py:main:optimizer.step()", "torch/optim/adamw.py:_multi_tensor_adamw:torch._foreach_sqrt(s)"),
        frames("train.py:main:opt.step()", "torch/optim/adam.py:_init_group:state['exp_avg'] = torch.zeros_like(p)"),
        frames("deepspeed/runtime/zero/stage3.py:__init__:self._setup_for_real_optimizer()"),
    ],
    "eval": [
        frames("transformers/trainer.py:evaluate:output = eval_loop()", "transformers/trainer.py:evaluation_loop:logits = nested_concat(a, b)"),
        frames("train.py:main:evaluate(model, loader)", "net.py:forward:return self.conv(x)"),
        frames("train.py:main:validate(val_loader)", "net.py:forward:return self.conv(x)"),
    ],
    "checkpoint-save": [
        frames("torch/distributed/fsdp/_state_dict_utils.py:_full_pre_state_dict_hook:_common_unshard(m)"),
        frames("transformers/trainer.py:_save_checkpoint:self.save_model(output_dir)", "accelerate/accelerator.py:get_state_dict:t.clone()"),
    ],
    "generate": [
        frames("chat.py:main:out = model.generate(**inputs)", "transformers/generation/utils.py:_sample:outputs = self(**x)", "modeling_x.py:forward:h = self.mlp(h)"),
        frames("diffusers/pipelines/x/pipeline_x.py:__call__:image = self.vae.decode(latents)"),
    ],
    "profile": [
        frames("vllm/v1/engine/core.py:_initialize_kv_caches:self.model_executor.determine_available_memory()", "vllm/v1/worker/gpu_model_runner.py:profile_run:self._dummy_run(n)"),
        frames("sglang/srt/model_executor/cuda_graph_runner.py:capture:graph.replay()"),
    ],
    "kv-cache-init": [frames("vllm/worker/cache_engine.py:_allocate_kv_cache:torch.zeros(shape)")],
}  # fmt: skip
CASES = [(phase, trace) for phase, traces in PHASES.items() for trace in traces]


@pytest.mark.parametrize(("phase", "trace"), CASES)
def test_frames_tell_the_phase(phase: str, trace: str) -> None:
    """What encloses counts where it decides: a forward pass within a backward, an evaluation, a generation."""
    assert diagnose(f"{trace}\n{OOM}").phase == phase


@pytest.mark.parametrize(("phase", "trace"), CASES[::3])
def test_frames_may_stand_behind_the_first_line(phase: str, trace: str) -> None:
    """THC and notebooks print the failure first."""
    assert diagnose(f"THCudaCheck FAIL file=/x/THCStorage.cu line=61 error=2 : out of memory\n{trace}").phase == phase


def in_a_box(trace: str) -> str:
    """As rich prints it: a path, a line and a function, and the source with an arrow."""
    lines = []
    for line in trace.split("\n")[1:]:
        file, _, function = line.strip().removeprefix('File "').replace('", line ', ":").partition(", in ")
        lines.append(f"{file} in {function}" if function else f"❱ 77 │   │   {line.strip()}")
    return "╭─ Traceback (most recent call last) ─╮\n" + "\n".join(f"│ {line:<90} │" for line in lines)


def in_a_notebook(trace: str) -> str:
    """With the class, the arguments, and an arrow at the line."""
    lines = []
    for line in trace.split("\n")[1:]:
        file, _, function = line.strip().removeprefix('File "').replace('", line ', ":").partition(", in ")
        lines.append(f"File {file}, in Thing.{function}(self, *args)" if function else f"---> 77     {line.strip()}")
    return "\n".join(lines)


def in_an_old_notebook(trace: str) -> str:
    """Without a line beside the file."""
    return in_a_notebook(trace).replace(":77, in Thing.", " in ")


@pytest.mark.parametrize("dress", [in_a_box, in_a_notebook, in_an_old_notebook])
@pytest.mark.parametrize(("phase", "trace"), CASES)
def test_frames_in_other_dress(phase: str, trace: str, dress: Callable[[str], str]) -> None:
    """Rich's box and a notebook tell the same."""
    assert diagnose(f"{dress(trace)}\n{OOM}").phase == phase


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("Loading checkpoint shards:  66%|██████▋   | 2/3 [00:08<00:04,  4.12s/it]", "load"),
        ("***** Running Evaluation *****", "eval"),
        ("Saving model checkpoint to ./out/checkpoint-500", "checkpoint-save"),
        ("Capturing CUDA graph shapes:  40%|████      | 14/35", "profile"),
        ("Prefill batch. #new-seq: 2, #new-token: 8192", "generate"),
        ("nothing that tells", "unknown"),
    ],
)
def test_the_last_line_that_says_what_goes_on(line: str, phase: str) -> None:
    """Where there is no traceback."""
    filler = "\n".join(f"heartbeat {n}" for n in range(80))
    assert diagnose(f"{line}\n{filler}\n{torch(FROM_2_2)}").phase == phase


def test_a_later_stage_replaces_an_earlier_one() -> None:
    """The weights were loaded long ago."""
    log = f"Loading checkpoint shards: 100%\n{'idle' * 9}\n***** Running Evaluation *****\n" + "beat\n" * 70 + torch(FROM_2_2)
    assert diagnose(log).phase == "eval"


def test_llama_cpp_says_afterwards_who_asked() -> None:
    """And before the failure what it made of other kinds."""
    before = "llama_kv_cache_init: CUDA0 KV buffer size = 512.00 MiB\n"
    failure = (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 900.00 MiB on device 0: cudaMalloc failed: out of memory\n"
    )
    assert diagnose(before + failure + "alloc_tensor_range: failed to allocate CUDA0 buffer of size 943718400").phase == "load"


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("alloc_tensor_range: failed to allocate CUDA0 buffer of size 943718400", "fewer_gpu_layers"),
        ("llama_kv_cache_init: failed to allocate buffer for kv cache", "lower_ctx"),
        (
            "srv update_slots: decode failed\nggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 943718400",
            "lower_ubatch",
        ),
    ],
)
def test_llama_cpp_by_who_asked(asked: str, first: str) -> None:
    """Weights, cache and compute buffers have remedies of their own."""
    failure = (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 900.00 MiB on device 0: cudaMalloc failed: out of memory\n"
    )
    assert diagnose(failure + asked).remedies[0].action == first


@pytest.mark.parametrize(
    ("trace", "first"),
    [
        (
            frames("transformers/trainer.py:training_step:self.compute_loss()", "modeling_x.py:forward:h = self.mlp(h)"),
            "grad_checkpointing",
        ),
        (
            frames("transformers/trainer.py:compute_loss:loss_fn()", "torch/nn/functional.py:cross_entropy:logits.float()"),
            "fused_or_chunked_ce",
        ),
        (
            frames("train.py:main:optimizer.step()", "torch/optim/adamw.py:_single_tensor_adamw:exp_avg.mul_(b)"),
            "light_optimizer",
        ),
        (frames("chat.py:main:model.generate(x)"), "reduce_batch"),
        (frames("chat.py:main:AutoModel.from_pretrained(x)"), "quantize_weights"),
        (frames("torch/distributed/fsdp/_state_dict_utils.py:_full_pre_state_dict_hook:x"), "offload_state_dict_cpu"),
    ],
)
def test_the_phase_decides_what_comes_first(trace: str, first: str) -> None:
    """A smaller batch helps neither loading nor the optimizer step nor saving."""
    assert diagnose(f"{trace}\n{OOM}").remedies[0].action == first


def test_the_words_are_those_of_the_framework_in_the_log() -> None:
    """The exact setting."""
    trace = frames("axolotl/train.py:train:trainer.train()", "transformers/trainer.py:training_step:loss.backward()")
    found = diagnose(f"{trace}\n{OOM}")
    assert found.framework == "axolotl"
    assert found.remedies[0].how == "gradient_checkpointing: true"
