"""The folder of one trial: train.py, run.log, events.jsonl and, written last, result.json."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from types import TracebackType

from autoresearch.core.errors import TrialError
from autoresearch.core.events import EVENTS_FILE, Finished, Observer, TrialEvent, to_json
from autoresearch.core.files import remove_folder, write_text
from autoresearch.core.trial.request import TrialResult
from autoresearch.core.trial.weights import drop_weights

LOG_LIMIT_BYTES = 16 * 2**20
"""Largest run.log: a child that prints without end must not fill the disk."""
EVENTS_LIMIT_BYTES = 16 * 2**20
"""Largest events.jsonl, for the same reason."""


def warning_for_file_size() -> str | None:
    """Say what the shell's limit on the size of files means for trials; None where there is no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return None
    return (
        f"this shell lets no file grow beyond {limit / 2**20:.3g} MiB (`ulimit -f`): a trial with larger weights ends "
        "as a crash, and so does the loop once its ledger is as large"
    )


class Record:
    """Writes down what happens in a trial, and tells the observer."""

    def __init__(self, folder: Path, source: str, observer: Observer | None = None) -> None:
        """Make the folder, or clear it of an earlier attempt. Raises `TrialError` when it cannot be written."""
        self.folder = folder.absolute()
        self.observer = observer
        self.keep_weights = False
        """Set to True to leave the weights where they are at the end."""
        self._source = source
        self.started = time.monotonic()
        self._room = {"run.log": LOG_LIMIT_BYTES, EVENTS_FILE: EVENTS_LIMIT_BYTES}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # First: a trial that breaks off must not leave the result of an earlier attempt.
            (self.folder / "result.json").unlink(missing_ok=True)
            # Half a character, of which no file can be made, is found when the source is parsed.
            (self.folder / "train.py").write_text(source, encoding="utf-8", errors="replace", newline="")
            self._files = {name: (self.folder / name).open("wb") for name in self._room}
        except OSError as error:
            raise self._trouble(error) from error

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError:
                pass  # the disk is full; what mattered was flushed, or its failure was raised
        remove_folder(self.folder / "work")
        if not self.keep_weights:  # they may be gigabytes, and nobody reads them after the score
            drop_weights(self.folder / "weights.safetensors")

    @property
    def log_path(self) -> Path:
        """Path of the file with the children's output."""
        return self.folder / "run.log"

    def log(self, data: bytes) -> None:
        """Append what a child has printed, up to `LOG_LIMIT_BYTES`. Raises `TrialError`."""
        self._append("run.log", data)

    def event(self, event: TrialEvent) -> None:
        """Append one event with its seconds since the trial's start, and pass it to the observer."""
        line = {"t": round(time.monotonic() - self.started, 4), **to_json(event)}
        self._append(EVENTS_FILE, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        if self.observer is not None:
            self.observer(event)

    def work_folder(self, role: str) -> Path:
        """Make an empty work folder for one child, with a home and a temporary folder of its own."""
        work = self.folder / "work" / role
        try:
            remove_folder(work)
            (work / "home").mkdir(parents=True)
            (work / "tmp").mkdir()
        except OSError as error:
            raise self._trouble(error) from error
        self.renew_source(work)
        return work

    def renew_source(self, work: Path) -> None:
        """Put the train file into a child's work folder, in place of whatever lies there.

        It comes from memory, because at a weak isolation level another child could have changed a copy on disk.
        """
        path = work / "train.py"
        try:
            path.unlink(missing_ok=True)
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(self._source)
        except OSError as error:
            raise self._trouble(error) from error

    def finish(self, result: TrialResult) -> None:
        """Write result.json, and tell that the trial is over."""
        try:
            write_text(self.folder / "result.json", result.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise self._trouble(error) from error
        self.event(Finished(result.model_dump()))

    def _append(self, name: str, data: bytes) -> None:
        room = self._room[name]
        if room <= 0:
            return
        if len(data) > room:
            data = data[:room] + b"\n... the rest was dropped: too much output\n" if name == "run.log" else b""
            room = 0
        self._room[name] = room - len(data)
        try:
            self._files[name].write(data)
            self._files[name].flush()  # people and the dashboard follow these files
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> TrialError:
        return TrialError(
            f"the trial's folder {self.folder} cannot be written: {error.strerror or error}.",
            fix="free some disk space or choose another folder, then run the same command again.",
        )
