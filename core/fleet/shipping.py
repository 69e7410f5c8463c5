"""Shipping a prepared corpus to a node: found there by its manifest, or received once, file by file."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.config import data_dir
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.prepared_files import MANIFEST
from autoresearch.core.errors import DataError


@dataclass(frozen=True)
class CorpusRef:
    """A prepared corpus, identified by its manifest."""

    folder: Path
    """Folder on the loop's machine."""
    sha256: str
    """SHA-256 of manifest.json, which holds the SHA-256 of every other file."""
    files: tuple[str, ...]
    """Paths of its files, relative to the folder, the manifest included."""

    @property
    def shipped(self) -> Path:
        """Folder on a node to which it is shipped."""
        return data_dir() / f"{self.folder.name}-{self.sha256[:12]}"


def describe_corpus(folder: Path) -> CorpusRef:
    """Describe the prepared corpus in a folder. Raises `DataError` when it is none."""
    prepared = Prepared.open(folder)
    return CorpusRef(
        folder.absolute(), _manifest_sha256(folder), (MANIFEST, *(f.path for f in prepared.manifest.files()))
    )


def find_corpus(corpus: CorpusRef) -> Path | None:
    """Find the prepared corpus on this node: at the same path, or among its own data. None when it is not there."""
    for folder in (corpus.folder, data_dir() / corpus.folder.name, corpus.shipped):
        if (folder / MANIFEST).is_file() and _manifest_sha256(folder) == corpus.sha256:
            return folder
    return None


def receive_corpus(corpus: CorpusRef, fetch: Callable[[str], bytes]) -> Path:
    """Write the corpus to this node's data folder, complete or not at all. Return its folder.

    `fetch` returns the content of one file, so that no more than one is held in memory. Raises `DataError` when a file
    has changed since the loop was started.
    """
    from filelock import FileLock

    target = corpus.shipped
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if find_corpus(corpus) == target:
            return target
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            for name in corpus.files:
                path = fresh / name
                if fresh not in path.resolve().parents:
                    raise DataError(f"the corpus names a file outside its folder: {name!r}.")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(fetch(name))
            if _manifest_sha256(fresh) != corpus.sha256:
                raise DataError(f"{corpus.folder} has changed since the loop was started.")
            Prepared.open(fresh).verify()
            shutil.rmtree(target, ignore_errors=True)
            fresh.replace(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target


def _manifest_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
