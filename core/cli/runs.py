"""The runs of a workspace: finding them, and choosing the one a command is about."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from autoresearch.core.config import runs_dir
from autoresearch.core.errors import LedgerError, UsageError
from autoresearch.core.store.git import Repository, branch_name, check_tag
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.rows import RunRow


def run_rows(workspace: Path, complain: Callable[[str], None]) -> list[RunRow]:
    """Every run whose ledger can be read, the oldest first; `complain` is told of the others."""
    found = []
    for ledger in sorted(runs_dir(workspace).glob(f"*/{LEDGER_NAME}")):
        try:
            with LedgerReader(ledger.parent) as reader:
                found.append(reader.run())
        except LedgerError as error:
            complain(str(error))
    return sorted(found, key=lambda run: run.created)


def named_run(workspace: Path, tag: str) -> RunRow | None:
    """The run of that tag, or None. Raises `LedgerError` when its ledger is damaged."""
    folder = runs_dir(workspace) / check_tag(tag)
    if not (folder / LEDGER_NAME).is_file():
        return None
    with LedgerReader(folder) as reader:
        return reader.run()


def unfinished_run(runs: list[RunRow], backend: str, preset: str) -> RunRow | None:
    """The latest run of that backend and preset that was not finished."""
    same = [run for run in runs if run.config["backend"] == backend and run.config["preset"] == preset]
    return next((run for run in reversed(same) if run.state != "finished"), None)


def fresh_tag(workspace: Path, backend: str) -> str:
    """`<yyyy-mm-dd>-<backend>`, numbered when there is one already, here or in git."""
    repository, stem = Repository.open(workspace), f"{datetime.date.today():%Y-%m-%d}-{backend}"
    tag, number = stem, 1
    while (
        (runs_dir(workspace) / tag).exists() or repository.ref(f"refs/heads/{branch_name(tag)}") or repository.refs(tag)
    ):
        number += 1
        tag = f"{stem}-{number}"
    return tag


def open_reader(workspace: Path, tag: str | None) -> LedgerReader:
    """The ledger of that run; without a tag, of the one that was started last. Raises `UsageError`."""
    if tag is not None:
        if named_run(workspace, tag) is None:
            raise UsageError(f"there is no run {tag!r} in {workspace}.", fix="`ar status` lists the runs there are")
        return LedgerReader(runs_dir(workspace) / tag)
    runs = run_rows(workspace, lambda _: None)
    if not runs:
        raise UsageError(f"there is no run in {workspace}.", fix="start one with `ar loop`, or name a --workspace")
    return LedgerReader(runs_dir(workspace) / runs[-1].tag)
