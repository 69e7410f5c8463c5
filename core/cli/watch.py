"""`ar watch`: a run that another process writes, live."""

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
PLAIN_SECONDS = 10.0
"""Between two lines about the same trial, where there is no terminal."""


@click.command()
@click.option("--tag", metavar="TAG", help="The run.  [default: the one that was started last]")
@pass_settings
def watch(settings: Settings, tag: str | None) -> None:
    """Look at a run while it goes on, from another terminal.

    Ends when the run does; Ctrl-C leaves it alone. Where there is no terminal, says what happens in plain lines; with
    --json, prints every decision as an object, and a summary at the end.
    """
    from rich.console import Console

    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.follow import RunFollower

    with open_reader(settings.workspace, tag) as reader:
        follower, console = RunFollower(reader), Console()
        if settings.json:
            stream_decisions(reader, follower)
        elif console.is_terminal and not console.is_dumb_terminal:
            _draw(follower, console)
        else:
            write_lines(reader, follower)


def _draw(follower: RunFollower, console: Console) -> None:
    """The panel, drawn again in place until the run ends; its last state stays."""
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
    """Gives every decision once. Where several trials run side by side, numbers are not decided in order."""

    def __init__(self, reader: LedgerReader, known: int = 0) -> None:
        """The first `known` of them are old news."""
        self._reader, self._seen = reader, set(reader.decisions()[:known])

    def new(self, snapshot: Snapshot) -> list[ExperimentRow]:
        """What was decided since the last call."""
        if snapshot.decided == len(self._seen):
            return []
        numbers = [number for number in self._reader.decisions() if number not in self._seen]
        self._seen.update(numbers)
        return [self._reader.experiment(number) for number in numbers]


def write_lines(reader: LedgerReader, follower: RunFollower, look_seconds: float = LOOK_SECONDS) -> None:
    """A line when an experiment starts or is decided, and now and then while one goes on."""
    from autoresearch.core.report.terminal.panel import best_words, current_words, decided_words, head_words
    from autoresearch.core.report.wording import one_line

    snapshot = follower.look()
    _say(" · ".join(head_words(snapshot)))
    _say(best_words(snapshot))
    decisions, shown, said = Decisions(reader, snapshot.decided), set[int](), 0.0
    while True:
        for row in decisions.new(snapshot):
            _say(f"experiment {row.number}: {decided_words(row)}")
        if snapshot.over:
            break
        fresh = [one.experiment for one in snapshot.running if one.experiment.number not in shown]
        for row in fresh:
            _say(f"experiment {row.number}: {one_line(row.hypothesis)}")
        if fresh:
            shown, said = {one.experiment.number for one in snapshot.running}, time.monotonic()
        elif time.monotonic() - said > PLAIN_SECONDS:
            said = time.monotonic()
            _say(current_words(snapshot))
        time.sleep(look_seconds)
        snapshot = follower.look()
    _say(f"{snapshot.run.tag}: {snapshot.state}; {current_words(snapshot)}; {best_words(snapshot)}")


def stream_decisions(reader: LedgerReader, follower: RunFollower, look_seconds: float = LOOK_SECONDS) -> None:
    """Every decision from the first on as one JSON object a line, and the summary."""
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


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
