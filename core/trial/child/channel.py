"""The messages of a child to its parent: those that are no events (see `core.events`), and the pipe they go through."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.core import events
from autoresearch.core.events import Kinds, Message, kinds_of, to_json

MESSAGE_LIMIT = 2000
"""Characters of an exception's message: some print whole tensors."""


@dataclass(frozen=True)
class Failed(Message):
    """The child cannot go on."""

    name = "error"
    stage: str
    """Step in which it failed, such as "import", "build", "train" or "logits"."""
    type: str
    """Name of the exception's class."""
    message: str
    line: int | None
    """Last line of the train file that the exception passed; None where it passed none."""
    out_of_memory: bool


@dataclass(frozen=True)
class WeightsWritten(Message):
    """The weights lie in the work folder. The rest is what the train child claims about its model."""

    name = "weights"
    sha256: str
    params: int | None
    peak_memory_mb: float | None
    flops_per_token: float | None
    claimed_bpb: float | None = None
    """val_bpb as an adopted script has printed it."""


@dataclass(frozen=True)
class Profiled(Message):
    """The time that a few traced batches took. `core.trial.profile` reads it with distrust."""

    name = "profile"
    seconds: float
    batches: int
    sections: Mapping[str, Any]
    """Part of a step -> seconds."""
    operations: list[Any]
    """[name, seconds of its own, calls] of each operation, the longest first."""
    note: str


class Compiled(Message):
    """The compile role has done its work."""

    name = "compiled"


class Ready(Message):
    """A score or audit child has built its model and waits for the weights."""

    name = "ready"


@dataclass(frozen=True)
class StepLosses(Message):
    """The steps role has done its work."""

    name = "steps"
    losses: Mapping[str, Any]
    """Number of finished steps, as text -> loss in nats a token."""


@dataclass(frozen=True)
class Peak(Message):
    """The fastest matrix product in one precision."""

    name = "peak"
    precision: str
    """"fp32" or "bf16"."""
    flops: float
    """Floating-point operations a second."""
    size: int
    """Side of the square matrices at which it was measured."""


@dataclass(frozen=True)
class Remarked(Message):
    """One remark of the examine role (see `backends.contract.Remark`)."""

    name = "remark"
    subject: str
    status: str
    detail: str
    fix: str | None


class Answered(Message):
    """The peak or the examine role has done its work."""

    name = "done"


MESSAGES: Kinds = kinds_of([
    events.DeviceFound, events.Startup, events.FirstBatch, events.Log, events.FeedProgress, events.BadRequest,
    events.DataFault, events.FeedEnded, events.Trained,
    Failed, WeightsWritten, Profiled, Compiled, Ready, StepLosses, Peak, Answered, Remarked,
])  # fmt: skip
"""Every message that a parent takes from a child. Events that the parent alone may report, such as a score, are left
out."""


class Channel:
    """A child's end of the pipe to its parent."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, message: Message) -> None:
        """Write one line. A parent that is gone is no error: the guard ends this process."""
        try:
            os.write(self._fd, json.dumps(to_json(message)).encode() + b"\n")
        except BrokenPipeError:
            pass


class LogitsShapeError(ValueError):
    """Raised when `logits` returns an array of another shape than (B, T, V), or nothing that has a shape."""

    def __init__(self, what: str, shape: Iterable[int] | None, expected: tuple[int, ...]) -> None:
        found = "no shape" if shape is None else f"the shape {tuple(map(int, shape))}"
        super().__init__(f"{what} has {found}; expected {expected}")


class DeviceMismatchError(RuntimeError):
    """Raised when a child finds itself on another kind of device than the trial began on."""


class WeightsMismatchError(ValueError):
    """Raised when the trained weights do not fit the model that `build` makes."""


class Stage:
    """The step that a child has reached, for the sentence that explains a failure."""

    def __init__(self) -> None:
        self.name = "start-up"


def describe(error: BaseException, stage: Stage, path: str) -> Failed:
    """Turn an exception into a message. `path` is the train file's, for the line that is to blame."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    try:
        message = str.strip(str(error))
    except Exception:  # the file's own class may raise when it is asked what it says
        message = ""
    return Failed(
        stage=stage.name,
        type=type(error).__name__,
        message=message[:MESSAGE_LIMIT],
        line=frames[-1].lineno if frames else None,
        out_of_memory=isinstance(error, MemoryError) or "out of memory" in message.lower(),
    )
