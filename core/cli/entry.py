"""The entry point of the program `ar`, which ends cleanly at Ctrl-C from its first moment."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType

EXIT_INTERRUPTED = 130


def main() -> None:
    """Import the command line and run it. Ctrl-C before it can answer for itself ends the program in one line."""
    # An exception from a handler would end in a traceback, and some libraries swallow one while they are imported.
    # A program that was started with Ctrl-C ignored goes on ignoring it.
    may_stop = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if may_stop:
        signal.signal(signal.SIGINT, _stop)
    _open_streams()
    from autoresearch.core.cli.main import main as command_line

    try:
        if may_stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line()
    except KeyboardInterrupt:
        _stop(signal.SIGINT, None)


def _open_streams() -> None:
    """Give the program the three streams that it counts on, whoever started it.

    One that was closed leads nowhere: Python has none for it, and the next file would get its number. What the person's
    encoding does not have is replaced on standard output, as Python itself does on standard error; a name of a file
    that is no text keeps its bytes.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            opened = open(os.devnull, mode)  # noqa: SIM115, PTH123 - lives until the process ends
            os.set_inheritable(opened.fileno(), True)
            setattr(sys, name, opened)
    out = sys.stdout
    # In the locale C Python asks for "surrogateescape" itself, which has no mark for what ASCII lacks.
    if isinstance(out, io.TextIOWrapper) and out.errors in ("strict", "surrogateescape"):
        out.reconfigure(errors="surrogateescape" if out.encoding.lower() == "utf-8" else "replace")


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End at once: nothing has been started that would have to be put away."""
    os.write(2, b"\nar: stopped\n")
    os._exit(EXIT_INTERRUPTED)
