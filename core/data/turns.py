"""Taking turns: two processes of `ar` that prepare at once must not write the same folder at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def turn(lock_file: Path, folder: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Return a context that one process at a time enters; say to `progress` that `folder` is being worked on elsewhere.

    Raises `OSError` where the file cannot be made.
    """
    lock = FileLock(lock_file)
    lock_file.touch()  # in a folder without files, such as /proc, acquiring would wait for ever
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"another prepare is at work on {folder}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
