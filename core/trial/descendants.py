"""Which processes live below another one, cheaply enough to be asked several times a second.

psutil reads the parent of every process of the machine for this: 10 ms where 130 processes run, and a desktop has 500.
On Linux the kernel tells the number that it gave away last, to a process or a thread. While that is the same, nobody
can have come, and what was read last time still holds.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

import psutil

RECENT_SECONDS = 2.0
"""Seconds within which a number is not given away twice: the kernel goes through all 32,768 first."""
PARENT, STARTED = 1, 19
"""Places in /proc/N/stat, counted from behind the name: that of the parent and of the moment of the start (proc(5))."""


@dataclass
class _Known:
    """All processes at one moment."""

    latest: str = ""
    """The number that was given away last when they were read."""
    read: float = -math.inf
    """Moment of that, in monotonic seconds."""
    parents: dict[int, int] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=dict)
    started: dict[int, bytes] = field(default_factory=dict)
    """Moment of each one's start: a number that was given away again is told by it."""
    objects: dict[int, psutil.Process] = field(default_factory=dict)


_known = _Known()
_lock = threading.Lock()  # trials on several devices share what is known


def descendants(pid: int) -> list[psutil.Process]:
    """Return all processes below `pid`, without itself, at this moment. Some may have ended since they were read."""
    if not sys.platform.startswith("linux"):
        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).children(recursive=True)
        return []
    with _lock:
        # Read before the processes: one that comes meanwhile has another number, and everything is read again.
        latest = _latest()
        if latest is None or latest != _known.latest:
            _read()
            _known.latest = latest or ""
        return _below(pid)


def _latest() -> str | None:
    try:
        with open("/proc/loadavg", encoding="ascii") as file:  # noqa: PTH123  (pathlib is slower)
            return file.read().split()[4]
    except (OSError, IndexError):
        return None


def _read() -> None:
    """Read who is new, and whose parent has ended: those have another one now. Everybody, if the last was long ago."""
    now = time.monotonic()
    running = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208  (names alone)
    recent = now - _known.read < RECENT_SECONDS
    parents, started = {}, {}
    for pid in running:
        parent = _known.parents.get(pid) if recent else None
        if parent is not None and (parent in running or parent == 0):
            parents[pid], started[pid] = parent, _known.started[pid]
            continue
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  (pathlib is slower)
                # The name stands in parentheses and may hold any character, so the last one counts.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # it has ended
            continue
        parents[pid], started[pid] = int(fields[PARENT]), fields[STARTED]
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    kept = {pid: one for pid, one in _known.objects.items() if started.get(pid) == _known.started.get(pid)}
    _known.read, _known.parents, _known.children = now, parents, children
    _known.started, _known.objects = started, kept


def _below(pid: int) -> list[psutil.Process]:
    found, waiting = [], [pid]
    while waiting:
        for child in _known.children.get(waiting.pop(), ()):
            waiting.append(child)
            with contextlib.suppress(psutil.Error):
                if child not in _known.objects:
                    _known.objects[child] = psutil.Process(child)
                found.append(_known.objects[child])
    return found
