"""The train role: build, train until the feed ends, write the weights."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import time
from pathlib import Path
from typing import Any

from autoresearch.backends.contract import Device
from autoresearch.core.data.client import FeedClient, FeedClock
from autoresearch.core.events import Log, Startup, Trained
from autoresearch.core.trial.child.channel import Channel, Stage, WeightsWritten
from autoresearch.core.trial.child.profiler import Profiler
from autoresearch.core.trial.child.train_module import build_model
from autoresearch.core.trial.memory_file import link_to, seal

FLOAT_BYTES = 4
"""Bytes of a number in the weights file."""
LOG_SECONDS = 0.05
"""Seconds between two points of the live curve; the last one is always sent."""


class Curve:
    """Sends the points of `clock.log`, thinned out."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._next = 0.0
        self._held: dict[str, Any] | None = None

    def add(self, point: dict[str, Any]) -> None:
        """Send the point, or hold it until the next one is due."""
        self._held = point
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Send the point that is held."""
        if self._held is not None:
            numbers = {name: _number(value) for name, value in self._held.items()}
            step, loss, progress = (numbers.pop(name, None) for name in ("step", "loss", "progress"))
            self._channel.send(Log(step, loss, progress, numbers))
            self._held = None
            self._next = time.monotonic() + LOG_SECONDS


def train(job: dict[str, Any], runtime: Any, device: Device, channel: Channel, stage: Stage) -> None:
    """Run `build` and `train`, wait for the device, then write and announce the weights."""
    runtime.loader()  # imports what reads and writes weights: after the deadline an import would be late
    module, model = build_model(job, runtime, device, stage)
    stage.name = "train"
    channel.send(Startup())
    curve = Curve(channel)
    clock = FeedClock(job["budget_seconds"], curve.add)
    data = FeedClient(
        socket.socket(fileno=job["feed_fd"]), runtime=runtime, vocab_size=job["vocab_size"], seed=job["seed"]
    )
    data.attach(clock)
    profiler = Profiler(runtime, clock, Path(job["trace"]), channel) if job["trace"] else None
    if profiler is not None:
        data.watch(profiler)
    runtime.reset_peak_memory()  # what `build` took and gave back is not the training's
    model = module.train(model, data, clock)
    if model is None:
        raise TypeError("train returned None; it must return the model to score")
    runtime.synchronize()  # a framework may still be computing what it was asked for
    if profiler is not None:
        profiler.close()
    curve.flush()
    # Asked before the weights are written, which may take memory of its own, and before the training counts as over:
    # the train file's code that is called here could train.
    params, peak_memory_mb, flops = runtime.parameter_count(model), runtime.peak_memory_mb(), _flops(module, model)
    channel.send(Trained())
    stage.name = "saving the weights"
    path = Path(job["weights"])
    sha256 = _save(job, runtime, model, path, FLOAT_BYTES * params)
    claimed_bpb = getattr(module, "claimed_bpb", None) if "upstream" in job else None
    channel.send(WeightsWritten(sha256, params, peak_memory_mb, flops, claimed_bpb))


def _save(job: dict[str, Any], runtime: Any, model: Any, path: Path, expected_bytes: int) -> str:
    """Write the weights; return their SHA-256, or "" for those in memory, which are sealed instead.

    They go into memory where the parent has made a file for it and `expected_bytes` are neither few nor too many.
    """
    fd = job.get("memory_fd")
    if fd is not None and job["memory_from"] <= expected_bytes <= job["memory_room"]:
        link_to(path, fd)
    runtime.save_weights(model, path)
    if fd is not None and os.fstat(fd).st_size:
        seal(fd)
        return ""
    # Read back from the disk and not hashed in memory: the parent compares with what it finds in the file.
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flops(module: Any, model: Any) -> float | None:
    """Return the train file's own count of FLOP a token, where it offers one that makes sense."""
    if not hasattr(module, "flops_per_token"):
        return None
    try:
        value = float(module.flops_per_token(model))
    except Exception:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _number(value: Any) -> float | int | None:
    try:
        number = value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
