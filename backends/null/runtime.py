"""The frozen part of the null backend: numpy arrays are the device, a model is a dict of named arrays."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.backends.contract import Device, Trace

if TYPE_CHECKING:
    import numpy as np

NAME = "null"


def unavailable() -> str | None:
    """Never: numpy is a dependency of the core."""
    return None


def launch_environment() -> Mapping[str, str]:
    """One BLAS thread: the arrays are too small to share out."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def compile_caches() -> Sequence[str]:
    """numpy compiles nothing."""
    return ()


def detect() -> Device:
    """The processor, without a data sheet: no MFU is shown."""
    import numpy as np

    name = platform.processor() or platform.machine()
    return Device(
        kind="numpy", name=name, memory_mb=None, precision="fp32", framework=f"numpy {np.__version__}", tier="demo"
    )


def seed(seed: int) -> None:
    """Seed numpy's global generator."""
    import numpy as np

    np.random.seed(seed % 2**32)


def to_device(tokens: np.ndarray) -> np.ndarray:
    """uint16 (B, T) -> int64 (B, T), a copy."""
    import numpy as np

    return tokens.astype(np.int64)


def to_numpy(array: np.ndarray) -> np.ndarray:
    """The array itself; floating types as float32."""
    import numpy as np

    return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array


def synchronize() -> None:
    """Nothing to wait for: numpy computes when asked."""


@contextmanager
def inference(model: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Nothing to switch off: there is no tape and no dropout."""
    yield


def nll(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """logits (B, T, V), targets (B, T) -> float32 (B, T) in nats: log-sum-exp minus the target's logit."""
    import numpy as np

    scores = logits.astype(np.float32)
    peak = scores.max(axis=-1)
    total = np.log(np.exp(scores - peak[..., None]).sum(axis=-1))
    picked = np.take_along_axis(scores, np.asarray(targets, dtype=np.int64)[..., None], axis=-1)[..., 0]
    return total + (peak - picked)


def save_weights(model: Mapping[str, np.ndarray], path: Path) -> None:
    """Write every array as safetensors."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in model.items()}, str(path))


def load_weights(model: dict[str, np.ndarray], path: Path) -> None:
    """Replace the model's arrays. Raises ValueError when names or shapes differ."""
    from safetensors.numpy import load_file

    stored = load_file(str(path))
    expected = {name: array.shape for name, array in model.items()}
    found = {name: array.shape for name, array in stored.items()}
    if expected != found:
        raise ValueError(f"the weights do not fit the model: build makes {expected}, the file holds {found}")
    model.update(stored)


def parameter_count(model: Mapping[str, np.ndarray]) -> int:
    """Scalars in all arrays, a shared one counted once."""
    return sum(array.size for array in {id(array): array for array in model.values()}.values())


def reset_peak_memory() -> None:
    """Nothing to reset: host memory is measured by the parent."""


def peak_memory_mb() -> float | None:
    """None: numpy cannot say."""
    return None


def products(size: int, precision: str) -> Callable[[int], None]:
    """Raises ValueError: the bigram model multiplies nothing, so a product's speed would be no yardstick for it."""
    raise ValueError(f"no products of {size} x {size} in {precision}: the null model is a table")


def trace() -> Trace | None:
    """None: the core times the host."""
    return None
