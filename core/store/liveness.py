"""Is the process that writes a run still alive? One rule for every view of a run.

A loop that ends in good order says so in the ledger. A loop that is killed (SIGKILL, out of memory, a power cut)
cannot, so its run says "running" for ever. `ar status`, `ar watch`, the dashboard and the report ask `shown_state`.
"""

from __future__ import annotations

import socket
import time

from autoresearch.core.store.rows import RunRow

STALE_SECONDS = 60.0
"""Age of a heartbeat, in seconds, after which a writer on another machine counts as dead. It beats every 10 s."""
CLOCK_SLACK_SECONDS = 5.0
"""Seconds by which a process may seem younger than its own heartbeat: the two come from different clocks."""


def shown_state(run: RunRow, now: float | None = None) -> str:
    """Give the run's state as people should see it: "died" where the ledger says "running" and nobody writes it."""
    return "died" if run.state == "running" and not is_alive(run, now) else run.state


def is_alive(run: RunRow, now: float | None = None) -> bool:
    """Tell whether the run's writer lives: by its process on this machine, by its heartbeat on another.

    `now` is in seconds since the epoch, the present by default.
    """
    if run.heartbeat is None:
        return False
    if run.pid is not None and run.host == socket.gethostname():
        return _is_writer(run.pid, run.heartbeat)
    return (time.time() if now is None else now) - run.heartbeat < STALE_SECONDS


def _is_writer(pid: int, heartbeat: float) -> bool:
    """Tell whether this process is there and is the one that wrote the heartbeat."""
    import psutil

    try:
        process = psutil.Process(pid)
        # A killed child stays in the process table as a zombie until its parent asks for its exit code.
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # Numbers are used again: a process that began after the last heartbeat did not write it.
        return process.create_time() <= heartbeat + CLOCK_SLACK_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # another user's process, of which only its existence may be known
