"""The runs of a workspace: list them, and find the one that a command is about."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from autoresearch.core.config import RUN_FOLDERS, runs_dir
from autoresearch.core.errors import LedgerError, UsageError
from autoresearch.core.store.git import Repository, branch_name, check_tag
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.rows import RunRow


def run_rows(workspace: Path, complain: Callable[[str], None]) -> list[RunRow]:
    """List every run whose ledger can be read, the oldest first; `complain` gets the errors of the others."""
    found = []
    for ledger in sorted(runs_dir(workspace).glob(f"{RUN_FOLDERS}/{LEDGER_NAME}")):
        try:
            with LedgerReader(ledger.parent) as reader:
                run = reader.run()
                run.config["backend"], run.config["preset"]  # every list of runs shows them
                found.append(run)
        except LedgerError as error:
            complain(str(error))
    return sorted(found, key=lambda run: run.created)


def named_run(workspace: Path, tag: str) -> RunRow | None:
    """Read the run of that tag; None if there is none. Raises `LedgerError` when its ledger is damaged."""
    folder = runs_dir(workspace) / check_tag(tag)
    if not (folder / LEDGER_NAME).is_file():
        return None
    with LedgerReader(folder) as reader:
        return reader.run()


def lost_run(workspace: Path, tag: str, fix: str) -> UsageError:
    """Return the error for a tag that no run has; it names the runs that are meant, or the latest ones."""
    import difflib

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


def open_reader(workspace: Path, tag: str | None) -> LedgerReader:
    """Open the ledger of that run; without a tag, of the run started last. Raises `UsageError` when there is none."""
    if tag is not None:
        if named_run(workspace, tag) is None:
            raise lost_run(workspace, tag, "`ar status` lists all runs")
        return LedgerReader(runs_dir(workspace) / tag)
    runs = run_rows(workspace, lambda _: None)
    if not runs:
        raise UsageError(f"there is no run in {workspace}.", fix="start one with `ar loop`, or name a --workspace")
    return LedgerReader(runs_dir(workspace) / runs[-1].tag)
