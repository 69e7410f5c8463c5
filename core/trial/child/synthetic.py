"""Two roles that run the train file's own `train` without the feed.

steps: on a given text, from given weights; the losses are sent back. `ar bench` compares backends by them.
compile: on random tokens, without a single real batch, so that the framework compiles (see `core.trial.compile_cache`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.backends.contract import Array, BatchInfo, Device
from autoresearch.core.trial.child.channel import Channel, Compiled, Stage, StepLosses
from autoresearch.core.trial.child.train_module import build_model

BUDGET_SECONDS = 20.0
"""Time budget that the train file is told. Time is counted in steps, so this only matters to a file that reads it."""


class GivenText:
    """Implements `contract.Data` and `contract.Clock`: rows cut from one text in its order; steps are the time."""

    budget = BUDGET_SECONDS

    def __init__(self, tokens: np.ndarray, runtime: Any, vocab_size: int, steps: int, step_tokens: int | None) -> None:
        """Cut tokens, uint16 (n,), into `steps` steps of `step_tokens` each; of one batch each where that is None."""
        self._tokens, self._runtime, self._vocab_size = tokens, runtime, vocab_size
        self._steps, self._step_tokens = steps, step_tokens
        # Not 0 of 0: `progress` may be asked before the first batch.
        self._given, self._total = 0, 1
        self.losses: dict[int, float] = {}
        """Number of finished steps -> loss in nats a token."""

    @property
    def progress(self) -> float:
        """Share of all batches that were given, 0..1."""
        return self._given / self._total

    @property
    def remaining(self) -> float:
        """Seconds left of the budget, by the same count."""
        return self.budget * (1 - self.progress)

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Keep a loss that is a number."""
        if math.isfinite(loss := float(loss)):
            self.losses[int(step)] = loss

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        """Yield random tokens without end."""
        draw = np.random.default_rng(0)
        while True:
            yield self._pair(draw.integers(0, self._vocab_size, (batch, seq + 1)).astype(np.uint16))

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator[tuple[Array, Array, BatchInfo]]:
        """Yield as many batches as make up the steps. The text starts again when it is over."""
        self._total = self._steps * max(1, (self._step_tokens or 0) // (batch * seq))
        for index in range(self._total):
            self._given = index + 1
            places = np.arange(index * batch * seq, (index + 1) * batch * seq).reshape(batch, seq)
            rows = self._tokens.take(np.column_stack([places, places[:, -1] + 1]), mode="wrap")
            yield *self._pair(rows), BatchInfo(epoch=0, tokens=self._given * batch * seq)

    def documents(self) -> Iterator[np.ndarray]:
        """Yield the text as one document, once for every step."""
        self._total = self._steps
        for index in range(self._steps):
            self._given = index + 1
            yield self._tokens

    def _pair(self, rows: np.ndarray) -> tuple[Array, Array]:
        return tuple(self._runtime.to_device(np.ascontiguousarray(part)) for part in (rows[:, :-1], rows[:, 1:]))


def take_steps(job: dict[str, Any], runtime: Any, device: Device, channel: Channel, stage: Stage) -> None:
    """Build, load the weights, train, and send the losses."""
    module, model = build_model(job, runtime, device, stage)
    stage.name = "loading the weights"
    runtime.load_weights(model, Path(job["weights"]))
    tokens = np.fromfile(job["tokens"], dtype=np.uint16)
    given = GivenText(tokens, runtime, job["vocab_size"], job["steps"], job["step_tokens"])
    stage.name = "train"
    module.train(model, given, given)
    runtime.synchronize()
    channel.send(StepLosses({str(step): loss for step, loss in given.losses.items()}))


class NoText:
    """Implements `contract.Data` and `contract.Clock`: random tokens to warm up with, and a feed that is over."""

    progress = 0.0

    def __init__(self, runtime: Any, vocab_size: int, budget: float) -> None:
        self._runtime, self._vocab_size = runtime, vocab_size
        self.budget = self.remaining = budget

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Ignore the loss: nothing is learned here."""

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        """Yield random tokens without end, as in a trial."""
        draw = np.random.default_rng(0)
        while True:
            rows = draw.integers(0, self._vocab_size, (batch, seq + 1)).astype(np.uint16)
            inputs, targets = (np.ascontiguousarray(part) for part in (rows[:, :-1], rows[:, 1:]))
            yield self._runtime.to_device(inputs), self._runtime.to_device(targets)

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator[tuple[Array, Array, BatchInfo]]:
        """Yield nothing: the feed is over."""
        yield from ()

    def documents(self) -> Iterator[np.ndarray]:
        """Yield nothing: the feed is over."""
        yield from ()


def compile_only(job: dict[str, Any], runtime: Any, device: Device, channel: Channel, stage: Stage) -> None:
    """Warm up and say so. A file that fails for want of a batch has compiled by then, too."""
    module, model = build_model(job, runtime, device, stage)
    nothing = NoText(runtime, job["vocab_size"], job["budget_seconds"])
    stage.name = "train"
    try:
        module.train(model, nothing, nothing)
        runtime.synchronize()
    finally:
        channel.send(Compiled())
