"""What every command starts from: the shared options, and the backend, preset and corpus that they choose.

Imports click alone when the command line starts; the rest is imported by the function that needs it.
"""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from autoresearch.core.cli.configfile import SHARED, defaults_of
from autoresearch.core.cli.params import BackendName
from autoresearch.core.errors import PrerequisiteError

if TYPE_CHECKING:
    from autoresearch.backends.contract import Runtime
    from autoresearch.core.config import Preset
    from autoresearch.core.data.manifest import Prepared

SHARED_NAMES = ("backend", "preset", "workspace", "data_dir", "json", "verbose", "quiet")
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settings:
    """The shared options of one call."""

    backend: str = "auto"
    preset: str = "auto"
    workspace: Path = Path()
    json: bool = False
    verbosity: int = 0
    """-1 quiet, 0 normal, 1 or more verbose."""
    data_dir: Path | None = None
    """Where prepared corpora are kept; None is the user's data folder."""

    def override(
        self,
        *,
        backend: str | None = None,
        preset: str | None = None,
        workspace: Path | None = None,
        json: bool | None = None,
        verbose: int | None = None,
        quiet: bool | None = None,
        data_dir: Path | None = None,
    ) -> Settings:
        """These settings with every option that was given."""
        return replace(
            self,
            backend=backend or self.backend,
            preset=preset or self.preset,
            workspace=workspace.expanduser().resolve() if workspace else self.workspace,
            json=self.json or bool(json),
            verbosity=-1 if quiet else (verbose or self.verbosity),
            data_dir=data_dir.expanduser().resolve() if data_dir else self.data_dir,
        )

    def say(self, message: str) -> None:
        """Tell the person something, on stderr, unless they asked for quiet."""
        if self.verbosity >= 0:
            click.echo(message, err=True)


@dataclass(frozen=True)
class Backend:
    """The backend in use."""

    name: str
    runtime: Runtime
    """Its runtime module."""
    train_file: Path
    """In the workspace; need not exist."""
    presets_file: Path
    """Installed with the backend, not edited by the researcher."""
    why: str
    """Why this one, in words."""


def find_workspace(start: Path) -> Path:
    """The nearest folder, from `start` upward, that looks like a workspace; `start` when there is none."""
    for folder in (start, *start.parents):
        if (folder / "program.md").is_file() and (folder / "backends").is_dir():
            return folder
    return start


def _read_defaults(ctx: click.Context, _option: click.Parameter, workspace: Path | None) -> Path | None:
    """Read ar.toml before the other options are; once more when the workspace is named after the command."""
    if not ctx.resilient_parsing and (workspace is not None or ctx.parent is None):
        from autoresearch.core.cli.configfile import use_defaults

        use_defaults(ctx, workspace.expanduser().resolve() if workspace else find_workspace(Path.cwd()))
    return workspace


def global_options(*, hidden: bool) -> Callable[[AnyFunction], AnyFunction]:
    """The options that the group and every command accept. `hidden` keeps them out of a command's own help."""
    # One name each in the environment: AR_BACKEND, whichever command it is for.
    option = functools.partial(
        click.option, hidden=hidden, default=None, show_envvar=not hidden, allow_from_autoenv=not hidden
    )
    options = [
        option(
            "--backend",
            type=BackendName(),
            metavar="auto|cuda|mlx|null",
            help="Framework to train with.  [default: auto]",
        ),
        option("--preset", metavar="NAME|auto", help="Hardware tier that sets the sizes.  [default: auto]"),
        option(
            "--workspace",
            type=click.Path(file_okay=False, path_type=Path),
            is_eager=True,
            callback=_read_defaults,
            help="Repository with program.md and backends/.  [default: the one around you]",
        ),
        option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Where prepared corpora are kept.  [default: your data folder]",
        ),
        option("--json", is_flag=True, help="Data as JSON on stdout: an object, or one a line for streams."),
        option("-v", "--verbose", count=True, help="Say more; show tracebacks."),
        option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    ]

    def decorate(function: AnyFunction) -> AnyFunction:
        for add in reversed(options):
            function = add(function)
        return function

    return decorate


REQUIRED_ISOLATION = "autoresearch.required_isolation"
"""Where the context keeps the level that was asked for, if one was."""


def require_isolation(function: AnyFunction) -> AnyFunction:
    """Give a command that runs trials `--require-isolation`: below that level it does not start."""

    def check(context: click.Context, _parameter: click.Parameter, level: Any) -> None:
        if level is not None:
            from autoresearch.core.trial.sandbox.levels import require

            require(level)
            context.meta[REQUIRED_ISOLATION] = level

    return click.option(
        "--require-isolation",
        type=click.Choice(("bubblewrap", "landlock", "seatbelt", "process")),
        expose_value=False,
        show_envvar=True,
        callback=check,
        help="Refuse to run where train files cannot be shut in this well.",
    )(function)


def pass_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its `Settings` first; the shared options are accepted after the command's name too."""

    @functools.wraps(function)
    def with_settings(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in SHARED_NAMES}
        root = click.get_current_context().find_root()
        before = root.obj if isinstance(root.obj, Settings) else Settings(workspace=find_workspace(Path.cwd()))
        if given["workspace"] is not None:
            before = _with_defaults_of_workspace(root, before)
        root.obj = before.override(**given)
        if (error := defaults_of(root).error) is not None:
            raise error
        return function(root.obj, *args, **kwargs)

    return global_options(hidden=True)(with_settings)


def load_runtime(name: str) -> Runtime:
    """A backend's runtime module. Imports no framework."""
    import importlib

    return cast("Runtime", importlib.import_module(f"autoresearch.backends.{name}.runtime"))


def _with_defaults_of_workspace(root: click.Context, settings: Settings) -> Settings:
    """The workspace was named after the command: its ar.toml counts for what was no flag and no variable."""
    flags = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    for option in root.command.params:
        if option.name in SHARED and root.get_parameter_source(option.name) not in flags:
            given, source = option.consume_value(root, {})
            root.set_parameter_source(option.name, source)
            value = option.process_value(root, given)
            settings = replace(settings, **{option.name: value or getattr(Settings(), option.name)})
    return settings


def resolve_backend(settings: Settings, *, elsewhere: bool = False) -> Backend:
    """The backend to use. `auto` takes mlx on Apple silicon and cuda elsewhere, or else the one that can run.

    Raises `PrerequisiteError` naming what is missing, unless its trials run `elsewhere`.
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
    """The preset to use. `auto` asks the device for its tier, in a child process, which takes seconds.

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
    """The prepared corpus, prepared now if it is not there. What is not given comes from the preset.

    Progress goes to stderr. Raises `DataError`.
    """
    from autoresearch.core.config import data_dir
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
    return prepare(options, settings.data_dir or data_dir(), settings.say)
