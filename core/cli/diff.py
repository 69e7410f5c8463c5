"""`ar diff`: what differs between two train files of the workspace's runs."""

from __future__ import annotations

import difflib
import json

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import PrerequisiteError, UsageError

STYLES = {"+": "green", "-": "red", "@": "cyan"}


@click.command("diff")
@click.argument("a", default="baseline", metavar="[A]")
@click.argument("b", default="best", metavar="[B]")
@click.option("--tag", metavar="TAG", help="Run of A and B.  [default: the run started last]")
@pass_settings
def diff(settings: Settings, a: str, b: str, tag: str | None) -> None:
    """Show what differs between the train files A and B of a run: the baseline and the best file by default.

    Each is an experiment's number, baseline, best, or parent (the file that the other one edited); TAG:NAME takes it
    from another run. Prints nothing if they are the same.
    """
    if a == "parent" and b == "parent":
        raise UsageError("A and B are both the other one's parent.", fix="name an experiment: ar diff parent 17")
    one, before = side(settings, tag, a, b)
    other, after = side(settings, tag, b, a)
    names = (f"{one}/train.py", f"{other}/train.py")
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm=""))
    if settings.json:
        click.echo(json.dumps({"a": one, "b": other, "diff": "".join(f"{line}\n" for line in lines)}))
        return
    from autoresearch.core.report.wording import visible

    for line in lines:
        click.secho(visible(line), fg=STYLES.get(line[:1]))
    if not lines:
        settings.say(f"{one} and {other} are the same")


def side(settings: Settings, tag: str | None, name: str, other: str) -> tuple[str, str]:
    """Return the name and the source of one side. Raises `UsageError` or `PrerequisiteError` where there is none.

    `other` is the name of the other side, which `parent` refers to.
    """
    from autoresearch.core.cli.runs import open_reader

    run, found, short = name.rpartition(":")
    if short == "parent":
        run, found, _ = other.rpartition(":")
    with open_reader(settings, run if found else tag) as reader:
        here = reader.run().tag
        wanted = other.rpartition(":")[2] if short == "parent" else short
        number = _number(wanted, reader.run().incumbent)
        if number is None and wanted == "best":
            fix = "let `ar loop` finish a trial first, or name two experiments by number"
            raise PrerequisiteError(f"the run {here!r} has no best file yet.", fix=fix)
        if number is None or not reader.has_experiment(number):
            raise UsageError(
                f"there is no {name!r} in the run {here!r}.", fix="an experiment's number, baseline, best or parent"
            )
        row = reader.experiment(number)
        if short == "parent":
            row = reader.experiment(row.parent)
        return f"{here}:{row.number}", reader.text(row.source_sha256)


def _number(name: str, best: int | None) -> int | None:
    if name == "best":
        return best
    if name == "baseline":
        return 0
    return int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else None
