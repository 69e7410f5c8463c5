"""The entry point of the program `ar`, which ends cleanly at Ctrl-C from its first moment."""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_INTERRUPTED = 130


def main() -> None:
    """Import the command line and run it. Ctrl-C before it can answer for itself ends the program in one line."""
    # An exception from a handler would end in a traceback, and some libraries swallow one while they are imported.
    # A program that was started with Ctrl-C ignored goes on ignoring it.
    may_stop = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if may_stop:
        signal.signal(signal.SIGINT, _stop)
    from autoresearch.core.cli.main import main as command_line

    try:
        if may_stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line()
    except KeyboardInterrupt:
        _stop(signal.SIGINT, None)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End at once: nothing has been started that would have to be put away."""
    os.write(2, b"\nar: stopped\n")
    os._exit(EXIT_INTERRUPTED)
