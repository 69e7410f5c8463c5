"""The interfaces of a backend: what a train file and a runtime must offer. Imports no framework.

Three parties meet here. The **core** owns data, clock, score and decision. The **train file**, which the researcher
edits, owns the model. The **runtime**, one per backend and never edited, gives the core access to the framework:
device, seeds, arrays, likelihoods and weights.
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
    """The arguments of `build`."""

    vocab_size: int
    """Tokens in the prepared vocabulary, equal to the train file's VOCAB_SIZE."""
    eval_seq_len: int
    """Row length T at scoring, in tokens."""
    seed: int
    device: str
    """Kind of device that the runtime computes on: "cuda", "cpu", "metal", "numpy"."""
    tier: str
    """The preset's name: "h100", "rtx", "mac-max", "mac", "cpu", "demo"."""


@dataclass(frozen=True)
class BatchInfo:
    """Counters that come with every real batch."""

    epoch: int
    """Number of complete passes over the training text."""
    tokens: int
    """Number of training tokens handed out so far, this batch included."""


class Data(Protocol):
    """The only access to training text. Given to `train`."""

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        """Yield synthetic `(inputs, targets)`, each (batch, seq), without end, for compiling.

        Does not start the clock.
        """
        ...

    def batches(self, batch: int, seq: int, packing: Packing = "best_fit") -> Iterator[tuple[Array, Array, BatchInfo]]:
        """Yield real `(inputs, targets, info)`, integer arrays (batch, seq) on the device, until the deadline.

        The first batch starts the clock. `targets[:, t]` is the token after `inputs[:, t]`.
        """
        ...

    def documents(self) -> Iterator[np.ndarray]:
        """Yield real documents, each BOS + tokens as uint16 (n,), for a train file that packs its own.

        Starts the clock.
        """
        ...


class Clock(Protocol):
    """The trial's time. The deciding clock is in the parent process; this is a view of it."""

    @property
    def progress(self) -> float:
        """Share of the budget that is used: 0 before the first batch, at most 1."""
        ...

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; the whole budget before the first batch."""
        ...

    @property
    def budget(self) -> float:
        """Seconds of training in this trial."""
        ...

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Send one point of the live curve. Cheap, never raises. The caller converts device arrays to float."""
        ...


class TrainFile(Protocol):
    """A train file, as a module. It may also define `flops_per_token(model) -> float`, which is shown as its claim."""

    VOCAB_SIZE: int

    def build(self, spec: Spec) -> Model:
        """Return a fresh model, initialised with `spec.seed`."""
        ...

    def train(self, model: Model, data: Data, clock: Clock) -> Model:
        """Train until the batches end. Return the model to score."""
        ...

    def logits(self, model: Model, tokens: Array) -> Array:
        """Predict the next token: (B, T) -> (B, T, V). Causal, pure, row by row; no dropout, no state."""
        ...


@dataclass(frozen=True)
class Device:
    """The device that a runtime computes on, described so that a person can check it."""

    kind: str
    """"cuda", "cpu", "metal" or "numpy"."""
    name: str
    """"NVIDIA H100 80GB HBM3", "Apple M4 Max", the CPU's model name ..."""
    memory_mb: float | None
    precision: str
    """Default precision of the train file on this device: "bf16", "fp32" ..."""
    framework: str
    """"torch 2.13.0", "mlx 0.32.4", "numpy 2.4.6"."""
    driver: str | None = None
    peak_flops: float | None = None
    """Dense peak at that precision in FLOP/s, from the vendor's data sheet; None where it is not known."""
    tier: str = "cpu"
    """Name of the preset that fits this device best, by the memory that is free."""
    free_mb: float | None = None
    """Free memory when the device was described, in MiB; None where the framework cannot tell."""

    def description(self) -> str:
        """Describe what a score depends on beside the train file: device, framework and driver."""
        return ", ".join(part for part in (self.name, self.framework, self.driver and f"driver {self.driver}") if part)


@dataclass(frozen=True)
class Remark:
    """Something that a person should know of how this machine computes."""

    subject: str
    """One or two words: "attention", "libcuda"."""
    status: Literal["pass", "warn", "fail"]
    """`fail`: training cannot start. `warn`: it is slower than it could be."""
    detail: str
    fix: str | None = None


@dataclass(frozen=True)
class Operation:
    """One kind of work in a trace."""

    name: str
    seconds: float
    """Seconds spent in it, calls to other operations excluded; of the device where the framework can tell, else of the
    host."""
    calls: int


@dataclass(frozen=True)
class Profile:
    """The summary of a trace."""

    sections: Mapping[str, float]
    """Seconds by part of a training step, in order; the parts do not overlap."""
    operations: Sequence[Operation]
    """Operations, the longest first."""
    note: str
    """One sentence on how to read the numbers."""


