"""One process of a trial, seen from the parent: how it is started, heard and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from autoresearch.core.errors import TrialError
from autoresearch.core.trial import guard
from autoresearch.core.trial.environment import child_environment
from autoresearch.core.trial.sandbox import ProcessSandbox, Sandbox

EVENT_LIMIT_BYTES = 1 << 16
"""A longer line is no event."""
KILL_SECONDS = 20.0
"""How long a killed process may take to vanish: a GPU driver gives memory back slowly."""
OPEN_FILES = 4096


@dataclass(frozen=True)
class Launch:
    """What to start."""

    role: str
    """"feed", "compile", "train", "steps", "score", "audit" or "probe"."""
    argv: Sequence[str]
    """The command; "{events}" and "{job}" are replaced by the numbers of the inherited descriptors."""
    work: Path
    job: Mapping[str, Any] = field(default_factory=dict)
    sandbox: Sandbox = field(default_factory=ProcessSandbox)
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()
    """Further descriptors that it inherits under the same numbers."""
    read_only: Sequence[Path] = ()
    file_limit_mb: int = 8192


def _with_environment(extra: Mapping[str, str]) -> list[str]:
    """A command prefix that sets the backend's variables for the child alone.

    Not for the guard and the sandbox before it: a preloaded OpenBLAS has threads, and bwrap, which copies itself
    without telling the C library, then waits for them for ever.
    """
    return ["/usr/bin/env", *(f"{name}={value}" for name, value in extra.items())] if extra else []


def worker_argv() -> list[str]:
    """The command of a child that runs a train file."""
    return [sys.executable, "-m", "autoresearch.core.trial.worker", "--job-fd", "{job}", "--events-fd", "{events}"]


class Child:
    """A running process behind its guard. Not thread-safe: one thread starts, reads and kills it."""

    def __init__(self, launch: Launch) -> None:
        """Start it. Raises `TrialError` when the system refuses."""
        self.role = launch.role
        self.started = time.monotonic()
        self.work = launch.work
        self.processes = 0
        """At the last measurement."""
        self.peak_rss_mb = 0.0
        self._pending = b""
        self._seen: dict[int, psutil.Process] = {}
        with contextlib.ExitStack() as opened:
            try:
                self._start(launch, opened)
            except (OSError, subprocess.SubprocessError) as error:
                raise TrialError(f"the {launch.role} process cannot be started: {error}.") from error
            self._open = opened.pop_all()

    def _start(self, launch: Launch, opened: contextlib.ExitStack) -> None:
        self.events_fd, events = _pipe(opened)
        self.log_fd, log = _pipe(opened)
        with contextlib.ExitStack() as theirs, tempfile.TemporaryFile() as job:
            theirs.callback(os.close, events)
            theirs.callback(os.close, log)
            job.write(json.dumps(dict(launch.job)).encode())
            job.seek(0)
            numbers = {"{events}": str(events), "{job}": str(job.fileno())}
            inner = [*_with_environment(launch.environment), *(numbers.get(word, word) for word in launch.argv)]
            argv = launch.sandbox.wrap(inner, launch.work, launch.read_only)
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *_limits(launch), "--", *argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[events, job.fileno(), *launch.descriptors],
                cwd=launch.work,
                env=child_environment(
                    launch.sandbox.inside(launch.work, "home"),
                    launch.sandbox.inside(launch.work, "tmp"),
                ),
                start_new_session=True,
            )
        os.set_blocking(self.events_fd, False)
        os.set_blocking(self.log_fd, False)

    @property
    def pid(self) -> int:
        """Of the guard, under which all its processes live."""
        return self.process.pid

    def returncode(self) -> int | None:
        """None while it runs; else the status as a shell would say it."""
        return self.process.poll()

    def read(self, fd: int) -> bytes | None:
        """At most 1 MiB from a pipe, without waiting: None when there is nothing now, b"" when it is closed."""
        try:
            return os.read(fd, 1 << 20)
        except BlockingIOError:
            return None

    def parse(self, data: bytes) -> list[dict[str, Any]]:
        """The events that `data` completes. What is not a JSON object with a name is skipped."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > EVENT_LIMIT_BYTES:
            self._pending = b""
        return [event for line in lines if (event := _parse(line)) is not None]

    def measure_rss_mb(self) -> float:
        """Resident memory of all its processes in MiB; remembers the peak and every process it has seen."""
        total = 0
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(self.pid).children(recursive=True)
            self.processes = len(below)
            for process in below:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
                    self._seen[process.pid] = process
        self.peak_rss_mb = max(self.peak_rss_mb, total / 2**20)
        return total / 2**20

    def kill(self) -> None:
        """Close the lifeline: the guard kills everything. Returns when nothing is left."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._sweep()
            self.process.kill()
            self.process.wait(KILL_SECONDS)
        self._sweep()

    def _sweep(self) -> None:
        """Kill what the guard could not see: what had left its session where there is no adoption (macOS)."""
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error):
                process.kill()  # psutil compares start times, so a reused number is left alone

    def close(self) -> None:
        """Kill it and let go of its pipes."""
        self.kill()
        self._open.close()


def died_how(status: int) -> str:
    """An exit status in words."""
    if status == 128 + signal.SIGKILL:
        return "was killed (SIGKILL), most likely by the system for lack of memory"
    if status > 128:
        try:
            return f"was ended by {signal.Signals(status - 128).name}"
        except ValueError:
            pass
    return f"ended by itself with exit status {status}"


def _limits(launch: Launch) -> list[str]:
    """No core dumps, a cap on written files and on open ones. Address space is left alone: CUDA reserves terabytes."""
    return ["CORE=0", f"FSIZE={launch.file_limit_mb * 2**20}", f"NOFILE={OPEN_FILES}"]


def _pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose reading end is closed with `opened`; the writing end is the caller's."""
    reader, writer = os.pipe()
    opened.callback(os.close, reader)
    return reader, writer


def _parse(line: bytes) -> dict[str, Any] | None:
    if len(line) > EVENT_LIMIT_BYTES:
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
