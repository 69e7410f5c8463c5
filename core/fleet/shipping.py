"""A prepared corpus on a node: found by its manifest, or received once, file by file."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.config import data_dir
from autoresearch.core.data.manifest import MANIFEST, Prepared
from autoresearch.core.errors import DataError


@dataclass(frozen=True)
class CorpusRef:
    """A prepared folder, known by its manifest."""

    folder: Path
    """Where the loop has it."""
    sha256: str
    """Of manifest.json, which holds the SHA-256 of everything else."""
    files: tuple[str, ...]
    """Below the folder, the manifest included."""

    @property
    def shipped(self) -> Path:
        """Where a node keeps what it was sent."""
        return data_dir() / f"{self.folder.name}-{self.sha256[:12]}"


def corpus_of(folder: Path) -> CorpusRef:
    """Raises `DataError` when the folder is not a prepared corpus."""
    prepared = Prepared.open(folder)
    return CorpusRef(
        folder.absolute(), _manifest_sha256(folder), (MANIFEST, *(f.path for f in prepared.manifest.files()))
    )


def find_corpus(corpus: CorpusRef) -> Path | None:
    """The prepared folder on this node: at the same path, or among its own data."""
    for place in (corpus.folder, data_dir() / corpus.folder.name, corpus.shipped):
        if (place / MANIFEST).is_file() and _manifest_sha256(place) == corpus.sha256:
            return place
    return None


def receive(corpus: CorpusRef, fetch: Callable[[str], bytes]) -> Path:
    """Put the corpus among this node's data, whole or not at all. Raises `DataError` when a file is not what it was.

    `fetch` gives one file's bytes, so that no more than one is held in memory.
    """
    from filelock import FileLock

    place = corpus.shipped
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f"{place.name}.lock")):
        if find_corpus(corpus) == place:
            return place
        fresh = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            for name in corpus.files:
                target = fresh / name
                if fresh not in target.resolve().parents:
                    raise DataError(f"the corpus names a file outside its folder: {name!r}.")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(fetch(name))
            if _manifest_sha256(fresh) != corpus.sha256:
                raise DataError(f"{corpus.folder} has changed since the loop was started.")
            Prepared.open(fresh).verify()
            shutil.rmtree(place, ignore_errors=True)
            fresh.replace(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return place


def _manifest_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
