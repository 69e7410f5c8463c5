"""The weights file of a train child: taken out of its reach, checked, and copied for the children that score it.

The child is not trusted: the file may be anything, a link or a pipe among others, and may change while it is read.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoresearch.core.files import remove_folder

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
        if facts.st_size > limit_bytes:
            raise WeightsFault(f"the weights take {facts.st_size} bytes; the limit is {limit_bytes}")
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > facts.st_size - 8:
            raise WeightsFault("the weights file is truncated: it ends within its header")
        if length > HEADER_LIMIT_BYTES:
            raise WeightsFault(f"the weights file has a header of {length} bytes; {HEADER_LIMIT_BYTES} are allowed")
        header = start + file.read(length)
        shapes = _read_header(header, facts.st_size)
        digest = hashlib.sha256(header)
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise WeightsFault("the weights file changed after it was announced")
    return shapes


def flops_per_token(shapes: Shapes, vocab_size: int) -> float | None:
    """Return the FLOP of forward and backward for one training token: 6 times the weights in matrices.

    The 6 are 2 for the forward and 4 for the backward pass (Kaplan et al. 2020, section 2.1). Among the matrices with
    the vocabulary on one side, only the largest counts, as the head: the others, and those with it on both sides, are
    tables to look up in. What attention does between tokens is left out, and a weight that is not used on every token
    is counted as if it were. None where there is no matrix.
    """
    matrices = [shape for shape in shapes.values() if len(shape) >= 2]
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
            raise WeightsFault(f"the weights are no whole safetensors file: {error}") from error
