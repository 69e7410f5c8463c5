"""Notes and pins, for `ar note` and `ar pin`: recorded at once, or left for the process that writes the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings

if TYPE_CHECKING:
    from autoresearch.core.store.remarks import Kind, Marks


def remark(settings: Settings, tag: str | None, number: int, kind: Kind, text: str = "") -> tuple[str, Marks, Marks]:
    """Record a remark on an experiment; return the run's tag, the marks before and those that now stand.

    Raises `UsageError`.
    """
    from autoresearch.core.cli.runs import check_name, open_reader
    from autoresearch.core.store.remarks import NO_MARKS, leave_remark, marks_of

    check_name(settings.workspace, tag)
    with open_reader(settings, tag) as reader:
        before = marks_of(reader).get(number, NO_MARKS)
        return reader.run().tag, before, leave_remark(reader, number, kind, text)


def show(settings: Settings, tag: str | None, number: int | None, *, pinned: bool = False) -> None:
    """Print the marks of one experiment, or of all; `pinned` leaves out experiments without a pin."""
    import json

    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.store.remarks import NO_MARKS, marks_of

    with open_reader(settings, tag) as reader:
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
