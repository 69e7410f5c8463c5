"""The device that a backend computes on, and its speed in multiplying matrices.

A child imports the framework and answers; the parent never imports one. The data folder keeps what `ar bench` has
measured here, as the yardstick of devices that no data sheet is known for.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.backends.contract import Device, Remark
from autoresearch.core.config import data_dir
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.events import DeviceFound, Message
from autoresearch.core.files import write_text
from autoresearch.core.trial.child.channel import Answered, Failed, Peak, Remarked
from autoresearch.core.trial.processes import Child, Launch, how_it_ended, worker_argv
from autoresearch.core.trial.sandbox.environment import load_runtime
from autoresearch.core.trial.sandbox.host_paths import nvidia_cards
from autoresearch.core.trial.sandbox.levels import ProcessSandbox, Sandbox, open_sandbox

PROBE_SECONDS = 120.0
"""Longest wait for a device, in seconds: a cold import of a framework from a slow disk takes tens of them."""
PEAK_SECONDS = 60.0
"""Longest time for measuring matrix products, in seconds, once the framework is there."""
PEAKS_FILE = "peaks.json"
"""Name of the file in the data folder with what was measured: {device: {precision: FLOP/s}}."""


# ---- asking a child


def probe_device(backend: str, environment: Sequence[tuple[str, str]] = ()) -> Device:
    """Import the backend's framework in a child, in the sandbox of trials, and return the device that it found.

    `environment` are the variables that choose among several devices; without them it is the first. Raises
    `PrerequisiteError` when the backend cannot run here, or when the sandbox hides a GPU that is there.
    """
    sandbox = open_sandbox(None)
    inside = _first_device(backend, sandbox, environment)
    if inside.kind != "cpu" or sandbox.level == "process" or not (nvidia_cards() or sys.platform == "darwin"):
        return inside
    # A machine with a GPU on which a trial would compute on the processor: is it the sandbox?
    outside = _first_device(backend, ProcessSandbox(filtered=False), environment)
    if outside.kind != "cpu":
        raise PrerequisiteError(
            f"{outside.name} is there, and a trial at isolation level {sandbox.level} would not see it: it would use "
            "the processor",
            fix="`ar doctor` says what is missing; often a device node that `nvidia-modprobe -u -c 0` makes",
        )
    return inside


def expected_kind(backend: str) -> str | None:
    """Return the kind of device that a trial must compute on, where a GPU may be; None elsewhere, without asking.

    Raises `PrerequisiteError` as `probe_device` does.
    """
    return probe_device(backend).kind if nvidia_cards() or sys.platform == "darwin" else None


def _first_device(backend: str, sandbox: Sandbox, environment: Sequence[tuple[str, str]]) -> Device:
    messages = _ask(backend, {"role": "probe"}, PROBE_SECONDS, sandbox, environment=environment)
    return next(message.device for message in messages if isinstance(message, DeviceFound))


def examine(backend: str, source: str | None = None) -> list[Remark]:
    """Return what the backend's runtime has to say of this machine, and of the train file with that text.

    It is tried in the sandbox of trials, because the file's top level runs. Raises `PrerequisiteError` when the backend
    cannot run here.
    """
    remarks = []
    for message in _ask(backend, {"role": "examine"}, PROBE_SECONDS, open_sandbox(None), source):
        if isinstance(message, Remarked):
            status: Any = message.status if message.status in ("pass", "warn", "fail") else "warn"
            remarks.append(Remark(message.subject, status, message.detail, message.fix))
        elif isinstance(message, Answered):
            break
    return remarks


def measure_peak(backend: str) -> tuple[Device, dict[str, float]]:
    """Return the device, and FLOP/s of its fastest square matrix products by precision, "fp32" and "bf16".

    This takes about ten seconds. Raises `PrerequisiteError` when the backend cannot run here.
    """
    device: Device | None = None
    peaks: dict[str, float] = {}
    for message in _ask(backend, {"role": "peak"}, PROBE_SECONDS + PEAK_SECONDS, open_sandbox(None)):
        match message:
            case DeviceFound():
                device = message.device
            case Peak():
                peaks[message.precision] = message.flops
            case Answered() if device is not None:
                return device, peaks
    raise PrerequisiteError(f"the {backend} backend did not say how fast it multiplies")


def _ask(
    backend: str,
    job: Mapping[str, Any],
    seconds: float,
    sandbox: Sandbox,
    source: str | None = None,
    environment: Sequence[tuple[str, str]] = (),
) -> Iterator[Message]:
    """Yield the messages of a child that trains nothing, until the caller has heard enough.

    `source` is a train file's text, which the child then finds as the job's "source". `environment` are variables
    beside the backend's own.
    """
    variables = {**load_runtime(backend).launch_environment(), **dict(environment)}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "home").mkdir()
        (work / "tmp").mkdir()
        asked = {**job, "backend": backend}
        if source is not None:
            (work / "train.py").write_text(source, encoding="utf-8")
            asked["source"] = sandbox.inside(work, "train.py")
        child = Child(Launch("probe", worker_argv(), work, asked, sandbox, variables))
        try:
            yield from _messages(child, backend, seconds)
        finally:
            child.close()


def _messages(child: Child, backend: str, seconds: float) -> Iterator[Message]:
    deadline = time.monotonic() + seconds
    said = b""
    while time.monotonic() < deadline:
        ended = child.returncode() is not None  # asked before reading, so that nothing it said last is missed
        said += child.read(child.log_fd) or b""
        for message in child.parse(child.read(child.events_fd) or b""):
            if isinstance(message, Failed):
                words = f"{message.type}: {message.message}"
                raise PrerequisiteError(f"the {backend} backend does not start: {words}")
            yield message
        if ended:
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [how_it_ended(child.returncode() or 0)]
            raise PrerequisiteError(f"the {backend} backend does not start: {last[0]}")
        time.sleep(0.01)
    raise PrerequisiteError(f"the {backend} backend did not answer within {seconds:g} s")


# ---- what was measured here


def known_peak(device: Device, folder: Path | None = None) -> float | None:
    """Return FLOP/s in the device's working precision: the data sheet's, else what was measured here, else None."""
    return device.peak_flops or read_peaks(device, folder).get(device.precision)


def read_peaks(device: Device, folder: Path | None = None) -> dict[str, float]:
    """Return FLOP/s by precision as measured on this device, with this framework and as many cores; else nothing.

    A file that cannot be read counts as none: what rests on it is shown, and decides nothing.
    """
    try:
        known = json.loads(((folder or data_dir()) / PEAKS_FILE).read_text(encoding="utf-8"))
        peaks = {str(name): float(flops) for name, flops in known[_key(device)].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: flops for name, flops in peaks.items() if math.isfinite(flops) and flops > 0}


def write_peaks(device: Device, peaks: Mapping[str, float], folder: Path | None = None) -> None:
    """Remember FLOP/s by precision as measured on this device. Raises `OSError`."""
    path = (folder or data_dir()) / PEAKS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    write_text(path, json.dumps({**known, _key(device): dict(peaks)}, indent=2) + "\n")


def usable_cores() -> list[int]:
    """List the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(usable_cores())


def _key(device: Device) -> str:
    return f"{device.name} / {device.framework} / {cores()} cores"
