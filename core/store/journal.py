"""The ledger's append-only journal: every transition as one line, on disk before the ledger has it.

A line is `CRC JSON`: the CRC-32 of the rest in 8 hex digits, and {"n": 17, "writes": [[sql, [values ...]], ...]}, where
a blob is {"blob": base64}. A ledger that is damaged, truncated or missing is made again from the lines up to the last
whole one.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.core.files import write_file

JOURNAL_NAME = "journal.jsonl"

TAIL_BYTES = 65536
"""Bytes that are first read from the end to find the last line."""

Write = tuple[str, Sequence[Any]]
"""An SQL statement and its values."""


class Journal:
    """Appends lines. `last` is the number of the last whole line, 0 when there is none."""

    def __init__(self, path: Path) -> None:
        """Open the file, and cut off a line that a crash left half written. Raises `OSError`."""
        self.path = path
        found = last_line(path)
        self.last, end = (found.number, found.end) if found is not None else (0, 0)
        # Unbuffered: bytes that a full disk did not take must not be written by a later flush.
        self._file = path.open("ab", buffering=0)
        # Behind the last whole line there may be a part of one. Appending to it would make both unreadable.
        if self._size() != end:
            self._file.truncate(end)
        self._before = end
        self._broken = False

    def append(self, number: int, writes: Sequence[Write]) -> None:
        """Append one line, on disk when this returns. Raises `OSError`; then nothing of the line stays."""
        if self._broken:
            raise OSError(errno.EIO, f"a line of {self.path.name} could be neither finished nor taken back")
        self._before = self._size()
        previous = self.last
        try:
            left = memoryview(_line(number, writes))
            while left:
                left = left[self._file.write(left) :]
            # Only when the line is on the disk may the ledger commit the same step.
            os.fsync(self._file.fileno())
        except OSError:
            self.last = number
            # The line may be on disk in part, or whole; `drop` cuts back to where it began either way.
            self.drop(previous)
            raise
        self.last = number

    def drop(self, last: int) -> None:
        """Remove the last line, which the ledger did not commit. `last` is the number of the line before it.

        Raises `OSError`, for instance where the disk is gone. Nothing is appended behind such a line any more; the next
        start cuts it off.
        """
        self._broken = True
        os.ftruncate(self._file.fileno(), self._before)
        os.fsync(self._file.fileno())
        self._broken = False
        self.last = last

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size


def read_lines(path: Path) -> Iterator[tuple[int, list[Write], int]]:
    """Yield (number, writes, offset of the line's end) of every whole line, in order, up to the first broken one."""
    expected = 0
    for parsed in _lines(path):
        if parsed is None or (expected and parsed[0] != expected):
            return
        expected = parsed[0] + 1
        yield parsed


def whole_lines(path: Path) -> Iterator[tuple[int, list[Write], int]]:
    """Like `read_lines`, but go on after a line that is damaged: the numbers show what is missing."""
    last = 0
    for parsed in _lines(path):
        if parsed is not None and parsed[0] > last:
            last = parsed[0]
            yield parsed


def _lines(path: Path) -> Iterator[tuple[int, list[Write], int] | None]:
    """Yield every line of the file, None for one that is not whole."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            offset += len(line)
            parsed = _parse(line)
            yield None if parsed is None else (*parsed, offset)


@dataclass(frozen=True)
class Line:
    """Number of a line, and its begin and end in the file in bytes."""

    number: int
    start: int
    end: int


def last_line(path: Path) -> Line | None:
    """Find the last whole line from the file's end; None when there is none, or no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail, start = b"", size
        # The last byte is the line's own end, so a newline before it is where the line begins. A line with a large blob
        # is longer than TAIL_BYTES: then twice as much is read each time.
        while start > 0 and b"\n" not in tail[:-1]:
            start = max(0, start - max(TAIL_BYTES, len(tail)))
            file.seek(start)
            tail = file.read(size - start)
    start += tail.rfind(b"\n", 0, -1) + 1
    parsed = _parse(tail[tail.rfind(b"\n", 0, -1) + 1 :])
    if parsed is not None:
        return Line(parsed[0], start, size)
    found, begin = None, 0  # a crash or a damaged disk: from the beginning, up to the first line that is not whole
    for number, _, end in read_lines(path):
        found, begin = Line(number, begin, end), end
    return found


def write_snapshot(path: Path, number: int, writes: Sequence[Write]) -> None:
    """Replace the journal by one line that holds everything, in one step. Raises `OSError`."""
    write_file(path, [_line(number, writes)])


def _line(number: int, writes: Sequence[Write]) -> bytes:
    coded = [[sql, [_code(value) for value in values]] for sql, values in writes]
    body = json.dumps({"n": number, "writes": coded}, separators=(",", ":")).encode()
    return f"{zlib.crc32(body):08x} ".encode() + body + b"\n"


def _parse(line: bytes) -> tuple[int, list[Write]] | None:
    head, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or head != f"{zlib.crc32(body):08x}".encode():
        return None
    try:
        content = json.loads(body)
        writes: list[Write] = [(str(sql), [_decode(one) for one in values]) for sql, values in content["writes"]]
        return int(content["n"]), writes
    except (KeyError, TypeError, ValueError, RecursionError):  # a checksum shows a fault, and anybody can make one
        return None


def _code(value: Any) -> Any:
    return {"blob": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    return base64.b64decode(value["blob"]) if isinstance(value, dict) else value
