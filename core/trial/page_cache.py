"""Clearing the system's page cache, where files that a process has read leave a trace: reading them again is faster."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path


def evict(paths: Iterable[Path]) -> int:
    """Drop the pages of files, and of all files in folders, from the page cache; return how many files it asked for.

    Changed pages are written to disk first. Pages that a living process has mapped stay, so call this after the process
    that must leave no trace has ended. Missing files, unreadable ones and anything but plain files are skipped, links
    included. Does nothing on a system without `posix_fadvise` (macOS).
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
