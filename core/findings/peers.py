"""The runs beside one: what they keep, read from their ledgers. Nothing is written there."""

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

MOST = 100
"""OfferedChanges of one run that are offered: those with the largest gains."""
RunIdentity = tuple[str, str, str]
"""Tag, backend and device of a run."""


@dataclass(frozen=True)
class PeerKeeps:
    """What another run keeps at the moment."""

    identity: RunIdentity
    findings: tuple[Finding, ...]
    """The largest gains first."""
    roots: Mapping[Origin, Origin]
    """Its own keep -> the finding of another run that it came from."""
    standing: frozenset[Origin]
    """Every keep of it, however many."""


class PeerRuns:
    """The runs beside one. One that cannot be read is said once; what was read of it before stays."""

    def __init__(self, folders: Callable[[], Iterable[Path]], say: Callable[[str], None]) -> None:
        """`folders` gives the run folders whenever they are looked at; some may not be there yet.

        `say` is told what cannot be read.
        """
        self._folders, self.say = folders, say
        self._seen: dict[Path, tuple[object, PeerKeeps]] = {}
        self._complained: set[Path] = set()

    def look(self, own: Path, backend: str, device: str) -> list[PeerKeeps]:
        """What runs of other backends or devices keep now; `own` is the folder of the run that asks."""
        own, found = own.resolve(), dict[RunIdentity, PeerKeeps]()
        for folder in sorted({folder.resolve() for folder in self._folders()} - {own}):
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
        return before[1] if before is not None else None  # and is read again next time

    def _complain(self, folder: Path, why: str) -> None:
        if folder not in self._complained:
            self._complained.add(folder)
            self.say(f"no findings are taken from {folder}: {why.rstrip('.')}")


def folders_of(workspace: Path, wanted: Sequence[str]) -> Callable[[], Iterable[Path]]:
    """The run folders that `wanted` names: "auto" for every run of the workspace, "none", or paths."""

    def folders() -> Iterable[Path]:
        for name in wanted:
            if name == "auto":
                yield from (ledger.parent for ledger in runs_dir(workspace).glob(f"*/{LEDGER_NAME}"))
            elif name != "none":
                yield Path(name)

    return folders


def read_kept(folder: Path, *, check: bool = False) -> PeerKeeps:
    """What the run in that folder keeps. Raises `LedgerError` when its ledger cannot be read.

    `check` walks along the ledger's chain as well.
    """
    with LedgerReader(folder) as reader:
        if check and (fault := reader.verify().fault) is not None:
            raise LedgerError(f"it is not as it was written ({fault}).")
        run = reader.run()
        identity = (run.tag, str(run.config["backend"]), str(run.config["device"]))
        rows = [row for row in reader.keeps() if row.number]
        origins = {row.number: Origin(run.tag, row.number, *identity[1:], row.delta) for row in rows}
        findings = []
        for row in sorted(rows, key=lambda row: (row.delta or 0.0, row.number))[:MOST]:
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
    """The same of a folder that came from elsewhere: it may be replaced at any time, be torn, or not be writable."""
    if not (folder / LEDGER_NAME).is_file():
        raise LedgerError(f"there is no {LEDGER_NAME} in it.")
    with tempfile.TemporaryDirectory(prefix="ar-findings-") as name:
        here = Path(name)
        for file in folder.glob(f"{LEDGER_NAME}*"):
            if not file.name.endswith("-shm"):  # sqlite's own, and of another machine
                shutil.copyfile(file, here / file.name)
        try:
            return read_kept(here, check=True)
        except LedgerError as error:
            raise LedgerError(error.message.replace(str(here), str(folder)), fix="copy it again") from error


def _state(folder: Path) -> object:
    """Changes whenever the ledger is written."""
    stamps = []
    for name in (LEDGER_NAME, f"{LEDGER_NAME}-wal"):
        try:
            stat = (folder / name).stat()
            stamps.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)
