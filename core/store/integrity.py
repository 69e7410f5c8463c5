"""The files that a run's scores and verdicts hang on: hashed when it starts, looked at again before every verdict.

They are the core's own modules (but for what only shows: the command line and the reports), the backend's runtime and
contract, the tokenizers, the scored rows, and what the manifest says of them. A change that was not there when the run
began would make its numbers incomparable, whether a person, an update or a train file made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch import backends, core
from autoresearch.core.data.manifest import MANIFEST, Manifest, Prepared
from autoresearch.core.errors import ArError, IntegrityError
from autoresearch.core.files import sha256_of

if TYPE_CHECKING:
    from autoresearch.core.store.ledger import Ledger

EVENT = "integrity"
SHOWS_ONLY = ("bench", "cli", "report")
"""Folders of the core that decide nothing."""
CORE_FIX = (
    "put the file back as it was (`git checkout`, or install this version of ar again), or start another run with "
    "--tag: numbers from before and after do not compare"
)
DATA_FIX = "`ar prepare` makes it anew; if the text itself has changed, start another run with --tag"


@dataclass(frozen=True)
class Stamp:
    """A file as it was when it was read."""

    bytes: int
    mtime_ns: int
    sha256: str


class Integrity:
    """Hashes of the files of one run. Cheap to ask again: sizes and times first, content where they differ."""

    def __init__(self, files: Mapping[str, Path], vocabularies: Sequence[int] = (), seq_len: int = 0) -> None:
        """`files` by the name that a person is told; that of the manifest is `MANIFEST`. Raises `IntegrityError`."""
        self._files, self._vocabularies, self._seq_len = dict(files), tuple(sorted(vocabularies)), seq_len
        self._stamps = {name: self._read(name) for name in self._files}

    @classmethod
    def of(cls, backend: str, prepared: Prepared, vocabularies: Sequence[int], seq_len: int) -> Integrity:
        """Of a run with that backend on that corpus, scored at T = `seq_len`."""
        files = dict([*_core_files(), *_backend_files(backend), *_data_files(prepared, vocabularies, seq_len)])
        return cls(files, vocabularies, seq_len)

    @property
    def sha256(self) -> dict[str, str]:
        """Name -> SHA-256."""
        return {name: stamp.sha256 for name, stamp in self._stamps.items()}

    def begin(self, ledger: Ledger) -> None:
        """Record the hashes with a run that has none yet, or compare. Raises `IntegrityError` naming what changed."""
        recorded = ledger.events(EVENT)
        if not recorded:
            ledger.note(EVENT, None, self.sha256)
            return
        now, then = self.sha256, recorded[0]
        changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        if changed:
            raise _changed(changed, "since this run was started")

    def check(self) -> None:
        """Raises `IntegrityError` naming the files that are not what they were when this was made."""
        changed = []
        for name, stamp in self._stamps.items():
            try:
                status = self._files[name].stat()
            except OSError:
                changed.append(name)
                continue
            if (status.st_size, status.st_mtime_ns) == (stamp.bytes, stamp.mtime_ns):
                continue
            fresh = self._read(name)
            self._stamps[name] = fresh if fresh.sha256 == stamp.sha256 else stamp
            if fresh.sha256 != stamp.sha256:
                changed.append(name)
        if changed:
            raise _changed(changed, "while this run was going")

    def _read(self, name: str) -> Stamp:
        path = self._files[name]
        try:
            status = path.stat()
            sha256 = self._manifest_sha256(path) if name == MANIFEST else sha256_of(path)
        except (OSError, ArError, ValueError) as error:
            raise IntegrityError(f"{path} cannot be read: {error}.", fix=_fix(name)) from error
        return Stamp(status.st_size, status.st_mtime_ns, sha256)

    def _manifest_sha256(self, path: Path) -> str:
        """Of what it says about this run's files: another run may add its own vocabularies to the folder."""
        manifest = Manifest.model_validate_json(path.read_bytes())
        digest = hashlib.sha256(f"{manifest.format} {manifest.source.content_sha256}\n".encode())
        for split, record in sorted(manifest.splits.items()):
            digest.update(
                f"{split} {record.documents} {record.bytes} {[file.sha256 for file in record.files]}\n".encode()
            )
        for vocabulary in manifest.vocabularies:
            if vocabulary.size in self._vocabularies:
                rows = [
                    (one.split, one.sha256, one.total_bytes) for one in vocabulary.rows if one.seq_len == self._seq_len
                ]
                shards = [shard.sha256 for shard in vocabulary.train]
                digest.update(f"{vocabulary.size} {vocabulary.tokenizer.sha256} {shards} {sorted(rows)}\n".encode())
        return digest.hexdigest()


def code_sha256(backend: str) -> str:
    """Of everything here that decides scores, but for the data: what two machines must have in common."""
    digest = hashlib.sha256()
    for name, path in (*_core_files(), *_backend_files(backend)):
        digest.update(f"{name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _core_files() -> Iterator[tuple[str, Path]]:
    home = Path(next(iter(core.__path__)))
    for path in sorted(home.rglob("*.py")):
        name = path.relative_to(home)
        if name.parts[0] not in SHOWS_ONLY:
            yield f"core/{name.as_posix()}", path


def _backend_files(backend: str) -> Iterator[tuple[str, Path]]:
    home = Path(next(iter(backends.__path__)))
    for name in ("contract.py", f"{backend}/runtime.py"):
        yield f"backends/{name}", home / name


def _data_files(prepared: Prepared, vocabularies: Sequence[int], seq_len: int) -> Iterator[tuple[str, Path]]:
    yield MANIFEST, prepared.folder / MANIFEST
    for size in sorted(vocabularies):
        record = prepared.vocabulary(size)
        rows = (one.file.path for one in record.rows if one.seq_len == seq_len)
        for name in (record.tokenizer.path, *rows):
            yield name, prepared.folder / name


def _changed(names: Sequence[str], when: str) -> IntegrityError:
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    verb = "has" if len(names) == 1 else "have"
    return IntegrityError(f"{some} {verb} changed {when}.", fix=_fix(names[0]))


def _fix(name: str) -> str:
    return CORE_FIX if name.startswith(("core/", "backends/")) else DATA_FIX
