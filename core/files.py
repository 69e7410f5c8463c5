"""Files that a reader sees whole or not at all, and knowing later that a file has not changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".partial"
"""Suffix of a file that is being written."""


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Replace a file in one step, and return the SHA-256 of its new content.

    The parts are written to a file beside it and flushed to the disk before they take the old content's place, so that
    neither a reader nor a power cut meets half of them. Raises `OSError`; the old content then stays. One process at a
    time may write a path.
    """
    temporary = path.with_name(path.name + PARTIAL)
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for part in parts:
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step, as UTF-8 with its line ends as they are. Raises `OSError`."""
    write_file(path, [text.encode("utf-8")])


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems cannot; the files themselves are flushed all the same
        pass
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
