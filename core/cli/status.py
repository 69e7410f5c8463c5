"""`ar status`: a table of the runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import LedgerError
from autoresearch.core.report.terminal.table import Heading, draw
from autoresearch.core.report.wording import counted, experiment_of, has_estimate, mean_text, one_line
from autoresearch.core.store.chain import ChainReport
from autoresearch.core.store.headline import Headline, headline_of
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.wishes import WishFile

HEADINGS = (
    Heading("run"),
    Heading("state"),
    Heading("backend/preset"),
    *(Heading(name, numeric=True) for name in ("tried", "kept", "stopped", "best")),
    Heading("best bpb"),
    Heading("change", numeric=True),
    Heading("cautious estimate", numeric=True),
    Heading("now", wraps=True),
)
WISHES = {"pause": "paused from the dashboard", "stop": "ends after the trials under way"}
"""Wishes of a person for a running loop, in words."""


@click.command()
@click.option("--tag", metavar="TAG", help="Run to show.  [default: every run of the workspace]")
@click.option(
    "--verify",
    is_flag=True,
    help="Check the hash chain over the decisions; exit code 1 if one was edited, or a run cannot be read.",
)
@pass_settings
def status(settings: Settings, tag: str | None, verify: bool) -> None:
    """Show how each run is going, in a table with one line per run."""
    from autoresearch.core.cli.runs import open_reader, run_rows

    shown: list[_Shown] = []
    unread: list[str] = []

    def complain_of_ledger(message: str) -> None:
        unread.append(message)
        _complain(message)

    if tag is not None:
        shown.append(_look(open_reader(settings, tag), verify))
    else:
        runs = run_rows(settings.workspace, _complain, complain_of_ledger)
        if not runs and not unread:
            settings.say(f"no runs in {settings.workspace}; `ar loop` starts one")
        for run in runs:
            try:  # one damaged run hides no other
                shown.append(_look(open_reader(settings, run.tag), verify))
            except LedgerError as error:
                complain_of_ledger(str(error))
    if settings.json:
        for one in shown:
            click.echo(json.dumps(one.record))
    elif shown:
        draw(HEADINGS, [one.cells for one in shown], sys.stdout)
        for note in (note for one in shown for note in one.notes):
            click.echo(note)
    if any(one.edited for one in shown) or (verify and unread):
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class _Shown:
    """One run, as it is shown."""

    record: dict[str, Any]
    cells: list[str]
    notes: list[str]
    """Lines below the table."""
    edited: bool
    """True where the hash chain has a fault."""


def _complain(message: str) -> None:
    click.echo(f"ar: {message}", err=True)


def _look(reader: LedgerReader, verify: bool) -> _Shown:
    """Read what is shown of a run, and close its ledger. Raises `LedgerError`."""
    from autoresearch.core.fleet.status import read_fleet_status
    from autoresearch.core.run.short_trials import screen_report

    with reader:
        record, headline = status_record(reader), headline_of(reader)
        on_fleet = read_fleet_status(reader.folder) if record["state"] == "running" else None
        screened = screen_report(reader)
        report = reader.verify() if verify else None
    record["fleet"] = None if on_fleet is None else asdict(on_fleet)
    record["screens"] = None if screened is None else screened.record()
    if report is not None:
        record["verified"] = {"links": report.links, "fault": report.fault}
    said = [
        *([on_fleet.summary()] if on_fleet is not None else []),
        *([screened.describe()] if screened is not None else []),
        *([chain_text(report)] if report is not None else []),
    ]
    notes = [f"{record['tag']}: {words}" for words in said]
    return _Shown(record, status_cells(record, headline), notes, report is not None and report.fault is not None)


def chain_text(report: ChainReport) -> str:
    """Say what the check of the hash chain found."""
    if report.fault is not None:
        return f"NOT as it was written: {report.fault}"
    return f"as it was written: {counted(report.links, 'link')}, every decided row fits"


def status_record(reader: LedgerReader) -> dict[str, Any]:
    """Extend the run's summary by the writer's process and the experiment under way."""
    from autoresearch.core.store.exports import summarise

    run, current, record = reader.run(), reader.in_flight(), summarise(reader)
    record["wish"] = WishFile(reader.folder).read() if record["state"] == "running" else None
    record["pid"] = run.pid if record["state"] == "running" else None
    record["current"] = current and {"experiment": current.number, "state": current.state, "what": current.hypothesis}
    return record


def status_cells(record: dict[str, Any], headline: Headline | None) -> list[str]:
    """Write the record as the cells of one line for a person, in the order of HEADINGS."""
    by_status, current = record["by_status"], record["current"]
    gain = None if headline is None else headline.gain
    now = str(record["ended"] or "")
    if isinstance(current, dict):
        now = f"{experiment_of(current['experiment'])} {current['state']}: {current['what']}"
    wish = [WISHES[record["wish"]]] if record["wish"] else []
    pinned = [f"pinned: {' '.join(map(str, record['pinned']))}"] if record["pinned"] else []
    noted = [counted(int(record["notes"]), "note")] if record["notes"] else []
    now = ", ".join(part for part in (*wish, now, *pinned, *noted) if part)
    return [
        record["tag"],
        str(record["state"]),
        f"{record['backend']}/{record['preset']}",
        *(str(count) for count in (record["experiments"], by_status.get("keep", 0), by_status.get("stopped", 0))),
        "-" if headline is None else f"#{headline.experiment}",
        "-" if headline is None else mean_text(headline.best),
        "-" if gain is None else f"{gain:+.4f}",
        f"{headline.cautious:.4f}" if headline and has_estimate(headline) else "-",
        one_line(now) or "-",
    ]
