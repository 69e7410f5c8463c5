"""Files that a reader sees whole or not at all, knowing later that a file has not changed, and removing folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from autoresearch.core.textfile import open_plain

PARTIAL = ".partial"
"""Suffix of a file that is being written."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags for opening a folder that may have become a link."""


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
    """Return the SHA-256 of a file's content. Raises `OSError`, also for what is no plain file: a pipe has no end."""
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_folder(folder: Path) -> None:
    """Remove a folder that somebody else has filled, however deep and whatever the modes in it; follow no link.

    `shutil.rmtree` calls itself for every level, and a path has a largest length. This goes down and up through open
    folders, one at a time. What cannot be removed stays, and no error is raised.
    """
    try:
        fd = _open_folder(str(folder))
    except OSError:
        with contextlib.suppress(OSError):
            folder.unlink()
        return
    try:
        levels = [(_identity(fd), _empty(fd))]
        while True:
            known, names = levels[-1]
            if names:
                try:
                    inner = _open_folder(names[-1], fd)
                except OSError:
                    names.pop()
                    continue
                os.close(fd)
                fd = inner
                levels.append((_identity(fd), _empty(fd)))
                continue
            levels.pop()
            if not levels:
                break
            outer = os.open("..", FOLDER, dir_fd=fd)
            os.close(fd)
            fd = outer
            known, names = levels[-1]
            if _identity(fd) != known:  # it was moved meanwhile: another folder's files are not ours
                break
            with contextlib.suppress(OSError):
                os.rmdir(names[-1], dir_fd=fd)
            names.pop()
    except OSError:
        pass
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _open_folder(name: str, above: int | None = None) -> int:
    """Open a folder that its owner may list and change from here on. Raises `OSError`."""
    try:
        fd = os.open(name, FOLDER, dir_fd=above)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=above)
        fd = os.open(name, FOLDER, dir_fd=above)
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o700)
    return fd


def _empty(fd: int) -> list[str]:
    """Remove all but the folders in an open folder, and return their names."""
    found = []
    for name in os.listdir(fd):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                found.append(name)
            else:
                os.unlink(name, dir_fd=fd)
    return found


def _identity(fd: int) -> tuple[int, int]:
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino
