"""A person's notes on experiments, and pins: events of the ledger, on their way to it as files where a loop writes it.

A run has one writer. So whoever notes something writes a file of its own, and whoever holds the run takes the files up:
it records each in the ledger and only then deletes it. Readers see both, so that a note counts from the moment at which
it is on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from autoresearch.core.errors import LockedError, UsageError
from autoresearch.core.store import contents
from autoresearch.core.store.inbox import Box, new_identity

if TYPE_CHECKING:
    from autoresearch.core.store.ledger import Ledger
    from autoresearch.core.store.reader import LedgerReader

REMARK = "remark"
"""Kind of the ledger's events about notes and pins."""
NOTE_CHARACTERS = 1000
"""Longest note: it is shown to researchers before each proposal."""
Kind = Literal["note", "clear", "pin", "unpin"]


@dataclass(frozen=True)
class Remark:
    """One note or pin, or the taking back of all notes or of the pin."""

    identity: str
    experiment: int
    kind: Kind
    text: str = ""

    @classmethod
    def make(cls, experiment: int, kind: Kind, text: str = "") -> Remark:
        """Make a remark with a name of its own; the text is put on one line."""
        words = " ".join(text.encode("utf-8", errors="replace").decode().replace("\0", " ").split())
        return cls(new_identity(), experiment, kind, words)


@dataclass(frozen=True)
class Marks:
    """The remarks on one experiment that still stand."""

    notes: tuple[str, ...] = ()
    """Notes, the oldest first."""
    pinned: bool = False

    def record(self) -> dict[str, Any]:
        """Return them as JSON shows them."""
        return {"notes": list(self.notes), "pinned": self.pinned}


NO_MARKS = Marks()


class RemarkBox(Box):
    """The remarks on one run that its ledger does not hold yet."""

    name, content = "remarks", "note"

    def put(self, remark: Remark) -> None:
        """Add a remark, on disk when this returns. Raises `LedgerError` where the folder cannot be written."""
        self.put_text(remark.identity, json.dumps(asdict(remark)))

    def read_all(self) -> Iterator[Remark]:
        """Yield every waiting remark, the earliest first; what holds none is passed over."""
        for identity in self.waiting():
            try:
                remark = remark_of(self.read_values(identity))
            except (OSError, ValueError, RecursionError):
                continue
            if remark is not None:
                yield remark


def remark_of(values: Mapping[str, Any]) -> Remark | None:
    """Return the remark that a file or an event holds; None where it holds something else."""
    number, kind = values.get("experiment"), values.get("kind")
    identity, text = values.get("identity"), values.get("text", "")
    if not isinstance(number, int) or not contents.whole(number) or number < 0:
        return None
    if not (kind in get_args(Kind) and isinstance(identity, str) and isinstance(text, str)):
        return None
    return Remark(identity, number, kind, text[:NOTE_CHARACTERS])  # type: ignore[arg-type]


def marks_of(reader: LedgerReader) -> dict[int, Marks]:
    """Return the marks of every experiment that has any, by its number, those on their way included."""
    recorded = [found for values in reader.events(REMARK) if (found := remark_of(values)) is not None]
    known = {one.identity for one in recorded}
    waiting = [one for one in RemarkBox(reader.folder).read_all() if one.identity not in known]
    return _fold([*recorded, *waiting])


def leave_remark(reader: LedgerReader, number: int, kind: Kind, text: str = "") -> Marks:
    """Record a remark on an experiment, at once or by the process that writes the run; return what now stands.

    Raises `UsageError` for what is no remark, and `LedgerError` where nothing can be written.
    """
    from autoresearch.core.store.ledger import Ledger

    made = Remark.make(number, kind, text)
    if kind == "note" and not made.text:
        raise UsageError("the note is empty.", fix='ar note 17 "worth another try with a longer warmup"')
    if len(made.text) > NOTE_CHARACTERS:
        fix = "shorten it: researchers read it before each proposal"
        raise UsageError(f"the note has {len(made.text)} characters; at most {NOTE_CHARACTERS} are kept.", fix=fix)
    if not reader.has_experiment(number):
        raise UsageError(f"there is no experiment {number} in {reader.run().tag}.", fix="`ar results` lists them")
    if reader.experiment(number).state == "proposed":
        # It may still be dropped, and the next proposal then gets its number.
        raise UsageError(f"experiment {number} has not begun yet.", fix="wait for its first trial")
    RemarkBox(reader.folder).put(made)
    try:
        with Ledger(reader.folder) as ledger:
            take_remarks(ledger)
    except LockedError:
        pass  # who writes the run takes it up, and readers see it already
    return marks_of(reader).get(number, NO_MARKS)


def take_remarks(ledger: Ledger) -> None:
    """Record every waiting remark in the ledger, each exactly once."""
    box = RemarkBox(ledger.folder)
    identities = box.waiting()
    if not identities:
        return
    known = {str(values.get("identity")) for values in ledger.events(REMARK)}
    for remark in box.read_all():
        if remark.identity not in known and ledger.has_experiment(remark.experiment):
            ledger.note(REMARK, remark.experiment, asdict(remark))
    # Only now: a crash before this line finds them in the ledger, and repeats nothing but the deletion.
    for identity in identities:
        box.drop(identity)


def _fold(remarks: Iterable[Remark]) -> dict[int, Marks]:
    found: dict[int, Marks] = {}
    for one in remarks:
        marks = found.get(one.experiment, NO_MARKS)
        if one.kind in ("note", "clear"):
            notes = (*marks.notes, one.text) if one.kind == "note" else ()
            marks = Marks(notes, marks.pinned)
        else:
            marks = Marks(marks.notes, one.kind == "pin")
        found[one.experiment] = marks
    return {number: marks for number, marks in sorted(found.items()) if marks != NO_MARKS}
