"""The loop's side of a tracker: a process that hears of every decision and that the loop never waits for."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from autoresearch.core.environment import allowed_environment
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.process_group import kill_group
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.track.tracker import TrackedRun

FOLDER = "tracking"
"""Folder in the run's folder: each tracker's log (NAME.log) and its count of reported decisions (NAME.told)."""
PATIENCE_SECONDS = 30.0
"""Longest wait, in seconds, for unreported decisions when the loop ends."""
METRICS = ("tokens_per_second", "peak_memory_mb", "train_seconds", "wall_seconds", "tokens", "params", "mfu")
"""Metrics of a trial that are reported with its experiment, under their own names."""


def check_library(name: str) -> None:
    """Raise `PrerequisiteError` when the tracker's library is not installed."""
    if importlib.util.find_spec(name) is None:
        raise PrerequisiteError(
            f"--track {name} needs the library {name}.", fix=f'pip install -c constraints.txt -e ".[{name}]"'
        )


def tracker_environment(name: str, also: Iterable[str] = ()) -> dict[str, str]:
    """Return what a tracker's process may see: the usual variables, the library's own by prefix, those in `also`.

    `WANDB_API_KEY` belongs to wandb alone; the key of a model provider to no tracker.
    """
    own = (variable for variable in os.environ if variable.startswith(f"{name.upper()}_"))
    return allowed_environment((*own, *also))


class TrackerProcess:
    """Reports one run to one tracker, from the first decision that was not reported before."""

    def __init__(
        self, name: str, reader: LedgerReader, say: Callable[[str], None], variables: Iterable[str] = ()
    ) -> None:
        """Start the process and queue every decision that it has not confirmed. `say` is called from another thread.

        `variables` names environment variables that the process may see beside those of `tracker_environment`.
        """
        self.name, self._say = name, say
        self._folder = reader.folder / FOLDER
        self._folder.mkdir(exist_ok=True)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._failed = False
        self._best: float | None = None
        self._step = 0
        known, run = self._told(), reader.run()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "autoresearch.core.track.child", name, str(self._folder / f"{name}.log")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=tracker_environment(name, variables),
            cwd=self._folder,  # `-m` puts the working folder first on the import path: a user's wandb.py must not win
            start_new_session=True,  # Ctrl-C stops the loop, which then reports the end
        )
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._listen)]
        for thread in self._threads:
            thread.start()
        tracked = TrackedRun(run.tag, f"{run.tag}-{int(run.created):x}", reader.folder, _flat(run.config))
        self._put({"start": {**asdict(tracked), "folder": str(reader.folder)}})
        for number in reader.decisions():
            self.decided(reader.experiment(number), tell=self._step >= known)

    def decided(self, row: ExperimentRow, *, tell: bool = True) -> None:
        """Queue a decision; return at once. `tell=False` only counts one that the tracker has already."""
        if row.status == "keep" and row.estimate is not None:
            self._best = row.estimate
        if tell:
            self._put({"log": {"step": self._step, "numbers": numbers(row, self._best), "texts": texts(row)}})
        self._step += 1

    def close(self, state: str, ended: str) -> None:
        """Queue the end of the loop, wait at most PATIENCE_SECONDS for the queue, then kill the process group."""
        self._put({"end": {"state": state, "texts": {"ended": ended}}})
        self._lines.put(None)
        end = time.monotonic() + PATIENCE_SECONDS
        try:
            self._child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._fail(f"it has not taken everything in {PATIENCE_SECONDS:g} s")
        # Libraries start processes of their own (wandb a service, trackio a server): they must not outlive the loop.
        kill_group(self._child)
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 1.0))

    def _put(self, message: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(message))

    def _write(self) -> None:
        stdin = self._child.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while (line := self._lines.get()) is not None:
                stdin.write(line + "\n")
                stdin.flush()
        with contextlib.suppress(OSError, ValueError):
            stdin.close()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        ended = False
        for line in self._child.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            if "place" in answer:
                self._say(f"{self.name}: {answer['place']}")
            elif "told" in answer:
                self._mark(int(answer["told"]) + 1)
            elif "failed" in answer:
                ended = True
                self._fail(str(answer["failed"]))
        if self._child.wait() not in (0, -signal.SIGKILL) and not ended:
            self._fail(f"its process ended with {self._child.returncode}")

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._say(f"{self.name} fails, the run goes on without it: {why}. Its log: {self._folder / self.name}.log")

    def _told(self) -> int:
        try:
            return int((self._folder / f"{self.name}.told").read_text())
        except (OSError, ValueError):
            return 0

    def _mark(self, count: int) -> None:
        with contextlib.suppress(OSError):
            (self._folder / f"{self.name}.told").write_text(str(count))


def numbers(row: ExperimentRow, best: float | None) -> dict[str, float]:
    """Collect a decision's numbers by name, leaving out unknown ones. `decided` is in Unix seconds."""
    known = {
        "experiment": row.number,
        "decided": row.decided,
        "val_bpb": row.val_bpb,
        "estimate": row.estimate,
        "delta": row.delta,
        "best_estimate": best,
        "kept": row.status == "keep",
        "trials": row.trials,
        "usd": row.usd,
        **{name: row.metrics.get(name) for name in METRICS},
    }
    return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}


def texts(row: ExperimentRow) -> dict[str, str]:
    """Collect a decision's texts by name, leaving out unknown ones."""
    known = {
        "status": row.status,
        "hypothesis": row.hypothesis,
        "category": row.category,
        "researcher": row.researcher,
        "reason": row.reason,
        "commit": row.commit,
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value) for name, value in config.items()
    }
