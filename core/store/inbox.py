"""Submissions on their way to a run: one file each in its folder `inbox/`, on disk before anybody is told of it.

A ledger has one writer, and those who submit are other processes. So each writes a file of its own, in one step, and
the loop takes the files up in the order of their names: it records what became of one in the ledger, and only then
deletes the file. A crash in between repeats the step, and the ledger says that it was taken before.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoresearch.core.errors import LedgerError
from autoresearch.core.files import write_text
from autoresearch.core.store import contents
from autoresearch.core.textfile import MOST_BYTES, read_text

SUBMISSION = "submission"
"""Parameter of an experiment that was handed in from outside: its submission. Also the kind of the ledger's events."""
INBOX = "inbox"
"""Folder of the waiting submissions, in the run's folder."""
LARGEST_DELTA = 1e6
"""Bound of a predicted change of val_bpb, in bpb."""
_SUFFIX = ".json"
_IDENTITY = re.compile(r"[0-9]{13}-[0-9a-f]{8}")
_FILE_BYTES = 6 * MOST_BYTES + 2**16
"""Bytes of a submission's file: JSON may write each byte of a source as six."""


@dataclass(frozen=True)
class Submission:
    """One train file from outside, as it was handed in."""

    identity: str
    """Name of the submission: milliseconds since the epoch, and eight hexadecimal digits against two at once."""
    source: str
    """The complete train file."""
    hypothesis: str
    category: str
    predicted_delta: float | None
    """Expected change of val_bpb against the best file, in bpb; negative is better."""
    parent: int
    """Number of the best experiment when it was submitted."""


class MalformedSubmissionError(ValueError):
    """A file of the inbox holds no submission. `str(error)` says why."""


def new_identity() -> str:
    """Return a name that no other submission has. Names are in the order of their times."""
    return f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}"


def is_identity(text: str) -> bool:
    """Tell whether a text can be the name of a submission."""
    return _IDENTITY.fullmatch(text) is not None


class Box:
    """Files on their way to a run, each put there in one step and taken up in the order of their names."""

    name = ""
    """The folder's name, in the run's folder."""
    content = "file"
    """Noun for a file's content, in messages."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / self.name

    def put_text(self, identity: str, text: str) -> None:
        """Add a file, on disk when this returns. Raises `LedgerError` where the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self._path(identity), text)
        except OSError as error:
            raise LedgerError(
                f"the {self.content} cannot be written to {self.folder}: {error.strerror}.",
                fix="check the disk's free space and permissions",
            ) from error

    def waiting(self) -> list[str]:
        """Return the names of the waiting files, the earliest first. A folder that is not there has none."""
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(_SUFFIX)]
        except OSError:
            return []
        return sorted(stem for name in names if is_identity(stem := name.removesuffix(_SUFFIX)))

    def read_values(self, identity: str) -> dict[str, Any]:
        """Read one file's fields. Raises `OSError` or `ValueError`."""
        values = json.loads(read_text(self._path(identity), _FILE_BYTES))
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        return {**values, "identity": identity}

    def drop(self, identity: str) -> None:
        """Delete a file whose outcome the ledger holds. What cannot be deleted stays, and is passed over."""
        with suppress(OSError):
            self._path(identity).unlink()

    def _path(self, identity: str) -> Path:
        return self.folder / f"{identity}{_SUFFIX}"


class Inbox(Box):
    """The waiting submissions of one run."""

    name, content = INBOX, "submission"

    def put(self, submission: Submission) -> None:
        """Add a submission, on disk when this returns. Raises `LedgerError` where the folder cannot be written."""
        self.put_text(submission.identity, json.dumps(asdict(submission)))

    def read(self, identity: str) -> Submission:
        """Read one submission. Raises `MalformedSubmissionError`, or `OSError` where it is gone."""
        try:
            return _checked(self.read_values(identity))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise MalformedSubmissionError(f"{identity}{_SUFFIX} holds no submission: {error}") from error


def _checked(values: dict[str, Any]) -> Submission:
    found = Submission(**values)
    texts = (found.identity, found.source, found.hypothesis, found.category)
    predicted = found.predicted_delta
    # No difference of two scores is so large; what no float holds, and what is no number, is not smaller either.
    number = predicted is None or (
        isinstance(predicted, int | float) and not isinstance(predicted, bool) and abs(predicted) < LARGEST_DELTA
    )
    named = contents.whole(found.parent) and found.parent >= 0
    if not (all(isinstance(text, str) for text in texts) and number and named):
        raise ValueError("a field has another type")
    found.source.encode("utf-8")  # a lone surrogate cannot be committed
    found.hypothesis.encode("utf-8")
    return found
