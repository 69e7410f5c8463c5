"""The weights file of a train child: taken out of its reach, checked, and copied for the children that score it.

The child is not trusted: the file may be anything, a link or a pipe among others, and may change while it is read.

Large weights do not touch a disk, where gigabytes take longer than a trial allows. The child writes them into a file in
memory and seals it before it announces them: a seal holds for every process, so no hash is needed to know that they
stay what they were. The parent hashes them meanwhile, for the record.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from autoresearch.core.files import remove_folder
from autoresearch.core.trial.host_memory import host_memory
from autoresearch.core.trial.memory_file import MemoryFile

WEIGHTS = "weights.safetensors"
"""Name of the weights in a child's work folder and in the trial's."""

HEADER_LIMIT_BYTES = 4 * 2**20
"""Longest header of a weights file: 40,000 tensors. The format allows 100 MiB, which take gigabytes to read."""

Shapes = Mapping[str, Sequence[int]]


class WeightsFault(ValueError):  # noqa: N818
    """A weights file that cannot be used, with the reason in words."""


def drop_weights(path: Path) -> None:
    """Remove whatever lies at this path, even if a child has put a folder in the place of its weights."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def take_weights(work_fd: int, name: str, destination: Path) -> None:
    """Move the child's file out of its reach. Raises `WeightsFault` when there is none.

    `work_fd` is a descriptor of the work folder, opened before the child ran, so that no link on the way is followed.
    """
    try:
        # Renamed, not copied: whatever the name was, file, link or pipe, it is nothing that the child's folder still
        # reaches. `check_weights` looks at what it is.
        os.rename(name, destination, src_dir_fd=work_fd)
    except OSError as error:
        raise WeightsFault(f"the weights were announced but are not there ({error.strerror})") from error


def copy_weights(path: Path, destination: Path, *, sha256: str) -> None:
    """Copy frozen weights into a child's work folder. Raises `WeightsFault` when they are not what was frozen."""
    digest = hashlib.sha256()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file, destination.open("xb") as copy:
            while block := file.read(1 << 20):
                digest.update(block)
                copy.write(block)
    except OSError as error:
        raise WeightsFault(f"the frozen weights cannot be read again ({error.strerror})") from error
    if digest.hexdigest() != sha256:
        raise WeightsFault("the weights file changed after it was frozen")


def check_weights(path: Path, *, sha256: str, limit_bytes: int) -> Shapes:
    """Check a weights file, and return its tensors' shapes by name.

    It must be a regular file of at most `limit_bytes`, well-formed safetensors, and have the announced SHA-256. Raises
    `WeightsFault` with what is wrong.
    """
    # No link is followed, and opening a pipe does not wait for somebody to write into it.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise WeightsFault(f"the weights are not a regular file ({error.strerror})") from error
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):  # asked before it becomes a file object, which a folder cannot
        os.close(fd)
        raise WeightsFault("the weights are not a regular file")
    with os.fdopen(fd, "rb") as file:
        header, shapes = _check_header(file, facts.st_size, limit_bytes)
        digest = hashlib.sha256(header)
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise WeightsFault("the weights file changed after it was announced")
    return shapes


def check_memory(file: MemoryFile, *, limit_bytes: int) -> Shapes:
    """Check weights in a sealed file in memory, and return its tensors' shapes by name. Raises `WeightsFault`."""
    with os.fdopen(os.dup(file.fd), "rb") as opened:
        opened.seek(0)
        return _check_header(opened, file.size, limit_bytes)[1]


def _check_header(file: BinaryIO, size: int, limit_bytes: int) -> tuple[bytes, Shapes]:
    """Read the header of a weights file of `size` bytes; return it and the shapes. Raises `WeightsFault`."""
    if size > limit_bytes:
        raise WeightsFault(f"the weights take {size} bytes; the limit is {limit_bytes}")
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise WeightsFault("the weights file is truncated: it ends within its header")
    if length > HEADER_LIMIT_BYTES:
        raise WeightsFault(f"the weights file has a header of {length} bytes; {HEADER_LIMIT_BYTES} are allowed")
    header = start + file.read(length)
    return header, _read_header(header, size)


TABLE_RATIO = 16
"""Rows to columns, or columns to rows, beyond which a matrix longer than the vocabulary is taken for a table."""


