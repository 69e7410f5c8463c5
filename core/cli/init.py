"""`ar init`: a new workspace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import click

from autoresearch.backends import names as backend_names
from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import PrerequisiteError, SourceError, UsageError

GITIGNORE = "runs/\n__pycache__/\n"
_IDENTITY = {"NAME": "autoresearch", "EMAIL": "autoresearch@localhost"}


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@pass_settings
def init(settings: Settings, directory: Path) -> None:
    """Make a workspace in DIR: a git repository with program.md and one train file per backend.

    DIR must not exist, or be empty: nothing is ever overwritten.
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
    """Raises `UsageError` unless a workspace can be made there without touching anything."""
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
    """Make it a git repository with everything in one commit; returns its hash. Raises `SourceError`."""
    _git(directory, "init", "--quiet")
    _git(directory, "add", "--all")
    _git(directory, "commit", "--quiet", "--no-verify", "--message", "A workspace to research in")
    return _git(directory, "rev-parse", "HEAD")


def _git(directory: Path, *arguments: str) -> str:
    # A machine without a git identity can still commit: ours stands in where none is configured.
    environment = {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
    for key, value in _IDENTITY.items():
        known = subprocess.run(
            ["git", "config", f"user.{key.lower()}"], cwd=directory, capture_output=True, check=False
        )
        if known.returncode != 0:
            environment.setdefault(f"GIT_AUTHOR_{key}", value)
            environment.setdefault(f"GIT_COMMITTER_{key}", value)
    answer = subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise SourceError(f"git {arguments[0]} failed in {directory}: {answer.stderr.strip()}")
    return answer.stdout.strip()
