"""`ar result`: what became of a submission, or of any experiment."""

from __future__ import annotations

import json

import click

from autoresearch.core.cli.context import Settings, pass_settings, require_isolation
from autoresearch.core.errors import UsageError


@click.command()
@click.argument("name", required=False, metavar="[SUBMISSION|N]")
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run of the submission, or the last one]")
@click.option("--wait", is_flag=True, help="Wait for the verdict; if no loop is running, run the trial here.")
@require_isolation
@pass_settings
def result(settings: Settings, name: str | None, tag: str | None, wait: bool) -> None:
    """Show what became of a submission, the last one by default, or of experiment N.

    Exit codes as for `ar submit`.
    """
    from autoresearch.core.cli import submissions
    from autoresearch.core.cli.run.options import RunOverrides
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.store.inbox import is_identity

    submissions.check_workspace(settings)
    if name is not None and name.isdecimal() and len(name) < 10 and not is_identity(name):
        with open_reader(settings, tag) as reader:
            number = int(name)
            if not reader.has_experiment(number):
                raise UsageError(
                    f"there is no experiment {number} in {reader.run().tag}.", fix="`ar results` lists them"
                )
            identity = reader.experiment(number).parameters.get("submission")
            if not wait or not isinstance(identity, str):
                _print(settings, submissions.experiment_outcome(reader, number), 0)
                return
            tag = reader.folder.name
    elif name is not None and not is_identity(name):
        raise UsageError(
            f"{name[:60]!r} is neither a submission nor an experiment's number.", fix="`ar results` lists them"
        )
    else:
        tag, identity = find(settings, name, tag)
    code = 0
    if wait:
        code = submissions.follow(settings, tag, identity, RunOverrides(), wait=True)
    show(settings, tag, identity, code)


def find(settings: Settings, identity: str | None, tag: str | None) -> tuple[str, str]:
    """Find a submission, or the latest: return its run's tag and its name. Raises `UsageError`."""
    from autoresearch.core.cli.runs import named_run, run_rows
    from autoresearch.core.config import runs_dir
    from autoresearch.core.store.inbox import Inbox
    from autoresearch.core.store.reader import LedgerReader

    folder = runs_dir(settings.workspace)
    if tag is not None and named_run(settings.workspace, tag) is None:
        raise UsageError(f"there is no run {tag!r} in {settings.workspace}.", fix="`ar status` lists all runs")
    tags = [tag] if tag is not None else [run.tag for run in run_rows(settings.workspace, lambda _: None)]
    known: dict[str, str] = {}
    for one in tags:
        with LedgerReader(folder / one) as reader:
            known |= dict.fromkeys(reader.submissions(), one)
    for path in [folder / tag] if tag is not None else folder.glob("*"):
        known |= dict.fromkeys(Inbox(path).waiting(), path.name)
    if identity is None and known:
        identity = max(known)
    if identity is None or identity not in known:
        what = "no submission" if identity is None else f"no submission {identity}"
        raise UsageError(f"there is {what} in {settings.workspace}.", fix="hand a train file in with `ar submit`")
    return known[identity], identity


def show(settings: Settings, tag: str, identity: str, code: int) -> None:
    """Print a submission's outcome and exit: with its exit code, or with `code`, that of a loop that was stopped."""
    from autoresearch.core.cli import submissions
    from autoresearch.core.config import runs_dir
    from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader

    folder = runs_dir(settings.workspace) / tag
    if not (folder / LEDGER_NAME).exists():  # nobody has begun the run that it is for
        _print(settings, submissions.waiting_outcome(tag, identity), code)
        return
    with LedgerReader(folder) as reader:
        _print(settings, submissions.outcome_of(reader, identity), code)


def _print(settings: Settings, record: dict[str, object], code: int) -> None:
    from autoresearch.core.cli.submissions import exit_code_of

    if settings.json:
        click.echo(json.dumps(record))
    else:
        click.echo(record["message"])
        click.echo(f"next: {record['next']}")
    if code := code or exit_code_of(record):
        click.get_current_context().exit(code)
