"""Notes and pins, for `ar note` and `ar pin`: recorded at once, or left for the process that writes the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings
from autoresearch.core.errors import LockedError, UsageError

if TYPE_CHECKING:
    from autoresearch.core.store.remarks import Kind, Marks


def remark(settings: Settings, tag: str | None, number: int, kind: Kind, text: str = "") -> tuple[str, Marks]:
    """Record a remark on an experiment; return the run's tag and the marks that now stand. Raises `UsageError`."""
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.wording import experiment_of
    from autoresearch.core.store.ledger import Ledger
    from autoresearch.core.store.remarks import NO_MARKS, NOTE_CHARACTERS, Remark, RemarkBox, marks_of, take_remarks

    made = Remark.make(number, kind, text)
    if kind == "note" and not made.text:
        raise UsageError("the note is empty.", fix='ar note 17 "worth another try with a longer warmup"')
    if len(made.text) > NOTE_CHARACTERS:
        fix = "shorten it: researchers read it before each proposal"
        raise UsageError(f"the note has {len(made.text)} characters; at most {NOTE_CHARACTERS} are kept.", fix=fix)
    with open_reader(settings.workspace, tag) as reader:
        run, folder = reader.run().tag, reader.folder
        if number >= reader.next_number():
            raise UsageError(f"there is no {experiment_of(number)} in {run}.", fix="`ar results` lists them")
        if reader.experiment(number).state == "proposed":
            # It may still be dropped, and the next proposal then gets its number.
            raise UsageError(f"{experiment_of(number)} has not begun yet.", fix="wait for its first trial")
        RemarkBox(folder).put(made)
        try:
            with Ledger(folder) as ledger:
                take_remarks(ledger)
        except LockedError:
            pass  # who writes the run takes it up, and readers see it already
        return run, marks_of(reader).get(number, NO_MARKS)


def show(settings: Settings, tag: str | None, number: int | None, *, pinned: bool = False) -> None:
    """Print the marks of one experiment, or of all; `pinned` leaves out experiments without a pin."""
    import json

    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.store.remarks import NO_MARKS, marks_of

    with open_reader(settings.workspace, tag) as reader:
        run, found = reader.run().tag, marks_of(reader)
    if number is not None:
        found = {number: found.get(number, NO_MARKS)}
    shown = {at: marks for at, marks in found.items() if marks.pinned or not pinned}
    if settings.json:
        experiments = [{"experiment": at, **marks.record()} for at, marks in shown.items()]
        click.echo(json.dumps({"tag": run, "experiments": experiments}))
        return
    for at, marks in shown.items():
        click.echo("\n".join(lines_of(at, marks)))
    if not any(marks != NO_MARKS for marks in shown.values()):
        settings.say(f"{run}: no {'pins' if pinned else 'notes'}{'' if number is None else f' on {number}'}")


def lines_of(number: int, marks: Marks) -> list[str]:
    """Write the marks of one experiment, a line each."""
    from autoresearch.core.report.wording import one_line

    pin = [f"{number}: pinned"] if marks.pinned else []
    return pin + [f"{number}: {one_line(note, 2000)}" for note in marks.notes]
