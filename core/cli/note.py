"""`ar note`: a person's note on an experiment, which researchers read."""

from __future__ import annotations

import json

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import Whole
from autoresearch.core.errors import UsageError


@click.command()
@click.argument("number", required=False, type=Whole(min=0), metavar="[N]")
@click.argument("text", required=False, nargs=-1, metavar="[TEXT]")
@click.option("--tag", metavar="TAG", help="Run of the experiment.  [default: the run started last]")
@click.option("--clear", is_flag=True, help="Remove every note on the experiment.")
@pass_settings
def note(settings: Settings, number: int | None, text: tuple[str, ...], tag: str | None, clear: bool) -> None:
    """Add a note to experiment N, for researchers and for yourself.

    A note appears in the ledger, `ar results`, the report, `ar brief` and what researchers are told, as a remark to
    weigh. You may add one while a loop runs: the next proposal takes it into account. Without TEXT, lists the notes.
    """
    from autoresearch.core.cli.remarks import remark, show

    if clear and (text or number is None):
        raise UsageError("--clear takes the number of an experiment and no text.", fix="ar note 17 --clear")
    if not text and not clear:
        show(settings, tag, number)
        return
    assert number is not None
    run, before, marks = remark(settings, tag, number, "clear" if clear else "note", " ".join(text))
    if settings.json:
        click.echo(json.dumps({"tag": run, "experiment": number, **marks.record()}))
    else:
        settings.say(
            f"{run}, experiment {number}: "
            + ("noted" if not clear else "its notes are gone" if before.notes else "there was no note")
        )
