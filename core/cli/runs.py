"""The runs of a workspace: list them, and find the one that a command is about."""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from autoresearch.core.cli.context import Settings
from autoresearch.core.config import RUN_FOLDERS, runs_dir
from autoresearch.core.errors import LedgerError, UsageError
from autoresearch.core.store.git import Repository, branch_name, check_tag
from autoresearch.core.store.journal import JOURNAL_NAME
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.rows import RunRow


def run_rows(
    workspace: Path, complain: Callable[[str], None], complain_of_ledger: Callable[[str], None] | None = None
) -> list[RunRow]:
    """List every run whose ledger can be read, the oldest first; `complain` gets the errors of the others.

    A folder that holds a run of another name is left out, and named to `complain`: see `check_name`. Where the two are
    not to be mixed, `complain_of_ledger` gets the errors of ledgers that cannot be read.
    """
    found = []
    for closed in _closed_folders(runs_dir(workspace)):
        (complain_of_ledger or complain)(f"{closed} cannot be looked into. Fix: check its permissions")
    for ledger in sorted(runs_dir(workspace).glob(f"{RUN_FOLDERS}/{LEDGER_NAME}")):
        try:
            with LedgerReader(ledger.parent) as reader:
                run = reader.run()
                run.config["backend"], run.config["preset"]  # every list of runs shows them
            if run.tag == ledger.parent.name:
                found.append(run)
            else:
                complain(f"{misnamed(ledger.parent, run)}; --tag {ledger.parent.name} reads it.")
        except LedgerError as error:
            (complain_of_ledger or complain)(str(error))
    return sorted(found, key=lambda run: run.created)


def _closed_folders(runs: Path) -> Iterator[Path]:
    """Yield the folders of runs that this user may not look into: a pattern passes them without a word."""
    for folder in (runs, *sorted(runs.glob(RUN_FOLDERS))):
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):  # noqa: PTH112 - never raises
            yield folder


def named_run(workspace: Path, tag: str) -> RunRow | None:
    """Read the run of that tag; None if there is none. Raises `LedgerError` when its ledger is damaged."""
    folder = runs_dir(workspace) / check_tag(tag)
    if not (folder / LEDGER_NAME).is_file():
        return None
    with LedgerReader(folder) as reader:
        return reader.run()


def misnamed(folder: Path, run: RunRow) -> str:
    """Say that the folder holds a run of another name: it was copied there, or renamed."""
    copied = (folder.parent / run.tag / LEDGER_NAME).is_file()
    return f"{folder} {'is a copy of' if copied else 'is another name for'} the run {run.tag[:60]!r}"


def check_name(workspace: Path, tag: str | None) -> None:
    """Check that the folder of a named tag holds no run of another name, before a command writes to it.

    The ledger, git's branch and refs have the name that the run was started with: a copy would move those of the run
    that it was made from. Raises `UsageError`.
    """
    if tag is None or (run := named_run(workspace, tag)) is None or run.tag == tag:
        return
    folder = runs_dir(workspace) / tag
    original = folder.parent / run.tag
    fix = shlex.join(["mv", str(folder), str(original)])
    if (original / LEDGER_NAME).is_file():
        fix = f"--tag {run.tag}; or `ar apply --tag {tag}`, and start a new run from its best file with another --tag"
    raise UsageError(f"{misnamed(folder, run)}, and can only be read.", fix=fix)


def lost_run(workspace: Path, tag: str, fix: str) -> UsageError:
    """Return the error for a tag that no run has; it names the runs that are meant, or the latest ones."""
    import difflib

    folder = runs_dir(workspace) / tag
    if (folder / JOURNAL_NAME).is_file():
        return UsageError(
            f"the run {tag!r} has no ledger: {folder / LEDGER_NAME} is gone.",
            fix=f"`ar loop --tag {tag}` restores it from its journal",
        )
    tags = [run.tag for run in run_rows(workspace, lambda _: None)]
    near = difflib.get_close_matches(tag, tags, n=2, cutoff=0.6)
    if near:
        return UsageError(
            f"there is no run {tag!r} in {workspace}. Did you mean {' or '.join(repr(one) for one in near)}?", fix=fix
        )
    return UsageError(f"there is no run {tag!r} in {workspace} (its runs: {', '.join(tags[-5:]) or 'none'}).", fix=fix)


def unfinished_run(runs: list[RunRow], backend: str, preset: str) -> RunRow | None:
    """Return the latest unfinished run of that backend and preset, or None."""
    same = [run for run in runs if run.config["backend"] == backend and run.config["preset"] == preset]
    return next((run for run in reversed(same) if run.state != "finished"), None)


def fresh_tag(workspace: Path, backend: str) -> str:
    """Return a new tag, `<yyyy-mm-dd>-<backend>`, with a number when the workspace or git has that one already."""
    repository, stem = Repository.open(workspace), f"{datetime.date.today():%Y-%m-%d}-{backend}"
    tag, number = stem, 1
    while (
        (runs_dir(workspace) / tag).exists() or repository.ref(f"refs/heads/{branch_name(tag)}") or repository.refs(tag)
    ):
        number += 1
        tag = f"{stem}-{number}"
    return tag


def open_reader(settings: Settings, tag: str | None) -> LedgerReader:
    """Open the ledger of that run; without a tag, of the run started last. Raises `UsageError` when there is none.

    Says so where it is a copy of another run, whose name stands in everything that is read from it.
    """
    workspace = settings.workspace
    if tag is not None:
        run = named_run(workspace, tag)
        if run is None:
            raise lost_run(workspace, tag, "`ar status` lists all runs")
        if run.tag != tag:
            settings.say(misnamed(runs_dir(workspace) / tag, run))
        return LedgerReader(runs_dir(workspace) / tag)
    unread: list[str] = []
    runs = run_rows(workspace, lambda _: None, unread.append)
    if unread and not runs:
        raise LedgerError(unread[0])
    for message in unread:  # the run started last may be one of these
        settings.say(f"not looked at: {message}")
    if not runs:
        raise UsageError(f"there is no run in {workspace}.", fix="start one with `ar loop`, or name a --workspace")
    return LedgerReader(runs_dir(workspace) / runs[-1].tag)
