"""The manifest of a prepared corpus (options, sizes, checksums), and the prepared folder as trials read it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoresearch.core.data.prepared_files import FIX, MANIFEST, check_file, check_no_link, path_inside, read_manifest
from autoresearch.core.data.scored_rows import rows_sha256
from autoresearch.core.errors import DataError, system_words
from autoresearch.core.textfile import open_plain

FORMAT = 1
"""Version of the prepared folder. It is raised when a file changes its meaning; older folders are then made again."""
LONGEST_ROW = 1 << 20
"""Most tokens of a scored row; rows are padded to their length on the disk."""

Split = Literal["train", "val", "test"]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
"""A number of bytes, documents, rows or tokens."""


@dataclass(frozen=True)
class PrepareOptions:
    """The corpus, vocabularies and sizes to prepare."""

    corpus: str
    """A corpus by name (see `corpora`), or a path."""
    vocabularies: tuple[int, ...]
    seq_lens: tuple[int, ...]
    """Row lengths T for scoring, in tokens; rows are made for each."""
    val_bytes: int
    test_bytes: int
    shards: int | None = None
    """Number of training shards of a hub corpus; None for its default."""


@dataclass(frozen=True)
class ScoredRows:
    """The rows that a score is computed over."""

    rows: np.ndarray
    """uint16 (N, T + 1): inputs are rows[:, :-1], targets rows[:, 1:]."""
    mask: np.ndarray
    """bool (N, T): which targets count."""
    total_bytes: int
    """Raw UTF-8 bytes of the split's documents: the denominator."""
    sha256: str


