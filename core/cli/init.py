"""`ar init`: make a new workspace."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import click

from autoresearch.backends import names as backend_names
from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import PrerequisiteError, UsageError

GITIGNORE = "runs/\n__pycache__/\n"


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@pass_settings
def init(settings: Settings, directory: Path) -> None:
    """Make a workspace in DIR: a git repository with program.md and one train file per backend.

    DIR must be new or empty: nothing is overwritten.
    """
    directory = directory.expanduser().resolve()
    check_empty(directory)
    if shutil.which("git") is None:
        raise PrerequisiteError("git is not on PATH.", fix="install git")
    written = write_workspace(directory)
    commit = first_commit(directory)
    if settings.json:
        click.echo(json.dumps({"workspace": str(directory), "files": written, "commit": commit}))
        return
    click.echo(f"{directory} is a workspace: {', '.join(written)}")
    settings.say(f"next: cd {directory} && ar doctor && ar loop -n 5")


def check_empty(directory: Path) -> None:
    """Check that the directory is new or empty. Raises `UsageError`."""
    if directory.is_dir() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty, and nothing there will be overwritten.", fix="name a new folder")
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file.", fix="name a new folder")


def write_workspace(directory: Path) -> list[str]:
    """Write the files that a person and a researcher edit. Returns their paths inside the workspace."""
    texts = {"program.md": (files("autoresearch") / "program.md").read_text(encoding="utf-8"), ".gitignore": GITIGNORE}
    for name in backend_names():
        source = files(f"autoresearch.backends.{name}") / "train.py"
        texts[f"backends/{name}/train.py"] = source.read_text(encoding="utf-8")
    try:
        for name, text in texts.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}.", fix="name another folder") from error
    return list(texts)


def first_commit(directory: Path) -> str:
    """Make a folder a git repository with everything in one commit; return the commit. Raises `SourceError`."""
    from autoresearch.core.store.git import fallback_identity, run_git

    run_git(directory, "init", "--quiet")
    run_git(directory, "add", "--all")
    message = ("--message", "A workspace to research in")
    run_git(directory, "commit", "--quiet", "--no-verify", *message, environment=fallback_identity(directory))
    return run_git(directory, "rev-parse", "HEAD")
