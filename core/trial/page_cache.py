"""The system's page cache: what a process has read lies there, and the time of a read tells whether it does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path


def evict(paths: Iterable[Path]) -> int:
    """Drop the pages of files, and of all files in folders, from the page cache; return how many files it asked for.

    What is written but not yet on the disk is written first. Pages that a living process has mapped stay, so call it
    when the process is gone that must leave no trace in them. A file that is missing, unreadable, or no plain file is
    passed over, as is a system without `posix_fadvise` (macOS). A link is not followed.
    """
    if not hasattr(os, "posix_fadvise"):
        return 0
    return sum(_evict(file) for path in paths for file in ([path] if not path.is_dir() else sorted(path.rglob("*"))))


def _evict(file: Path) -> bool:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not make it wait
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
