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
    asked, waiting = 0, [str(path) for path in paths]
    while waiting:  # a child may have nested its folders deeper than `rglob` can follow
        path = waiting.pop()
        try:
            with os.scandir(path) as entries:
                waiting += [entry.path for entry in entries if not entry.is_symlink()]
        except NotADirectoryError:
            asked += _evict(path)
        except OSError:
            continue  # it is gone, or its path is longer than a path can be
    return asked


def _evict(file: str) -> bool:
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
