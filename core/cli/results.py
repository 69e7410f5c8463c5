"""`ar results`: a table of a run's experiments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import Whole, is_typed
from autoresearch.core.errors import UsageError
from autoresearch.core.store.columns import TSV
from autoresearch.core.store.rows import ExperimentRow

if TYPE_CHECKING:
    from autoresearch.core.store.reader import LedgerReader


@click.command()
@click.option("--tag", metavar="TAG", help="Run to list.  [default: the one started last]")
@click.option(
    "--last",
    type=Whole(min=1),
    metavar="N",
    help="Number of latest experiments to list.  [default: all]",
)
@click.option("--full", is_flag=True, help="Print whole descriptions, on several lines if they are long.")
@click.option("--tsv", is_flag=True, help=f"Print tab-separated values: {', '.join(TSV)}.")
@click.option(
    "--why",
    type=Whole(min=0),
    metavar="N",
    help="Number of an experiment: print only why it was kept or discarded.",
)
@pass_settings
def results(settings: Settings, tag: str | None, last: int | None, full: bool, tsv: bool, why: int | None) -> None:
    """List a run's experiments as a table.

    On a terminal each experiment takes one line. Elsewhere columns are separated by tabs, and nothing is shortened.
    """
    from autoresearch.core.cli.remarks import lines_of
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.terminal.table import write_table
    from autoresearch.core.report.wording import best_text, withdrawn_text
    from autoresearch.core.store.exports import decided_record, results_tsv
    from autoresearch.core.store.headline import headline_of
    from autoresearch.core.store.remarks import marks_of

    # What a file or a variable has set gives way to what was typed.
    typed = [name for name in ("tsv", "full", "last") if is_typed(click.get_current_context(), name)]
    if why is not None and typed:
        raise UsageError(
            f"--{typed[0]} is for the table, and --why explains one experiment.", fix="leave one of them out"
        )
    if settings.json and "tsv" in typed:
        raise UsageError("--tsv and --json are two formats.", fix="choose one")
    with open_reader(settings, tag) as reader:
        if why is not None:
            show_why(settings, reader, why)
            return
        rows: Iterable[ExperimentRow] = reader.experiments() if last is None else reader.last(last)
        decided, marks = (row for row in rows if row.state == "decided"), marks_of(reader)
        if settings.json:
            for row in decided:
                click.echo(json.dumps(decided_record(row, marks)))
        elif tsv:
            click.echo(results_tsv(decided), nl=False)
        else:
            shown = list(decided)
            write_table(shown, full=full)
            least = shown[0].number if last is not None and shown else 0
            gaps = {number: reason for number, reason in reader.withdrawn().items() if number > least}
            if (gone := withdrawn_text(gaps)) is not None:
                settings.say(gone if len(gaps) == 1 else f"{gone} (`ar results --why {next(iter(gaps))}` says why)")
            for number, mine in marks.items():
                settings.say("\n".join(f"experiment {line}" for line in lines_of(number, mine)))
            if (headline := headline_of(reader)) is not None:
                settings.say(best_text(headline))


def show_why(settings: Settings, reader: LedgerReader, number: int) -> None:
    """Print one experiment's decision and its reason; with --json also the judge's numbers."""
    from autoresearch.core.cli.remarks import lines_of
    from autoresearch.core.followup.pairs import noise_of_run
    from autoresearch.core.judge.stack import shares_in
    from autoresearch.core.report.wording import experiment_of, one_line
    from autoresearch.core.run.replay import decide_again
    from autoresearch.core.run.short_trials import screen_lines, screen_report
    from autoresearch.core.store.exports import decided_record
    from autoresearch.core.store.remarks import NO_MARKS, marks_of

    if not reader.has_experiment(number):
        reason = reader.withdrawn().get(number)
        if reason is None:
            raise UsageError(f"there is no {experiment_of(number)}.", fix="`ar results` lists them")
        if settings.json:
            click.echo(json.dumps({"experiment": number, "status": "withdrawn", "reason": reason}))
        else:
            click.echo(f"{experiment_of(number)}: withdrawn before a trial: {one_line(reason)}")
        return
    row = reader.experiment(number)
    if row.state != "decided":
        raise UsageError(
            f"{experiment_of(number)} is not decided yet.", fix="wait for it; `ar status` says how far it is"
        )
    short, screened = screen_lines(reader, number), screen_report(reader) if number == 0 else None
    noise = noise_of_run(reader) if number == 0 and "sigma" in row.judged else None
    again = decide_again(reader, row)
    if settings.json:
        told: dict[str, Any] = {"again": {"differences": again.differences, "decided": again.decision is not None}}
        if noise is not None:
            told["noise_now"] = {"sigma": noise.between.sigma, "dof": noise.between.dof}
            told["noise_now"] |= {"paired": noise.paired.sigma, "paired_dof": noise.paired.dof}
        if screened is not None:
            told["screens"] = screened.record()
        if short:
            told["screened"] = short
        click.echo(json.dumps({**decided_record(row, marks_of(reader)), "judged": dict(row.judged), **told}))
        return
    click.echo(f"{experiment_of(number)}: {row.status}: {one_line(row.reason or '')}")
    for line in lines_of(number, marks_of(reader).get(number, NO_MARKS)):
        click.echo(f"experiment {line}")
    for share in shares_in(row.judged):
        click.echo(
            f"of it experiment {share.experiment}: {share.value:+.5f} bpb, standard error {share.error:.5f}, "
            f"{share.better:.0%} likely better"
        )
    for line in short:
        click.echo(line)
    click.echo(again.describe())
    if noise is not None:
        click.echo(f"the run's noise by now: {noise.describe()}")
    if screened is not None:
        click.echo(screened.describe())
