"""The shared options of all commands, and the backend, preset and corpus that they choose.

Only click is imported at the top, so that `ar --help` is quick; each function imports what it needs.
"""

from __future__ import annotations

import functools
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from autoresearch.core.cli.configfile import defaults_of, shared_options, use_defaults
from autoresearch.core.cli.params import (
    BackendName,
    ExistingFolder,
    GivenPath,
    Level,
    PresetName,
    add_options,
    is_typed,
    option,
)
from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.home import expand_home

if TYPE_CHECKING:
    from autoresearch.backends.contract import Runtime
    from autoresearch.core.config import Preset
    from autoresearch.core.data.manifest import Prepared

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def find_workspace(start: Path) -> Path:
    """Find the nearest workspace from `start` upward; return `start` when there is none."""
    for folder in (start, *start.parents):
        # Not pathlib's own: it raises where a folder above may not be looked into, as after `sudo -u`.
        if os.path.isfile(folder / "program.md") and os.path.isdir(folder / "backends"):  # noqa: PTH112, PTH113
            return folder
    return start


def standing_in() -> Path:
    """Return the folder that the person is in. Raises `UsageError` where it was deleted meanwhile."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the folder that you are in is gone.", fix="go to another one: cd") from error


def _read_defaults(ctx: click.Context, _option: click.Parameter, workspace: Path | None) -> Path | None:
    """Read ar.toml before the other options are read; again when the workspace is named after the command."""
    if not ctx.resilient_parsing and (workspace is not None or ctx.parent is None):
        use_defaults(ctx, workspace.resolve() if workspace else find_workspace(standing_in()))
    return workspace


@dataclass(frozen=True)
class SharedOptions:
    """The options that the group and every command accept, as they were given in one place; None is not given."""

    backend: str | None = option(
        type=BackendName(),
        metavar="auto|cuda|mlx|null",
        help="Framework to train with; torch is another name of cuda.  [default: auto]",
    )
    preset: str | None = option(
        type=PresetName(), metavar="NAME|auto", help="Preset: model sizes and training budget.  [default: auto]"
    )
    workspace: Path | None = option(
        type=ExistingFolder(),
        is_eager=True,
        callback=_read_defaults,
        help="Folder with program.md and backends/.  [default: the one that you are in]",
    )
    data_dir: Path | None = option(
        type=GivenPath(file_okay=False),
        help="Folder of prepared corpora.  [default: your data folder]",
    )
    json: bool | None = option(
        is_flag=True, help="Print JSON on stdout: one object, or one per line from a command that keeps running."
    )
    verbose: int | None = option("-v", "--verbose", count=True, help="Print more details; show tracebacks.")
    quiet: bool | None = option("-q", "--quiet", is_flag=True, help="Print only errors.")


@dataclass(frozen=True)
class Settings:
    """The shared options of one call, defaults filled in."""

    backend: str = "auto"
    preset: str = "auto"
    workspace: Path = Path()
    json: bool = False
    verbosity: int = 0
    """-1 quiet, 0 normal, 1 or more verbose."""
    data_dir: Path | None = None
    """Folder of prepared corpora; None is the user's data folder."""

    def override(self, given: SharedOptions) -> Settings:
        """Return these settings with every option that was given."""
        return replace(
            self,
            backend=given.backend or self.backend,
            preset=given.preset or self.preset,
            workspace=given.workspace.resolve() if given.workspace else self.workspace,
            json=self.json or bool(given.json),
            verbosity=-1 if given.quiet else (given.verbose or self.verbosity),
            data_dir=expand_home(given.data_dir).resolve() if given.data_dir else self.data_dir,
        )

    @property
    def data_folder(self) -> Path:
        """The folder of prepared corpora: `data_dir`, else the user's data folder."""
        from autoresearch.core.config import check_text, data_dir

        return check_text(self.data_dir) if self.data_dir else data_dir()

    def say(self, message: str) -> None:
        """Write a message to stderr, unless the person asked for quiet. The work goes on where nobody reads it."""
        if self.verbosity >= 0:
            with suppress(OSError):  # a closed terminal, or `2>&1 | head`: a night's work does not end with that
                click.echo(message, err=True)


@dataclass(frozen=True)
class Backend:
    """The backend in use."""

    name: str
    runtime: Runtime
    """The runtime module."""
    train_file: Path
    """The workspace's train file; need not exist."""
    presets_file: Path
    """The presets that are installed with the backend; the researcher does not edit them."""
    why: str
    """The reason for this choice, for messages."""


REQUIRED_ISOLATION = "autoresearch.required_isolation"
"""Key in the context's `meta` of the required isolation level, if one was given."""


def require_isolation(function: AnyFunction) -> AnyFunction:
    """Give a command the option --require-isolation: it does not start below that isolation level."""

    def check(context: click.Context, _parameter: click.Parameter, level: Any) -> None:
        if level is not None:
            from autoresearch.core.trial.sandbox.levels import require

            require(level)
            context.meta[REQUIRED_ISOLATION] = level

    return click.option(
        "--require-isolation",
        type=Level(),
        expose_value=False,
        show_envvar=True,
        callback=check,
        help="Refuse to run trials at a weaker isolation level than this.",
    )(function)


