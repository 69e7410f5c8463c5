"""`ar.toml`: defaults for options, written by a person for one workspace or for all.

click reads them as its default map, after flags and AR_* variables.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from autoresearch.core.cli.commands import COMMANDS, load_command
from autoresearch.core.cli.params import CorpusType, PeerRun, Vocabularies
from autoresearch.core.errors import UsageError, system_words
from autoresearch.core.home import expand_home
from autoresearch.core.textfile import read_text

FILE_NAME = "ar.toml"
MOST_BYTES = 2**20
"""Bytes that a file of settings may have: a thousand times what an honest one has."""
MOST_LETTERS = 60
"""Letters of a key that a message repeats."""
META_KEY = "autoresearch.defaults"
"""Key of `Defaults` in the root context's `meta`."""


@dataclass(frozen=True)
class Origin:
    """The file and line in which a value is written."""

    path: Path
    line: int | None

    def __str__(self) -> str:
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Defaults:
    """The values in all ar.toml files that apply to a call."""

    values: dict[str, Any] = field(default_factory=dict)
    """click's default map: shared options by name, and a mapping for every command."""
    origins: Mapping[tuple[str | None, str], Origin] = field(default_factory=dict)
    """Origins by command (None for shared options) and option."""
    files: tuple[Path, ...] = ()
    """Files that exist and were read."""
    error: UsageError | None = None
    """The reason why the files cannot be used; `values` is then empty. Raised when a command starts, not by --help."""


def user_file() -> Path:
    """Return the path of the person's own file, which applies to every workspace."""
    import platformdirs

    return platformdirs.user_config_path("autoresearch") / FILE_NAME


def load_defaults(workspace: Path, root: click.Command) -> Defaults:
    """Read the person's file, then the workspace's, which wins. Missing files are skipped.

    `root` is the command group, whose options all commands share.
    """
    shared = shared_options(root)
    values: dict[str, Any] = {}
    origins: dict[tuple[str | None, str], Origin] = {}
    files = []
    try:
        for path in (user_file(), workspace / FILE_NAME):
            text = _read(path)
            if text is None:
                continue
            files.append(path)
            for (command, option), value in _entries(path, text, shared):
                target = values if command is None else values.setdefault(command, {})
                target[option] = value
                origins[command, option] = Origin(path, line_of(text, command, option))
    except UsageError as error:
        return Defaults(files=tuple(files), error=error)
    return Defaults(values, origins, tuple(files))


def line_of(text: str, command: str | None, option: str | None) -> int | None:
    """Find the line (from 1) of a key in a command's table, or of the table itself when `option` is None.

    Returns None for a layout that this simple reading does not find, such as an inline table.
    """
    table: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*[\"']?([\w-]+)[\"']?\s*\]", line):
            table = header[1]
            if option is None and table == command:
                return number
        key = re.match(r"\s*[\"']?([\w-]+)[\"']?\s*[.=]", line)
        if key and table == command and plain(key[1]) == option:
            return number
    return None


