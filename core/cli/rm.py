"""`ar rm`: delete a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import LedgerError, LockedError, PrerequisiteError, UsageError


@click.command("rm")
@click.argument("tag", metavar="TAG")
@click.option("--keep-refs", is_flag=True, help="Keep the run's branch and the refs of its experiments in git.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_settings
def rm(settings: Settings, tag: str, keep_refs: bool, yes: bool) -> None:
    """Delete the run TAG: its folder with ledger, logs and weights, its branch, and the refs of its experiments.

    Asks first, and refuses to delete a run that is in use. With --keep-refs every experiment's commit stays in git; a
    later run then needs another tag.
    """
    from filelock import FileLock, Timeout

    from autoresearch.core.cli.runs import lost_run
    from autoresearch.core.config import runs_dir
    from autoresearch.core.files import remove_folder
    from autoresearch.core.store.git import Repository, branch_name, check_tag, experiment_ref
    from autoresearch.core.store.journal import JOURNAL_NAME
    from autoresearch.core.store.reader import LEDGER_NAME

    folder = runs_dir(settings.workspace) / check_tag(tag)
    repository = Repository.open(settings.workspace)
    branch = f"refs/heads/{branch_name(tag)}"
    refs = [experiment_ref(tag, number) for number in sorted(repository.refs(tag))]
    refs += repository.lost_refs(tag)
    refs += [branch] if repository.ref(branch) else []
    aside = folder.with_name(f".removed-{tag}")
    is_run = any((folder / name).is_file() for name in (LEDGER_NAME, JOURNAL_NAME))
    # The run is gone, and not all of it: the call that removed it was interrupted, or kept the refs.
    has_left = not folder.exists() and (aside.exists() or bool(refs and not keep_refs))
    if not is_run and not has_left:
        raise lost_run(settings.workspace, tag, "`ar status` lists all runs")
    if folder.is_symlink():
        raise PrerequisiteError(f"{folder} is a link, and what it leads to is not touched.", fix="delete it by hand")
    if not keep_refs and repository.current_branch() == branch_name(tag):
        raise PrerequisiteError(
            f"the branch {branch_name(tag)} is checked out.",
            fix="git switch - (or git switch --detach), or --keep-refs",
        )
    gone = [] if keep_refs else refs
    _confirm(folder, tag, gone, keep_refs, yes)
    remove_folder(aside)
    if is_run:
        try:
            with FileLock(folder / "writer.lock", timeout=0):
                # Renamed first, so that a crash leaves a whole run or none.
                folder.rename(aside)
        except Timeout:
            raise LockedError(
                f"somebody is working on the run {tag!r}.", fix="wait for it, or stop it with Ctrl-C, then try again"
            ) from None
        except OSError as error:
            raise LedgerError(f"{folder} cannot be deleted: {error.strerror}.", fix="check its permissions") from error
        remove_folder(aside)
    if aside.exists():
        settings.say(f"some files could not be deleted: they are in {aside}")
    for ref in gone:
        repository.drop_ref(ref)
    if settings.json:
        click.echo(json.dumps({"tag": tag, "folder": str(folder), "refs": len(gone)}))
        return
    kept = f"; its refs stay: git for-each-ref refs/autoresearch/{tag}" if keep_refs and refs else ""
    settings.say(f"the run {tag} is deleted{kept}")


def _confirm(folder: Path, tag: str, refs: list[str], keep_refs: bool, yes: bool) -> None:
    """Say what will go, and ask; raises `UsageError` where nobody can be asked, and `click.Abort` for a no."""
    from autoresearch.core.report.wording import counted
    from autoresearch.core.store.reader import LedgerReader

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"the run {tag!r} is deleted for good, and nobody can be asked.", fix="add --yes")
    try:
        with LedgerReader(folder) as reader:
            what = counted(max(0, reader.next_number() - 1), "experiment")
    except LedgerError:
        what = "a ledger that cannot be read"
    there = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    told = "git's refs stay" if keep_refs else f"{counted(len(refs), 'ref')} in git"
    asked = f"delete the run {tag} for good: {what}, {there / 2**20:.0f} MiB in {folder}, {told}?"
    click.confirm(asked, abort=True, err=True)  # standard output may be a file, and is for data
