"""Files that a reader sees whole or not at all, knowing later that a file has not changed, and removing folders."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
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


def remove_folder(folder: Path) -> None:
    """Remove a folder that somebody else has filled, however deep and whatever the modes in it; follow no link.

    `shutil.rmtree` calls itself for every level, and a path has a largest length. Here each folder is moved up to the
    top before it is emptied. What cannot be removed stays; no error is raised.
    """
    numbers = itertools.count()
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            folder.unlink()
            return
        _open_up(folder)
        waiting = [folder / name for name in os.listdir(folder)]  # noqa: PTH208  (names alone)
        while waiting:
            path = waiting.pop()
            with contextlib.suppress(OSError):
                if not stat.S_ISDIR(path.lstat().st_mode):
                    path.unlink()
                    continue
                _open_up(path)
                for name in os.listdir(path):  # noqa: PTH208
                    if stat.S_ISDIR((path / name).lstat().st_mode):
                        _open_up(path / name)  # moving a folder changes its "..", which its mode may forbid
                        raised = folder / f".removed-{next(numbers)}"
                        (path / name).rename(raised)
                        waiting.append(raised)
                    else:
                        (path / name).unlink()
                path.rmdir()
        folder.rmdir()
    except OSError:
        pass


def _open_up(folder: Path) -> None:
    """Let the owner list and change a folder."""
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
