"""The mlx backend's runtime (see `contract.Runtime`). A researcher edits train.py, never this file.

Runs on Apple silicon (Metal), on Linux CPUs, and with `mlx[cuda12]` on NVIDIA cards. Importing this module does not
import MLX. Weights are the arrays that `Module.parameters()` lists. An attribute whose name starts with an underscore
is not one of them, so `build` must be able to make it again.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.backends.contract import Array, Device, Model, Remark, Trace

NAME = "mlx"

_INSTALL = "pip install mlx" if sys.platform == "darwin" else "pip install 'mlx[cpu]'"
NLL_ROWS = 256
"""Rows of logits that `nll` processes at a time on a CPU, so that they stay in its cache."""

_Place = tuple[Any, Any, Array]
"""A dict or a list, the key or index of an array in it, and the array."""

_MAX_BLAS_THREADS = 16
"""Largest number of BLAS threads. The matrices of a model for a CPU are small: more threads wait more than they
save."""


def unavailable() -> str | None:
    """Say why MLX cannot run here, with a one-line fix; None when it can."""
    if sys.platform == "darwin" and platform.machine() != "arm64":
        return "MLX needs Apple silicon or Linux; this is an Intel Mac. Use --backend cuda, which runs on its CPU."
    if sys.platform not in ("darwin", "linux"):
        return f"MLX does not run on {sys.platform}. Use --backend cuda."
    if importlib.util.find_spec("mlx") is None:
        return f"MLX is not installed: {_INSTALL}"
    if sys.platform == "linux" and not _linux_library_installed():
        return f"MLX is installed without its Linux library (mlx-cpu): {_INSTALL}"
    return None


def _linux_library_installed() -> bool:
    """Return whether MLX's library is there.

    On Linux the package `mlx` holds only bindings; mlx-cpu or mlx-cuda bring it.
    """
    names = {(distribution.metadata["Name"] or "").lower() for distribution in importlib.metadata.distributions()}
    return any(name.startswith(("mlx-cpu", "mlx-cuda")) for name in names)


def packages() -> Sequence[str]:
    """List MLX and the libraries it may come with."""
    return ("mlx", "mlx-cpu", "mlx-cuda", "mlx-metal")


def export_lines() -> Sequence[str]:
    """Return lines that fill an `mlx.nn.Module`."""
    return (
        "import mlx.core as mx",
        "spec.device = 'metal' if mx.metal.is_available() else 'cpu'",
        "model = train.build(spec)",
        "model.load_weights(str(folder / 'model.safetensors'))",
        "model.eval()",
        "def predict(tokens):",
        "    return np.array(train.logits(model, mx.array(tokens.astype(np.int32))).astype(mx.float32))",
    )


def launch_environment() -> Mapping[str, str]:
    """Preload OpenBLAS on Linux where there is one: the BLAS inside the wheel is the slow reference implementation."""
    library = find_openblas() if sys.platform == "linux" else None
    if library is None:
        return {}
    threads = min(len(os.sched_getaffinity(0)), _MAX_BLAS_THREADS)
    return {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": str(threads)}


def find_openblas(root: Path = Path("/")) -> Path | None:
    """Find the system's OpenBLAS, the build with its own threads first. `root` is / except in tests."""
    triplet = f"usr/lib/{platform.machine()}-linux-gnu"
    candidates = [
        f"{triplet}/openblas-pthread/libopenblas.so.0",  # Debian, Ubuntu: libopenblas0-pthread
        f"{triplet}/openblas-openmp/libopenblas.so.0",
        f"{triplet}/openblas-serial/libopenblas.so.0",
        f"{triplet}/libopenblas.so.0",
        "usr/lib64/libopenblasp.so.0",  # Fedora
        "usr/lib64/libopenblas.so.0",  # openSUSE
        "usr/lib/libopenblas.so.0",  # Arch
        "usr/lib/libopenblas.so.3",  # Alpine
    ]
    return next((root / name for name in candidates if (root / name).exists()), None)