def flops_per_token(shapes: Shapes, vocab_size: int) -> float | None:
    """Return the FLOP of forward and backward for one training token: 6 times the weights in matrices.

    The 6 are 2 for the forward and 4 for the backward pass (Kaplan et al. 2020, section 2.1). Among the matrices with
    the vocabulary on one side, only the largest counts, as the head: the others, and those with it on both sides, are
    tables to look up in. So is a matrix that is longer than the vocabulary and much longer than wide, like a table of
    hashed pairs. What attention does between tokens is left out, and any other weight that is not used on every token
    is counted as if it were. None where there is no matrix.
    """
    matrices = [
        shape
        for shape in shapes.values()
        if len(shape) > 2 or (len(shape) == 2 and not vocab_size < max(shape) > TABLE_RATIO * min(shape))
    ]
    heads = [math.prod(shape) for shape in matrices if list(shape).count(vocab_size) == 1]
    weights = sum(math.prod(shape) for shape in matrices if vocab_size not in shape) + max(heads, default=0)
    return 6.0 * weights or None


def _read_header(header: bytes, size: int) -> Shapes:
    """Let the library that will load the file judge its header, and return the shapes by name.

    `header` is the beginning of a file of `size` bytes. The library checks that every tensor's type, shape and place
    agree, and that together they fill the file. Raises `WeightsFault`.
    """
    from safetensors import SafetensorError, safe_open

    # The library maps the file into memory. A process of the child's that is still alive could cut its own file
    # short, and reading the mapped file would then kill this process. So the library gets a copy of the bytes that
    # were read and hashed, followed by a hole in place of the tensors.
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as copy:
        copy.write(header)
        copy.truncate(size)
        copy.flush()
        try:
            with safe_open(copy.name, framework="numpy") as tensors:
                return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise WeightsFault(f"the weights are not a whole safetensors file: {error}") from error


# ---- large weights: in memory, where a disk would take too long

MEMORY_FROM_BYTES = 64 * 2**20
"""Weights from this size on are passed in memory where that is possible. Smaller ones are quick on any disk."""
MEMORY_COPIES = 3
"""Copies of the weights that may be in host memory at once: the frozen one, a child's, and that child's model."""


def memory_room() -> int:
    """Return how many bytes of weights may be passed in memory now; 0 where no file in memory can be sealed."""
    if not hasattr(os, "memfd_create"):
        return 0
    return host_memory().available // MEMORY_COPIES


class FrozenWeights(Protocol):
    """The weights of a train child that is gone, where nobody can change them."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole file. May wait until it is computed."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the file."""
        ...

    def give(self, work: Path, role: str) -> MemoryFile | None:
        """Give a child a copy of its own, all at once.

        Put it into the work folder, or return a file in memory that the caller hands over and closes. Raises
        `WeightsFault`.
        """
        ...

    def keep(self, path: Path) -> None:
        """Leave the weights at this path, for later readers. Raises `OSError`."""
        ...

    def close(self) -> None:
        """End what is being computed and give memory back."""
        ...


@dataclass(frozen=True)
class WeightsOnDisk:
    """Frozen weights in a file that no child can reach."""

    path: Path
    sha256: str

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    def give(self, work: Path, role: str) -> MemoryFile | None:
        """Copy the file beside the work folder, then rename it into place: the child sees nothing or the whole."""
        copy = work.with_name(f"{role}.weights")
        drop_weights(copy)
        copy_weights(self.path, copy, sha256=self.sha256)
        try:
            copy.replace(work / WEIGHTS)
        except OSError as error:
            raise WeightsFault(f"the weights cannot be given to the {role} process") from error
        return None

    def keep(self, path: Path) -> None:
        """Copy the file, unless it lies there already."""
        if path != self.path:
            copy_weights(self.path, path, sha256=self.sha256)

    def close(self) -> None:
        """Leave the file where it is."""


class WeightsInMemory:
    """Frozen weights in a sealed file in memory, hashed while the next child is getting ready."""

    def __init__(self, file: MemoryFile) -> None:
        self._file, self.size = file, file.size
        self._digest, self._stop = hashlib.sha256(), threading.Event()
        self._hashing = threading.Thread(target=self._hash, daemon=True)
        self._hashing.start()

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole file, once it is computed."""
        self._hashing.join()
        return self._digest.hexdigest()

    def _hash(self) -> None:
        done = 0
        while not self._stop.is_set() and (block := os.pread(self._file.fd, 1 << 20, done)):
            self._digest.update(block)
            done += len(block)

    def give(self, work: Path, role: str) -> MemoryFile | None:
        """Return a copy in memory."""
        try:
            return self._file.copied()
        except OSError as error:
            raise WeightsFault(f"the weights cannot be given to the {role} process ({error.strerror})") from error

    def keep(self, path: Path) -> None:
        """Write the file to disk, readable for all and writable for nobody."""
        drop_weights(path)
        with path.open("xb") as copy:
            self._file.write_to(copy.fileno())
        path.chmod(0o444)

    def close(self) -> None:
        """Stop hashing and give the memory back."""
        self._stop.set()
        self._hashing.join()
        self._file.close()
