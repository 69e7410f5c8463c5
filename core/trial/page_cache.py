"""The system's page cache, where files that a process has read leave a trace: reading them again is faster.

Files of one process alone are dropped from it when the process has ended (`evict`). Files that all processes share are
read into it as a whole before a process sees held-out text (`fill`): what is there already takes on no trace.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from autoresearch.core.trial.host_memory import host_memory

BLOCK = 1 << 20
"""Bytes that are read at a time."""
CACHESTAT = 451
"""The call that counts a file's pages in the cache: the same number on every machine, since Linux 6.5."""


FileId = tuple[int, int]
"""Device and inode of a file."""


class CacheFault(RuntimeError):  # noqa: N818
    """Files that cannot be read into the page cache as a whole, with the reason in words."""


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


def fill(pid: int, limit: float, done: set[FileId]) -> None:
    """Read every file that a process has mapped or open into the page cache, but not those in `done`; add them there.

    `limit` is a moment of `time.monotonic`. Raises `CacheFault` when the files are larger than memory can hold, when
    they are not read by then, or when the system shows none of them. Single files that this process may not read are
    left out, and so are those that have lost their name: the next process cannot read them either.
    """
    wanted: dict[FileId, tuple[str, int]] = {}
    found = 0
    for place in _places(pid):
        # One file is open at a time: the process may have as many open as this one is allowed to have.
        with _opened(place) as fd:
            if fd is None:
                continue
            about, found = os.fstat(fd), found + 1
            if (identity := (about.st_dev, about.st_ino)) not in done and identity not in wanted:
                wanted[identity] = place, _missing(fd, about.st_size)
    if not found:
        raise CacheFault("the system does not show the files that it has mapped")
    total, room = sum(missing for _, missing in wanted.values()), host_memory().available
    if total > room:
        raise CacheFault(f"{total >> 20} MB of its files are not in memory, which has room for {room >> 20} MB")
    for place, missing in wanted.values():
        if missing:
            with _opened(place) as fd:
                if fd is not None:
                    _read(fd, limit)
    done.update(wanted)


@contextlib.contextmanager
def _opened(place: str) -> Iterator[int | None]:
    """Open a plain file for reading; None for what is no plain file, is gone or may not be read."""
    try:
        # Opening a device could do something, so look first.
        plain = stat.S_ISREG(os.stat(place).st_mode)  # noqa: PTH116
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if plain else None
    except OSError as error:
        _complain_of_shortage(error)
        fd = None
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _complain_of_shortage(error: OSError) -> None:
    """Raise `CacheFault` when it is this process that lacks something: a file must not be left out for that."""
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        raise CacheFault(f"they cannot be opened: {os.strerror(error.errno)}") from error


def _read(fd: int, limit: float) -> None:
    block, at = bytearray(BLOCK), 0
    with contextlib.suppress(OSError):  # a page that cannot be read here cannot be read there
        while count := os.preadv(fd, [block], at):
            at += count
            if time.monotonic() > limit:
                raise CacheFault("its files are not read into memory in time")


def _places(pid: int) -> Iterator[str]:
    """Yield paths that lead to the files which a process has open or mapped, each at least once."""
    mapped: dict[bytes, str] = {}
    # Threads share their memory, but a thread may have open files of its own, and the first one may have ended.
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  (names alone)
        place = f"/proc/{pid}/task/{task}"
        try:
            numbers = os.listdir(f"{place}/fd")  # noqa: PTH208
            if not mapped:
                mapped = dict.fromkeys(_mapped(Path(place, "maps").read_bytes()), f"{place}/root")
        except OSError as error:  # a thread that ends meanwhile
            _complain_of_shortage(error)
            continue
        yield from (f"{place}/fd/{number}" for number in numbers)
    yield from (root + os.fsdecode(path) for path, root in mapped.items())


def _mapped(maps: bytes) -> Iterator[bytes]:
    """Yield the paths in /proc/N/maps, as the process sees them."""
    # One line a mapping: no other byte than \n ends a line, whatever a file is called. Its fields are address, rights,
    # offset, device, inode, and the path, which may hold blanks.
    for line in maps.split(b"\n"):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(b"/"):
            yield fields[5]


def _missing(fd: int, size: int) -> int:
    """Return how many bytes of a file are not in the cache; all of it where the system does not tell."""
    library, counts = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(40)
    everything = struct.pack("=QQ", 0, 0)
    if library.syscall(ctypes.c_long(CACHESTAT), fd, everything, counts, 0) != 0:
        return size
    return max(0, size - struct.unpack_from("=Q", counts)[0] * os.sysconf("SC_PAGE_SIZE"))
