"""`ar doctor`: check the prerequisites and say how to fix those that are missing."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from autoresearch.core.cli.checks import CheckResult, check_all
from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.report.wording import counted

EXIT_PREREQUISITE = 3
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


@click.command()
@pass_settings
def doctor(settings: Settings) -> None:
    """Check every prerequisite: pass, warn or fail, with a one-line fix. Exit code 3 if one fails."""
    results = []
    for result in check_all(settings):
        results.append(result)
        if not settings.json:
            show(result, quiet=settings.verbosity < 0)
    failed = [result.name for result in results if result.status == "fail"]
    if settings.json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(result) for result in results]}))
    else:
        warnings = sum(result.status == "warn" for result in results)
        verdict = f"not ready: {', '.join(failed)}" if failed else "ready"
        click.echo(f"{verdict} ({counted(len(results), 'check')}, {counted(warnings, 'warning')})")
    if failed:
        raise click.exceptions.Exit(EXIT_PREREQUISITE)


def show(result: CheckResult, *, quiet: bool) -> None:
    """Print one line for the result and one for its fix. With `quiet` a passed check is left out."""
    if quiet and result.status == "pass":
        return
    click.echo(f"{click.style(result.status, fg=_COLOURS[result.status])}  {result.name:<13} {result.detail}")
    if result.fix:
        click.echo(f"{'':19} fix: {result.fix}")
