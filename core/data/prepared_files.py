"""The files of a prepared corpus checked before they are used, without the libraries that read a whole manifest.

Each trial starts a feeder, and half of its start would go into importing pydantic. Its parent has validated the
manifest already; here it is plain JSON.
"""

from __future__ import annotations

import json
from pathlib import Path

from autoresearch.core.errors import DataError
from autoresearch.core.files import sha256_of

MANIFEST = "manifest.json"
FIX = "run `ar prepare` again: it makes anew what has changed"


def check_file(path: Path, size: int, mtime_ns: int, sha256: str, *, trust_time: bool) -> None:
    """Compare a file with its record: its size, and its SHA-256 unless `trust_time` and its time is the recorded one.

    Raises `DataError` when it has changed or cannot be read.
    """
    try:
        status = path.stat()
        if status.st_size == size:
            if trust_time and status.st_mtime_ns == mtime_ns:
                return
            if sha256_of(path) == sha256:
                return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", fix=FIX) from error
    raise DataError(f"{path} has changed since it was prepared.", fix=FIX)


def checked_shards(folder: Path, vocab: int) -> list[Path]:
    """Check every file of one vocabulary as `Prepared.quick_check` does; return its training shards, in order.

    Raises `DataError` when the vocabulary is not prepared, or a file has changed.
    """
    path = folder / MANIFEST
    try:
        vocabularies = json.loads(path.read_bytes())["vocabularies"]
        records = [one for one in vocabularies if one["size"] == vocab]
        if not records:
            raise DataError(f"vocabulary {vocab} is not prepared.", fix=f"run `ar prepare --vocab {vocab}`")
        record = records[0]
        rows = [one["file"] for one in record["rows"]]
        for file in (record["tokenizer"], *record["train"], record["val"], record["test"], *rows):
            check_file(folder / file["path"], file["bytes"], file["mtime_ns"], file["sha256"], trust_time=True)
        return [folder / file["path"] for file in record["train"]]
    except FileNotFoundError:
        raise DataError(f"{folder} is not a prepared corpus.", fix="run `ar prepare`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", fix="run `ar prepare` again") from error
