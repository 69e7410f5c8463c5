"""Record a command in a terminal as an asciinema file, from a real run.

    python -m benchmarks._record docs/demo.cast -- make demo

The command runs in a pseudo-terminal. Pauses are shortened to MOST_PAUSE_SECONDS in the file; the header's `title` says
how long it really took. `asciinema play docs/demo.cast` shows it, and `--text docs/demo.cast` prints what stood on the
screen at the end.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

COLUMNS, LINES = 100, 30
"""Size of the terminal, in characters."""
MOST_PAUSE_SECONDS = 1.0
"""Longest pause between two pieces of output, in the file."""
LEAST_STEP_SECONDS = 1.0
"""Seconds of output that are put into one piece: a live view draws four times a second."""
_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def record(path: Path, command: list[str]) -> int:
    """Run the command, write what its terminal showed, and return its exit code."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    begun = time.monotonic()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    process = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, env=environment, close_fds=True)
    os.close(far)
    pieces: list[tuple[float, bytes]] = []
    while data := _read(near):
        at = time.monotonic() - begun
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        if pieces and at - pieces[-1][0] < LEAST_STEP_SECONDS:
            pieces[-1] = pieces[-1][0], pieces[-1][1] + data
        else:
            pieces.append((at, data))
    code = process.wait()
    took = time.monotonic() - begun
    title = f"{' '.join(command)}: {took // 60:.0f} min {took % 60:.0f} s, pauses shortened"
    header = {"version": 2, "width": COLUMNS, "height": LINES, "timestamp": int(time.time()), "title": title}
    lines, shown, last = [json.dumps(header)], 0.0, 0.0
    for at, data in pieces:
        shown, last = shown + min(at - last, MOST_PAUSE_SECONDS), at
        lines.append(json.dumps([round(shown, 2), "o", data.decode("utf-8", "replace")], ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return code


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the last writer is gone
        return b""


def text_of(path: Path) -> str:
    """Return the lines that a recording left on the screen, without colours and without what was drawn over."""
    pieces = [json.loads(line)[2] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    lines: list[str] = [""]
    row = 0
    for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+|\x1b", "".join(pieces)):
        if token == "\n":
            row += 1
            lines += [""] * (row - len(lines) + 1)
        elif token.endswith("A") and _CODES.fullmatch(token):
            row = max(0, row - int(token[2:-1] or 1))
        elif token == "\x1b[2K" or token == "\x1b[K":
            lines[row] = ""
        elif not token.startswith(("\x1b", "\r")):
            lines[row] += token
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def main() -> None:
    """Record, or print a recording's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._record", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("command", nargs="*", metavar="-- COMMAND")
    parser.add_argument("--text", action="store_true", help="print what a recording left on the screen")
    chosen = parser.parse_args()
    if chosen.text:
        sys.stdout.write(text_of(chosen.path))
        return
    if not chosen.command:
        parser.error("name a command after --")
    sys.exit(record(chosen.path, chosen.command))


if __name__ == "__main__":
    main()