def _read(path: Path) -> str | None:
    try:
        return read_text(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {system_words(error)}.", fix="mend it, or move it away") from error


def _entries(path: Path, text: str, shared: Mapping[str, click.Option]) -> Iterator[tuple[tuple[str | None, str], Any]]:
    """Yield every key of a file with its value. Raises `UsageError` for a key that is no option."""
    for key, value in _parsed(path, text).items():
        if not isinstance(value, dict):
            if plain(key) not in shared:
                raise _not_shared(Origin(path, line_of(text, None, plain(key))), key, shared)
            yield (None, plain(key)), _checked(path, text, None, shared[plain(key)], value)
            continue
        if key not in COMMANDS:
            where = Origin(path, line_of(text, key, None))
            raise UsageError(f"{where}: there is no command [{_named(key)}].", fix=_nearest(key, COMMANDS))
        own = options_of(load_command(key))
        for inner, inner_value in value.items():
            if plain(inner) not in own:
                where = Origin(path, line_of(text, key, plain(inner)))
                near = difflib.get_close_matches(plain(inner[:MOST_LETTERS]), shared, n=1, cutoff=0.7)
                fix = f"write {written(near[0])} above the first table: all commands share it" if near else None
                fix = fix or (_nearest(inner, own) if own else "it has no options to set")
                raise UsageError(f"{where}: there is no key {_named(inner)} in [{key}].", fix=fix)
            yield (key, plain(inner)), _checked(path, text, key, own[plain(inner)], inner_value)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, or lists nested too deep
        raise UsageError(f"{path} is not valid TOML: {error}.", fix="mend that line") from error


def options_of(command: click.Command) -> dict[str, click.Option]:
    """List the options that a command's table may set, by name: not --help and --workspace, which click reads first."""
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {str(one.name): one for one in options if not one.hidden and not one.is_eager}


def shared_options(root: click.Command) -> dict[str, click.Option]:
    """List the shared options that may stand at the top of the file: those that take a value."""
    return {name: one for name, one in options_of(root).items() if not (one.is_flag or one.count)}


def plain(key: str) -> str:
    """Write an option's name as click has it, with underscores."""
    return key.replace("-", "_")


def written(name: str) -> str:
    """Write an option's name as people type it, with dashes."""
    return name.replace("_", "-")


def _checked(path: Path, text: str, command: str | None, option: click.Option, value: Any) -> Any:
    """Return the value as click takes it, paths relative to the file's folder. Raises `UsageError` for a wrong kind."""
    several = option.multiple or isinstance(option.type, Vocabularies)
    each = value if isinstance(value, list) and several else [value]
    if not all(isinstance(one, bool) if option.is_flag else not isinstance(one, bool | dict | list) for one in each):
        wanted = "true or false" if option.is_flag else "one value or a list" if several else "one value"
        where = Origin(path, line_of(text, command, str(option.name)))
        raise UsageError(f"{where}: {written(str(option.name))} takes {wanted}.", fix="write it so, or leave it out")
    if option.is_flag:
        return value
    # As on the command line, where everything is text: a type need not know how TOML writes a number or a date.
    each = [str(one) for one in each]
    value = each if isinstance(value, list) else each[0]
    if value and isinstance(value, str) and isinstance(option.type, click.Path | CorpusType):
        beside = path.parent / expand_home(value)
        return str(beside) if isinstance(option.type, click.Path) or beside.exists() else value
    if isinstance(option.type, PeerRun):
        return [one if one in PeerRun.WORDS or not one else str(path.parent / expand_home(one)) for one in each]
    # Here and not only by the command whose option it is: a person who looks at a run is told before the night.
    if option.nargs == 1:
        for one in each if option.multiple else [value]:
            try:
                option.type.convert(one, option, None)
            except click.BadParameter as error:
                where = Origin(path, line_of(text, command, str(option.name)))
                message = f"{where}: {written(str(option.name))}: {error.message}"
                raise UsageError(message, fix="mend that line") from error
    return [value] if option.multiple and not isinstance(value, list) else value


def _not_shared(where: Origin, key: str, shared: Iterable[str]) -> UsageError:
    """Explain a key above the tables that belongs to a command, or to nothing."""
    home = next((name for name in ("loop", "train", "prepare") if plain(key) in options_of(load_command(name))), None)
    fix = f"it is an option of `ar {home}`: write it below [{home}]" if home else _nearest(key, shared)
    return UsageError(f"{where}: there is no key {_named(key)} above the tables.", fix=fix)


def _named(key: str) -> str:
    """Write a key into a message: a quoted one may hold anything."""
    return key if key.isprintable() and len(key) <= MOST_LETTERS else repr(key[:MOST_LETTERS])


def _nearest(key: str, known: Iterable[str]) -> str:
    names = [written(name) for name in known]
    near = difflib.get_close_matches(written(key[:MOST_LETTERS]), names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"


def use_defaults(ctx: click.Context, workspace: Path) -> None:
    """Make click use the files' values in this call. Must run before click reads the other options."""
    root = ctx.find_root()
    defaults = load_defaults(workspace, root.command)
    root.meta[META_KEY] = defaults
    root.default_map = defaults.values
    if ctx is not root and ctx.info_name is not None:
        ctx.default_map = defaults.values.get(ctx.info_name, {})


def defaults_of(ctx: click.Context) -> Defaults:
    """Return the defaults that were read for this call."""
    found = ctx.find_root().meta.get(META_KEY)
    return found if isinstance(found, Defaults) else Defaults()


def variable_of(ctx: click.Context, option: click.Parameter) -> str | None:
    """Return the name of the environment variable that sets an option, if one does."""
    names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    if isinstance(option, click.Option) and option.allow_from_autoenv and ctx.auto_envvar_prefix and option.name:
        names.append(f"{ctx.auto_envvar_prefix}_{option.name.upper()}")
    return next((name for name in names if os.environ.get(name)), None)


def origin_of(ctx: click.Context, option: click.Parameter) -> str | None:
    """Say where a value was set if not by a flag: a variable, or a file and line. None means the default."""
    source = ctx.get_parameter_source(str(option.name))
    if source is click.core.ParameterSource.ENVIRONMENT:
        return variable_of(ctx, option)
    if source is click.core.ParameterSource.DEFAULT_MAP:
        command = None if ctx.parent is None else ctx.info_name
        origin = defaults_of(ctx).origins.get((command, str(option.name)))
        return None if origin is None else str(origin)
    return None
