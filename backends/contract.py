"""What a train file and a runtime must offer. Imports no framework.

Three parties meet here. The **core** owns data, clock, score and decision. The **train file** (edited by the
researcher) owns the model. The **runtime** (frozen, one per backend) is the little that the core needs of a framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

Array = Any
"""A framework's own array: torch.Tensor, mlx.core.array, numpy.ndarray."""

Model = Any
"""Whatever `build` returns and the runtime can save."""

Packing = Literal["best_fit", "stream"]


@dataclass(frozen=True)
class Spec:
    """What `build` is told."""

    vocab_size: int
    """Tokens in the prepared vocabulary, equal to the train file's VOCAB_SIZE."""
    eval_seq_len: int
    """T at scoring: `logits` will be called with rows of this many tokens."""
    seed: int
    device: str
    """What the runtime computes on: "cuda", "cpu", "metal", "numpy"."""
    tier: str
    """The preset's name: "h100", "rtx", "mac-max", "mac", "cpu", "demo"."""


@dataclass(frozen=True)
class BatchInfo:
    """What comes with every real batch."""

    epoch: int
    """Passes over the training text that are complete."""
    tokens: int
    """Training tokens handed out so far, this batch included."""


class Data(Protocol):
    """The only way to training text. Given to `train`."""

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        """Endless synthetic `(inputs, targets)`, each (batch, seq): for compiling. Does not start the clock."""
        ...

    def batches(self, batch: int, seq: int, packing: Packing = "best_fit") -> Iterator[tuple[Array, Array, BatchInfo]]:
        """Real `(inputs, targets, info)`, int arrays (batch, seq) on the device, until the deadline.

        The first one starts the clock. `targets[:, t]` is the token after `inputs[:, t]`.
        """
        ...

    def documents(self) -> Iterator[np.ndarray]:
        """Real documents, each BOS + tokens as uint16 (n,), for a train file that packs its own. Starts the clock."""
        ...


class Clock(Protocol):
    """The time that is left. The parent's clock rules; this is a view of it."""

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0 before the first batch, at most 1."""
        ...

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; the whole budget before the first batch."""
        ...

    @property
    def budget(self) -> float:
        """Seconds of training that the trial is given."""
        ...

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Send one point of the live curve. Cheap, never raises; converting a device array to float is the caller's."""
        ...


class TrainFile(Protocol):
    """A train file, as a module. It may also define `flops_per_token(model) -> float`, which is shown as its claim."""

    VOCAB_SIZE: int

    def build(self, spec: Spec) -> Model:
        """A fresh model, drawn with `spec.seed`."""
        ...

    def train(self, model: Model, data: Data, clock: Clock) -> Model:
        """Train until the batches end; return the model to score."""
        ...

    def logits(self, model: Model, tokens: Array) -> Array:
        """(B, T) -> (B, T, V): causal, pure, row by row. No dropout, no state."""
        ...


@dataclass(frozen=True)
class Device:
    """What a runtime computes on, in words a person can check."""

    kind: str
    """"cuda", "cpu", "metal" or "numpy"."""
    name: str
    """"NVIDIA H100 80GB HBM3", "Apple M4 Max", the CPU's model name ..."""
    memory_mb: float | None
    precision: str
    """What the train file computes in by default on this device: "bf16", "fp32" ..."""
    framework: str
    """"torch 2.13.0", "mlx 0.32.4", "numpy 2.4.6"."""
    driver: str | None = None
    peak_flops: float | None = None
    """Dense peak of that precision in FLOP/s from the vendor's data sheet; None where it is not known."""
    tier: str = "cpu"
    """The preset that fits this device best."""

    def words(self) -> str:
        """What a score depends on beside the train file: device, framework and driver."""
        return ", ".join(part for part in (self.name, self.framework, self.driver and f"driver {self.driver}") if part)


@dataclass(frozen=True)
class Operation:
    """One kind of work in a trace."""

    name: str
    seconds: float
    """Its own time, without what it called: on the device where the framework can say, else on the host."""
    calls: int


@dataclass(frozen=True)
class Profile:
    """What a trace says."""

    sections: Mapping[str, float]
    """Seconds by part of a step, in the order of a step; one after another, not overlapping."""
    operations: Sequence[Operation]
    """The longest first."""
    note: str
    """How to read it, in one sentence."""


class Trace(Protocol):
    """Records what a framework does between `start` and `stop`."""

    def start(self) -> None:
        """Begin."""
        ...

    def waiting(self) -> AbstractContextManager[Any]:
        """Marks the time that the training loop waits for a batch."""
        ...

    def stop(self) -> None:
        """End; the device has been waited for."""
        ...

    def profile(self) -> Profile:
        """Sum up."""
        ...

    def write(self, path: Path) -> None:
        """Write all of it in the format of Chrome's tracing, gzipped."""
        ...


class Runtime(Protocol):
    """A backend's frozen part, as a module. Importing it must not import the framework: functions do, on first use."""

    NAME: str

    def unavailable(self) -> str | None:
        """Why this backend cannot run here and the one-line fix, or None. Must not import the framework."""
        ...

    def launch_environment(self) -> Mapping[str, str]:
        """Environment that a child needs before it starts (preloads, thread counts). Must not import the framework."""
        ...

    def compile_caches(self) -> Sequence[str]:
        """Folders where the framework keeps what it compiles, relative to a child's folder that holds `home` and `tmp`.

        Must not import the framework.
        """
        ...

    def detect(self) -> Device:
        """The device in use. May take seconds: it imports the framework."""
        ...

    def seed(self, seed: int) -> None:
        """Seed every generator of the framework."""
        ...

    def to_device(self, tokens: np.ndarray) -> Array:
        """uint16 (B, T) in host memory -> an integer array on the device. The host array may be reused at once."""
        ...

    def to_numpy(self, array: Array) -> np.ndarray:
        """A device array in host memory; floating types come back as float32."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
        ...

    def inference(self, model: Model) -> AbstractContextManager[None]:
        """No gradients, evaluation mode, inside the context."""
        ...

    def nll(self, logits: Array, targets: Array) -> np.ndarray:
        """Negative log-likelihood in nats, computed in float32 from logits of any float type.

        logits (B, T, V), targets (B, T) -> float32 (B, T) in host memory.
        """
        ...

    def save_weights(self, model: Model, path: Path) -> None:
        """Write every parameter and buffer as safetensors."""
        ...

    def load_weights(self, model: Model, path: Path) -> None:
        """Read what `save_weights` wrote into a freshly built model. Raises ValueError when names or shapes differ."""
        ...

    def parameter_count(self, model: Model) -> int:
        """Scalars in trainable parameters, a shared one counted once."""
        ...

    def reset_peak_memory(self) -> None:
        """Start measuring `peak_memory_mb` anew."""
        ...

    def peak_memory_mb(self) -> float | None:
        """Peak device memory since the last reset in MiB, or None where the framework cannot say."""
        ...

    def products(self, size: int, precision: str) -> Callable[[int], None]:
        """A function that takes n products of square matrices of that size, in "fp32" or "bf16", and waits for them.

        Raises ValueError for a precision that the framework does not have.
        """
        ...

    def trace(self) -> Trace | None:
        """A recorder by the framework's own profiler, or None where it has none."""
        ...
