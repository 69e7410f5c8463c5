"""A person's wish for a running loop, left as a file in the run's folder: pause, or stop after the trials under way.

A run has one writer, so that the dashboard cannot write its ledger. The loop reads the file before every step.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

from autoresearch.core.errors import LedgerError
from autoresearch.core.files import write_text
from autoresearch.core.textfile import read_text

Wish = Literal["pause", "stop"]
FILE = "wish.json"
"""Name of the file, in the run's folder."""
_MOST_BYTES = 1000


class WishFile:
    """The wish for one run, if there is one."""

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / FILE

    def put(self, wish: Wish) -> None:
        """Leave a wish, which replaces the one before. Raises `LedgerError` where the folder cannot be written."""
        try:
            write_text(self.path, json.dumps({"wish": wish}))
        except OSError as error:
            raise LedgerError(
                f"the wish cannot be written to {self.path}: {error.strerror}.",
                fix="check the disk's free space and permissions",
            ) from error

    def read(self) -> Wish | None:
        """Return the wish; None where there is none, or the file holds something else."""
        try:
            found = json.loads(read_text(self.path, _MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        wish = found.get("wish") if isinstance(found, dict) else None
        return wish if wish in get_args(Wish) else None

    def clear(self) -> None:
        """Take the wish back, or forget it once it is fulfilled. One that cannot be deleted stays."""
        with suppress(OSError):
            self.path.unlink()
