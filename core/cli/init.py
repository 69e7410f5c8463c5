"""`ar init`: make a new workspace."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from autoresearch.backends import names as backend_names
from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import GivenPath
from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.files import remove_folder
from autoresearch.core.home import expand_home

GITIGNORE = "runs/\n__pycache__/\n/try*.py\n"
SKILL_HEAD = """\
---
name: research
description: Improve the language model of this workspace by experiments with ar. Use when asked to read program.md \
and start, to research, to run experiments, or to lower val_bpb.
---

"""
"""First lines of a skill: its name, and when an agent should read it."""

CURSOR_HEAD = "---\ndescription: How to research in this workspace\nalwaysApply: true\n---\n\n"


def _json(server: dict[str, Any]) -> str:
    return json.dumps({"mcpServers": {"ar": server}}, indent=2) + "\n"


SERVER = {"command": "ar", "args": ["mcp"]}
CLAUDE_PERMISSIONS = {
    "permissions": {
        "allow": ["Bash(ar brief:*)", "Bash(ar submit:*)", "Bash(ar result:*)", "Bash(ar results:*)", "mcp__ar"],
        "deny": ["Edit(runs/**)", "Edit(program.md)", "Write(runs/**)", "Write(program.md)"],
    }
}
AGENTS: Mapping[str, Callable[[str], Mapping[str, str]]] = {
    "claude": lambda page: {
        ".claude/skills/research/SKILL.md": SKILL_HEAD + page,
        ".claude/settings.json": json.dumps(CLAUDE_PERMISSIONS, indent=2) + "\n",
        "CLAUDE.md": "@AGENTS.md\n",
        "AGENTS.md": page,
        ".mcp.json": _json(SERVER),
    },
    "codex": lambda page: {
        "AGENTS.md": page,
        ".codex/config.toml": '[mcp_servers.ar]\ncommand = "ar"\nargs = ["mcp"]\ntool_timeout_sec = 7200\n',
    },
    "cursor": lambda page: {
        "AGENTS.md": page,
        ".cursor/rules/research.mdc": "---\ndescription: How to research in this workspace\nalwaysApply: true\n---\n\n"
        + page,
        ".cursor/mcp.json": _json(SERVER),
    },
    "generic": lambda page: {"AGENTS.md": page, "mcp.json": _json(SERVER)},
}
"""Kind of coding agent -> the files that it reads, by their paths, made from the page on how to research."""


@click.command()
@click.argument("directory", metavar="DIR", type=GivenPath())
@click.option(
    "--agent",
    type=click.Choice(list(AGENTS)),
    help="Coding agent that will research here: also writes the instructions and the MCP entry for it.",
)
@pass_settings
def init(settings: Settings, directory: Path, agent: str | None) -> None:
    """Make a workspace in DIR: a git repository with program.md and one train file per backend.

    DIR must be new or empty: nothing is overwritten. With --agent it may also be an existing workspace without the
    agent's files, which are then added.
    """
    from autoresearch.core.config import check_text

    directory = check_text(expand_home(directory).resolve())
    if agent is not None and (directory / "program.md").is_file() and (directory / "backends").is_dir():
        add_agent(settings, directory, agent)
        return
    check_empty(directory)
    if shutil.which("git") is None:
        raise PrerequisiteError("git is not on PATH.", fix="install git")
    existed = directory.exists()
    try:
        written = write_workspace(directory, agent_files(agent))
        commit = first_commit(directory, written)
    except BaseException:
        # Half a workspace would be in the way of the same command, once the person has mended what stopped it.
        empty(directory, keep=existed)
        raise
    if settings.json:
        click.echo(json.dumps({"workspace": str(directory), "files": written, "commit": commit}))
        return
    click.echo(f"{directory} is a workspace: {', '.join(written)}")
    there = f"cd {shlex.quote(str(directory))}"
    if agent is None:
        chosen = (("--backend", settings.backend), ("--preset", settings.preset))
        ar = shlex.join(["ar", *(word for flag, name in chosen if name != "auto" for word in (flag, name))])
        settings.say(f"next: {there} && {ar} doctor && {ar} loop -n 5")
    else:
        settings.say(f"next: {there} && ar doctor, start the agent there, and say: read program.md and start")


def agent_files(agent: str | None) -> Mapping[str, str]:
    """Return the files for a kind of coding agent, by their paths in the workspace; none without one."""
    if agent is None:
        return {}
    page = (files("autoresearch.core.cli") / "templates" / "research.md").read_text(encoding="utf-8")
    return AGENTS[agent](page)


def add_agent(settings: Settings, workspace: Path, agent: str) -> None:
    """Write a coding agent's files into a workspace that is there. Raises `UsageError` where one of them exists."""
    texts = agent_files(agent)
    there = [name for name in texts if (workspace / name).exists() or (workspace / name).is_symlink()]
    if there:
        raise UsageError(
            f"{workspace} has {', '.join(there)} already, and nothing is overwritten.",
            fix="move it away first, or put `ar init --agent` of a new folder beside it and copy what you need",
        )
    write_texts(workspace, texts)
    if settings.json:
        click.echo(json.dumps({"workspace": str(workspace), "files": list(texts), "commit": None}))
        return
    click.echo(f"{workspace} now has {', '.join(texts)} (not committed)")
    settings.say("next: start the agent there, and say: read program.md and start")


def check_empty(directory: Path) -> None:
    """Check that the directory is new or empty. Raises `UsageError`."""
    if directory.is_dir() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty, and nothing there will be overwritten.", fix="name a new folder")
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file.", fix="name a new folder")


def write_workspace(directory: Path, more: Mapping[str, str]) -> list[str]:
    """Write the files that a person and a researcher edit, and `more`. Returns their paths inside the workspace."""
    texts = {"program.md": (files("autoresearch") / "program.md").read_text(encoding="utf-8"), ".gitignore": GITIGNORE}
    for name in backend_names():
        source = files(f"autoresearch.backends.{name}") / "train.py"
        texts[f"backends/{name}/train.py"] = source.read_text(encoding="utf-8")
    texts |= more
    write_texts(directory, texts)
    return list(texts)


def write_texts(directory: Path, texts: Mapping[str, str]) -> None:
    """Write files by their paths in a folder. Raises `UsageError`."""
    try:
        for name, text in texts.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        # Where writing itself fails, as on a full disk, the error names no file.
        file = error.filename or directory
        raise UsageError(f"{file} cannot be written: {error.strerror}.", fix="name another folder") from error


def empty(directory: Path, *, keep: bool) -> None:
    """Remove what lies in a folder that was empty before, and the folder itself unless `keep`."""
    if not keep:
        remove_folder(directory)
        return
    with contextlib.suppress(OSError):
        for child in directory.iterdir():
            remove_folder(child)


def first_commit(directory: Path, written: Sequence[str]) -> str:
    """Make a folder a git repository with these files in one commit; return the commit. Raises `SourceError`."""
    from autoresearch.core.store.git import fallback_identity, run_git

    run_git(directory, "init", "--quiet")
    # The person's settings are for the person's own commits: their list of ignored files may name *.py, `safecrlf`
    # refuses line ends that are not Windows', hooks ask for a ticket's number, and gpg asks for a passphrase that
    # nobody can type here.
    run_git(directory, "-c", "core.safecrlf=false", "add", "--force", "--", *written)
    run_git(
        directory,
        *("-c", f"core.hooksPath={os.devnull}", "commit", "--quiet", "--no-verify", "--no-gpg-sign"),
        *("--message", "A workspace to research in"),
        environment=fallback_identity(directory),
    )
    return run_git(directory, "rev-parse", "HEAD")
