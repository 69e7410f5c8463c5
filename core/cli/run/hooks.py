"""What goes on beside the loop and never in its way: trackers, and the person's own commands.

Commands of the person's own that hear of keeps and of the end. Nothing waits for them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from autoresearch.core.report.wording import one_line
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.track.tracker import tracker_names

if TYPE_CHECKING:
    from autoresearch.core.run.run import Run
    from autoresearch.core.store.rows import ExperimentRow

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class BesideOptions:
    """What was asked for."""

    track: tuple[str, ...] = ()
    on_keep: str | None = None
    on_end: str | None = None


_OPTIONS = (
    click.option(
        "--track",
        type=click.Choice(tracker_names()),
        multiple=True,
        help="Tell an experiment tracker of every decision.",
    ),
    click.option("--on-keep", metavar="COMMAND", help="Run it after every keep, with AR_EVENT_... variables."),
    click.option("--on-end", metavar="COMMAND", help="Run it when the loop ends, however it does."),
)


def beside_options(function: F) -> F:
    """Add these options to a command, which gets them as one argument, `beside`."""

    @functools.wraps(function)
    def with_options(*args: Any, **kwargs: Any) -> Any:
        taken = {one.name: kwargs.pop(one.name) for one in fields(BesideOptions)}
        return function(*args, beside=BesideOptions(**taken), **kwargs)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return cast("F", with_options)


def check_beside(options: BesideOptions) -> None:
    """Raises `PrerequisiteError` when a tracker's library is missing."""
    from autoresearch.core.track.tracker_process import check_library

    for name in options.track:
        check_library(name)


class Beside:
    """Hears every decision, and the end."""

    def __init__(self, options: BesideOptions, run: Run, say: Callable[[str], None]) -> None:
        """`say` is called from other threads."""
        from autoresearch.core.store.exports import BEST_TRAIN
        from autoresearch.core.track.tracker_process import TrackerProcess

        facts = {"tag": run.tag, "folder": run.folder, "best_train": run.folder / BEST_TRAIN}
        self._run = run
        self._notices = Notices(options.on_keep, options.on_end, facts, say)
        self._trackers = [TrackerProcess(name, run.ledger, say) for name in dict.fromkeys(options.track)]

    def decided(self, row: ExperimentRow) -> None:
        """Pass it on; never waits."""
        self._notices.decided(row)
        for tracker in self._trackers:
            tracker.decided(row)

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        """The loop has ended, and the ledger says how. Waits a little."""
        from autoresearch.core.errors import LedgerError
        from autoresearch.core.store.exports import summarise

        try:
            summary = summarise(self._run.ledger)
        except LedgerError:  # why the loop has ended, most likely: it is on its way to the person
            summary = {"state": "failed", "ended": "the ledger cannot be read"}
        names = ("state", "ended", "experiments", "best_experiment", "best_bpb", "best_estimate", "delta", "usd")
        for tracker in self._trackers:
            tracker.close(str(summary["state"]), str(summary["ended"] or ""))
        self._notices.close({name: summary.get(name) for name in names})


TIMEOUT_SECONDS = 60.0
PATIENCE_SECONDS = 70.0
"""For commands that still run when the loop ends."""


class Notices:
    """Runs the commands one after another in a thread. What fails is said once for each command."""

    def __init__(
        self, on_keep: str | None, on_end: str | None, facts: Mapping[str, object], say: Callable[[str], None]
    ):
        """`facts` go into the environment of every command; `say` is called from another thread."""
        self._commands = {"keep": on_keep, "end": on_end}
        self._facts, self._say = dict(facts), say
        self._complained: set[str] = set()
        self._waiting: queue.SimpleQueue[tuple[str, dict[str, object]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        self._thread.start()

    def decided(self, row: ExperimentRow) -> None:
        """A decision; only keeps are passed on, and the baseline is none."""
        if row.status == "keep" and row.number > 0:
            names = ("val_bpb", "estimate", "delta", "commit", "category", "researcher", "reason")
            facts = {name: getattr(row, name) for name in names}
            self._waiting.put(("keep", {"experiment": row.number, "description": row.hypothesis, **facts}))

    def close(self, facts: Mapping[str, object]) -> None:
        """The loop ends. Waits for its command, which has been given a limit."""
        self._waiting.put(("end", dict(facts)))
        self._waiting.put(None)
        self._thread.join(PATIENCE_SECONDS)

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            kind, facts = waiting
            command = self._commands[kind]
            if command:
                trouble = run_command(command, environment(kind, {**self._facts, **facts}))
                if trouble and kind not in self._complained:
                    self._complained.add(kind)
                    self._say(f"--on-{kind}: {trouble}")


def environment(kind: str, facts: Mapping[str, object]) -> dict[str, str]:
    """The person's own environment with AR_EVENT and a variable for every fact that is known."""
    known = {f"AR_EVENT_{name.upper()}": one_line(str(value)) for name, value in facts.items() if value is not None}
    return {**os.environ, "AR_EVENT": kind, **known}


def run_command(command: str, environ: Mapping[str, str], timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Run it in a shell, in a session of its own. Returns what went wrong, in words."""
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"cannot be started: {error}"
    last = b""

    def listen() -> None:
        nonlocal last
        assert process.stderr is not None
        for line in process.stderr:
            last = line.strip() or last

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    end = time.monotonic() + timeout_seconds
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"has not ended after {timeout_seconds:g} s and was killed"
    listener.join(min(1.0, max(end - time.monotonic(), 0.1)))
    if code == 0:
        return None
    words = one_line(last.decode(errors="replace"), 200)
    return f"ended with exit code {code}" + (f": {words}" if words else "")
