"""The files that a run's scores and verdicts depend on: hashed at its start, checked before every verdict.

They are the core's modules (without those that only show results), the backend's runtime and contract, the tokenizers,
the scored rows, and the manifest's record of them. The training shards are watched by size and times, and hashed when
these change. A change after the start would make the run's numbers incomparable, whether a person, an update or a train
file made it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autoresearch import backends, core
from autoresearch.core.data.kernel import kernel_files
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.prepared_files import MANIFEST
from autoresearch.core.errors import ArError, IntegrityError, system_words
from autoresearch.core.files import sha256_of

if TYPE_CHECKING:
    from autoresearch.core.store.ledger import Ledger

EVENT = "integrity"
"""Kind of the ledger event that holds the hashes."""
SHOWS_ONLY = ("bench", "cli", "report")
"""Folders of the core that no score or verdict depends on."""
CORE_FIX = (
    "put the file back as it was (`git checkout`, or install this version of ar again), or start another run with "
    "--tag: numbers from before and after do not compare"
)
VERSION_FIX = (
    "start another run with --tag, or install the older version to go on with this one; commands that only read it, "
    "such as `ar results` and `ar report`, still work"
)
VERSION = "version of "
"""Beginning of the names of packages among those of files."""
PACKAGE_FIX = (
    "install the version that the run was started with, or start another run with --tag: another one computes other "
    "numbers"
)
KERNEL_FIX = "`ar prepare --kernel` installs it anew"
DATA_FIX = "`ar prepare` makes it anew; if the text itself has changed, start another run with --tag"


@dataclass(frozen=True)
class Stamp:
    """A file's size, times and hash when it was read."""

    bytes: int
    mtime_ns: int
    ctime_ns: int
    """Time of the last change of the file or of its times: a program that sets `mtime` back cannot set this back."""
    sha256: str

    @classmethod
    def of(cls, status: os.stat_result, sha256: str) -> Stamp:
        """Make the stamp of a file with that status and content."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, sha256)


class Integrity:
    """Hashes of one run's files. Checks are cheap: a file is read again only when its size or a time differs."""

    def __init__(
        self,
        files: Mapping[str, Path],
        vocabularies: Sequence[int] = (),
        seq_len: int = 0,
        packages: Sequence[str] = (),
        large: Mapping[str, tuple[Path, str]] = MappingProxyType({}),
    ) -> None:
        """Hash `files`, given by the names for messages; the manifest's is `MANIFEST`. Raises `IntegrityError`.

        `packages` are those whose versions decide what is computed. `large` are files with the SHA-256 that they should
        have, which are read only when they change.
        """
        self._packages, self._versions = tuple(packages), versions_of(packages)
        self._files, self._vocabularies, self._seq_len = dict(files), tuple(sorted(vocabularies)), seq_len
        self._stamps = {name: self._read(name) for name in self._files}
        self._large = tuple(large)
        for name, (path, sha256) in large.items():
            self._files[name] = path
            self._stamps[name] = Stamp.of(_status(path, name), sha256)

    @classmethod
    def of(cls, backend: str, prepared: Prepared, vocabularies: Sequence[int], seq_len: int) -> Integrity:
        """Hash the files of a run with that backend on that corpus, scored at T = `seq_len` tokens."""
        files = dict(
            [
                *_core_files(),
                *_backend_files(backend),
                *kernel_files(backend),
                *_data_files(prepared, vocabularies, seq_len),
            ]
        )
        packages = ("numpy", *_runtime(backend).packages())
        return cls(files, vocabularies, seq_len, packages, dict(_shards(prepared, vocabularies)))

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of every file that was read, and the version of every package, "" where it is not installed."""
        read = {name: stamp.sha256 for name, stamp in self._stamps.items() if name not in self._large}
        return read | self._versions

    def begin(self, ledger: Ledger) -> None:
        """Record the hashes of a new run, or compare them. Raises `IntegrityError` naming the difference."""
        recorded = ledger.events(EVENT)
        if not recorded:
            ledger.note(EVENT, None, self.sha256)
            return
        now, then = self.sha256, recorded[0]
        if not any(name.startswith(VERSION) for name in then):  # recorded before versions were
            now = {name: value for name, value in now.items() if not name.startswith(VERSION)}
        # An update that renames modules is no change of a file: say so, lest a person look for what was tampered with.
        if any(_is_code(name) and name not in now for name in then):
            raise IntegrityError(
                "this run was started by another version of ar, whose files had other names, so its numbers would not "
                "compare with this version's.",
                fix=VERSION_FIX,
            )
        changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        if changed:
            raise _changed(changed, "since this run was started")

    def check(self) -> None:
        """Compare the files with their hashes. Raises `IntegrityError` naming those that have changed."""
        versions = versions_of(self._packages)
        changed = [name for name, version in self._versions.items() if versions[name] != version]
        for name, stamp in self._stamps.items():
            try:
                status = self._files[name].stat()
            except OSError:
                changed.append(name)
                continue
            # Size and times first: the check runs before every verdict, and must not read a gigabyte each time.
            if Stamp.of(status, stamp.sha256) == stamp:
                continue
            fresh = self._read(name)
            # A file that was only touched gets the new time, so that it is not read again at each verdict.
            self._stamps[name] = fresh if fresh.sha256 == stamp.sha256 else stamp
            if fresh.sha256 != stamp.sha256:
                changed.append(name)
        if changed:
            raise _changed(changed, "while this run was going")

    def _read(self, name: str) -> Stamp:
        path = self._files[name]
        status = _status(path, name)
        try:
            sha256 = self._manifest_sha256(path) if name == MANIFEST else sha256_of(path)
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {system_words(error)}.", fix=_fix(name)) from error
        except ArError as error:
            raise IntegrityError(error.message, fix=_fix(name)) from error
        return Stamp.of(status, sha256)

    def _manifest_sha256(self, path: Path) -> str:
        """Hash the manifest's record of this run's files: another run may add its own vocabularies to the folder."""
        manifest = Prepared.open(path.parent).manifest
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


def _status(path: Path, name: str) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {system_words(error)}.", fix=_fix(name)) from error


def _runtime(backend: str) -> Any:
    """Import the backend's runtime, also on a machine that only hands out trials and cannot run one."""
    return importlib.import_module(f"autoresearch.backends.{backend}.runtime")


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return "version of <package>" -> its version, "" where it is not installed."""
    found = {}
    for name in packages:
        try:
            found[f"{VERSION}{name}"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[f"{VERSION}{name}"] = ""
    return found


def code_sha256(backend: str) -> str:
    """Hash the code that decides scores. Two machines must have it in common."""
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


def _shards(prepared: Prepared, vocabularies: Sequence[int]) -> Iterator[tuple[str, tuple[Path, str]]]:
    for size in sorted(vocabularies):
        for record in prepared.vocabulary(size).train:
            yield record.path, (prepared.folder / record.path, record.sha256)


def _changed(names: Sequence[str], when: str) -> IntegrityError:
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    verb = "has" if len(names) == 1 else "have"
    return IntegrityError(f"{some} {verb} changed {when}.", fix=_fix(names[0]))


def _fix(name: str) -> str:
    if name.startswith(VERSION):
        return PACKAGE_FIX
    if name.startswith("kernel/"):
        return KERNEL_FIX
    return CORE_FIX if _is_code(name) else DATA_FIX


def _is_code(name: str) -> bool:
    return name.startswith(("core/", "backends/"))
