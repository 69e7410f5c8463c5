"""Peer runs: the changes that other runs keep, read from their ledgers. Nothing is written to them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.core.config import RUN_FOLDERS, runs_dir
from autoresearch.core.errors import LedgerError, UsageError
from autoresearch.core.printable import printable
from autoresearch.core.proposal import Finding, Origin
from autoresearch.core.stack_parts import members_of
from autoresearch.core.store import contents
from autoresearch.core.store.git import check_tag
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.rows import ExperimentRow

MOST_OFFERED = 100
"""Largest number of changes that one run offers: those with the largest gains."""
MOST_COPIED_BYTES = 2**30
"""Largest ledger that is taken over from another machine; that of 10,000 experiments has a tenth of it."""
SLOW_SECONDS = 2.0
"""Seconds after which a ledger that could not be read is not tried again until it has changed."""
MOST_WORDS = 2000
"""Characters of a name, a hypothesis or a category that another machine may offer."""
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
    """All changes that the run keeps, however many, and those parts of its stacks that `parts` names."""
    parts: Mapping[Origin, tuple[Finding, ...]] = field(default_factory=dict)
    """A kept stack -> its parts, where one of them was taken over from another run; MOST_OFFERED parts at most."""


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
        self._slow: dict[Path, object] = {}

    def look(self, own: Path, backend: str, device: str) -> list[PeerKeeps]:
        """Return what runs of another backend or device keep now, leaving out the run in the folder `own`.

        A run of the null backend has findings for other null runs alone.
        """
        own, found = own.resolve(), dict[RunIdentity, PeerKeeps]()
        for folder in sorted({folder.resolve() for folder in self._folders()} - {own}):
            # A folder outside this workspace's runs was copied from another machine, by whatever means.
            kept = self._read(folder, copied=folder.parent != own.parent)
            if kept is None or kept.identity[1:] == (backend, device):
                continue
            if kept.identity[1] == "null" != backend:  # it tries the loop, not models: what it finds holds nowhere else
                continue
            if kept.identity in found:
                self._complain(folder, f"another folder holds a run {kept.identity[0]!r} of the same device as well")
                continue
            found[kept.identity] = kept
        return list(found.values())

    def _read(self, folder: Path, *, copied: bool) -> PeerKeeps | None:
        state = _state(folder)
        before = self._seen.get(folder)
        if self._slow.get(folder) == state:  # it has cost much time, and would again
            return before[1] if before is not None else None
        began = time.monotonic()
        if before is not None and before[0] == state:
            return before[1]
        try:
            kept = read_copy(folder) if copied else read_kept(folder)
        except (LedgerError, UsageError) as error:
            why = _words(error.message)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
            why = f"its ledger cannot be understood ({type(error).__name__}: {_words(error)})"
        else:
            self._complained.discard(folder)
            self._seen[folder] = state, kept
            return kept
        if time.monotonic() - began > SLOW_SECONDS:
            self._slow[folder] = state
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
                yield from (ledger.parent for ledger in runs_dir(workspace).glob(f"{RUN_FOLDERS}/{LEDGER_NAME}"))
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
        identity = (check_tag(run.tag), _plain(run.config["backend"]), _plain(run.config["device"]))
        rows = [_checked(row) for row in reader.keeps() if row.number]
        offered = sorted(rows, key=lambda row: (row.delta or 0.0, row.number))[:MOST_OFFERED]
        findings, parts, left = [], {}, MOST_OFFERED
        for row in offered:
            findings.append(_finding(reader, row, identity))
            members = _parts(reader, row, left)
            if any(part.origin is not None for part in members):
                parts[findings[-1].origin] = tuple(_finding(reader, part, identity) for part in members)
                rows += members
                left -= len(members)
        origins = {row.number: _origin(row, identity) for row in rows}
        roots = {origins[row.number]: row.origin for row in rows if row.origin is not None}
    return PeerKeeps(identity, tuple(findings), roots, frozenset(origins.values()), parts)


def _parts(reader: LedgerReader, stack: ExperimentRow, most: int) -> list[ExperimentRow]:
    """Return the parts of a kept stack, at most `most`; none for any other experiment."""
    numbers = list(dict.fromkeys(members_of(stack)))[:most]  # before the ledger is asked: a stranger's names any number
    return [_checked(reader.experiment(number)) for number in numbers if number and reader.has_experiment(number)]


def _origin(row: ExperimentRow, identity: RunIdentity) -> Origin:
    return Origin(identity[0], row.number, *identity[1:], row.delta)


def _finding(reader: LedgerReader, row: ExperimentRow, identity: RunIdentity) -> Finding:
    """Return a kept change of the run as an offer. Raises `UnicodeEncodeError` for a text that no file can hold."""
    before, after = reader.source(row.parent), reader.text(row.source_sha256)
    for text in (before, after):
        text.encode()  # half a surrogate pair could be written to no file
    return Finding(
        origin=_origin(row, identity),
        hypothesis=row.hypothesis,
        category=row.category,
        before=before,
        after=after,
        parameters=row.parameters,
    )


def read_copy(folder: Path) -> PeerKeeps:
    """Copy the ledger of `folder` and read the copy, checked. Raises `LedgerError`.

    A folder from another machine may be replaced while it is read, be half copied, or not be writable, and sqlite
    needs to write beside a ledger even to read it.
    """
    files = [file for file in (folder / LEDGER_NAME, folder / f"{LEDGER_NAME}-wal") if file.exists()]
    if folder / LEDGER_NAME not in files or not all(file.is_file() for file in files):
        raise LedgerError(f"there is no {LEDGER_NAME} in it.")
    if sum(file.stat().st_size for file in files) > MOST_COPIED_BYTES:
        raise LedgerError(f"its {LEDGER_NAME} has more than {MOST_COPIED_BYTES:,} bytes.")
    with tempfile.TemporaryDirectory(prefix="ar-findings-") as name:
        here = Path(name)
        for file in files:  # not what is called -shm, the shared memory of the other machine's sqlite
            shutil.copyfile(file, here / file.name)
        try:
            return read_kept(here, check=True)
        except LedgerError as error:
            raise LedgerError(error.message.replace(str(here), str(folder)), fix="copy it again") from error


def _checked(row: ExperimentRow) -> ExperimentRow:
    """Check that a row holds what its columns are for. Raises `TypeError` or `ValueError`.

    sqlite keeps whatever is put into a column, and the machine that wrote this one may be anybody's.
    """
    for text in (row.hypothesis, row.category):
        _short(text)
    for number in (row.number, row.parent):
        if not isinstance(number, int):
            raise TypeError("an experiment's number is not a whole number")
    _check_gain(row.delta)
    if row.origin is not None:
        for text in row.origin.identity:
            _plain(text)
        if not isinstance(row.origin.experiment, int):
            raise TypeError("an experiment's number is not a whole number")
        _check_gain(row.origin.delta)
    if not isinstance(row.parameters, Mapping):
        raise TypeError("an experiment's parameters are not an object")
    return row


def _check_gain(delta: object) -> None:
    if delta is not None and not contents.real(delta):
        raise TypeError("an experiment's gain is not a number")


def _plain(text: object) -> str:
    """Check a name that is said to a person, and return it. Raises `TypeError` or `ValueError`."""
    if not _short(text).isprintable():
        raise ValueError("a name of it cannot be printed")
    return str(text)


def _short(text: object) -> str:
    if not isinstance(text, str) or len(text) > MOST_WORDS:
        raise TypeError(f"a text of it is not text, or has more than {MOST_WORDS} characters")
    return text


def _words(what: object) -> str:
    """Write it in one short line for a terminal: another machine's words may hold control characters."""
    return printable(str(what))[:500]


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
