"""The files of a prepared corpus checked before they are used, without the libraries that read a whole manifest.

Each trial starts a feeder, and half of its start would go into importing pydantic. Its parent has validated the
manifest already; here it is plain JSON.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

from autoresearch.core.errors import DataError, system_words
from autoresearch.core.files import sha256_of
from autoresearch.core.textfile import NotPlainError, read_text

MANIFEST = "manifest.json"
FIX = "run `ar prepare` again: it makes anew what has changed"
MOST_MANIFEST_BYTES = 64 * 2**20
"""Bytes that a manifest may have: a thousand times what that of a hundred gigabytes of text has."""
MOST_PATH_LETTERS = 1000


def read_manifest(folder: Path) -> str:
    """Return the text of a prepared folder's manifest. Raises `OSError` or `ValueError` where it is no text file."""
    check_no_link(folder, MANIFEST)
    return read_text(folder / MANIFEST, MOST_MANIFEST_BYTES)


def path_inside(path: str) -> str:
    """Return a file's path as a manifest names it, if it can only lie in the prepared folder. Raises `ValueError`."""
    parts = path.split("/")
    if not path.isprintable() or len(path) > MOST_PATH_LETTERS or {"", ".", ".."} & set(parts):
        raise ValueError(f"{path[:60]!r} names no file in the prepared folder")
    return path


def check_no_link(folder: Path, path: str) -> None:
    """Check that a file of the prepared folder lies in it: neither it nor a folder on the way there is a link.

    What a link leads to may change while nothing in the folder does, and may be any file of this machine, which a fleet
    would copy to its nodes. The prepared folder itself may be a link, to another disk. Raises `NotPlainError`.
    """
    at = folder
    for part in path.split("/"):
        at = at / part
        if at.is_symlink():
            raise NotPlainError(f"{at.relative_to(folder)} is a link, and only what lies in the folder itself is read")


def check_file(path: Path, size: int, mtime_ns: int, sha256: str, *, trust_time: bool) -> None:
    """Compare a file with its record: its size, and its SHA-256 unless `trust_time` and its time is the recorded one.

    Raises `DataError` when it has changed or cannot be read.
    """
    try:
        status = path.stat()
        if status.st_size == size and stat.S_ISREG(status.st_mode):
            if trust_time and status.st_mtime_ns == mtime_ns:
                return
            if sha256_of(path) == sha256:
                return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {system_words(error)}.", fix=FIX) from error
    raise DataError(f"{path} has changed since it was prepared.", fix=FIX)


def checked_shards(folder: Path, vocab: int) -> list[Path]:
    """Check every file of one vocabulary as `Prepared.quick_check` does; return its training shards, in order.

    Raises `DataError` when the vocabulary is not prepared, or a file has changed.
    """
    path = folder / MANIFEST
    try:
        vocabularies = json.loads(read_manifest(folder))["vocabularies"]
        records = [one for one in vocabularies if one["size"] == vocab]
        if not records:
            raise DataError(f"vocabulary {vocab} is not prepared.", fix=f"run `ar prepare --vocab {vocab}`")
        record = records[0]
        rows = [one["file"] for one in record["rows"]]
        files = (record["tokenizer"], *record["train"], record["val"], record["test"], *rows)
        paths = [folder / path_inside(file["path"]) for file in files]
        for file in files:
            check_no_link(folder, file["path"])
        for at, file in zip(paths, files, strict=True):
            check_file(at, file["bytes"], file["mtime_ns"], file["sha256"], trust_time=True)
        return [folder / file["path"] for file in record["train"]]
    except FileNotFoundError:
        raise DataError(f"{folder} is not a prepared corpus.", fix="run `ar prepare`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {system_words(error)}.", fix="run `ar prepare` again") from error
