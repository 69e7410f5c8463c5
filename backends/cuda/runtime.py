"""The cuda backend's runtime, on PyTorch (see `contract.Runtime`). A researcher edits train.py, never this file.

Importing this module does not import torch; its functions do, on first use.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.backends.contract import Array, Device, Model, Remark, Trace
from autoresearch.backends.weights_file import Tensor, write_weights

NAME = "cuda"

NLL_BYTES = {"cuda": 256 * 2**20, "cpu": 4 * 2**20}
"""Bytes of float32 logits that `nll` holds at a time. On a CPU they should stay in its cache."""

PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    # (part of the device's name, dense bfloat16 FLOP/s), from NVIDIA's data sheets. The first match counts, so a longer
    # name stands before the shorter one that it contains.
    ("GB200", 2.5e15),  # GB200 NVL72 data sheet, half of the sparse figure, per GPU
    ("B200", 2.25e15),  # DGX B200 data sheet, half of the sparse figure
    ("H200 NVL", 835e12),  # H200 data sheet
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 PCIe", 756e12),  # H100 data sheet
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),  # A100 data sheet
    ("L40S", 362e12),  # L40S data sheet
    ("RTX 5090", 209.5e12),  # Blackwell architecture paper, with float32 accumulation
    ("RTX 5080", 112.6e12),
    ("RTX 4090", 165.2e12),  # Ada architecture paper, with float32 accumulation
    ("RTX 4080", 97.5e12),
    ("RTX 3090", 71e12),  # GA102 architecture paper, with float32 accumulation
    ("RTX 3080", 59.5e12),
    ("MI325X", 1307.4e12),  # AMD's data sheets; PyTorch's builds for ROCm present these cards as CUDA's
    ("MI300X", 1307.4e12),
    ("MI250X", 383e12),
)

TIERS: tuple[tuple[str, float, bool], ...] = (
    # (preset, bytes that must be free, whether it needs one of the fastest cards), the largest first
    ("b200", 160e9, True),
    ("h200", 110e9, True),
    ("h100", 45e9, True),
    ("rtx48", 28e9, False),
    ("rtx24", 20e9, False),
    ("rtx16", 14e9, False),
    ("rtx12", 10e9, False),
    ("rtx", 0.0, False),
)
"""The least free memory is above what the preset takes by its `memory_gb`, a tenth at least; a test compares them."""


def unavailable() -> str | None:
    """Say why this backend cannot run here, with the fix; None when it can."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed. Fix: pip install torch"
    return None


def packages() -> Sequence[str]:
    """List PyTorch, its compiler, the loader of kernels, and a kernel that is a package."""
    return ("torch", "triton", "kernels", "flash-attn-4")


def export_lines() -> Sequence[str]:
    """Return lines that fill a `torch.nn.Module`; tied tensors are stored once, under the first of their names."""
    return (
        "import torch",
        "from safetensors.torch import load_file",
        "spec.device = 'cuda' if torch.cuda.is_available() else 'cpu'",
        "model = train.build(spec).eval()",
        "found = model.load_state_dict(load_file(folder / 'model.safetensors'), strict=False)",
        "assert not found.unexpected_keys, found.unexpected_keys",
        "@torch.inference_mode()",
        "def predict(tokens):",
        "    return train.logits(model, torch.from_numpy(tokens).to(spec.device)).float().cpu().numpy()",
    )


def launch_environment() -> Mapping[str, str]:
    """Return thread counts for the CPU, an allocator that does not fragment for CUDA, and the folder of the kernels.

    Downloaded kernels lie in this Python's environment, which a child can read: it has no network and not your home
    folder. Waiting threads sleep instead of spinning: on a busy machine a spinning thread takes time from the thread it
    waits for.
    """
    kernel = _kernel()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "OMP_WAIT_POLICY": "PASSIVE",
        # Inductor's workers only ask whether there is a GPU. To learn it from CUDA itself they would have to start it,
        # which writes to a process's own files in /proc: landlock allows that to the child alone, not to its workers.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED": "1",  # else it compiles its kernels in every process
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "KERNELS_CACHE": str(Path(sys.prefix, "share", "kernels")),
        "HF_HUB_OFFLINE": "1",
        # The train file's own autograd functions would otherwise keep whole steps out of the cache of traced graphs. A
        # graph's key holds their code, too.
        "TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD": "1",
        **({} if kernel is None else {"LOCAL_KERNELS": kernel}),
    }


def _kernel() -> str | None:
    """Name the pinned kernel and its checked files, as the package `kernels` reads it; None before they are there."""
    pin = json.loads(Path(__file__).with_name("kernel.json").read_bytes())
    repository, revision = pin["repository"], pin["revision"]
    folder = Path(sys.prefix, "share", "kernels", f"{repository.replace('/', '--')}-{revision[:12]}")
    return f"{repository}={folder}" if revision and folder.is_dir() else None