class Trace(Protocol):
    """A recorder of a framework's work between `start` and `stop`."""

    def start(self) -> None:
        """Begin recording."""
        ...

    def waiting(self) -> AbstractContextManager[Any]:
        """Mark the time in which the training loop waits for a batch."""
        ...

    def stop(self) -> None:
        """End recording. The caller has waited for the device."""
        ...

    def profile(self) -> Profile:
        """Summarise the recording."""
        ...

    def write(self, path: Path) -> None:
        """Write the recording in the format of Chrome's tracing, gzipped."""
        ...


class Loader(Protocol):
    """A way to put weights into a model without calling anything that a train file defines.

    It is made before the train file runs, with the framework's functions as they are then. A model's own `state_dict`,
    `update` or hooks could train while weights are loaded, in time that is not counted.
    """

    def collect(self, model: Model) -> None:
        """Find the places of the model's parameters and buffers by name, through the framework's own containers.

        Raises ValueError for a model or an array of a kind that `save_weights` cannot write.
        """
        ...

    def load(self, path: Path) -> None:
        """Fill the collected places from what `save_weights` wrote. Raises ValueError when names or shapes differ."""
        ...


class Runtime(Protocol):
    """A backend's frozen part, as a module. Importing it must not import the framework: functions do, on first use."""

    NAME: str

    def unavailable(self) -> str | None:
        """Say why this backend cannot run here, with a one-line fix; None when it can.

        Must not import the framework.
        """
        ...

    def packages(self) -> Sequence[str]:
        """List the installed packages whose versions decide what is computed, numpy aside; the framework's comes first.

        Must not import the framework.
        """
        ...

    def export_lines(self) -> Sequence[str]:
        """Return the lines of a program that use exported weights without the core.

        They stand behind `import numpy as np`, `import train` (the train file), `folder` (a `Path`) and `spec`. They
        import the framework, set `spec.device`, make `model` with the weights of `folder / "model.safetensors"`, and
        define `predict(tokens)`: int64 (1, T) -> float32 (1, T, V), both numpy.
        """
        ...

    def launch_environment(self) -> Mapping[str, str]:
        """Return the variables that a child needs before it starts (preloads, thread counts).

        Must not import the framework.
        """
        ...

    def compile_caches(self) -> Sequence[str]:
        """List the folders of the framework's compile caches, relative to a child's folder that holds `home` and `tmp`.

        Must not import the framework.
        """
        ...

    def detect(self) -> Device:
        """Describe the device in use. May take seconds, because it imports the framework."""
        ...

    def examine(self, module: Any) -> Iterator[Remark]:
        """Try what training will need, and say what will be used; `module` is a train file, or None.

        Runs in a sandbox like a trial's, so that it sees what a trial sees. May take seconds.
        """
        ...

    def seed(self, seed: int) -> None:
        """Seed every generator of the framework."""
        ...

    def to_device(self, tokens: np.ndarray) -> Array:
        """Copy uint16 (B, T) to an integer array on the device. The host array may be reused at once."""
        ...

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy a device array to host memory; floating types become float32."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished all submitted work."""
        ...

    def inference(self, model: Model) -> AbstractContextManager[None]:
        """Return a context in which the model is in evaluation mode and no gradients are recorded."""
        ...

    def nll(self, logits: Array, targets: Array) -> np.ndarray:
        """Compute negative log-likelihoods in nats, in float32, from logits of any float type.

        logits (B, T, V), targets (B, T) -> float32 (B, T) in host memory.
        """
        ...

    def save_weights(self, model: Model, path: Path) -> None:
        """Write every parameter and buffer as safetensors, by the names that `Loader.collect` finds."""
        ...

    def loader(self) -> Loader:
        """Return a loader. Call it before a train file runs."""
        ...

    def load_weights(self, model: Model, path: Path) -> None:
        """Read what `save_weights` wrote into a freshly built model. Raises ValueError when names or shapes differ."""
        ...

    def parameter_count(self, model: Model) -> int:
        """Count the scalars in trainable parameters, a shared one once."""
        ...

    def reset_peak_memory(self) -> None:
        """Start measuring `peak_memory_mb` anew."""
        ...

    def peak_memory_mb(self) -> float | None:
        """Return the peak device memory since the last reset in MiB; None where the framework cannot tell."""
        ...

    def products(self, size: int, precision: str) -> Callable[[int], None]:
        """Return a function of n that computes n products of (size, size) matrices, in "fp32" or "bf16", and waits.

        Raises ValueError for a precision that the framework does not have.
        """
        ...

    def trace(self) -> Trace | None:
        """Return a recorder that uses the framework's own profiler; None where it has none."""
        ...
