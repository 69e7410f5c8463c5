"""Reading a file that a person or a program has named: a plain file of a sensible size, and nothing else.

A device has no end, a pipe makes the reader wait, and a sparse file of gigabytes takes no room on the disk until it is
read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 4 * 2**20
"""Bytes that a train file or a program.md may have: a hundred times what an honest one has."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotPlainError(OSError):
    """The path names no plain file, or one that is too large. `str(error)` says which."""


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """Read a file as UTF-8 and return its text. Raises `OSError`, or `UnicodeDecodeError`.

    A byte order mark at the beginning, which some editors on Windows write, is left away: Python reads such a file too.
    A link is followed. What is no plain file is not opened, and nothing of a file beyond the limit is read.
    """
    with open_plain(path, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:  # it grows, or a file system that makes its files up does not know their sizes
        raise NotPlainError(f"it has more than {most_bytes:,} bytes, and no more are read")
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def open_plain(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """Open a plain file for reading bytes; `most_bytes` limits its size. Raises `OSError`. A link is followed."""
    _check(os.stat(path), most_bytes)  # noqa: PTH116
    # It may be another file by now; opening a pipe must not wait for its writer.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _check(os.fstat(file.fileno()), most_bytes)
    except BaseException:
        file.close()
        raise
    return file


def _check(status: os.stat_result, most_bytes: int | None) -> None:
    kind = next((name for test, name in _KINDS if test(status.st_mode)), None)
    if kind is not None:
        raise NotPlainError(f"it is {kind}, not a file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise NotPlainError(f"it has {status.st_size:,} bytes, and at most {most_bytes:,} are read")