def compile_caches() -> Sequence[str]:
    """List the cache of Inductor, Triton's of what is called without it, and FlashAttention-4's.

    The user's name in a child is "trial".
    """
    return ("tmp/torchinductor_trial", "home/.triton/cache", "tmp/trial/flash_attention_cute_dsl_cache")


def detect() -> Device:
    """Describe the GPU if PyTorch sees one, else this machine's CPU.

    The core asks before anything else, so this also settles how PyTorch compiles in this process.
    """
    if not shares_memory():
        # Inductor's workers talk through shared memory. Without it, starting them fails or waits for ever.
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch

    if not torch.cuda.is_available():
        return Device(
            kind="cpu",
            name=_cpu_name(),
            memory_mb=None,
            precision="bf16" if torch.cpu._is_amx_tile_supported() else "fp32",
            framework=f"torch {torch.__version__}",
            tier="cpu",
        )
    card = torch.cuda.get_device_properties(0)
    modern = (card.major, card.minor) >= (8, 0)
    free, _ = torch.cuda.mem_get_info(0)
    return Device(
        kind="cuda",
        name=card.name,
        memory_mb=card.total_memory / 2**20,
        precision="bf16" if modern else "fp32",
        framework=f"torch {torch.__version__}",
        driver=_driver(),
        peak_flops=peak_flops(card.name) if modern else None,
        tier=tier_of(card.major, free),
        free_mb=free / 2**20,
    )


def shares_memory(folder: Path = Path("/dev/shm")) -> bool:
    """Say whether this process may put files into the folder of shared memory, which asking for rights does not tell.

    True where there is no such folder: other systems share memory in other ways.
    """
    if not folder.exists():
        return sys.platform != "linux"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def peak_flops(name: str) -> float | None:
    """Look up the dense bfloat16 FLOP/s of a card by its name; None where it is not known."""
    return next((peak for part, peak in PEAK_FLOPS if part in name), None)


def tier_of(major: int, free_bytes: int) -> str:
    """Choose the preset for a card by the major number of its compute capability and its free memory.

    A card that others use too gets the preset that fits what they leave. A train file that meets too little memory
    takes fewer rows at a time.
    """
    fast = major in (9, 10)  # Hopper and data-centre Blackwell; their large presets are too much work for others
    return next(name for name, least, needs_fast in TIERS if free_bytes >= least and (fast or not needs_fast))


def seed(seed: int) -> None:
    """Seed PyTorch's generators, on every device."""
    import torch

    torch.manual_seed(seed)


class _PinnedPair:
    """Two page-locked buffers for copies to the GPU, used in turn; an event each says when its copy is done.

    A copy returns before it has happened. With one buffer, the next batch would have to wait for it, or overwrite it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        import torch

        self.buffers = [torch.empty(shape, dtype=torch.int64, pin_memory=True) for _ in range(2)]
        self.copied = [torch.cuda.Event() for _ in range(2)]
        self.turn = 0

    def send(self, tokens: np.ndarray) -> Array:
        """Copy tokens to the GPU. The host array may be reused when this returns."""
        buffer, copied = self.buffers[self.turn], self.copied[self.turn]
        self.turn = 1 - self.turn
        copied.synchronize()  # the copy of two batches ago: normally long done
        buffer.numpy()[...] = tokens
        sent = buffer.to("cuda", non_blocking=True)
        copied.record()
        return sent


@lru_cache(maxsize=4)
def _pinned_pair(shape: tuple[int, ...]) -> _PinnedPair:
    return _PinnedPair(shape)


def to_device(tokens: np.ndarray) -> Array:
    """Copy uint16 (B, T) to int64 (B, T) on the device."""
    import torch

    if torch.cuda.is_available():
        return _pinned_pair(tokens.shape).send(tokens)
    return torch.from_numpy(tokens.astype(np.int64))


def to_numpy(array: Array) -> np.ndarray:
    """Copy an array to host memory; floating types become float32."""
    array = array.detach()
    return (array.float() if array.is_floating_point() else array).cpu().numpy()


def synchronize() -> None:
    """Wait for the GPU. On a CPU, PyTorch has always finished."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def inference(model: Model) -> Iterator[None]:
    """Switch to evaluation mode without gradients, and restore the model's mode afterwards."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def nll(logits: Array, targets: Array) -> np.ndarray:
    """Compute (B, T, V), (B, T) -> float32 nats (B, T), a group of tokens at a time to bound the memory."""
    import torch

    scores, wanted = logits.flatten(0, 1), targets.flatten().long()
    rows = max(1, NLL_BYTES[scores.device.type] // (4 * scores.size(1)))
    with torch.inference_mode():
        parts = [
            torch.nn.functional.cross_entropy(scores[i : i + rows].float(), wanted[i : i + rows], reduction="none")
            for i in range(0, scores.size(0), rows)
        ]
        return torch.cat(parts).view(targets.shape).cpu().numpy()


def save_weights(model: Model, path: Path) -> None:
    """Write parameters and buffers as safetensors: floats in float32, a shared tensor once, under its first name."""
    import torch

    def tensor(value: Any) -> Tensor:
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        name = str(dtype).removeprefix("torch.")
        return Tensor(tuple(value.shape), name, lambda: value.detach().to(dtype).cpu().contiguous().numpy())

    write_weights(path, {name: tensor(value) for name, value in _distinct(model).items()})


def loader() -> TorchLoader:
    """Return a loader, with PyTorch's functions as they are now."""
    return TorchLoader()


