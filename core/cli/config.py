"""`ar config`: every option's value, and where it was set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from autoresearch.core.cli.commands import COMMANDS, load_command
from autoresearch.core.cli.configfile import (
    FILE_NAME,
    defaults_of,
    options_of,
    origin_of,
    shared_options,
    user_file,
    written,
)
from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.group import Group
from autoresearch.core.cli.params import is_typed
from autoresearch.core.errors import UsageError

UNSET = getattr(click.core, "UNSET", None)
"""The mark of click 8.3 and later for an option without a value."""


@dataclass(frozen=True)
class Setting:
    """One option of one command; `command` is None for an option that all commands share."""

    command: str | None
    option: str
    value: Any
    origin: str
    """A variable's name, a file and line, or "default"."""

    @property
    def key(self) -> str:
        """The option's full name, such as "loop.hours"."""
        return self.option if self.command is None else f"{self.command}.{self.option}"


@click.group(cls=Group)
def config() -> None:
    """Show settings. Flags win over AR_* variables, variables over the files, files over defaults.

    Options can be set in ar.toml, in the workspace or in your user configuration folder; the workspace's wins. Shared
    options go at the top, a command's own in a table of its name:

    \b
        preset = "demo"
        [loop]
        hours = 8
        researcher = "mix"
        model = ["anthropic/claude-sonnet-4-5"]
        max-usd = 5
    """


@config.command()
@click.argument("commands", metavar="[COMMAND]...", nargs=-1)
@click.option("--set", "only_set", is_flag=True, help="Show only options that a variable or a file has set.")
@pass_settings
def show(settings: Settings, commands: tuple[str, ...], only_set: bool) -> None:
    """Show every option's value and where it was set."""
    unknown = next((name for name in commands if name not in COMMANDS), None)
    if unknown is not None:
        raise UsageError(f"there is no command {unknown!r}.", fix=f"one of {', '.join(COMMANDS)}")
    root = click.get_current_context().find_root()
    found = [*shared_settings(root, settings), *command_settings(root, commands or tuple(COMMANDS))]
    found = [one for one in found if one.origin != "default" or not only_set]
    files = {"workspace": settings.workspace / FILE_NAME, "user": user_file()}
    if settings.json:
        shown = {name: {"path": str(path), "read": path in defaults_of(root).files} for name, path in files.items()}
        click.echo(
            json.dumps({"files": shown, "settings": [{**asdict(one), "value": plain(one.value)} for one in found]})
        )
        return
    for name, path in files.items():
        settings.say(f"{name}: {path}{'' if path in defaults_of(root).files else ' (not there)'}")
    widths = [max((len(text) for text in column), default=0) for column in zip(*map(row, found), strict=True)]
    for one in found:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row(one), widths, strict=True)).rstrip())


def shared_settings(root: click.Context, settings: Settings) -> Iterator[Setting]:
    """Yield the shared options in force, flags of this very call included."""
    settings = replace(settings, data_dir=settings.data_folder)
    for name, option in shared_options(root.command).items():
        where = "flag" if is_typed(root, name) else origin_of(root, option) or "default"
        yield Setting(None, written(name), getattr(settings, name), where)


def command_settings(root: click.Context, names: tuple[str, ...]) -> Iterator[Setting]:
    """Yield the values that each command would get without flags. Raises click's error for an invalid value."""
    for name in names:
        command = load_command(name)
        with click.Context(command, info_name=name, parent=root) as ctx:
            for option in options_of(command).values():
                given, source = option.consume_value(ctx, {})
                ctx.set_parameter_source(str(option.name), source)
                value = None if given is UNSET else option.type_cast_value(ctx, given)
                if value is None or value == ():
                    value = default_words(option)
                elif option.multiple:
                    value = list(given)  # as it was written
                yield Setting(name, written(str(option.name)), value, origin_of(ctx, option) or "default")


def default_words(option: click.Parameter) -> str | None:
    """Return the default that an option's help names, for one whose value is None."""
    said = re.search(r"\[default: (.+)\]$", getattr(option, "help", None) or "")
    return f"({said[1]})" if said else None


def plain(value: Any) -> Any:
    """Return the value as JSON takes it."""
    return str(value) if isinstance(value, Path) else value


def row(one: Setting) -> tuple[str, str, str]:
    """Return key, value and origin as text."""
    value = one.value
    if value is None:
        text = "-"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return one.key, text, one.origin