def openblas_in_use() -> bool:
    """Return whether MLX's matrix products go to OpenBLAS: a preloaded library's symbols come before the bundled one's.

    It is looked up in the process's global scope, which does not hold the private OpenBLAS of numpy's wheel.
    """
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "openblas_get_config")


def compile_caches() -> Sequence[str]:
    """List the cache of the CPU build, which calls a C++ compiler for every fused kernel. Metal keeps its own."""
    return ("tmp/mlx",)


def detect() -> Device:
    """Describe the device that MLX computes on by default."""
    import mlx.core as mx

    version = f"mlx {importlib.metadata.version('mlx')}"
    info = _device_info(mx)
    if mx.default_device().type == mx.DeviceType.cpu:
        blas = "OpenBLAS preloaded" if openblas_in_use() else "without OpenBLAS"
        name = _cpu_name() or str(info.get("device_name", platform.machine()))
        return Device("cpu", name, None, "fp32", f"{version} ({blas})" if sys.platform == "linux" else version)
    name = str(info.get("device_name", "GPU"))
    size = info.get("memory_size") or info.get("total_memory")
    memory_mb = float(size) / 2**20 if size else None
    if not mx.metal.is_available():
        return Device("cuda", name, memory_mb, "bf16", version, tier="mac-max")
    macos = f"macOS {platform.mac_ver()[0]}"
    # Apple states no peak for these chips in bf16, so there is no share of it to show.
    return Device("metal", name, memory_mb, "bf16", version, driver=macos, tier=apple_tier(name, memory_mb))


TIERS: tuple[tuple[str, float, bool], ...] = (
    # (preset, MiB of memory, whether it needs a Max or an Ultra), the largest first
    ("mac128", 120_000, True),
    ("mac64", 60_000, True),
    ("mac-max", 30_000, True),
    ("mac", 12_000, False),
    ("mac8", 0, False),
)


def apple_tier(chip: str, memory_mb: float | None) -> str:
    """Choose the preset for a chip by its memory: a Max or an Ultra has several times the GPU cores of the others.

    Memory that is not known counts as 32 GB.
    """
    large, memory = chip.endswith((" Max", " Ultra")), 32_768 if memory_mb is None else memory_mb
    return next(name for name, least, needs_large in TIERS if memory >= least and (large or not needs_large))


def _device_info(mx: Any) -> Mapping[str, Any]:
    """Return MLX's description of the device. The function left `mx.metal` during MLX 0.30."""
    return dict(mx.device_info() if hasattr(mx, "device_info") else mx.metal.device_info())


def _cpu_name() -> str | None:
    """Read the processor's model name on Linux; None where the architecture does not state it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def seed(seed: int) -> None:
    """Seed MLX's global generator."""
    import mlx.core as mx

    mx.random.seed(seed)


def to_device(tokens: np.ndarray) -> Array:
    """Copy uint16 (B, T) to int32 (B, T). MLX copies the host's memory at once."""
    import mlx.core as mx

    return mx.array(tokens.astype(np.int32))


def to_numpy(array: Array) -> np.ndarray:
    """Copy a device array to host memory; floating types become float32."""
    import mlx.core as mx

    return np.array(array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array)


def synchronize() -> None:
    """Wait until the device has finished all submitted work."""
    import mlx.core as mx

    mx.synchronize()


