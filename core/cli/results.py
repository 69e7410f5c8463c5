"""`ar results`: a run's experiments, as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import UsageError
from autoresearch.core.store.rows import ExperimentRow


@click.command()
@click.option("--tag", metavar="TAG", help="The run.  [default: the one that was started last]")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N experiments.")
@click.option("--tsv", is_flag=True, help="Tab-separated: commit, val_bpb, memory_gb, status, description.")
@pass_settings
def results(settings: Settings, tag: str | None, last: int | None, tsv: bool) -> None:
    """A run's experiments, as a table."""
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.table import write_table
    from autoresearch.core.store.summary import decided_record
    from autoresearch.core.store.tsv import results_tsv

    if tsv and settings.json:
        raise UsageError("--tsv and --json are two formats.", fix="choose one")
    with open_reader(settings.workspace, tag) as reader:
        rows: Iterable[ExperimentRow] = reader.experiments() if last is None else reader.last(last)
        decided = (row for row in rows if row.state == "decided")
        if settings.json:
            for row in decided:
                click.echo(json.dumps(decided_record(row)))
        elif tsv:
            click.echo(results_tsv(decided), nl=False)
        else:
            write_table(decided)
