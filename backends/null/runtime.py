"""The null backend's runtime: numpy arrays in host memory; a model is a dict of named arrays."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.backends.contract import Device, Remark, Trace

if TYPE_CHECKING:
    import numpy as np

NAME = "null"


def unavailable() -> str | None:
    """Return None: numpy is always installed."""
    return None


def packages() -> Sequence[str]:
    """Return none: numpy alone computes."""
    return ()


def export_lines() -> Sequence[str]:
    """Return lines that fill the dict, as numpy alone can."""
    return (
        "from safetensors.numpy import load_file",
        "spec.device, model = 'numpy', train.build(spec)",
        "model.update(load_file(folder / 'model.safetensors'))",
        "predict = lambda tokens: train.logits(model, tokens)",
    )


def launch_environment() -> Mapping[str, str]:
    """Use one BLAS thread: the arrays are too small to divide."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def compile_caches() -> Sequence[str]:
    """Return none: numpy compiles nothing."""
    return ()


def detect() -> Device:
    """Describe the processor. Its peak is not known, so no MFU is shown."""
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
    """Copy uint16 (B, T) to int64 (B, T)."""
    import numpy as np

    return tokens.astype(np.int64)


def to_numpy(array: np.ndarray) -> np.ndarray:
    """Return the array itself; floating types as float32."""
    import numpy as np

    return array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array


def synchronize() -> None:
    """Do nothing: numpy computes at once."""


@contextmanager
def inference(model: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Do nothing: the model records no gradients and has no dropout."""
    yield


def nll(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Compute log-sum-exp minus the target's logit: (B, T, V), (B, T) -> float32 (B, T) in nats."""
    import numpy as np

    scores = logits.astype(np.float32)
    # The largest logit is taken out before exp, so that nothing overflows.
    peak = scores.max(axis=-1)
    total = np.log(np.exp(scores - peak[..., None]).sum(axis=-1))
    picked = np.take_along_axis(scores, np.asarray(targets, dtype=np.int64)[..., None], axis=-1)[..., 0]
    return total + (peak - picked)


def save_weights(model: dict[str, np.ndarray], path: Path) -> None:
    """Write every array as safetensors."""
    from autoresearch.backends.weights_file import Tensor, write_weights

    def tensor(array: np.ndarray) -> Tensor:
        import numpy as np

        return Tensor(array.shape, str(array.dtype), lambda: np.ascontiguousarray(array))

    write_weights(path, {name: tensor(array) for name, array in _arrays(model).items()})


def loader() -> NullLoader:
    """Return a loader, with the functions that it needs as they are now."""
    return NullLoader()


def load_weights(model: dict[str, np.ndarray], path: Path) -> None:
    """Replace the model's arrays. Raises ValueError when names or shapes differ."""
    replacing = NullLoader()
    replacing.collect(model)
    replacing.load(path)


class NullLoader:
    """Replaces the arrays of a dict (see `contract.Loader`)."""

    def __init__(self) -> None:
        from safetensors.numpy import load_file

        self._read, self._set = load_file, dict.__setitem__
        self._model: dict[str, np.ndarray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def collect(self, model: dict[str, np.ndarray]) -> None:
        """Note the dict and the shapes of its arrays. Raises ValueError when it is no dict of arrays."""
        self._model, self._shapes = model, {name: array.shape for name, array in _arrays(model).items()}

    def load(self, path: Path) -> None:
        """Replace the arrays. Raises ValueError when names or shapes differ."""
        stored = self._read(str(path))
        found = {name: array.shape for name, array in stored.items()}
        if self._shapes != found:
            raise ValueError(f"the weights do not fit the model: build makes {self._shapes}, the file holds {found}")
        for name, array in stored.items():
            self._set(self._model, name, array)


def _arrays(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the model's arrays by name. Raises ValueError when it is no dict of plain arrays."""
    import numpy as np

    if not isinstance(model, dict):
        raise ValueError(f"the model must be a dict of arrays, not {type(model).__name__}")
    arrays = dict(dict.items(model))
    if wrong := [name for name, array in arrays.items() if type(array) is not np.ndarray]:
        raise ValueError(f"{wrong[0]} must be a numpy array, not {type(arrays[wrong[0]]).__name__}")
    return arrays


def parameter_count(model: Mapping[str, np.ndarray]) -> int:
    """Count the scalars in all arrays, a shared one once."""
    return sum(array.size for array in {id(array): array for array in model.values()}.values())


def reset_peak_memory() -> None:
    """Do nothing: the parent measures host memory."""


def peak_memory_mb() -> float | None:
    """Return None: numpy does not know."""
    return None


def products(size: int, precision: str) -> Callable[[int], None]:
    """Raise ValueError: the bigram model multiplies no matrices, so their speed would say nothing about it."""
    raise ValueError(f"no products of {size} x {size} in {precision}: the null model is a table")


def examine(module: Any) -> Iterator[Remark]:
    """Say nothing: numpy needs neither a device nor a compiler."""
    yield from ()


def trace() -> Trace | None:
    """Return None: the core times the host."""
    return None
