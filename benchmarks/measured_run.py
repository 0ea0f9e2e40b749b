"""One job, run for real: the process that measure.py starts for each line. It reads the task on stdin and prints its record.

The model is built from its configuration with random weights, trained for two steps or run for a prefill and its decode
steps, in a plain loop with transformers and PEFT. The record is printed again after every phase, so that of a process that is
killed the last line tells how far it came.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout that is not installed

from advisor.job import Job
from advisor.workload import Workload, resolve

STEPS = 2  # the second has the optimizer's state from its beginning
POLL = 0.005  # seconds between two looks at the card
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# Settings that a plain loop does not have, with the only value that it does.
PLAIN = {"gpus": 1, "quantization": "none", "zero": 0, "offload": (), "compile": False, "loss": "plain", "pp": 1, "tp": 1}


class UnsupportedError(Exception):
    """The harness cannot run this job; the message says why."""


def unsupported(w: Workload) -> str:
    """Why the harness cannot run the job; empty where it can."""
    for name, value in PLAIN.items():
        if getattr(w, name) != value:
            return f"{name} {getattr(w, name)}"
    if w.engine.name != "transformers":
        return f"engine {w.engine.name}"
    if w.checkpointing == "selective":
        return "checkpointing selective"
    if w.task == "train" and w.optimizer not in OPTIMIZERS:
        return f"optimizer {w.optimizer}"
    if w.task == "infer" and w.kv_precision != w.precision:
        return f"kv_precision {w.kv_precision}"
    return ""


def _torch_optimizer(name: str, **settings: Any) -> Callable[[list[Any]], Any]:
    def make(parameters: list[Any]) -> Any:
        import torch

        return getattr(torch.optim, name)(parameters, lr=1e-5, **settings)

    return make


def _adafactor(parameters: list[Any]) -> Any:
    from transformers.optimization import Adafactor

    return Adafactor(parameters, lr=1e-5, relative_step=False, scale_parameter=False)


def _bitsandbytes(name: str) -> Callable[[list[Any]], Any]:
    def make(parameters: list[Any]) -> Any:
        try:
            import bitsandbytes
        except ImportError:
            raise UnsupportedError("the optimizer needs bitsandbytes, which is not installed") from None
        return getattr(bitsandbytes.optim, name)(parameters, lr=1e-5)

    return make


OPTIMIZERS: dict[str, Callable[[list[Any]], Any] | None] = {
    "adamw": _torch_optimizer("AdamW"),
    "adamw-fused": _torch_optimizer("AdamW", fused=True),
    "adamw-8bit": _bitsandbytes("AdamW8bit"),
    "paged-adamw-8bit": _bitsandbytes("PagedAdamW8bit"),
    "sgd": _torch_optimizer("SGD"),
    "sgd-momentum": _torch_optimizer("SGD", momentum=0.9),
    "adafactor": _adafactor,
    "lion": _bitsandbytes("Lion"),
    "lion-8bit": _bitsandbytes("Lion8bit"),
    "none": None,
}


class Nvml:
    """The card as nvidia-smi sees it, in bytes: what is used more than before this process came to it."""

    def __init__(self) -> None:
        self.highest: int | None = None
        self.driver: str | None = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._card = pynvml.nvmlDeviceGetHandleByIndex(int(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]))
            self._read = pynvml.nvmlDeviceGetMemoryInfo
            self._before = self._read(self._card).used
            self.driver = str(pynvml.nvmlSystemGetDriverVersion())
        except Exception:  # no package, no driver, a card that is named otherwise: the figures are left out
            return
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(POLL)

    def look(self) -> int | None:
        if self.driver is not None:
            self.highest = max(self.highest or 0, self._read(self._card).used - self._before)
        return self.highest

    def forget(self) -> None:
        self.highest = None


class Recorder:
    """The record of a run, phase by phase."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.cuda = task["device"] == "cuda"
        self.nvml: Nvml | None = None
        self.phase = "start"
        self.record: dict[str, Any] = {
            "schema": 1, "job": task["job"], "tiny": task["tiny"], "device": task["device"], "outcome": "running",
            "phases": {}, "error": None, "cap_bytes": None, "gpu": None, "parameters": None, "versions": {},
            "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        }  # fmt: skip

    def say(self) -> None:
        print(json.dumps(self.record), flush=True)

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Peaks of a phase: of one that comes again, the highest. Without CUDA there are none, and none are made up."""
        self.phase = phase
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            if self.nvml:
                self.nvml.forget()
        try:
            yield
            if self.cuda:
                torch.cuda.synchronize()
        finally:
            now = self._peaks()
            before = self.record["phases"].get(phase, dict.fromkeys(now))
            self.record["phases"][phase] = {name: _highest(before[name], now[name]) for name in now}
            self.record["error"] = {"phase": phase, "text": ""}
            self.say()
            self.record["error"] = None

    def _peaks(self) -> dict[str, int | None]:
        if not self.cuda:
            return {"allocated": None, "reserved": None, "nvml": None}
        import torch

        return {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
            "nvml": self.nvml.look() if self.nvml else None,
        }


def _highest(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def run(task: dict[str, Any]) -> None:
    """Run the job and print its record."""
    recorder = Recorder(task)
    record = recorder.record
    start = time.monotonic()
    try:
        w = resolve(Job(**task["job"]))
        if why := unsupported(w):
            raise UnsupportedError(why)
        _prepare(recorder, w)
        with recorder.during("load"):
            model = _model(w, task["config"], task["device"])
        record["parameters"] = sum(each.numel() for each in model.parameters() if not getattr(each, "_adapter", False))
        (_train if w.task == "train" else _infer)(recorder, w, model, task["device"])
        record["outcome"] = "ok"
    except Exception as problem:
        record["outcome"], record["error"] = failure(problem), {"phase": recorder.phase, "text": said(problem)}
    record["seconds"] = round(time.monotonic() - start, 1)
    recorder.say()


def failure(problem: BaseException) -> str:
    """oom, unsupported or error. Libraries that allocate past torch say it in their own words."""
    if isinstance(problem, UnsupportedError):
        return "unsupported"
    words = str(problem).lower()
    out = type(problem).__name__ == "OutOfMemoryError" or "out of memory" in words or "alloc_failed" in words
    return "oom" if out else "error"


def said(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:2000]


def _prepare(recorder: Recorder, w: Workload) -> None:
    """Versions, the card, and the cap that makes it as small as the job's."""
    import peft
    import torch
    import transformers

    record = recorder.record
    record["versions"] = {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "peft": peft.__version__, "cuda": torch.version.cuda,
    }  # fmt: skip
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    if not recorder.cuda:
        return
    recorder.nvml = Nvml()
    torch.ones(1, device="cuda").sum().item()  # makes the context
    free, total = torch.cuda.mem_get_info()
    taken = recorder.nvml.look()
    context = (total - free if taken is None else taken) - torch.cuda.memory_reserved()
    card = torch.cuda.get_device_properties(0)
    record["versions"]["driver"] = recorder.nvml.driver
    record["gpu"] = {"name": card.name, "total_bytes": card.total_memory, "capability": f"{card.major}.{card.minor}",
                     "context_bytes": context}  # fmt: skip
    record["cap_bytes"] = min(w.usable_bytes, total)
    if w.usable_bytes < total:  # the context is the process's as well, but not the allocator's
        torch.cuda.set_per_process_memory_fraction((w.usable_bytes - context) / card.total_memory)


def _model(w: Workload, settings: dict[str, Any], device: str) -> Any:
    """The real class with random weights, made where it is to stay."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**{**settings, "model_type": settings["model_type"]})
    frozen = w.task == "infer" or w.method != "full"
    name = w.precision.removesuffix("-mixed") if frozen or not w.precision.endswith("-mixed") else "fp32"
    attention = "eager" if w.attention == "eager" else "sdpa"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, DTYPES[name]), attn_implementation=attention)
    if w.task == "infer":
        return model.eval()
    if w.checkpointing == "full":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return (_adapted(w, model) if w.method == "lora" else model).train()


def _adapted(w: Workload, model: Any) -> Any:
    import peft

    own = {id(each) for each in model.parameters()}
    targets = "all-linear" if w.lora_targets == ("all-linear",) else list(w.lora_targets)
    settings = peft.LoraConfig(r=w.lora_rank, lora_alpha=2 * w.lora_rank, lora_dropout=w.lora_dropout, target_modules=targets,
                               task_type="CAUSAL_LM")  # fmt: skip
    adapted = peft.get_peft_model(model, settings, autocast_adapter_dtype=w.adapter_precision == "fp32")
    for each in adapted.parameters():
        each._adapter = id(each) not in own
    return adapted


def _train(recorder: Recorder, w: Workload, model: Any, device: str) -> None:
    import torch

    trained = [each for each in model.parameters() if each.requires_grad]
    make = OPTIMIZERS[w.optimizer]
    optimizer = make(trained) if make else None
    mixed = w.precision.endswith("-mixed")
    dtype = getattr(torch, DTYPES[w.precision.removesuffix("-mixed")])
    scaler = torch.amp.GradScaler(device, enabled=recorder.cuda and w.precision == "fp16-mixed")
    tokens = torch.randint(0, model.config.get_text_config().vocab_size, (w.batch, w.seq), device=device)
    for _ in range(STEPS):
        for _ in range(w.accumulation):
            with recorder.during("forward"), torch.autocast(device, dtype) if mixed else contextlib.nullcontext():
                loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            with recorder.during("backward"):
                scaler.scale(loss / w.accumulation).backward()
            del loss
        with recorder.during("step"):
            if optimizer:
                scaler.step(optimizer)
                scaler.update()
            model.zero_grad(set_to_none=True)


def _infer(recorder: Recorder, w: Workload, model: Any, device: str) -> None:
    import torch

    tokens = torch.randint(0, model.config.get_text_config().vocab_size, (w.batch, w.prompt), device=device)
    with torch.no_grad():
        with recorder.during("prefill"):
            out = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
            cache, tokens = out.past_key_values, out.logits[:, -1:].argmax(-1)
            del out
        gc.collect()
        for _ in range(w.seq - w.prompt):
            with recorder.during("decode"):
                out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, tokens = out.past_key_values, out.logits[:, -1:].argmax(-1)
                del out


if __name__ == "__main__":
    run(json.load(sys.stdin))
