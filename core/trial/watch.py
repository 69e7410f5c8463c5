"""Waits for a trial's processes: their events, output and memory, the clock, and the wish to stop."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from autoresearch.core.errors import TrialError
from autoresearch.core.trial.child import Child, Launch
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.result import TrialStatus

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


Event = tuple[Child, dict[str, Any]]


class Watch:
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
        self._events: list[Event] = []
        self._next_memory = self._next_said = 0.0

    def __enter__(self) -> Watch:
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
        self.record.event({"event": "spawned", "role": child.role, "pids": [child.pid]})
        return child

    def end(self, child: Child) -> list[dict[str, Any]]:
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

    def step(self, deadline: float) -> list[Event]:
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
                self.record.event({"event": "memory", "mb": round(used)})
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