def load_weights(model: Model, path: Path) -> None:
    """Read what `save_weights` wrote. Raises ValueError when names or shapes differ, or the file is malformed."""
    filling = TorchLoader()
    filling.collect(model)
    filling.load(path)


class TorchLoader:
    """Copies into a model's tensors (see `contract.Loader`): they stay the same objects, so no graph compiles anew."""

    def __init__(self) -> None:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        self._read, self._malformed = load_file, SafetensorError
        self._copy, self._no_grad = torch.Tensor.copy_, torch.no_grad
        self._tensors: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def collect(self, model: Model) -> None:
        """Find every tensor, a shared one once. Raises ValueError for one of a class of the train file's own."""
        self._tensors = _distinct(model)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def load(self, path: Path) -> None:
        """Copy into the tensors. Raises ValueError when names or shapes differ, or the file is malformed."""
        try:
            stored = self._read(path)
        except self._malformed as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        wanted, found = self._shapes, {name: tuple(value.shape) for name, value in stored.items()}
        if wanted != found:
            different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            raise ValueError(f"weights and model differ in {', '.join(different[:5])} ({len(different)} in all)")
        with self._no_grad():
            for name, value in stored.items():
                self._copy(self._tensors[name], value)


def _distinct(model: Model) -> dict[str, Any]:
    """Return the model's tensors by the names that `state_dict` gives them, each storage once."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    distinct = {}
    for name, value in _tensors(model, ""):
        key = (value.data_ptr(), tuple(value.shape))  # tied tensors share both; views of other shapes are kept
        if value.numel() and key in seen:
            continue
        seen.add(key)
        distinct[name] = value
    return distinct


def _tensors(module: Model, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield names and tensors in the order of `state_dict`: parameters, persistent buffers, then those of submodules.

    No method of the module is called: the three dicts in which `torch.nn.Module` keeps them are read. Raises
    ValueError when this is no module, or a tensor's class could put code of its own in the way of a copy.
    """
    import torch

    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ValueError(f"{prefix or 'the model'} must be a torch.nn.Module in Python, not {type(module).__name__}")
    kept = object.__getattribute__(module, "__dict__")
    transient = kept["_non_persistent_buffers_set"]
    named = [*kept["_parameters"].items(), *((n, b) for n, b in kept["_buffers"].items() if n not in transient)]
    for name, tensor in named:
        if tensor is None:
            continue
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise ValueError(f"{prefix}{name} must be a torch.Tensor or Parameter, not {type(tensor).__name__}")
        yield prefix + name, tensor
    for name, child in kept["_modules"].items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def parameter_count(model: Model) -> int:
    """Count the scalars in trainable parameters, a shared one once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def reset_peak_memory() -> None:
    """Forget the GPU's peak memory so far."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float | None:
    """Return the GPU's peak memory since the last reset in MiB; None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def products(size: int, precision: str) -> Callable[[int], None]:
    """Return a function of n that computes n products of (size, size) matrices, one after another."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def multiply(count: int) -> None:
        for _ in range(count):
            torch.mm(a, b, out=out)
        synchronize()

    return multiply


def examine(module: Any) -> Iterator[Remark]:
    """Try what training needs: attention, compiler, driver (see `examine.py`)."""
    from autoresearch.backends.cuda.examine import examine

    yield from examine(module)


def trace() -> Trace:
    """Return a recorder that uses PyTorch's profiler."""
    from autoresearch.backends.cuda.trace import TorchTrace

    return TorchTrace()


def _cpu_name() -> str:
    """Read the processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _driver() -> str:
    """Return driver and CUDA version. The driver's number is known only where nvidia-ml-py is installed."""
    import torch

    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    cuda = f"CUDA {torch.version.cuda}"
    if importlib.util.find_spec("pynvml") is None:
        return cuda
    pynvml = importlib.import_module("pynvml")
    try:
        pynvml.nvmlInit()
        return f"{pynvml.nvmlSystemGetDriverVersion()}, {cuda}"
    except pynvml.NVMLError:
        return cuda