@contextmanager
def inference(model: Model) -> Iterator[None]:
    """Switch to evaluation mode. MLX computes gradients only on request, so there is nothing else to switch off."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def nll(logits: Array, targets: Array) -> np.ndarray:
    """Compute -log softmax(logits)[target] in nats: (B, T, V), (B, T) -> float32 (B, T)."""
    import mlx.core as mx

    if mx.default_device().type == mx.DeviceType.cpu:
        return _host_nll(to_numpy(logits.astype(mx.float32)), to_numpy(targets))
    scores = logits.astype(mx.float32)
    peak = scores.max(axis=-1, keepdims=True)
    chosen = mx.take_along_axis(scores, targets[..., None].astype(mx.int32), axis=-1)
    # The peak is added to the chosen logit and not to the sum: beside logits of 1e30 the sum would vanish.
    total = mx.log(mx.exp(scores - peak).sum(axis=-1, keepdims=True))
    return np.array((total + (peak - chosen)).squeeze(-1))


def _host_nll(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Compute the same in numpy, a group of rows at a time: on a CPU, MLX computes its exponentials one by one."""
    scores, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1, 1).astype(np.int64)
    out = np.empty(len(scores), np.float32)
    for start in range(0, len(scores), NLL_ROWS):
        part = scores[start : start + NLL_ROWS]
        peak = part.max(axis=1, keepdims=True)
        total = np.log(np.exp(part - peak).sum(axis=1, keepdims=True))
        chosen = np.take_along_axis(part, wanted[start : start + NLL_ROWS], axis=1)
        out[start : start + NLL_ROWS] = (total + (peak - chosen))[:, 0]  # not total + peak: see `nll`
    return out.reshape(targets.shape)


def save_weights(model: Model, path: Path) -> None:
    """Write every parameter as safetensors, under its dotted name."""
    import mlx.core as mx

    weights = _weights(model)
    mx.eval(list(weights.values()))
    mx.save_safetensors(str(path), weights)


def loader() -> MlxLoader:
    """Return a loader, with MLX's functions as they are now."""
    return MlxLoader()


def load_weights(model: Model, path: Path) -> None:
    """Read what `save_weights` wrote into a freshly built model. Raises `ValueError` when names or shapes differ."""
    replacing = MlxLoader()
    replacing.collect(model)
    replacing.load(path)


class MlxLoader:
    """Replaces a model's arrays in the dicts and lists that hold them (see `contract.Loader`)."""

    def __init__(self) -> None:
        import mlx.core as mx

        self._read, self._astype, self._eval = mx.load, mx.array.astype, mx.eval
        self._set: dict[type, Any] = {dict: dict.__setitem__, list: list.__setitem__}
        self._places: dict[str, _Place] = {}
        self._kinds: dict[str, tuple[tuple[int, ...], Any]] = {}

    def collect(self, model: Model) -> None:
        """Find every array's place. Raises `ValueError` for an array of a class of the train file's own."""
        self._places = _places(model)
        self._kinds = {name: (array.shape, array.dtype) for name, (_, _, array) in self._places.items()}

    def load(self, path: Path) -> None:
        """Fill the places. Raises `ValueError` when names or shapes differ."""
        expected = self._kinds
        try:
            found: Any = self._read(str(path), format="safetensors")
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
        missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        if missing or unknown:
            raise ValueError(f"{path} does not fit the model: missing {missing}, unknown {unknown}")
        for name, (shape, _) in expected.items():
            if found[name].shape != shape:
                raise ValueError(f"{path}: {name} has shape {found[name].shape}, the model's has {shape}")
        # mx.load is lazy: read now, while the file is sure to be there.
        loaded = {name: self._astype(found[name], dtype) for name, (_, dtype) in expected.items()}
        self._eval(list(loaded.values()))
        for name, (container, key, _) in self._places.items():
            self._set[list if isinstance(container, list) else dict](container, key, loaded[name])


def _weights(model: Model) -> dict[str, Array]:
    """Return the model's arrays by dotted name."""
    return {name: array for name, (_, _, array) in _places(model).items()}


