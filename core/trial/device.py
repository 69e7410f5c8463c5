"""What a backend computes on and how fast it multiplies, asked in a child: the parent never imports a framework."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoresearch.backends.contract import Device
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.events import DeviceFound, Message
from autoresearch.core.trial.child.channel import Failed, Peak, PeaksDone
from autoresearch.core.trial.processes import Child, Launch, died_how, worker_argv
from autoresearch.core.trial.sandbox.environment import load_runtime

PROBE_SECONDS = 120.0
"""A cold import of a framework from a slow disk takes tens of seconds."""
PEAK_SECONDS = 60.0
"""For measuring the products, once the framework is there."""


def probe_device(backend: str) -> Device:
    """Import the backend's framework in a child and say what it found.

    Raises `PrerequisiteError` when the backend cannot run here.
    """
    messages = _ask(backend, {"role": "probe"}, PROBE_SECONDS)
    return next(message.device for message in messages if isinstance(message, DeviceFound))


def measure_peak(backend: str) -> tuple[Device, dict[str, float]]:
    """The device, and its fastest square matrix products in FLOP/s by precision, "fp32" and "bf16".

    Takes ten seconds or so. Raises `PrerequisiteError` when the backend cannot run here.
    """
    device: Device | None = None
    peaks: dict[str, float] = {}
    for message in _ask(backend, {"role": "peak"}, PROBE_SECONDS + PEAK_SECONDS):
        match message:
            case DeviceFound():
                device = message.device
            case Peak():
                peaks[message.precision] = message.flops
            case PeaksDone() if device is not None:
                return device, peaks
    raise PrerequisiteError(f"the {backend} backend did not say how fast it multiplies")


def _ask(backend: str, job: Mapping[str, Any], seconds: float) -> Iterator[Message]:
    """Yield what a child says that runs no train file, until the caller has heard enough."""
    environment = dict(load_runtime(backend).launch_environment())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "home").mkdir()
        (work / "tmp").mkdir()
        child = Child(Launch("probe", worker_argv(), work, {**job, "backend": backend}, environment=environment))
        try:
            yield from _messages(child, backend, seconds)
        finally:
            child.close()


def _messages(child: Child, backend: str, seconds: float) -> Iterator[Message]:
    deadline = time.monotonic() + seconds
    said = b""
    while time.monotonic() < deadline:
        ended = child.returncode() is not None
        said += child.read(child.log_fd) or b""
        for message in child.parse(child.read(child.events_fd) or b""):
            if isinstance(message, Failed):
                words = f"{message.type}: {message.message}"
                raise PrerequisiteError(f"the {backend} backend does not start: {words}")
            yield message
        if ended:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [died_how(child.returncode() or 0)]
            raise PrerequisiteError(f"the {backend} backend does not start: {last[0]}")
        time.sleep(0.01)
    raise PrerequisiteError(f"the {backend} backend did not answer within {seconds:g} s")
