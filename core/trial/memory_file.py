"""Files in memory (Linux): without a name, and sealed once their content is final.

A child writes its weights into one that its parent has made, and another child reads a copy. Imports little, because
children use it too.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

BLOCK_BYTES = 64 * 2**20
"""Bytes that are copied at a time."""
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
"""Commands of fcntl (kernel: include/uapi/linux/fcntl.h), which Python does not name on every system."""
SEALS = 0x1 | 0x2 | 0x4 | 0x8
"""F_SEAL_SEAL, SHRINK, GROW and WRITE: nobody can change a file with these, and they cannot be taken back."""


class MemoryFile:
    """A file in memory, which has no name: who holds its descriptor can read it, and write until it is sealed."""

    def __init__(self, fd: int | None = None) -> None:
        """Make an empty file, or take over the descriptor of one. Raises `OSError`."""
        self.fd = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) if fd is None else fd

    def __enter__(self) -> MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self.fd).st_size

    @property
    def sealed(self) -> bool:
        """True once nobody can change it any more."""
        return fcntl.fcntl(self.fd, F_GET_SEALS) & SEALS == SEALS

    def close(self) -> None:
        """Give the memory back, once the children that hold the file are gone too."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def shared(self) -> MemoryFile:
        """Return the same file under another descriptor, which stays open when this one is closed."""
        return MemoryFile(os.dup(self.fd))

    def identity(self) -> tuple[int, int]:
        """Return device and inode, by which the file is known whatever its descriptor."""
        facts = os.fstat(self.fd)
        return facts.st_dev, facts.st_ino

    def write_to(self, fd: int) -> None:
        """Write all of it to another file. Raises `OSError`."""
        size, done = self.size, 0
        while done < size:
            done += os.sendfile(fd, self.fd, done, min(BLOCK_BYTES, size - done))

    def copied(self) -> MemoryFile:
        """Return a sealed copy. It has nothing in common with this file, so that no trace of a reader stays here."""
        copy = MemoryFile()
        try:
            self.write_to(copy.fd)
            seal(copy.fd)
        except BaseException:
            copy.close()
            raise
        return copy


def seal(fd: int) -> None:
    """Make a file in memory unchangeable for good. Raises `OSError` while a process has it mapped for writing."""
    fcntl.fcntl(fd, F_ADD_SEALS, SEALS)


def link_to(path: Path, fd: int) -> None:
    """Let the weights' path lead to a descriptor of this process, for a framework that reads and writes by path."""
    path.unlink(missing_ok=True)
    path.symlink_to(f"/proc/self/fd/{fd}")
