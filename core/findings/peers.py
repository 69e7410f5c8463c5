"""Peer runs: the changes that other runs keep, read from their ledgers. Nothing is written to them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.config import runs_dir
from autoresearch.core.errors import LedgerError
from autoresearch.core.proposal import Finding, Origin
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader

MOST_OFFERED = 100
"""Largest number of changes that one run offers: those with the largest gains."""
RunIdentity = tuple[str, str, str]
"""A run's tag, backend and device."""


@dataclass(frozen=True)
class PeerKeeps:
    """The changes that a peer run keeps at the moment."""

    identity: RunIdentity
    findings: tuple[Finding, ...]
    """At most MOST_OFFERED, the largest gains first."""
    roots: Mapping[Origin, Origin]
    """The run's own kept change -> the other run's change that it was taken over from."""
    keeps: frozenset[Origin]
    """All changes that the run keeps, however many."""


class PeerRuns:
    """Reads the peers of one run. A ledger that cannot be read is reported once; what it said before stays valid."""

    def __init__(self, folders: Callable[[], Iterable[Path]], say: Callable[[str], None]) -> None:
        """Remember where to look.

        `folders` is called at every look, because runs come and go; a folder may not exist yet. `say` is told which
        ledger cannot be read, and why.
        """
        self._folders, self.say = folders, say
        self._seen: dict[Path, tuple[object, PeerKeeps]] = {}
        self._complained: set[Path] = set()

    def look(self, own: Path, backend: str, device: str) -> list[PeerKeeps]:
        """Return what runs of another backend or device keep now, leaving out the run in the folder `own`."""
        own, found = own.resolve(), dict[RunIdentity, PeerKeeps]()
        for folder in sorted({folder.resolve() for folder in self._folders()} - {own}):
            # A folder outside this workspace's runs was copied from another machine, by whatever means.
            kept = self._read(folder, copied=folder.parent != own.parent)
            if kept is None or kept.identity[1:] == (backend, device):
                continue
            if kept.identity in found:
                self._complain(folder, f"another folder holds a run {kept.identity[0]!r} of the same device as well")
                continue
            found[kept.identity] = kept
        return list(found.values())

    def _read(self, folder: Path, *, copied: bool) -> PeerKeeps | None:
        state = _state(folder)
        before = self._seen.get(folder)
        if before is not None and before[0] == state:
            return before[1]
        try:
            kept = read_copy(folder) if copied else read_kept(folder)
        except LedgerError as error:
            why = error.message
        except (KeyError, TypeError, ValueError, OSError) as error:
            why = f"its ledger cannot be understood ({type(error).__name__}: {error})"
        else:
            self._complained.discard(folder)
            self._seen[folder] = state, kept
            return kept
        self._complain(folder, why)
        return before[1] if before is not None else None  # not remembered as read, so the next look tries again

    def _complain(self, folder: Path, why: str) -> None:
        if folder not in self._complained:
            self._complained.add(folder)
            self.say(f"no findings are taken from {folder}: {why.rstrip('.')}")


def folders_of(workspace: Path, wanted: Sequence[str]) -> Callable[[], Iterable[Path]]:
    """Return a function that lists run folders: "auto" stands for every run of the workspace, "none" for no run."""

    def folders() -> Iterable[Path]:
        for name in wanted:
            if name == "auto":
                yield from (ledger.parent for ledger in runs_dir(workspace).glob(f"*/{LEDGER_NAME}"))
            elif name != "none":
                yield Path(name)

    return folders


def read_kept(folder: Path, *, check: bool = False) -> PeerKeeps:
    """Read what the run in `folder` keeps. Raises `LedgerError` when its ledger cannot be read.

    With `check`, raise it too when the ledger's hash chain does not hold.
    """
    with LedgerReader(folder) as reader:
        if check and (fault := reader.verify().fault) is not None:
            raise LedgerError(f"it is not as it was written ({fault}).")
        run = reader.run()
        identity = (run.tag, str(run.config["backend"]), str(run.config["device"]))
        rows = [row for row in reader.keeps() if row.number]
        origins = {row.number: Origin(run.tag, row.number, *identity[1:], row.delta) for row in rows}
        findings = []
        for row in sorted(rows, key=lambda row: (row.delta or 0.0, row.number))[:MOST_OFFERED]:
            findings.append(
                Finding(
                    origin=origins[row.number],
                    hypothesis=row.hypothesis,
                    category=row.category,
                    before=reader.text(reader.experiment(row.parent).source_sha256),
                    after=reader.text(row.source_sha256),
                    parameters=row.parameters,
                )
            )
        roots = {origins[row.number]: row.origin for row in rows if row.origin is not None}
    return PeerKeeps(identity, tuple(findings), roots, frozenset(origins.values()))


def read_copy(folder: Path) -> PeerKeeps:
    """Copy the ledger of `folder` and read the copy, checked. Raises `LedgerError`.

    A folder from another machine may be replaced while it is read, be half copied, or not be writable, and sqlite
    needs to write beside a ledger even to read it.
    """
    if not (folder / LEDGER_NAME).is_file():
        raise LedgerError(f"there is no {LEDGER_NAME} in it.")
    with tempfile.TemporaryDirectory(prefix="ar-findings-") as name:
        here = Path(name)
        for file in folder.glob(f"{LEDGER_NAME}*"):
            if not file.name.endswith("-shm"):  # shared memory of the other machine's sqlite
                shutil.copyfile(file, here / file.name)
        try:
            return read_kept(here, check=True)
        except LedgerError as error:
            raise LedgerError(error.message.replace(str(here), str(folder)), fix="copy it again") from error


def _state(folder: Path) -> object:
    """Return a value that differs whenever the ledger has been written: inode, size and time of both files."""
    stamps = []
    for name in (LEDGER_NAME, f"{LEDGER_NAME}-wal"):
        try:
            stat = (folder / name).stat()
            stamps.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)