def _places(model: Model) -> dict[str, _Place]:
    """Return where each array lies, by dotted name: those that `Module.parameters()` lists, in its order.

    No method of the model is called: a module is a dict, and dicts and lists are walked as such. Raises `ValueError`
    when the model is no module, or an array is of another class than MLX's own.
    """
    import mlx.core as mx
    from mlx.nn import Module

    if not isinstance(model, Module):
        raise ValueError(f"the model must be an mlx.nn.Module, not {type(model).__name__}")
    places: dict[str, _Place] = {}

    def walk(container: Any, prefix: str) -> None:
        entries = list(enumerate(list.__iter__(container)) if isinstance(container, list) else dict.items(container))
        for key, value in entries:
            if isinstance(container, Module) and key.startswith("_"):
                continue
            name = f"{prefix}{key}"
            if isinstance(value, mx.array):
                if type(value) is not mx.array:
                    raise ValueError(f"{name} must be an mlx.core.array, not {type(value).__name__}")
                places[name] = (container, key, value)
            elif isinstance(value, dict | list):
                walk(value, f"{name}.")

    walk(model, "")
    return places


def parameter_count(model: Model) -> int:
    """Count the scalars in trainable parameters, a shared one once."""
    from mlx.utils import tree_flatten

    distinct = {id(array): array.size for _, array in tree_flatten(model.trainable_parameters())}
    return sum(distinct.values())


def reset_peak_memory() -> None:
    """Start measuring `peak_memory_mb` anew."""
    import mlx.core as mx

    mx.reset_peak_memory()


def peak_memory_mb() -> float | None:
    """Return the peak of MLX's allocations since the last reset in MiB."""
    import mlx.core as mx

    return mx.get_peak_memory() / 2**20


def products(size: int, precision: str) -> Callable[[int], None]:
    """Return a function of n that computes n products of (size, size) matrices.

    Each has the one before as a factor, so that MLX, which computes lazily, skips none.
    """
    import mlx.core as mx

    dtype = {"fp32": mx.float32, "bf16": mx.bfloat16}[precision]
    # With a standard deviation of size^-1/2, a product's entries keep the scale of its factors' entries.
    a, b = ((mx.random.normal((size, size)) * size**-0.5).astype(dtype) for _ in range(2))
    mx.eval(a, b)

    def multiply(count: int) -> None:
        out = b
        for _ in range(count):
            out = a @ out
        mx.eval(out)

    return multiply


def examine(module: Any) -> Iterator[Remark]:
    """Compile a small step, differentiate it and run it: on a Mac this needs Metal's compiler behind the sandbox."""
    import mlx.core as mx

    device = "Metal" if mx.metal.is_available() else str(mx.default_device())
    try:
        compiled_gradient()
    except Exception as error:
        yield Remark("compiling", "fail", f"a compiled step fails on {device}: {str(error).splitlines()[0][:200]}")
    else:
        yield Remark("compiling", "pass", f"a compiled step with its gradient runs on {device}")
    yield Remark("attention", "pass", "mx.fast.scaled_dot_product_attention forward, products backward")


def compiled_gradient() -> float:
    """Compile, differentiate and evaluate what a training step is made of; return the gradient's sum.

    Fused elementwise loops, a product, norm, rotary positions, attention, a look-up: each is a kernel of its own, some
    of them compiled when they are first used.
    """
    import mlx.core as mx

    def loss(weight: Array, table: Array, tokens: Array) -> Array:
        x = mx.fast.rms_norm(table[tokens], None, 1e-6) @ weight
        heads = x.reshape(1, 32, 2, 32).transpose(0, 2, 1, 3)
        heads = mx.fast.rope(heads, 32, traditional=False, base=1e4, scale=1.0, offset=0)
        attended = mx.fast.scaled_dot_product_attention(heads, heads, heads, scale=0.2, mask="causal")
        return mx.logsumexp(mx.square(mx.maximum(attended, 0.0)) + mx.tanh(attended), axis=-1).mean()

    step = mx.compile(mx.value_and_grad(loss, argnums=(0, 1)))
    _, (of_weight, of_table) = step(mx.ones((64, 64)) * 0.1, mx.ones((8, 64)), mx.arange(32)[None] % 8)
    total = mx.sum(of_weight) + mx.sum(of_table)
    mx.eval(total)
    return float(np.array(total))


def trace() -> Trace | None:
    """Return None: MLX has no profiler that runs everywhere. The core times the host."""
    return None
