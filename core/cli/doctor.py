"""`ar doctor`: what is there, what is missing, how to fix it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from autoresearch.core.cli.checks import Finding, check_all
from autoresearch.core.cli.context import Settings, pass_settings

EXIT_PREREQUISITE = 3
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


@click.command()
@pass_settings
def doctor(settings: Settings) -> None:
    """Check every prerequisite: pass, warn or fail, and the one-line fix. Exit code 3 when one fails."""
    findings = []
    for finding in check_all(settings):
        findings.append(finding)
        if not settings.json:
            show(finding, quiet=settings.verbosity < 0)
    failed = [finding.name for finding in findings if finding.status == "fail"]
    if settings.json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}))
    else:
        warnings = sum(finding.status == "warn" for finding in findings)
        verdict = f"not ready: {', '.join(failed)}" if failed else "ready"
        click.echo(f"{verdict} ({len(findings)} checks, {warnings} warnings)")
    if failed:
        raise click.exceptions.Exit(EXIT_PREREQUISITE)


def show(finding: Finding, *, quiet: bool) -> None:
    """One line per finding, and one for its fix. Quiet shows only what is not well."""
    if quiet and finding.status == "pass":
        return
    click.echo(f"{click.style(finding.status, fg=_COLOURS[finding.status])}  {finding.name:<13} {finding.detail}")
    if finding.fix:
        click.echo(f"{'':19} fix: {finding.fix}")
