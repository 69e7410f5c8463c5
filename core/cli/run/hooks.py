"""Hooks of a run: experiment trackers, messages, and the person's own commands. The loop does not wait for them."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.params import ShellCommand, option
from autoresearch.core.cli.run.notify import KINDS, Notifier, check_targets
from autoresearch.core.cli.run.teller import Kind, Teller
from autoresearch.core.environment import allowed_environment, check_names
from autoresearch.core.process_group import kill_group
from autoresearch.core.report.wording import one_line
from autoresearch.core.track.tracker import tracker_names

if TYPE_CHECKING:
    from autoresearch.core.run.run import Run
    from autoresearch.core.store.rows import ExperimentRow

TIMEOUT_SECONDS = 60.0
"""Seconds that one of the person's commands may take."""
PATIENCE_SECONDS = 70.0
"""Seconds that the end of the loop waits for the person's commands."""


@dataclass(frozen=True)
class HookOptions:
    """Options about trackers, messages and the person's own commands."""

    track: tuple[str, ...] = option(
        type=click.Choice(tracker_names()),
        multiple=True,
        help="Report every experiment to this tracker; may be given several times.",
    )
    on_keep: str | None = option(
        type=ShellCommand(),
        metavar="COMMAND",
        help="Shell command to run after every kept change; AR_EVENT_... variables describe it.",
    )
    on_end: str | None = option(
        type=ShellCommand(),
        metavar="COMMAND",
        help="Shell command to run when the loop ends, however it ends; gets AR_EVENT_... variables.",
    )
    notify: tuple[str, ...] = option(
        multiple=True,
        metavar=KINDS,
        help="Send a notification for every kept change and at the end of the loop; may be given several times.",
    )
    hook_env: tuple[str, ...] = option(
        multiple=True,
        metavar="NAME",
        help="Environment variable that the commands of --on-keep and --on-end may see in addition to the usual "
        "ones; may be given several times.",
    )
    track_env: tuple[str, ...] = option(
        multiple=True,
        metavar="NAME",
        help="Environment variable that the trackers of --track may see, such as a cloud's key for MLflow, in "
        "addition to the usual ones and the tracker's own (WANDB_..., MLFLOW_..., TRACKIO_...); may be given "
        "several times.",
    )


def check_hooks(options: HookOptions) -> None:
    """Check that every tracker's library is installed, every target known and every variable set. Raises `ArError`."""
    from autoresearch.core.track.tracker_process import check_library

    check_names("--hook-env", options.hook_env)
    check_names("--track-env", options.track_env)
    check_targets(options.notify)
    for name in options.track:
        check_library(name)


class RunHooks:
    """Passes every decision, and the end of the loop, to the trackers, the messages and the person's commands."""

    def __init__(self, options: HookOptions, run: Run, say: Callable[[str], None]) -> None:
        """`say` is called from other threads."""
        from autoresearch.core.store.exports import BEST_TRAIN
        from autoresearch.core.track.tracker_process import TrackerProcess

        facts = {"tag": run.tag, "folder": run.folder, "best_train": run.folder / BEST_TRAIN}
        self._run = run
        self._commands = UserCommands(options.on_keep, options.on_end, facts, say, options.hook_env)
        self._trackers = [
            TrackerProcess(name, run.ledger, say, options.track_env) for name in dict.fromkeys(options.track)
        ]
        self._notifier = Notifier(options.notify, run.tag, say)

    def decided(self, row: ExperimentRow) -> None:
        """Pass a decision on without waiting."""
        self._commands.decided(row)
        self._notifier.decided(row)
        for tracker in self._trackers:
            tracker.decided(row)

    def __enter__(self) -> RunHooks:
        return self

    def __exit__(self, *_: object) -> None:
        """Report how the loop has ended, as the ledger says. Waits a limited time."""
        from autoresearch.core.errors import LedgerError
        from autoresearch.core.store.exports import summarise

        try:
            summary = summarise(self._run.ledger)
        except LedgerError:  # most likely the reason why the loop ends: the person is told of it elsewhere
            summary = {"state": "failed", "ended": "the ledger cannot be read"}
        names = ("state", "ended", "experiments", "best_experiment", "best_bpb", "best_estimate", "delta", "usd")
        for tracker in self._trackers:
            tracker.close(str(summary["state"]), str(summary["ended"] or ""))
        facts = {name: summary.get(name) for name in names}
        self._notifier.close(facts)
        self._commands.close(facts)


class UserCommands(Teller):
    """Runs the person's commands one after another. A command's failure is reported once."""

    def __init__(
        self,
        on_keep: str | None,
        on_end: str | None,
        facts: Mapping[str, object],
        say: Callable[[str], None],
        also: Iterable[str] = (),
    ):
        """Take the commands. Each gets `facts` in its environment; `say` is called from another thread.

        `also` names variables of the person's that the commands see beside the usual ones.
        """
        super().__init__(say, PATIENCE_SECONDS)
        self._also, self._facts = tuple(also), dict(facts)
        self._by_kind = {"keep": on_keep, "end": on_end}

    def tell(self, kind: Kind, facts: Mapping[str, object]) -> None:
        """Run the command of this kind, where there is one."""
        command = self._by_kind[kind]
        if command:
            trouble = run_command(command, environment(kind, {**self._facts, **facts}, self._also))
            if trouble:
                self.complain(kind, f"--on-{kind}: {trouble}")


def environment(kind: str, facts: Mapping[str, object], also: Iterable[str] = ()) -> dict[str, str]:
    """Return AR_EVENT and a variable for every fact that is known, beside what a command may see of the environment."""
    known = {f"AR_EVENT_{name.upper()}": one_line(str(value)) for name, value in facts.items() if value is not None}
    return {**allowed_environment(also), "AR_EVENT": kind, **known}


def run_command(command: str, environ: Mapping[str, str], timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Run a command in a shell, in a session of its own. Returns the trouble it had; None if it succeeded."""
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

    def keep_last_line() -> None:
        nonlocal last
        assert process.stderr is not None
        for line in process.stderr:
            last = line.strip() or last

    listener = threading.Thread(target=keep_last_line, daemon=True)
    listener.start()
    end = time.monotonic() + timeout_seconds
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return f"has not ended after {timeout_seconds:g} s and was killed"
    listener.join(min(1.0, max(end - time.monotonic(), 0.1)))
    if code == 0:
        return None
    words = one_line(last.decode(errors="replace"), 200)
    return f"ended with exit code {code}" + (f": {words}" if words else "")
