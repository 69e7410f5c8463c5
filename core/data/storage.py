"""Writing files so that a reader sees either the whole file or none, and knowing later that it has not changed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from autoresearch.core.errors import DataError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write the parts to `path` through a temporary file, flushed to the disk. Returns the SHA-256.

    Raises `OSError` as it comes (see `as_data_error`); the temporary file is removed then.
    """
    temporary = path.with_name(path.name + ".partial")
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


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # Some file systems cannot; the files themselves are flushed all the same.
        pass
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def as_data_error(error: OSError, folder: Path) -> DataError:
    """The same news for a person; a full disk is named as such."""
    if error.errno in FULL:
        return DataError(
            f"the disk is full: could not write under {folder} ({error.strerror}).",
            fix="free some space, or set AR_DATA_DIR to a folder on a larger disk, and run prepare again",
        )
    where = error.filename or folder
    return DataError(f"cannot use {where}: {error.strerror or error}.", fix="check the path and its permissions")
