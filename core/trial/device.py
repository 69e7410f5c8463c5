"""What a backend computes on, asked in a child: the parent never imports a framework."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from autoresearch.backends.contract import Device
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.trial.child import Child, Launch, died_how, worker_argv
from autoresearch.core.trial.environment import load_runtime

PROBE_SECONDS = 120.0
"""A cold import of a framework from a slow disk takes tens of seconds."""


def probe_device(backend: str) -> Device:
    """Import the backend's framework in a child and say what it found.

    Raises `PrerequisiteError` when the backend cannot run here.
    """
    environment = dict(load_runtime(backend).launch_environment())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "home").mkdir()
        (work / "tmp").mkdir()
        job = {"role": "probe", "backend": backend}
        child = Child(Launch("probe", worker_argv(), work, job, environment=environment))
        try:
            return _answer(child, backend)
        finally:
            child.close()


def _answer(child: Child, backend: str) -> Device:
    deadline = time.monotonic() + PROBE_SECONDS
    said = b""
    while time.monotonic() < deadline:
        ended = child.returncode() is not None
        said += child.read(child.log_fd) or b""
        for event in child.parse(child.read(child.events_fd) or b""):
            if event["event"] == "device":
                return Device(**{name: value for name, value in event.items() if name != "event"})
            if event["event"] == "error":
                words = f"{event.get('type')}: {event.get('message')}"
                raise PrerequisiteError(f"the {backend} backend does not start: {words}")
        if ended:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [died_how(child.returncode() or 0)]
            raise PrerequisiteError(f"the {backend} backend does not start: {last[0]}")
        time.sleep(0.01)
    raise PrerequisiteError(f"the {backend} backend did not start within {PROBE_SECONDS:g} s")
