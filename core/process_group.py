"""Ending a program together with everything that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that was started with `start_new_session=True`, with all that it started there, and reap it.

    Only what has left that session survives. A trial's processes are ended by their guard instead, which finds those
    too (see `core.trial.sandbox.guard`).
    """
    # The group may outlive its leader, so this is tried even when the process itself has ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
