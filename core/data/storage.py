"""Explain a file system's error to a person who prepares a corpus."""

from __future__ import annotations

import errno
from pathlib import Path

from autoresearch.core.errors import DataError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers of a full disk, a used-up quota and a file that is too large."""


def as_data_error(error: OSError, folder: Path) -> DataError:
    """Turn an error below `folder` into one that says what to do; a full disk is named as such."""
    if error.errno in FULL:
        return DataError(
            f"the disk is full: could not write under {folder} ({error.strerror}).",
            fix="free some space, or set AR_DATA_DIR to a folder on a larger disk, and run prepare again",
        )
    where = error.filename or folder
    fix = "check the path and its permissions"
    if isinstance(where, (str, Path)) and (folder.is_relative_to(where) or Path(where).is_relative_to(folder)):
        # Maybe a home that cannot be written, as in some containers: the corpora may lie elsewhere.
        fix += ", or name another folder for corpora: --data-dir FOLDER"
    return DataError(f"cannot use {where}: {error.strerror or error}.", fix=fix)
