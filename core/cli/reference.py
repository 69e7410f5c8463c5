"""The command reference, from the commands themselves: `make docs` writes docs/commands.md with it."""

from __future__ import annotations

import click

from autoresearch.core.cli.commands import COMMANDS, load_command
from autoresearch.core.cli.main import cli
from autoresearch.core.store.columns import columns_page

WIDTH = 100
HEAD = """\
# Commands

Written by `make docs` from the commands' own help. Do not edit it here.
"""


def reference() -> str:
    """Return the whole page."""
    root = context(cli, "ar", None)
    parts = [HEAD, section(root, 2)]
    for name in COMMANDS:
        ctx = context(load_command(name), name, root)
        # As `ar NAME --help` has it, examples included.
        cli.get_command(root, name)
        parts.append(section(ctx, 2))
        if isinstance(ctx.command, click.Group):
            for inner in ctx.command.list_commands(ctx):
                command = ctx.command.get_command(ctx, inner)
                parts += [section(context(command, inner, ctx), 3)] if command else []
    parts.append(f"## Columns of results\n\n{columns_page()}")
    return "\n".join(parts)


def context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    """Make a context for a command's help, with lines of the same width on every terminal."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def section(ctx: click.Context, level: int) -> str:
    """Return one command's help as a section."""
    text = "\n".join(line.rstrip() for line in ctx.get_help().splitlines())
    return f"{'#' * level} `{ctx.command_path}`\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
