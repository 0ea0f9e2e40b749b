"""What programs print when memory runs out, rendered from the grammar of each family and version with figures of our own.

No log of anybody's: the wording is the programs' (each with where it is printed), the figures, names and paths are made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

GIB, MIB = 2**30, 2**20


class Sample(NamedTuple):
    """A message, and what is to be read from it. None: not said by it alone."""

    name: str
    family: str
    text: str
    fields: Mapping[str, Any] = MappingProxyType({})
    cause: str | None = None
    phase: str | None = None


def gib(amount: float) -> int:
    return round(amount * GIB)


def mib(amount: float) -> int:
    return round(amount * MIB)


# c10/cuda/CUDACachingAllocator.cpp, version by version: 10.5 + 0.5 GiB of a card of 11.5, 1.25 asked for.
BEFORE_1_4 = "RuntimeError: CUDA out of memory. Tried to allocate {tried} (GPU 3; {total} total capacity; {alloc} already allocated; {free} free; {gap} cached)"
TO_2_0 = "RuntimeError: CUDA out of memory. Tried to allocate {tried} (GPU 3; {total} total capacity; {alloc} already allocated; {free} free; {held} reserved in total by PyTorch)"
HINT_2_0 = " If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF"
IN_2_1 = "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate {tried}. GPU 3 has a total capacty of {total} of which {free} is free. {processes}Of the allocated memory {alloc} is allocated by PyTorch, and {gap} is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting max_split_size_mb to avoid fragmentation."
FROM_2_2 = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {tried}. GPU 3 has a total capacity of {total} of which {free} is free. {processes}Of the allocated memory {alloc} is allocated by PyTorch, {pools}and {gap} is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting {variable}=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
FIGURES = {
    "tried": "1.25 GiB", "total": "11.50 GiB", "alloc": "10.50 GiB", "free": "310.25 MiB", "gap": "512.00 MiB", "held": "11.00 GiB",
    "processes": "", "pools": "", "variable": "PYTORCH_CUDA_ALLOC_CONF",
}  # fmt: skip
READ = {
    "tried_to_allocate_bytes": gib(1.25), "total_capacity_bytes": gib(11.5), "allocated_bytes": gib(10.5), "free_bytes": mib(310.25), "gpu_index": 3,
}  # fmt: skip
SELF = "Including non-PyTorch memory, this process has 11.19 GiB memory in use. "
NEW = {**READ, "reserved_unallocated_bytes": mib(512)}


def torch(form: str, **figures: str) -> str:
    return form.format(**{**FIGURES, **figures})


SAMPLES = (
    # --- PyTorch -----------------------------------------------------------------------------------------------------------
    Sample("torch 1.0 to 1.3", "pytorch-cuda", torch(BEFORE_1_4), {**READ, "cached_bytes": mib(512)}, "capacity"),
    Sample("torch 1.4 to 1.9", "pytorch-cuda", torch(TO_2_0), {**READ, "reserved_bytes": gib(11)}, "capacity"),
    Sample("torch 1.10 to 2.0", "pytorch-cuda", torch(TO_2_0 + HINT_2_0), {**READ, "reserved_bytes": gib(11)}, "capacity"),
    Sample("torch 2.1", "pytorch-cuda", torch(IN_2_1, processes=SELF), {**NEW, "process_in_use_bytes": gib(11.19)}, "capacity"),
    Sample("torch 2.2 on Windows", "pytorch-cuda", torch(FROM_2_2), NEW, "capacity"),
    Sample("torch 2.4 with graph pools", "pytorch-cuda", torch(FROM_2_2, processes=SELF, pools="with 96.00 MiB allocated in private pools (e.g., CUDA Graphs), "),
           {**NEW, "private_pool_bytes": mib(96)}, "capacity"),
    Sample("torch 2.10", "pytorch-cuda", torch(FROM_2_2, processes=SELF, variable="PYTORCH_ALLOC_CONF"), NEW, "capacity"),
    Sample("torch, a fraction set", "pytorch-cuda", torch(FROM_2_2, total="47.50 GiB", processes="11.87 GiB allowed; "),
           {"total_capacity_bytes": gib(47.5), "allowed_bytes": gib(11.87)}, "limit"),
    Sample("torch, another process", "pytorch-cuda",
           torch(FROM_2_2, alloc="4.00 GiB", processes="Process 4711 has 6.25 GiB memory in use. Including non-PyTorch memory, this process has 4.94 GiB memory in use. "),
           {"other_processes": [{"pid": 4711, "bytes": gib(6.25)}], "process_in_use_bytes": gib(4.94)}, "other-process"),
    Sample("torch, in a container", "pytorch-cuda", torch(FROM_2_2, processes="Process 90210 has 11.19 GiB memory in use. "), NEW, "capacity"),
    Sample("torch, in pieces", "pytorch-cuda", torch(FROM_2_2, alloc="6.00 GiB", gap="4.75 GiB", processes=SELF),
           {"reserved_unallocated_bytes": gib(4.75)}, "fragmentation"),
    Sample("torch, refused though free", "pytorch-cuda", torch(FROM_2_2, tried="18.00 MiB", alloc="2.00 GiB", free="8.70 GiB"), {}, "misreport"),
    Sample("torch, no words before the figures", "pytorch-cuda", torch(TO_2_0).replace("CUDA out of memory", ""), READ, "capacity"),
    Sample("torch, cut off", "pytorch-cuda", torch(FROM_2_2).partition(" of which")[0], {"tried_to_allocate_bytes": gib(1.25), "total_capacity_bytes": gib(11.5)}, "capacity"),
    Sample("torch without figures", "pytorch-out-of-memory", "RuntimeError: CUDA out of memory.", {}, "capacity"),
    Sample("the class alone", "out-of-memory", "torch.cuda.OutOfMemoryError", {}, "capacity"),
    Sample("THC, to 0.4", "cuda-driver", "THCudaCheck FAIL file=/opt/x/THC/generic/THCStorage.cu line=61 error=2 : out of memory", {}, "capacity"),
    Sample("CUDA runtime, to 0.4", "cuda-driver", "RuntimeError: cuda runtime error (2) : out of memory at /opt/x/THCStorage.cu:61", {}, "capacity"),
    Sample("CUDA driver", "cuda-driver", "torch.AcceleratorError: CUDA error: out of memory", {}, "capacity"),
    Sample("cumem", "cuda-driver", "CUDA Error: out of memory at /opt/vllm/csrc/cumem_allocator.cpp:81", {}, "capacity"),
    Sample("numba", "cuda-driver", "numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY", {}, "capacity"),
    Sample("cuBLAS", "cublas", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", {}, "capacity"),
    Sample("cuDNN", "cublas", "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", {}, "capacity"),
    Sample("ROCm", "pytorch-rocm", torch(FROM_2_2, variable="PYTORCH_HIP_ALLOC_CONF").replace("CUDA out", "HIP out"), NEW, "capacity"),
    Sample("NPU", "pytorch-npu", "RuntimeError: NPU out of memory. Tried to allocate 1.25 GiB (NPU 3; 11.50 GiB total capacity; 10.50 GiB already allocated; 10.75 GiB current active; 310.25 MiB free; 11.00 GiB reserved in total by PyTorch).If reserved memory is >> allocated memory",
           {**READ, "active_bytes": gib(10.75), "reserved_bytes": gib(11)}, "capacity"),
    Sample("XPU, IPEX 2.1", "pytorch-xpu", "RuntimeError: XPU out of memory. Tried to allocate 1.25 GiB (GPU 3; 11.50 GiB total capacity; 10.50 GiB already allocated; 11.00 GiB reserved in total by PyTorch)",
           {"tried_to_allocate_bytes": gib(1.25), "reserved_bytes": gib(11)}, "capacity"),
    Sample("XPU, one allocation", "pytorch-xpu", "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 4.50 GiB. GPU 0 has a total capacity of 11.50 GiB. Of the allocated memory 0 bytes is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated. Please use `empty_cache` to release all unoccupied cached memory.",
           {"tried_to_allocate_bytes": gib(4.5), "allocated_bytes": 0, "reserved_unallocated_bytes": 0}, "limit"),
    Sample("MPS to 2.7", "pytorch-mps", "RuntimeError: MPS backend out of memory (MPS allocated: 21.50 GB, other allocations: 3.25 GB, max allowed: 27.20 GB). Tried to allocate 2.75 GB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit",
           {"mps_allocated_bytes": gib(21.5), "mps_other_bytes": gib(3.25), "mps_max_allowed_bytes": gib(27.2), "tried_to_allocate_bytes": gib(2.75)}, "capacity"),
    Sample("MPS from 2.8", "pytorch-mps", "RuntimeError: MPS backend out of memory (MPS allocated: 2.50 GiB, other allocations: 23.25 GiB, max allowed: 27.20 GiB). Tried to allocate 2.75 GiB on shared pool.",
           {"mps_other_bytes": gib(23.25)}, "other-process"),
    Sample("cudaMallocAsync", "pytorch-async-allocator", "Allocation on device 1 would exceed allowed memory. (out of memory)\nCurrently allocated     : 9.25 GiB\nRequested               : 1.50 GiB\nDevice limit            : 9.77 GiB\nFree (according to CUDA): 24.19 MiB\nPyTorch limit (set by user-supplied memory fraction)\n                        : 17179869184.00 GiB",
           {"allocated_bytes": gib(9.25), "tried_to_allocate_bytes": gib(1.5), "total_capacity_bytes": gib(9.77), "free_bytes": mib(24.19), "gpu_index": 1}, "capacity"),
    Sample("ComfyUI", "pytorch-async-allocator", "torch.OutOfMemoryError: Allocation on device \nGot an OOM, unloading all loaded models.", {}, "capacity", "generate"),
    Sample("ROCm, less than nothing free", "pytorch-rocm", torch(FROM_2_2, free="17179869184.00 GiB").replace("CUDA out", "HIP out"), {"tried_to_allocate_bytes": gib(1.25)}, "capacity"),
    Sample("MIG", "pytorch-nvml-assert", 'RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1154, please report a bug to PyTorch.', {}, "capacity"),
    Sample("1 EB", "pytorch-bogus-size", "RuntimeError: CUDA out of memory. Tried to allocate more than 1EB memory.", {}, "not-memory"),
    Sample("bitsandbytes, device", "bitsandbytes", "Error out of memory at line 417 in file /opt/bnb/csrc/ops.cu", {}, "capacity"),
    Sample("bitsandbytes, managed", "bitsandbytes", "Error out of memory at line 380 in file /opt/bnb/csrc/pythonInterface.c", {}, "host-memory", "optimizer-step"),
    Sample("NCCL", "nccl", "node7:311:402 [5] init.cc:88 NCCL WARN Cuda failure 'out of memory'", {"rank": 5}, "capacity"),
    Sample("NCCL, calloc", "nccl", "node7:311:402 [5] include/alloc.h:99 NCCL WARN Failed to CUDA calloc 7340032 bytes", {"tried_to_allocate_bytes": 7340032}, "capacity"),
    Sample("Gaudi", "habana", "FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::268435456 (256)MB", {}, "capacity"),
    Sample("DirectML", "directml", "RuntimeError: Could not allocate tensor with 402653184 bytes. There is not enough GPU video memory available!", {"tried_to_allocate_bytes": 402653184}, "capacity"),
    # --- the host ----------------------------------------------------------------------------------------------------------
    Sample("CPU allocator", "pytorch-cpu-allocator", "RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 51539607552 bytes. Error code 12 (Cannot allocate memory)",
           {"tried_to_allocate_bytes": 51539607552}, "host-memory", "host"),
    Sample("CPU allocator, 1.2 to 1.10", "pytorch-cpu-allocator", "RuntimeError: [enforce fail at CPUAllocator.cpp:71] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 1610612736 bytes. Error code 12 (Cannot allocate memory)",
           {"tried_to_allocate_bytes": 1610612736}, "host-memory"),
    Sample("CPU allocator, Windows", "pytorch-cpu-allocator", "RuntimeError: [enforce fail at ..\\c10\\core\\impl\\alloc_cpu.cpp:72] data. DefaultCPUAllocator: not enough memory: you tried to allocate 805306368 bytes.",
           {"tried_to_allocate_bytes": 805306368}, "host-memory"),
    Sample("CPU allocator, 1.1", "pytorch-cpu-allocator", "RuntimeError: [enforce fail at CPUAllocator.cpp:56] posix_memalign(&data, gAlignment, nbytes) == 0. 12 vs 0", {}, "host-memory"),
    Sample("numpy", "numpy", "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 22.4 GiB for an array with shape (3000, 1000, 1000) and data type float64",
           {"tried_to_allocate_bytes": 24051816858, "tensor_shape": [3000, 1000, 1000], "dtype": "float64"}, "host-memory", "host"),
    Sample("numpy, a wrong shape", "numpy", "MemoryError: Unable to allocate 83.8 GiB for an array with shape (150000, 150000) and data type float32", {}, "not-memory"),
    Sample("pinned", "cuda-pinned-memory", "RuntimeError: cudaHostAlloc of 2100,50 MiB failed: out of memory", {}, "host-memory"),
    Sample("torchelastic", "torchelastic", "[ERROR] failed (exitcode: -9) local_rank: 2 (pid: 7781) of binary: /opt/x/bin/python", {"exit_code": -9, "rank": 2, "pid": 7781, "signal": "SIGKILL"}, "host-memory"),
    Sample("torchelastic, the block", "torchelastic", "  rank      : 11 (local_rank: 3)\n  exitcode  : -9 (pid: 918)\n  traceback : Signal 9 (SIGKILL) received by PID 918", {"exit_code": -9}, "host-memory"),
    Sample("DeepSpeed launcher", "deepspeed-launcher", "[ERROR] [launch.py:325:sigkill_handler] ['/opt/x/bin/python', 'train.py'] exits with return code = -9", {"exit_code": -9}, "host-memory"),
    Sample("the shell", "shell-killed", "epoch 3 done\nKilled", {}, "host-memory"),
    Sample("the shell, behind a progress bar", "shell-killed", "Loading checkpoint shards:   0%|          | 0/3 [00:00<?, ?it/s]Killed", {}, "host-memory", "load"),
    Sample("the kernel, in the journal", "linux-oom-killer", "Nov 30 10:16:57 node3 kernel: Killed process 30411 (python), UID 1000, total-vm:91226112kB, anon-rss:60817408kB", {"pid": 30411, "anon_rss_bytes": 60817408 * 1024}, "host-memory"),
    Sample("the shell, a script", "shell-killed", "./run.sh: line 12: 30411 Killed                  python train.py", {}, "host-memory"),
    Sample("the kernel", "linux-oom-killer", "[88122.118702] Out of memory: Killed process 30411 (python) total-vm:91226112kB, anon-rss:60817408kB, file-rss:0kB", {"pid": 30411, "anon_rss_bytes": 60817408 * 1024}, "host-memory"),
    Sample("the kernel, older", "linux-oom-killer", "Out of memory: Kill process 30411 (python) score 912 or sacrifice child", {"pid": 30411}, "host-memory"),
    Sample("the kernel, a cgroup", "linux-oom-killer", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=python,pid=30411,uid=1000", {"constraint": "CONSTRAINT_MEMCG"}, "host-memory"),
    Sample("Slurm to 21", "slurm", "slurmstepd: error: Detected 3 oom-kill event(s) in StepId=90417.batch cgroup.", {"job": "90417.batch"}, "host-memory"),
    Sample("Slurm from 22", "slurm", "slurmstepd: error: Detected 1 oom_kill event in StepId=90417.0. Some of the step tasks have been OOM Killed.", {"job": "90417.0"}, "host-memory"),
    Sample("Slurm, the task", "slurm", "srun: error: node12: task 6: Out Of Memory", {}, "host-memory"),
    Sample("LSF", "batch-scheduler", "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit.", {}, "host-memory"),
    Sample("Kubernetes", "kubernetes", "    Last State:     Terminated\n      Reason:       OOMKilled\n      Exit Code:    137", {"exit_code": 137}, "host-memory"),
    Sample("Kubernetes, evicted", "kubernetes", "The node was low on resource: memory. Container trainer was using 61Gi", {}, "host-memory"),
    Sample("compose", "docker", "trainer exited with code 137", {"exit_code": 137}, "host-memory"),
    Sample("KServe", "docker", '{"exitCode": 137, "reason": "Error"}', {"exit_code": 137}, "host-memory"),
    Sample("MPI", "mpi-killed", "mpirun noticed that process rank 3 with PID 0 on node n7 exited on signal 9 (Killed).", {}, "host-memory"),
    Sample("DataLoader, killed", "dataloader-killed", "RuntimeError: DataLoader worker (pid 5512) is killed by signal: Killed.", {"pid": 5512}, "host-memory"),
    Sample("DataLoader, died", "dataloader-died", "RuntimeError: DataLoader worker (pid(s) 5512, 5513) exited unexpectedly", {}, "host-memory"),
    Sample("DataLoader, /dev/shm", "dataloader-shared-memory", "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).", {"signal": "SIGBUS"}, "not-memory"),
    Sample("bus error", "bus-error", "Bus error (core dumped)", {}, "not-memory"),
    Sample("NCCL, /dev/shm", "nccl-shared-memory", "node7:311:402 [1] misc/shmutils.cc:77 NCCL WARN Error: failed to extend /dev/shm/nccl-Ab12Cd to 9637892 bytes", {"shm_needed_bytes": 9637892, "rank": 1}, "not-memory"),
    Sample("Ray, the monitor", "ray-memory-monitor", "Memory on the node (IP: 10.1.2.3, ID: ab12) where the task was running was 59.41GB / 62.00GB (0.958), which exceeds the memory usage threshold of 0.95. Ray killed this worker",
           {"host_used_bytes": gib(59.41), "host_total_bytes": gib(62), "memory_usage_threshold": 0.95}, "host-memory"),
    Sample("Ray, the raylet", "ray-memory-monitor", "(raylet) 3 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due to other reasons", {"workers_killed": 3}, "host-memory"),
    Sample("Ray, the exception", "ray-memory-monitor", "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", {}, "host-memory"),
    Sample("Ray, a worker", "ray-worker-died", "(raylet) A worker died or was killed while executing a task by an unexpected system error.", {}, "host-memory"),
    Sample("Windows", "windows-commit-limit", "OSError: [WinError 1455] The paging file is too small for this operation to complete", {}, "host-memory"),
    Sample("Linux", "os-cannot-allocate", "OSError: [Errno 12] Cannot allocate memory", {}, "host-memory"),
    Sample("C++", "os-cannot-allocate", "terminate called after throwing an instance of 'std::bad_alloc'", {}, "host-memory"),
    Sample("a notebook", "notebook-restarted", "Your session crashed after using all available RAM.", {}, "host-memory"),
    Sample("vLLM's swap space", "vllm-swap-space", "ValueError: Too large swap space. 32.00 GiB out of the 58.87 GiB total CPU memory is allocated for the swap space.", {"host_total_bytes": gib(58.87)}, "host-memory"),
    Sample("Ollama", "ollama-system-memory", 'Error: model requires more system memory (37.4 GiB) than is available (28.9 GiB)', {"host_needed_bytes": gib(37.4), "host_available_bytes": gib(28.9)}, "host-memory", "load"),
    # --- servers -----------------------------------------------------------------------------------------------------------
    Sample("vLLM v0, length", "vllm-kv-cache", "ValueError: The model's max seq len (16384) is larger than the maximum number of tokens that can be stored in KV cache (11344). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
           {"max_model_len": 16384, "kv_cache_tokens": 11344}, "kv-cache", "kv-cache-init"),
    Sample("vLLM v1, length", "vllm-kv-cache", "ValueError: To serve at least one request with the models's max seq len (65536), (9.00 GiB KV cache is needed, which is larger than the available KV cache memory (6.25 GiB). Based on the available memory, the estimated maximum model length is 45504.",
           {"max_model_len": 65536, "kv_needed_bytes": gib(9), "kv_available_bytes": gib(6.25), "est_max_len": 45504}, "kv-cache", "kv-cache-init"),
    Sample("vLLM, no blocks", "vllm-no-cache-blocks", "INFO worker.py:267] Available KV cache memory: -3.18 GiB\nValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
           {"kv_available_bytes": gib(-3.18)}, "kv-cache", "kv-cache-init"),
    Sample("vLLM, others at the start", "vllm-startup-memory", "ValueError: Free memory on device cuda:2 (11.31/23.52 GiB) on startup is less than desired GPU memory utilization (0.9, 21.17 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
           {"free_bytes": gib(11.31), "total_capacity_bytes": gib(23.52), "requested_budget_bytes": gib(21.17), "gpu_memory_utilization": 0.9}, "other-process", "load"),
    Sample("vLLM, a share too large", "vllm-startup-memory", "ValueError: Free memory on device (22.98/23.52 GiB) on startup is less than desired GPU memory utilization (0.99, 23.28 GiB).",
           {"free_bytes": gib(22.98)}, "limit", "load"),
    Sample("vLLM, sampler", "vllm-sampler-warmup", "RuntimeError: CUDA out of memory occurred when warming up sampler with 512 dummy requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.", {"dummy_requests": 512}, "capacity", "profile"),
    Sample("vLLM, preempted", "vllm-preempted", "WARNING scheduler.py:1099] Sequence group 41 is preempted by PreemptionMode.SWAP mode because there is not enough KV cache space.", {}, "benign", "generate"),
    Sample("vLLM, no swap left", "vllm-swap-exhausted", "RuntimeError: Aborted due to the lack of CPU swap space. Please increase the swap space to avoid this error.", {}, "kv-cache"),
    Sample("SGLang, no pool", "sglang-memory-pool", "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: mem_fraction_static=0.62", {"mem_fraction": 0.62}, "kv-cache", "kv-cache-init"),
    Sample("SGLang, graphs", "sglang-graph-capture", "Exception: Capture cuda graph failed: " + torch(FROM_2_2).partition("torch.OutOfMemoryError: ")[2], NEW, "capacity", "profile"),
    Sample("SGLang, graphs but no memory", "sglang-graph-capture", "Exception: Capture cuda graph failed: Ninja is required to load C++ extensions", {}, "not-memory", "profile"),
    Sample("SGLang, the pool", "sglang-pool-exhausted", "RuntimeError: Decode out of memory. Try to lower your batch size.", {}, "kv-cache", "generate"),
    Sample("SGLang, retract", "sglang-retract", "KV cache pool is full. Retract requests. #retracted_reqs: 3, #new_token_ratio: 0.70 -> 0.95", {}, "benign", "generate"),
    Sample("SGLang, unbalanced", "sglang-unbalanced", "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes.", {}, "other-process", "load"),
    Sample("FlashInfer", "flashinfer-workspace", "RuntimeError: Failed to allocate memory for batch_prefill_tmp_s with size 201326592 and alignment 16 in AlignedAllocator", {"tried_to_allocate_bytes": 201326592}, "limit"),
    Sample("TGI, prefill", "tgi-prefill", "RuntimeError: Not enough memory to handle 8192 prefill tokens. You need to decrease `--max-batch-prefill-tokens`", {"prefill_tokens": 8192}, "capacity", "profile"),
    Sample("TGI, total", "tgi-prefill", "RuntimeError: Not enough memory to handle 24000 total tokens with 4096 prefill tokens.", {"total_tokens": 24000, "prefill_tokens": 4096}, "kv-cache", "profile"),
    Sample("TensorRT", "tensorrt", "[TRT] [W] Requested amount of GPU memory (12884901888 bytes) could not be allocated.", {"tried_to_allocate_bytes": 12884901888}, "capacity", "load"),
    Sample("TensorRT, a code", "tensorrt", "[TRT] [E] 2: [virtualMemoryBuffer.cpp::resizePhysical::127] Error Code 2: OutOfMemory (Requested size was 6442450944 bytes.)", {"tried_to_allocate_bytes": 6442450944}, "capacity"),
    Sample("TensorRT-LLM", "tensorrt", "[TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n, mMemPool->getPool(), mCudaStream->get()): out of memory", {}, "capacity"),
    Sample("LMDeploy", "lmdeploy", "RuntimeError: [TM][ERROR] CUDA runtime error: out of memory /lmdeploy/src/turbomind/utils/memory_utils.cu:44", {}, "capacity"),
    Sample("llama.cpp, weights", "ggml-buffer", "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480.25 MiB on device 1: cudaMalloc failed: out of memory\nalloc_tensor_range: failed to allocate CUDA1 buffer of size 21475098624\nllama_model_load: error loading model: unable to allocate CUDA1 buffer",
           {"tried_to_allocate_bytes": 21475098624, "gpu_index": 1}, "capacity", "load"),
    Sample("llama.cpp, compute", "ggml-buffer", "slot update_slots: id 0 | new prompt, n_ctx_slot = 8192\nggml_backend_cuda_buffer_type_alloc_buffer: allocating 3072.00 MiB on device 0: cudaMalloc failed: out of memory\nggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 3221225472",
           {"tried_to_allocate_bytes": 3221225472, "gpu_index": 0}, "capacity", "generate"),
    Sample("llama.cpp, tried again", "ggml-buffer", "ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 8589934592\ngraph_reserve: failed to allocate compute buffers\nsched_reserve: compute buffer allocation failed, retrying without pipeline parallelism",
           {"tried_to_allocate_bytes": 8589934592}, "benign"),
    Sample("llama.cpp, cache", "ggml-kv-cache", "llama_init_from_model: llama_kv_cache_init() failed for self-attention cache", {}, "capacity", "kv-cache-init"),
    Sample("llama.cpp, slots", "ggml-slots", "srv  update_slots: failed to find free space in the KV cache, retrying with smaller batch size, i = 0", {}, "kv-cache", "generate"),
    Sample("llama.cpp, ROCm", "ggml-buffer", "alloc_tensor_range: failed to allocate ROCm0 buffer of size 17179869184", {"tried_to_allocate_bytes": 17179869184, "gpu_index": 0}, "capacity", "load"),
    Sample("llama.cpp, CPU", "ggml-host-buffer", "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 77309411328\nllama_model_load: error loading model: unable to allocate CPU buffer", {"tried_to_allocate_bytes": 77309411328}, "host-memory", "load"),
    Sample("llama.cpp, CPU cache", "ggml-host-buffer", "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 34359738368\nllama_kv_cache_init: failed to allocate buffer for kv cache", {"tried_to_allocate_bytes": 34359738368}, "kv-cache", "kv-cache-init"),
    Sample("Metal", "ggml-metal", "ggml_metal_graph_compute: command buffer 2 failed with status 5\nerror: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", {}, "capacity", "generate"),
    Sample("Metal, one buffer", "ggml-single-buffer", "ggml_metal_add_buffer: buffer 'data' size 30064771072 is larger than buffer maximum of 22906503168", {"tried_to_allocate_bytes": 30064771072, "max_single_buffer_bytes": 22906503168}, "limit"),
    Sample("Vulkan", "ggml-vulkan", "ggml_vulkan: Device memory allocation of size 734003200 failed.\nggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory", {"tried_to_allocate_bytes": 734003200}, "capacity"),
    Sample("Vulkan, one allocation", "ggml-vulkan", "ggml_vulkan: Device memory allocation of size 5368709120 failed.", {"tried_to_allocate_bytes": 5368709120}, "limit"),
    Sample("ExLlama", "exllama", "RuntimeError: Insufficient VRAM for model and cache", {}, "capacity", "load"),
    Sample("MLC", "mlc-llm", "ValueError: The available single GPU memory is 7168.000 MB, which is less than the sum of model weight size (5120.500 MB) and temporary buffer size (3072.250 MB).",
           {"model_weight_bytes": mib(5120.5), "temp_buffer_bytes": mib(3072.25), "free_bytes": mib(7168)}, "capacity", "load"),
    Sample("MLX", "mlx", "RuntimeError: [metal::malloc] Attempting to allocate 17179869184 bytes which is greater than the maximum allowed buffer size of 14302248960 bytes.", {"tried_to_allocate_bytes": 17179869184, "max_single_buffer_bytes": 14302248960}, "limit"),
    Sample("MLX, overflow", "mlx", "RuntimeError: [metal::malloc] Attempting to allocate 18446744071562067968 bytes which is greater than the maximum allowed buffer size of 14302248960 bytes.", {}, "not-memory"),
    Sample("accelerate's planner", "device-map-planner", "ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have enough GPU RAM to fit the quantized model.", {}, "capacity", "load"),
    Sample("accelerate, a folder", "device-map-disk", "ValueError: The current `device_map` had weights offloaded to the disk. Please provide an `offload_folder` for them.", {}, "capacity", "load"),
    # --- other frameworks --------------------------------------------------------------------------------------------------
    Sample("XLA on a GPU", "xla-gpu", "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 6979321856 bytes.\nBufferAssignment stats:\n             parameter allocation:    2.50GiB\n     preallocated temp allocation:    6.50GiB\n                 total allocation:    9.25GiB",
           {"tried_to_allocate_bytes": 6979321856, "xla_parameter_bytes": gib(2.5), "xla_temp_bytes": gib(6.5), "xla_total_bytes": gib(9.25)}, "capacity", "forward"),
    Sample("XLA, a small program", "xla-gpu", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3145728 bytes.\nBufferAssignment stats:\n  parameter allocation:    3.00MiB\n  total allocation:    5.00MiB", {"xla_total_bytes": mib(5)}, "other-process"),
    Sample("XLA of 2022", "xla-gpu", "XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 6979321856 bytes.", {"tried_to_allocate_bytes": 6979321856}, "capacity"),
    Sample("XLA, platform allocator", "xla-gpu", "RESOURCE_EXHAUSTED: Failed to allocate request for 768.00MiB (805306368B) on device ordinal 2", {"tried_to_allocate_bytes": 805306368, "gpu_index": 2}, "capacity"),
    Sample("XLA on a TPU", "xla-tpu", "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 19.75G of 15.50G hbm. Exceeded hbm capacity by 4.25G.", {"hbm_used_bytes": gib(19.75), "hbm_capacity_bytes": gib(15.5)}, "capacity"),
    Sample("XLA, vmem", "xla-vmem", "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 18.00M of 16.00M vmem.", {}, "not-memory"),
    Sample("TPU, in pieces", "xla-tpu-fragmentation", "RuntimeError: RESOURCE_EXHAUSTED: Attempting to allocate 512.00M. That was not possible. There are 730.25M free. Due to fragmentation, the largest contiguous region of free memory is 420.50M.",
           {"tried_to_allocate_bytes": mib(512), "free_bytes": mib(730.25), "largest_contiguous_bytes": mib(420.5)}, "fragmentation"),
    Sample("TensorFlow", "tensorflow", "ResourceExhaustedError: OOM when allocating tensor with shape[24,256,256,64] and type half on /job:localhost/replica:0/task:0/device:GPU:1 by allocator GPU_1_bfc",
           {"tensor_shape": [24, 256, 256, 64], "dtype": "half", "gpu_index": 1, "tried_to_allocate_bytes": 24 * 256 * 256 * 64 * 2}, "capacity", "forward"),
    Sample("TensorFlow, no failure", "tensorflow-retry", "Allocator (GPU_0_bfc) ran out of memory trying to allocate 1.13GiB with freed_by_count=0. The caller indicates that this is not a failure, but may mean that there could be performance gains", {"tried_to_allocate_bytes": gib(1.13)}, "benign"),
    Sample("TensorFlow, the driver", "tensorflow-device", "failed to allocate 7.44G (7987232768 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory", {"tried_to_allocate_bytes": 7987232768}, "other-process"),
    Sample("Paddle", "paddle", "Out of memory error on GPU 2. Cannot allocate 1.500244GB memory on GPU 2, 22.250000GB memory has been allocated and available memory is only 512.000000MB.",
           {"tried_to_allocate_bytes": gib(1.500244), "allocated_bytes": gib(22.25), "free_bytes": mib(512), "gpu_index": 2}, "capacity"),
    Sample("Paddle, a limit", "paddle", "Cannot allocate 1.500000GB memory on GPU 2, available memory is only 7.250000GB.", {"free_bytes": gib(7.25)}, "limit"),
    Sample("MXNet", "mxnet", "mxnet.base.MXNetError: [11:12:13] src/storage/./pooled_storage_manager.h:161: cudaMalloc failed: out of memory", {}, "capacity"),
    Sample("CuPy 6", "cupy", "cupy.cuda.memory.OutOfMemoryError: out of memory to allocate 5905580032 bytes (total 10737418240 bytes)", {"tried_to_allocate_bytes": 5905580032}, "capacity"),
    Sample("CuPy 7", "cupy", "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 5,905,580,032 bytes (allocated so far: 10,737,418,240 bytes).", {"tried_to_allocate_bytes": 5905580032, "allocated_bytes": 10737418240}, "capacity"),
    Sample("RMM", "rmm", "MemoryError: std::bad_alloc: out_of_memory: CUDA error at: /opt/rmm/include/cuda_memory_resource.hpp:70: cudaErrorMemoryAllocation out of memory", {}, "capacity"),
    Sample("Theano", "theano", "MemoryError: Error allocating 314572800 bytes of device memory (CNMEM_STATUS_OUT_OF_MEMORY).", {"tried_to_allocate_bytes": 314572800}, "capacity"),
    Sample("ONNX Runtime", "onnxruntime", "onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 2415919104", {"tried_to_allocate_bytes": 2415919104}, "capacity", "generate"),
    Sample("Triton's shared memory", "triton-shared-memory", "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 147456, Hardware limit: 101376. Reducing block sizes or `num_stages` may help.",
           {"smem_required_bytes": 147456, "smem_limit_bytes": 101376}, "not-memory"),
    # --- warnings ----------------------------------------------------------------------------------------------------------
    Sample("TensorFlow, a large allocation", "tensorflow-large-allocation", "W cpu_allocator_impl.cc:80] Allocation of 1073741824 exceeds 10% of free system memory.", {}, "benign"),
    Sample("XLA, no room by recomputing", "xla-rematerialization", "W hlo_rematerialization.cc:2946] Can't reduce memory use below 11.4GiB by rematerialization; only reduced to 14.2GiB", {}, "benign"),
    Sample("DeepSpeed, flushes", "deepspeed-cache-flush", "[WARNING] [stage3.py:2069:step] 4 pytorch allocator cache flushes since last step. this happens when there is high memory pressure", {}, "benign"),
    Sample("Triton server", "triton-server-pool", "failed to allocate CUDA memory with byte size 602112 on GPU 0: CNMEM_STATUS_OUT_OF_MEMORY, falling back to pinned system memory", {}, "benign"),
    Sample("llama.cpp, pinned", "ggml-pinned", "ggml_cuda_host_malloc: failed to allocate 2100,50 MiB of pinned memory: out of memory", {"tried_to_allocate_bytes": mib(2100.5)}, "benign", "load"),
    Sample("RMM, managed", "rmm-managed", "MemoryError: std::bad_alloc: CUDA error at: /opt/rmm/mr/device/managed_memory_resource.hpp:61: cudaErrorMemoryAllocation out of memory", {}, "limit"),
    Sample("llama.cpp, mlock", "llama-mlock", "warning: failed to mlock 9437184-byte buffer (after previously locking 0 bytes): Cannot allocate memory", {}, "benign"),
    Sample("ComfyUI, tiles", "comfyui-tiled-retry", "Warning: Ran out of memory when regular VAE decoding, retrying with tiled VAE decoding.", {}, "benign"),
    Sample("transformers, offloaded", "transformers-offload-note", "Some parameters are on the meta device because they were offloaded to the cpu.", {}, "benign"),
    Sample("vLLM, measured wrongly", "vllm-memory-profiling", "AssertionError: Error in memory profiling. Initial free memory 20.1 GiB, current free memory 21.3 GiB.", {}, "other-process"),
)  # fmt: skip
