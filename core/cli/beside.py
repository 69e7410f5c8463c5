"""What goes on beside the loop and never in its way: trackers, and the person's own commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from autoresearch.core.run import Run
    from autoresearch.core.store.rows import ExperimentRow

F = TypeVar("F", bound=Callable[..., Any])
TRACKERS = ("trackio", "wandb", "mlflow", "tensorboard")


@dataclass(frozen=True)
class BesideOptions:
    """What was asked for."""

    track: tuple[str, ...] = ()
    on_keep: str | None = None
    on_end: str | None = None


_OPTIONS = (
    click.option(
        "--track", type=click.Choice(TRACKERS), multiple=True, help="Tell an experiment tracker of every decision."
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
    from autoresearch.core.track.telling import check_library

    for name in options.track:
        check_library(name)


class Beside:
    """Hears every decision, and the end."""

    def __init__(self, options: BesideOptions, run: Run, say: Callable[[str], None]) -> None:
        """`say` is called from other threads."""
        from autoresearch.core.cli.notices import Notices
        from autoresearch.core.store.exports import BEST_TRAIN
        from autoresearch.core.track.telling import Telling

        facts = {"tag": run.tag, "folder": run.folder, "best_train": run.folder / BEST_TRAIN}
        self._run = run
        self._notices = Notices(options.on_keep, options.on_end, facts, say)
        self._trackers = [Telling(name, run.ledger, say) for name in dict.fromkeys(options.track)]

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
        from autoresearch.core.store.summary import summarise

        try:
            summary = summarise(self._run.ledger)
        except LedgerError:  # why the loop has ended, most likely: it is on its way to the person
            summary = {"state": "failed", "ended": "the ledger cannot be read"}
        names = ("state", "ended", "experiments", "best_experiment", "best_bpb", "best_estimate", "delta", "usd")
        for tracker in self._trackers:
            tracker.close(str(summary["state"]), str(summary["ended"] or ""))
        self._notices.close({name: summary.get(name) for name in names})