def pass_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its `Settings` first, and the shared options, which may also follow the command's name."""

    @functools.wraps(function)
    def with_settings(*args: Any, given: SharedOptions, **kwargs: Any) -> Any:
        root = click.get_current_context().find_root()
        before = root.obj if isinstance(root.obj, Settings) else Settings(workspace=find_workspace(standing_in()))
        if given.workspace is not None:
            before = _with_defaults_of_workspace(root, before)
        root.obj = before.override(given)
        if (error := defaults_of(root).error) is not None:
            raise error
        return function(root.obj, *args, **kwargs)

    # One variable each, AR_BACKEND, whichever command it is for: so a command's own copy has none. The default None
    # keeps a flag that was not given apart from False.
    hidden = add_options(SharedOptions, "given", hidden=True, default=None, show_envvar=False, allow_from_autoenv=False)
    return hidden(with_settings)


def _with_defaults_of_workspace(root: click.Context, settings: Settings) -> Settings:
    """Apply the ar.toml of a workspace named after the command, where neither a flag nor a variable says otherwise."""
    flags = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    unset: dict[str, Any] = {one.name: one.default for one in fields(Settings)}
    for name, one in shared_options(root.command).items():
        if root.get_parameter_source(name) not in flags:
            given, source = one.consume_value(root, {})
            root.set_parameter_source(name, source)
            value = one.process_value(root, given)
            settings = replace(settings, **{name: value or unset[name]})
    return settings


def is_preset_typed(settings: Settings) -> bool:
    """Tell whether a preset was named on the command line of this call, before or after the command's name."""
    ctx = click.get_current_context()
    return settings.preset != "auto" and any(is_typed(one, "preset") for one in (ctx, ctx.find_root()))


def load_runtime(name: str) -> Runtime:
    """Import a backend's runtime module, which imports no framework."""
    import importlib

    return cast("Runtime", importlib.import_module(f"autoresearch.backends.{name}.runtime"))


def resolve_backend(settings: Settings, *, elsewhere: bool = False) -> Backend:
    """Choose the backend. `auto` takes mlx on Apple silicon and cuda elsewhere, or else the one that can run.

    Raises `PrerequisiteError` with the missing package, unless its trials run `elsewhere`, on a fleet.
    """
    from autoresearch.core.config import train_file

    name, why = settings.backend, "asked for"
    if name == "auto":
        name, why = _choose_backend()
    runtime = load_runtime(name)
    missing = runtime.unavailable()
    if missing is not None and not elsewhere:
        raise PrerequisiteError(f"the {name} backend cannot run here: {missing}")
    presets_file = Path(str(runtime.__file__)).with_name("presets.toml")  # type: ignore[attr-defined]
    return Backend(name, runtime, train_file(settings.workspace, name), presets_file, why)


def _choose_backend() -> tuple[str, str]:
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    first, second = ("mlx", "cuda") if apple else ("cuda", "mlx")
    missing = load_runtime(first).unavailable()
    if missing is None:
        return first, "this is Apple silicon" if apple else "PyTorch is installed and this is not Apple silicon"
    if load_runtime(second).unavailable() is None:
        return second, f"{first} cannot run here"
    return first, "the first choice for this machine"


def resolve_preset(settings: Settings, backend: Backend) -> Preset:
    """Choose the preset. `auto` asks in a child process which one suits the device, which takes seconds.

    Raises `UsageError` for an unknown name.
    """
    from autoresearch.core.config import choose_preset, load_presets

    presets = load_presets(backend.presets_file)
    if settings.preset != "auto":
        return choose_preset(presets, settings.preset)
    from autoresearch.core.trial.device import probe_device

    return choose_preset(presets, probe_device(backend.name).tier)


def ensure_prepared(
    settings: Settings,
    preset: Preset,
    *,
    corpus: str | None = None,
    vocabularies: tuple[int, ...] | None = None,
    seq_lens: tuple[int, ...] | None = None,
    val_bytes: int | None = None,
    shards: int | None = None,
) -> Prepared:
    """Return the prepared corpus; prepare it now if it is missing. Values that are None come from the preset.

    `val_bytes` are raw bytes of validation text, `seq_lens` tokens per scored row. Progress goes to stderr.
    Raises `DataError`.
    """
    from autoresearch.core.data.manifest import PrepareOptions
    from autoresearch.core.data.prepare import prepare

    options = PrepareOptions(
        corpus=corpus or preset.data.corpus,
        vocabularies=vocabularies or preset.data.vocabularies,
        seq_lens=seq_lens or (preset.data.eval_seq_len,),
        val_bytes=val_bytes or preset.data.val_bytes,
        test_bytes=preset.data.test_bytes,
        shards=shards or preset.data.shards,
    )
    return prepare(options, settings.data_folder, settings.say)


@contextmanager
def handling(handlers: Mapping[int, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Give signals these handlers inside the block; a SIGHUP that `nohup` has ignored stays so.

    Must be entered in the main thread.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if not (ignored and number == signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
