"""`ar status`: how a run is going, in one line."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.store.chain import ChainReport
from autoresearch.core.store.reader import LedgerReader


@click.command()
@click.option("--tag", metavar="TAG", help="Only this run.  [default: every run of the workspace]")
@click.option("--verify", is_flag=True, help="Walk the hash chain over the decisions. Exit code 1 when one was edited.")
@pass_settings
def status(settings: Settings, tag: str | None, verify: bool) -> None:
    """How a run is going, in one line."""
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
    edited = False
    for reader in readers:
        with reader:
            record = status_record(reader)
            on_fleet = read_fleet_status(reader.folder) if record["state"] == "running" else None
            record["fleet"] = None if on_fleet is None else asdict(on_fleet)
            report = reader.verify() if verify else None
        if report is not None:
            edited = edited or report.fault is not None
            record["verified"] = {"links": report.links, "fault": report.fault}
        click.echo(json.dumps(record) if settings.json else status_line(record))
        if on_fleet is not None and not settings.json:
            click.echo(f"  {on_fleet.summary()}")
        if report is not None and not settings.json:
            click.echo(f"  {verdict(report)}")
    if edited:
        raise click.exceptions.Exit(1)


def verdict(report: ChainReport) -> str:
    """What the walk along the chain has found, in words."""
    if report.fault is not None:
        return f"NOT as it was written: {report.fault}"
    return f"as it was written: {report.links} links, every decided row fits"


def status_record(reader: LedgerReader) -> dict[str, object]:
    """The summary, with what the writer is doing now."""
    from autoresearch.core.store.exports import summarise

    run, current = reader.run(), reader.in_flight()
    record = summarise(reader)
    record["pid"] = run.pid if record["state"] == "running" else None
    record["current"] = current and {"experiment": current.number, "state": current.state, "what": current.hypothesis}
    return record


def status_line(record: dict[str, object]) -> str:
    """One line for a person."""
    parts = [f"{record['tag']}: {record['state']}", f"{record['backend']}/{record['preset']}"]
    parts.append(f"{record['experiments']} experiments")
    best, baseline = record["best_bpb"], record["baseline_bpb"]
    if isinstance(best, float) and isinstance(baseline, float):
        parts.append(f"best {best:.6f} (experiment {record['best_experiment']}, {best - baseline:+.6f})")
    current = record["current"]
    if isinstance(current, dict):
        parts.append(f"experiment {current['experiment']} {current['state']}: {current['what']}")
    elif record["ended"]:
        parts.append(str(record["ended"]))
    return ", ".join(" ".join(part.split()) for part in parts)