class ManifestPart(BaseModel):
    """Base class of everything in the manifest: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(ManifestPart):
    """Path, size, time and checksum of a file below the prepared folder."""

    path: Annotated[str, AfterValidator(path_inside)]
    bytes: Count
    mtime_ns: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    sha256: str


class Source(ManifestPart):
    """The origin of the text."""

    corpus: str
    stamp: str
    """Digest of names, sizes and times. When it differs, the content is compared."""
    content_sha256: str
    revision: str | None
    """The commit on the hub; None for text on the disk."""
    files: Count


class Removed(ManifestPart):
    """Amounts of text removed from train because val or test hold it too, and from test because val holds it."""

    duplicate_documents: Count
    duplicate_bytes: Count
    overlap_documents: Count
    """Number of training documents that lost runs of about 200 bytes or more."""
    overlap_bytes: Count
    test_overlap_documents: Count
    test_overlap_bytes: Count


class SplitRecord(ManifestPart):
    """The text of one split."""

    documents: Count
    bytes: Count
    """Raw UTF-8 bytes."""
    files: tuple[FileRecord, ...]


class Yardsticks(ManifestPart):
    """Bits per byte of general compressors on the val text, to compare a model with."""

    gzip_bpb: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    xz_bpb: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RowsRecord(ManifestPart):
    """The scored rows of one split for one T."""

    split: Literal["val", "test"]
    seq_len: Annotated[Count, Field(ge=1, le=LONGEST_ROW)]
    rows: Annotated[Count, Field(ge=1)]
    targets: Annotated[Count, Field(ge=1)]
    total_bytes: Annotated[Count, Field(ge=1)]
    sha256: str
    """SHA-256 of rows, mask and byte count (`rows_sha256`)."""
    file: FileRecord


class VocabularyRecord(ManifestPart):
    """One tokenizer and the files that were encoded with it."""

    size: Annotated[Count, Field(ge=2, le=2**16)]
    bos_id: Annotated[Count, Field(lt=2**16)]
    tokenizer: FileRecord
    train: Annotated[tuple[FileRecord, ...], Field(min_length=1)]
    train_tokens: Annotated[Count, Field(ge=1)]
    """Number of training tokens, BOS included."""
    val: FileRecord
    test: FileRecord
    rows: tuple[RowsRecord, ...]

    def files(self) -> Iterator[FileRecord]:
        """List every file of this vocabulary."""
        yield self.tokenizer
        yield from (*self.train, self.val, self.test)
        yield from (record.file for record in self.rows)


class Manifest(ManifestPart):
    """The content of `manifest.json`."""

    format: Count
    val_bytes: Count
    """Requested size of val; `splits` has the actual one."""
    test_bytes: Count
    shards: Count | None
    source: Source
    splits: dict[Split, SplitRecord]
    removed: Removed
    yardsticks: Yardsticks
    vocabularies: tuple[VocabularyRecord, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        """Check what every reader relies on. Raises `ValueError`."""
        lacking = [name for name in get_args(Split) if name not in self.splits or not self.splits[name].files]
        if lacking:
            raise ValueError(f"it names no text of {lacking[0]}")
        sizes = [record.size for record in self.vocabularies]
        if len(set(sizes)) < len(sizes):
            raise ValueError("it names a vocabulary twice")
        return self

    def files(self) -> Iterator[FileRecord]:
        """List every file of the folder but the manifest itself."""
        for split in self.splits.values():
            yield from split.files
        for vocabulary in self.vocabularies:
            yield from vocabulary.files()


def file_record(path: Path, folder: Path, sha256: str) -> FileRecord:
    """Record a file that was just written, with its path relative to `folder`."""
    status = path.stat()
    name = path.relative_to(folder).as_posix()
    return FileRecord(path=name, bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=sha256)


class Prepared:
    """A prepared folder. Every file is checked before it is used."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> Prepared:
        """Read the manifest. Raises `DataError` when there is none, none that this program can read, or a link."""
        path = folder / MANIFEST
        try:
            manifest = Manifest.model_validate_json(read_manifest(folder))
        except FileNotFoundError:
            fix = "run `ar prepare`; if the folder was moved, put a link to it there (ln -s)"
            raise DataError(f"{folder} is not a prepared corpus.", fix=fix) from None
        except ValidationError as error:
            raise DataError(f"{path} cannot be read: {_first_fault(error)}.", fix="run `ar prepare` again") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {system_words(error)}.", fix="run `ar prepare` again") from error
        if manifest.format != FORMAT:
            raise DataError(f"{folder} has format {manifest.format}, now it is {FORMAT}.", fix="run `ar prepare` again")
        try:
            for record in manifest.files():
                check_no_link(folder, record.path)
        except OSError as error:
            raise DataError(f"{folder} cannot be used: {system_words(error)}.", fix=FIX) from error
        return cls(folder, manifest)

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """Sizes of the prepared vocabularies: the values that VOCAB_SIZE may take."""
        return tuple(record.size for record in self.manifest.vocabularies)

    def vocabulary(self, vocab: int) -> VocabularyRecord:
        """Return the record of one vocabulary. Raises `DataError`, which names the prepared ones."""
        for record in self.manifest.vocabularies:
            if record.size == vocab:
                return record
        there = ", ".join(map(str, self.vocabularies)) or "none"
        raise DataError(
            f"vocabulary {vocab} is not prepared (there is: {there}).", fix=f"run `ar prepare --vocab {vocab}`"
        )

    def tokenizer_path(self, vocab: int) -> Path:
        """Return the path of the sentencepiece model."""
        return self.folder / self.vocabulary(vocab).tokenizer.path

    def train_shards(self, vocab: int) -> list[Path]:
        """List the token shards of the training text, in order."""
        return [self.folder / record.path for record in self.vocabulary(vocab).train]

    def scored_rows(self, split: Literal["val", "test"], vocab: int, seq_len: int) -> ScoredRows:
        """Read rows, mask and byte count. Raises `DataError` when they were not prepared, or have changed since."""
        for record in self.vocabulary(vocab).rows:
            if (record.split, record.seq_len) == (split, seq_len):
                return self._read_rows(record)
        raise DataError(
            f"no scored rows of {split} for vocabulary {vocab} at T = {seq_len} are prepared.", fix="run `ar prepare`"
        )

    def verify(self) -> None:
        """Read every file and compare its SHA-256. Raises `DataError` naming the first that has changed."""
        for record in self.manifest.files():
            self._check(record, trust_time=False)

    def quick_check(self, vocab: int) -> None:
        """Compare sizes and times of one vocabulary's files; a file whose time alone differs is read and compared.

        Raises `DataError` naming the first that has changed.
        """
        for record in self.vocabulary(vocab).files():
            self._check(record, trust_time=True)

    def quick_check_text(self) -> None:
        """`quick_check` of the splits' text, which only `prepare` reads."""
        for split in self.manifest.splits.values():
            for record in split.files:
                self._check(record, trust_time=True)

    def _check(self, record: FileRecord, trust_time: bool) -> None:
        check_file(self.folder / record.path, record.bytes, record.mtime_ns, record.sha256, trust_time=trust_time)

    def _read_rows(self, record: RowsRecord) -> ScoredRows:
        path = self.folder / record.file.path
        try:
            with open_plain(path) as file, np.load(file, allow_pickle=False) as stored:
                rows, packed = stored["rows"], stored["mask"]
            if rows.dtype != np.uint16 or rows.ndim != 2 or rows.shape[1] != record.seq_len + 1:
                raise ValueError("it holds no rows of that length")
            mask = (
                np.unpackbits(packed, count=len(rows) * record.seq_len).astype(bool).reshape(len(rows), record.seq_len)
            )
        except Exception as error:  # numpy raises what zip, zlib and its own parser raise
            raise DataError(f"{path} cannot be read: {error}.", fix=FIX) from error
        if rows_sha256(rows, mask, record.total_bytes) != record.sha256:
            raise DataError(f"{path} has changed since it was prepared.", fix=FIX)
        return ScoredRows(rows, mask, record.total_bytes, record.sha256)


def _first_fault(error: ValidationError) -> str:
    """Say in a few words what is wrong with a manifest, and where in it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where, words = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{where[:100]}: {words[:200]}" if where else words[:200]


def data_sha256(prepared: Prepared, vocabularies: tuple[int, ...], seq_len: int) -> str:
    """Hash everything that trials with these vocabularies read: tokenizers, training shards and scored rows.

    Files that other runs add to the folder do not count. Raises `DataError` when a vocabulary is not prepared.
    """
    digest = hashlib.sha256()
    for size in sorted(vocabularies):
        record = prepared.vocabulary(size)
        rows = [one.sha256 for one in record.rows if one.seq_len == seq_len]
        for sha256 in (record.tokenizer.sha256, *(shard.sha256 for shard in record.train), *rows):
            digest.update(f"{size} {sha256}\n".encode())
    return digest.hexdigest()
