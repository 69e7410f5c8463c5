"""One process of a trial, seen from the parent: how it is started, heard and killed.

Waits for a trial's processes: their events, output and memory, the clock, and the wish to stop.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from autoresearch.core.errors import TrialError
from autoresearch.core.events import MemoryUsed, Message, Spawned, parse_line
from autoresearch.core.trial.child.channel import MESSAGES
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.request import TrialStatus
from autoresearch.core.trial.sandbox import guard
from autoresearch.core.trial.sandbox.environment import child_environment
from autoresearch.core.trial.sandbox.levels import ProcessSandbox, Sandbox

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
    return [
        sys.executable,
        "-m",
        "autoresearch.core.trial.child.worker",
        "--job-fd",
        "{job}",
        "--events-fd",
        "{events}",
    ]


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

    def parse(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. What is none of `MESSAGES`, or malformed, is skipped."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > EVENT_LIMIT_BYTES:
            self._pending = b""
        short = [line for line in lines if len(line) <= EVENT_LIMIT_BYTES]
        return [message for line in short if (message := parse_line(line, MESSAGES)) is not None]

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


def how_it_ended(status: int) -> str:
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


TICK_SECONDS = 0.1
MEMORY_SECONDS = 0.2
"""Between two looks at the memory: a child that allocates at 5 GB/s overshoots by 1 GB."""
SAY_MEMORY_SECONDS = 2.0
DISK_SECONDS = 1.0
"""Between two looks at what a child has written."""
PROCESS_LIMIT = 512
"""Of one child: data loaders and compilers take tens; a fork bomb takes them all."""
FILES_LIMIT = 100_000
"""In a child's work folder."""
MEMORY_SHARE = 0.8
"""Of the machine's memory, where the request names no limit."""


class TrialCancelled(TrialError):  # noqa: N818  (it is the name of the interface)
    """The trial was stopped before its end; nothing of it is left running."""


class TrialEnded(Exception):  # noqa: N818
    """The trial is over with a status other than ok. Caught in the supervisor, never shown."""

    def __init__(self, status: TrialStatus, reason: str) -> None:
        super().__init__(reason)
        self.status: TrialStatus = status
        self.reason = reason


class ProcessSupervisor:
    """Owns every process of a trial. Leaving it kills and reaps them all."""

    def __init__(
        self, record: Record, *, memory_limit_mb: int | None, disk_limit_mb: int, cancel: threading.Event | None
    ) -> None:
        self.record = record
        self.disk_limit_mb = disk_limit_mb
        self._next_disk = 0.0
        self.memory_limit_mb = memory_limit_mb or int(MEMORY_SHARE * psutil.virtual_memory().total / 2**20)
        self._cancel = cancel
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._events: list[tuple[Child, Message]] = []
        self._next_memory = self._next_said = 0.0

    def __enter__(self) -> ProcessSupervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in list(self._children):
            with contextlib.suppress(TrialError):
                self.end(child)
        self._selector.close()

    def start(self, launch: Launch) -> Child:
        """Start a process and listen to it."""
        child = Child(launch)
        self._children.append(child)
        self._selector.register(child.events_fd, selectors.EVENT_READ, lambda: self._hear(child))
        self._selector.register(child.log_fd, selectors.EVENT_READ, lambda: self._copy_log(child))
        self.record.event(Spawned(child.role, (child.pid,)))
        return child

    def end(self, child: Child) -> list[Message]:
        """Kill a process with all below it, and read what it had still to say."""
        self._children.remove(child)
        try:
            child.kill()
            for fd, drain in ((child.events_fd, self._hear), (child.log_fd, self._copy_log)):
                while fd in self._selector.get_map() and drain(child):
                    pass
        finally:
            for fd in (child.events_fd, child.log_fd):
                if fd in self._selector.get_map():
                    self._selector.unregister(fd)
            child.close()
        mine = [event for owner, event in self._events if owner is child]
        self._events = [(owner, event) for owner, event in self._events if owner is not child]
        return mine

    def step(self, deadline: float) -> list[tuple[Child, Message]]:
        """Wait a moment, at most until `deadline` (monotonic seconds), and return the events that arrived.

        Raises `TrialCancelled`, or `TrialEnded` when a child takes more memory, processes or disk than it may.
        """
        timeout = min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))
        for key, _ in self._selector.select(timeout):
            key.data()
        if self._cancel is not None and self._cancel.is_set():
            raise TrialCancelled("the trial was cancelled.")
        if time.monotonic() >= self._next_memory:
            self._check_memory()
            self._next_memory = time.monotonic() + MEMORY_SECONDS
        if time.monotonic() >= self._next_disk:
            self._check_disk()
            self._next_disk = time.monotonic() + DISK_SECONDS
        events, self._events = self._events, []
        return events

    def listen(self, fileobj: Any, events: int, callback: Callable[[], object]) -> None:
        """Call `callback` from `step` when a socket is ready."""
        self._selector.register(fileobj, events, callback)

    def ignore(self, fileobj: Any) -> None:
        """Undo `listen`."""
        self._selector.unregister(fileobj)

    def _check_memory(self) -> None:
        for child in self._children:
            used = child.measure_rss_mb()
            if child.role == "train" and time.monotonic() >= self._next_said:
                self.record.event(MemoryUsed(round(used)))
                self._next_said = time.monotonic() + SAY_MEMORY_SECONDS
            if child.role != "feed" and used > self.memory_limit_mb:
                raise TrialEnded(
                    "crash",
                    f"out of memory: the {child.role} process took {used:.0f} MiB of host memory; "
                    f"the limit is {self.memory_limit_mb} MiB",
                )
            if child.processes > PROCESS_LIMIT:
                words = f"the {child.role} process started {child.processes} others; the limit is {PROCESS_LIMIT}"
                raise TrialEnded("crash", words)

    def _check_disk(self) -> None:
        for child in self._children:
            files, size_mb = written(child.work, FILES_LIMIT)
            if files > FILES_LIMIT or size_mb > self.disk_limit_mb:
                raise TrialEnded(
                    "crash",
                    f"the {child.role} process filled the disk: {files} files, {size_mb:.0f} MiB; "
                    f"the limits are {FILES_LIMIT} and {self.disk_limit_mb} MiB",
                )

    def _hear(self, child: Child) -> bool:
        data = self._read(child, child.events_fd)
        self._events += [(child, event) for event in child.parse(data)]
        return bool(data)

    def _copy_log(self, child: Child) -> bool:
        data = self._read(child, child.log_fd)
        if data:
            self.record.log(data)
        return bool(data)

    def _read(self, child: Child, fd: int) -> bytes:
        data = child.read(fd)
        if data == b"":
            self._selector.unregister(fd)
        return data or b""


def written(folder: Path, limit: int) -> tuple[int, float]:
    """Files below a folder and their size on disk in MiB; counting stops above `limit` files. Follows no link."""
    files, size = 0, 0
    waiting = [str(folder)]
    while waiting and files <= limit:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if files > limit:
                        break
        except OSError:
            continue  # it was removed meanwhile, or the child has locked its own folder
    return files, size / 2**20
