"""`ar pin`: an experiment that researchers are to keep in mind."""

from __future__ import annotations

import json

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import Whole
from autoresearch.core.errors import UsageError


@click.command()
@click.argument("number", required=False, type=Whole(min=0), metavar="[N]")
@click.option("--tag", metavar="TAG", help="Run of the experiment.  [default: the run started last]")
@click.option("--off", is_flag=True, help="Unpin the experiment.")
@pass_settings
def pin(settings: Settings, number: int | None, tag: str | None, off: bool) -> None:
    """Pin experiment N: researchers are shown it however old it is, and told that you want it kept in mind.

    Without N, lists the pinned experiments.
    """
    from autoresearch.core.cli.remarks import remark, show

    if number is None:
        if off:
            raise UsageError("--off needs the number of an experiment.", fix="ar pin 17 --off")
        show(settings, tag, None, pinned=True)
        return
    run, before, marks = remark(settings, tag, number, "unpin" if off else "pin")
    if settings.json:
        click.echo(json.dumps({"tag": run, "experiment": number, **marks.record()}))
        return
    told = "pinned" if not off else "not pinned any more" if before.pinned else "it was not pinned"
    settings.say(f"{run}, experiment {number}: {told}")
