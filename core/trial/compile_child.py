"""The compile role: build, and train without a single real batch, for what the framework compiles on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from autoresearch.backends.contract import Array, BatchInfo, Device
from autoresearch.core.trial.channel import Channel, Stage
from autoresearch.core.trial.train_module import build_model


class NoText:
    """Implements `contract.Data` and `contract.Clock`: random tokens to warm up with, and a feed that is over."""

    progress = 0.0

    def __init__(self, runtime: Any, vocab_size: int, budget: float) -> None:
        self._runtime, self._vocab_size = runtime, vocab_size
        self.budget = self.remaining = budget

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Nothing is learned here."""

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        """As in a trial."""
        draw = np.random.default_rng(0)
        while True:
            rows = draw.integers(0, self._vocab_size, (batch, seq + 1)).astype(np.uint16)
            inputs, targets = (np.ascontiguousarray(part) for part in (rows[:, :-1], rows[:, 1:]))
            yield self._runtime.to_device(inputs), self._runtime.to_device(targets)

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator[tuple[Array, Array, BatchInfo]]:
        """None."""
        yield from ()

    def documents(self) -> Iterator[np.ndarray]:
        """None."""
        yield from ()


def compile_only(job: dict[str, Any], runtime: Any, device: Device, channel: Channel, stage: Stage) -> None:
    """Warm up and say so. A file that cannot end without a batch has compiled by then, too."""
    module, model = build_model(job, runtime, device, stage)
    nothing = NoText(runtime, job["vocab_size"], job["budget_seconds"])
    stage.name = "train"
    try:
        module.train(model, nothing, nothing)
        runtime.synchronize()
    finally:
        channel.send("compiled")
