"""`ar watch`: follow a run that another process writes."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings, pass_settings

if TYPE_CHECKING:
    from rich.console import Console

    from autoresearch.core.report.follow import RunFollower, Snapshot
    from autoresearch.core.store.reader import LedgerReader
    from autoresearch.core.store.rows import ExperimentRow

LOOK_SECONDS = 0.5
"""Seconds between two looks at the run."""
PLAIN_SECONDS = 10.0
"""Seconds between two lines about the same trial, where there is no terminal."""


@click.command()
@click.option("--tag", metavar="TAG", help="Run to follow.  [default: the one started last]")
@pass_settings
def watch(settings: Settings, tag: str | None) -> None:
    """Follow a run from another terminal.

    Ends when the run does. Ctrl-C ends only the view, not the run. Without a terminal it prints plain lines; with
    --json, every decision as an object, and a summary at the end.
    """
    from rich.console import Console

    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.follow import RunFollower
    from autoresearch.core.report.terminal.screen import is_drawable

    with open_reader(settings, tag) as reader:
        follower, console = RunFollower(reader), Console()
        if settings.json:
            stream_decisions(reader, follower)
        elif is_drawable(console):
            _draw(follower, console)
        else:
            write_lines(reader, follower)


def _draw(follower: RunFollower, console: Console) -> None:
    """Draw the panel in place until the run ends; its last state stays on the terminal."""
    from autoresearch.core.report.terminal.panel import panel
    from autoresearch.core.report.terminal.screen import Screen

    screen, lines = Screen(console), []
    try:
        while True:
            snapshot = follower.look()
            lines = panel(snapshot, *screen.room())
            screen.draw(lines)
            if snapshot.over:
                break
            time.sleep(LOOK_SECONDS)
    finally:
        screen.close(lines)


class Decisions:
    """Gives every decision once. Side by side, experiments are not decided in the order of their numbers."""

    def __init__(self, reader: LedgerReader, known: int = 0) -> None:
        """Leave out the first `known` decisions."""
        self._reader, self._seen = reader, set(reader.decisions()[:known])

    def new(self, snapshot: Snapshot) -> list[ExperimentRow]:
        """Give the experiments decided since the last call."""
        if snapshot.decided == len(self._seen):
            return []
        numbers = [number for number in self._reader.decisions() if number not in self._seen]
        self._seen.update(numbers)
        return [self._reader.experiment(number) for number in numbers]


def write_lines(reader: LedgerReader, follower: RunFollower, look_seconds: float = LOOK_SECONDS) -> None:
    """Print a line when an experiment starts or is decided, and one every PLAIN_SECONDS while a trial goes on."""
    from autoresearch.core.report.terminal.panel import best_line, current_line, decision_line, head_parts
    from autoresearch.core.report.wording import SEPARATOR, experiment_of, one_line

    snapshot = follower.look()
    _print(SEPARATOR.join(head_parts(snapshot)))
    _print(best_line(snapshot))
    decisions, shown, printed = Decisions(reader, snapshot.decided), set[int](), 0.0
    while True:
        for row in decisions.new(snapshot):
            _print(f"{experiment_of(row.number)}: {decision_line(row)}")
        if snapshot.over:
            break
        fresh = [one.experiment for one in snapshot.running if one.experiment.number not in shown]
        for row in fresh:
            _print(f"{experiment_of(row.number)}: {one_line(row.hypothesis)}")
        if fresh:
            shown, printed = {one.experiment.number for one in snapshot.running}, time.monotonic()
        elif time.monotonic() - printed > PLAIN_SECONDS:
            printed = time.monotonic()
            _print(current_line(snapshot))
        time.sleep(look_seconds)
        snapshot = follower.look()
    # A run that died has no reason for its end: its state says it all.
    told = dict.fromkeys((snapshot.state, current_line(snapshot).rstrip("."), best_line(snapshot)))
    _print(f"{snapshot.run.tag}: {'; '.join(told)}")


def stream_decisions(reader: LedgerReader, follower: RunFollower, look_seconds: float = LOOK_SECONDS) -> None:
    """Print every decision from the first on as one JSON object a line, then the summary."""
    from autoresearch.core.store.exports import decided_record, summarise

    decisions, snapshot = Decisions(reader), follower.look()
    while True:
        for row in decisions.new(snapshot):
            click.echo(json.dumps(decided_record(row)))
        sys.stdout.flush()
        if snapshot.over:
            break
        time.sleep(look_seconds)
        snapshot = follower.look()
    click.echo(json.dumps({"summary": summarise(reader)}))


def _print(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
