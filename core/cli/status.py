"""`ar status`: one line about each run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.report.wording import best_text, counted, experiment_of
from autoresearch.core.store.chain import ChainReport
from autoresearch.core.store.headline import Headline, headline_of
from autoresearch.core.store.reader import LedgerReader


@click.command()
@click.option("--tag", metavar="TAG", help="Run to show.  [default: every run of the workspace]")
@click.option(
    "--verify", is_flag=True, help="Check the hash chain over the decisions; exit code 1 when one was edited."
)
@pass_settings
def status(settings: Settings, tag: str | None, verify: bool) -> None:
    """Show how each run is going, in one line."""
    from autoresearch.core.cli.runs import open_reader, run_rows
    from autoresearch.core.config import runs_dir
    from autoresearch.core.fleet.status import read_fleet_status

    if tag is not None:
        readers = [open_reader(settings.workspace, tag)]
    else:
        complain = lambda message: click.echo(f"ar: {message}", err=True)  # noqa: E731
        runs = run_rows(settings.workspace, complain)
        readers = [LedgerReader(runs_dir(settings.workspace) / run.tag) for run in runs]
        if not runs:
            settings.say(f"no runs in {settings.workspace}; `ar loop` starts one")
    any_edited = False
    for reader in readers:
        with reader:
            record, headline = status_record(reader), headline_of(reader)
            on_fleet = read_fleet_status(reader.folder) if record["state"] == "running" else None
            record["fleet"] = None if on_fleet is None else asdict(on_fleet)
            report = reader.verify() if verify else None
        if report is not None:
            any_edited = any_edited or report.fault is not None
            record["verified"] = {"links": report.links, "fault": report.fault}
        click.echo(json.dumps(record) if settings.json else status_line(record, headline))
        if on_fleet is not None and not settings.json:
            click.echo(f"  {on_fleet.summary()}")
        if report is not None and not settings.json:
            click.echo(f"  {chain_text(report)}")
    if any_edited:
        raise click.exceptions.Exit(1)


def chain_text(report: ChainReport) -> str:
    """Say what the check of the hash chain found."""
    if report.fault is not None:
        return f"NOT as it was written: {report.fault}"
    return f"as it was written: {report.links} links, every decided row fits"


def status_record(reader: LedgerReader) -> dict[str, Any]:
    """Extend the run's summary by the writer's process and the experiment under way."""
    from autoresearch.core.store.exports import summarise

    run, current, record = reader.run(), reader.in_flight(), summarise(reader)
    record["pid"] = run.pid if record["state"] == "running" else None
    record["current"] = current and {"experiment": current.number, "state": current.state, "what": current.hypothesis}
    return record


def status_line(record: dict[str, Any], headline: Headline | None) -> str:
    """Write the record as one line for a person."""
    parts = [f"{record['tag']}: {record['state']}", f"{record['backend']}/{record['preset']}"]
    parts.append(counted(int(record["experiments"]), "experiment"))
    if stopped := record["by_status"].get("stopped"):
        parts.append(f"{stopped} stopped early")
    if headline is not None:
        parts.append(best_text(headline))
    current = record["current"]
    if isinstance(current, dict):
        parts.append(f"{experiment_of(current['experiment'])} {current['state']}: {current['what']}")
    elif record["ended"]:
        parts.append(str(record["ended"]))
    return ", ".join(" ".join(part.split()) for part in parts)
