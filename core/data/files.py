"""Read documents from files: plain text and Markdown, JSON lines, parquet. Text is kept byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.data.documents import Documents, in_blocks, join_arrays, split_long
from autoresearch.core.errors import DataError

TEXT_SUFFIXES = (".txt", ".md", ".py")
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
FIELD = "text"


def read_documents(files: Iterable[Path], limit: int) -> Iterator[Documents]:
    """Yield the documents of the files in order, in blocks of some megabytes, none longer than `limit` bytes.

    A text file, a JSON line and a parquet row are one document each. Empty documents are left out.
    Raises `DataError` naming the file and the place in it.
    """
    small: list[Path] = []
    for path in files:
        if path.suffix != ".parquet":
            small.append(path)
            continue
        yield from _gather(small, limit)
        small = []
        for block in _parquet(path):
            if len(block) and int(block.lengths.max()) > limit:
                yield Documents.of(chain.from_iterable(split_long(document, limit) for document in block))
            else:
                yield block
    yield from _gather(small, limit)


def _gather(files: list[Path], limit: int) -> Iterator[Documents]:
    documents = chain.from_iterable(_jsonl(path) if path.suffix == ".jsonl" else _text(path) for path in files)
    return in_blocks(chain.from_iterable(split_long(document, limit) for document in documents))


def _text(path: Path) -> Iterator[bytes]:
    try:
        content = path.read_bytes()
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02X} ({error.reason}).",
            fix="convert the file to UTF-8, or take it out of the folder",
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", fix="check the file and its permissions"
        ) from error
    yield content


def _jsonl(path: Path) -> Iterator[bytes]:
    for number, line in enumerate(next(_text(path)).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError) as error:  # a thousand brackets are JSON, and no document
            raise DataError(f"{path}, line {number} is not JSON: {error}.", fix="one JSON object a line") from error
        text = value.get(FIELD) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise DataError(f"{path}, line {number} has no string {FIELD!r}.", fix=f'write {{"{FIELD}": "..."}}')
        try:
            yield text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}, line {number} holds half of a surrogate pair at character {error.start}.",
                fix="write the whole character, or leave it out",
            ) from error


def _parquet(path: Path) -> Iterator[Documents]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if FIELD not in columns:
                raise DataError(
                    f"{path} has no column {FIELD!r} (it has {', '.join(columns)}).", fix="rename the column"
                )
            for batch in file.iter_batches(batch_size=4096, columns=[FIELD]):
                yield _from_arrow(batch.column(0).drop_null().cast(pyarrow.large_string()))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as parquet: {str(error).splitlines()[0]}.",
            fix="fetch or write the file again, or take it out of the folder",
        ) from error


def _from_arrow(column: Any) -> Documents:
    """Use the column's own buffers, without empty documents. Raises `UnicodeDecodeError`: arrow does not check text."""
    if len(column) == 0:
        return Documents.of([])
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2], dtype=np.uint8) if column.buffers()[2] else np.zeros(0, np.uint8)
    data = data[offsets[0] : offsets[-1]]
    block = Documents(data, offsets - offsets[0])
    str(np.ascontiguousarray(data).data, "utf-8")
    starts = block.offsets[:-1][block.lengths > 0]
    # The whole buffer may be valid UTF-8 while a document begins inside a character: decoding that one raises.
    if bool(np.any(data[starts] & 0xC0 == 0x80)):
        next(iter(block.texts()), None)
    if bool(np.any(block.lengths == 0)):
        bounds = block.offsets.tolist()
        return join_arrays([data[a:b] for a, b in pairwise(bounds) if b > a])
    return block
