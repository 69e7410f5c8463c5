"""Find a corpus: the source of Python's standard library, a corpus of the Hugging Face hub, or files on the disk."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.data.documents import Documents
from autoresearch.core.data.files import SUFFIXES, read_documents
from autoresearch.core.data.hub import HUB_CORPORA, fetch
from autoresearch.core.errors import DataError, UsageError
from autoresearch.core.files import sha256_of
from autoresearch.core.home import expand_home

STDLIB = "stdlib"
NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
"""Folders that are left out of the standard library: its tests, and the packages installed beside it."""

MIB = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus, in reading order. Val and test come from `held_out` or, if it is empty, from `files`."""

    name: str
    root: Path
    files: tuple[Path, ...]
    held_out: tuple[Path, ...]
    stamp: str
    """A digest that changes whenever a file may have changed. It needs no reading of the files."""
    revision: str | None = None
    """The commit on the hub; None for text on the disk."""

    @property
    def document_limit(self) -> int:
        """Largest size of a document in bytes; longer ones are cut at line ends.

        1 MiB, or less in a small corpus, so that even a single file yields documents for all three splits.
        """
        total = sum(path.stat().st_size for path in self.files)
        return min(MIB, max(1024, total // 32))

    def documents(self) -> Iterator[Documents]:
        """Read the documents for training, and for val and test too where no file is held out."""
        return read_documents(self.files, self.document_limit)

    def held_out_documents(self) -> Iterator[Documents]:
        """Read the documents that are for val and test only."""
        return read_documents(self.held_out, self.document_limit)

    def check_unchanged(self) -> None:
        """Raise `DataError` where a file on the disk has changed since the corpus was opened.

        It is read several times, and hashed at the end: the hash of the new text would stand beside the old text.
        """
        if self.revision is None and _files_stamp(self.files) != self.stamp:
            raise DataError(
                f"the text of {self.name} has changed while it was read.",
                fix="run `ar prepare` again when nothing writes there any more",
            )

    def content_sha256(self) -> str:
        """Compute the SHA-256 over names and contents of all files. It reads every file."""
        digest = hashlib.sha256()
        for path in (*self.files, *self.held_out):
            digest.update(_bytes(f"{path.relative_to(self.root).as_posix()}\0{sha256_of(path)}\n"))
        return digest.hexdigest()


def open_corpus(name: str, data_dir: Path, shards: int | None, progress: Callable[[str], None]) -> Corpus:
    """Open a corpus by name or path, fetching missing files of a hub corpus. Raises `DataError`."""
    if name == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"])
        return _on_disk(name, root, sorted(_library_files(root), key=lambda path: path.relative_to(root).as_posix()))
    if name in HUB_CORPORA:
        fetched = fetch(HUB_CORPORA[name], data_dir / "hub", shards, progress)
        files, held_out = fetched.train, fetched.held_out
        stamp = _digest([fetched.commit, *(f"{path.name} {fetched.sha256[path.name]}" for path in (*files, *held_out))])
        return Corpus(name, fetched.root, files, held_out, stamp, fetched.commit)
    return _local(name, progress)


def check_corpus(name: str) -> None:
    """Check that there is a corpus of that name or at that path. Raises `UsageError`."""
    if name not in (STDLIB, *HUB_CORPORA) and not (name.strip() and expand_home(name).exists()):
        raise UsageError(
            f"there is no corpus {name!r}: no such file or folder.",
            fix=f"{', '.join((STDLIB, *HUB_CORPORA))} or an existing path",
        )


def _library_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in NOT_LIBRARY]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _local(name: str, progress: Callable[[str], None]) -> Corpus:
    check_corpus(name)
    root = expand_home(name).resolve()
    if not str(root).isascii() and "\ufffd" in _bytes(str(root)).decode(errors="replace"):
        raise DataError(f"{root} has a name that is not UTF-8, which no record can hold.", fix="rename it")
    if root.is_file():
        if root.suffix not in SUFFIXES:
            raise DataError(
                f"{root} is of no known kind.", fix=f"give a {', '.join(SUFFIXES)} file or a folder of them"
            )
        return _on_disk(str(root), root.parent, [root])
    linked: list[Path] = []
    files = sorted(_texts(root, linked), key=lambda path: path.relative_to(root).as_posix())
    if linked:
        more = f" and {len(linked) - 1} more" if len(linked) > 1 else ""
        progress(
            f"{min(linked)}{more}: a link to a folder is not followed, and no text is read there; copy it in instead"
        )
    return _on_disk(str(root), root, files)


def _texts(root: Path, linked: list[Path]) -> Iterator[Path]:
    """Find the visible texts below a folder, and add its links to other folders to `linked`: they may lead in circles.

    Raises `DataError` where some of the texts cannot be reached.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}.", fix="check the folder and its permissions"
        ) from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = (path for path in (Path(folder, name) for name in folders) if path.is_symlink())
        # One that leads back into the corpus hides nothing.
        linked += [path for path in links if not path.resolve().is_relative_to(root)]
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            if path.suffix not in SUFFIXES:
                continue
            if path.is_file():
                yield path
            elif path.is_symlink() and not path.exists():
                raise DataError(
                    f"{path} is a link to a file that is not there.",
                    fix="restore the file, or take the link out of the folder",
                )


def _on_disk(name: str, root: Path, files: list[Path]) -> Corpus:
    if not files:
        raise DataError(f"{root} holds no text to read.", fix=f"put {', '.join(SUFFIXES)} files there")
    return Corpus(name, root, tuple(files), (), _files_stamp(files))


def _files_stamp(files: Iterable[Path]) -> str:
    return _digest(_file_stamp(path) for path in files)


def _file_stamp(path: Path) -> str:
    # The change time (ctime) moves even when an edit puts size and modification time back.
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(_bytes(line) + b"\n")
    return digest.hexdigest()


def _bytes(line: str) -> bytes:
    # A file's name may be any bytes, which Python shows as half surrogate pairs.
    return line.encode(errors="surrogateescape")
