"""`ar results`: a run's experiments, as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import UsageError
from autoresearch.core.store.rows import ExperimentRow

if TYPE_CHECKING:
    from autoresearch.core.store.reader import LedgerReader


@click.command()
@click.option("--tag", metavar="TAG", help="The run.  [default: the one that was started last]")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N experiments.")
@click.option("--tsv", is_flag=True, help="Tab-separated: commit, val_bpb, memory_gb, status, description.")
@click.option(
    "--why", type=click.IntRange(min=0), metavar="N", help="Only why experiment N was decided so, in one line."
)
@pass_settings
def results(settings: Settings, tag: str | None, last: int | None, tsv: bool, why: int | None) -> None:
    """A run's experiments, as a table."""
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.terminal.table import write_table
    from autoresearch.core.store.exports import decided_record, results_tsv

    if tsv and settings.json:
        raise UsageError("--tsv and --json are two formats.", fix="choose one")
    with open_reader(settings.workspace, tag) as reader:
        if why is not None:
            show_why(settings, reader, why)
            return
        rows: Iterable[ExperimentRow] = reader.experiments() if last is None else reader.last(last)
        decided = (row for row in rows if row.state == "decided")
        if settings.json:
            for row in decided:
                click.echo(json.dumps(decided_record(row)))
        elif tsv:
            click.echo(results_tsv(decided), nl=False)
        else:
            write_table(decided)


def show_why(settings: Settings, reader: LedgerReader, number: int) -> None:
    """One experiment's decision in a line, or as an object with the judge's numbers."""
    from autoresearch.core.report.wording import one_line
    from autoresearch.core.store.exports import decided_record

    if number >= reader.next_number():
        raise UsageError(f"there is no experiment {number}.", fix="`ar results` lists them")
    row = reader.experiment(number)
    if row.state != "decided":
        raise UsageError(f"experiment {number} is not decided yet.", fix="wait for it; `ar status` says how far it is")
    if settings.json:
        click.echo(json.dumps({**decided_record(row), "judged": dict(row.judged)}))
    else:
        click.echo(f"experiment {number}: {row.status}: {one_line(row.reason or '')}")
