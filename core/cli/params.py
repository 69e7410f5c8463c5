"""Groups of options as dataclasses, and the kinds of values that options take."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click
from click.shell_completion import CompletionItem

from autoresearch.core.errors import UsageError, system_words
from autoresearch.core.home import expand_home
from autoresearch.core.textfile import read_text

Function = TypeVar("Function", bound=Callable[..., Any])


def option(*flags: str, default: Any = None, **attributes: Any) -> Any:
    """Make a dataclass field that is a command-line option as well.

    The flag is the field's name with dashes unless `flags` names others. `attributes` are those of `click.option`.

        @dataclass(frozen=True)
        class Limits:
            hours: float | None = option(type=float, metavar="H", help="Hours until the loop ends.")
    """
    if attributes.get("multiple") and default is None:
        default = ()
    if default not in (None, ()):
        attributes["default"] = default
    return field(default=default, metadata={"flags": flags, "attributes": attributes})


def add_options(group: type[Any], argument: str, **attributes: Any) -> Callable[[Function], Function]:
    """Give a command every option of a dataclass; the command receives one `group` as its argument `argument`.

    `attributes` apply to all of the group's options.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def with_group(*args: Any, **kwargs: Any) -> Any:
            given = {one.name: kwargs.pop(one.name) for one in fields(group)}
            return function(*args, **kwargs, **{argument: group(**given)})

        for one in reversed(fields(group)):
            flags = one.metadata["flags"] or (f"--{one.name.replace('_', '-')}",)
            with_group = click.option(*flags, one.name, **{**one.metadata["attributes"], **attributes})(with_group)
        return cast("Function", with_group)

    return decorate


LARGEST = 1e12
"""Largest value of an option that names no upper bound: bytes and seeds stay far below it."""
LONGEST = 1e7
"""Longest time in seconds that an option may name, 115 days. Waiting functions fail on some thousand times of it."""

MOST_TRIALS = 1000
"""Most trials of one backend that a measurement may ask for: beyond, a slip of the finger is likelier than a wish."""


def is_typed(ctx: click.Context, name: str) -> bool:
    """Tell whether this option was given on the command line of this call, not by a variable or by ar.toml."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


class Whole(click.IntRange):
    """A whole number within bounds."""

    name = "whole number"

    def __init__(self, min: int | None = None, max: int | None = None) -> None:  # noqa: A002 - click's names
        super().__init__(min=min, max=int(LARGEST) if max is None else max)
        self._shown = click.IntRange(min=min, max=max)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no whole number or out of bounds."""
        try:
            int(value)
        except (TypeError, ValueError, OverflowError):
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        if self._shown.max is None and int(value) > LARGEST:
            self.fail(f"{value} is too large: at most {LARGEST:g}.", param, ctx)
        return super().convert(value, param, ctx)

    def _describe_range(self) -> str:
        return self._shown._describe_range()


class Number(click.FloatRange):
    """A number within bounds that is finite: neither "nan" nor "inf". `largest` is the bound where no max is named."""

    name = "number"

    def __init__(
        self,
        min: float | None = None,  # noqa: A002 - click's name
        max: float | None = None,  # noqa: A002
        min_open: bool = False,
        largest: float = LARGEST,
    ) -> None:
        super().__init__(min=min, max=largest if max is None else max, min_open=min_open)
        self._largest = largest
        self._shown = click.FloatRange(min=min, max=max, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no finite number or out of bounds."""
        try:
            finite = math.isfinite(float(value))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if self._shown.max is None and float(value) > self._largest:
            self.fail(f"{value} is too large: at most {self._largest:g}.", param, ctx)
        return super().convert(value, param, ctx)

    def _describe_range(self) -> str:
        return self._shown._describe_range()


def read_given(path: Path, kind: str, fix: str = "check the path") -> str:
    """Read a text file that a person named. Raises `UsageError`; `kind` says what it should be: "a train file"."""
    try:
        return read_text(path.expanduser())
    except (OSError, UnicodeDecodeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be read as {kind}: {system_words(error)}.", fix=fix) from error


OTHER_NAMES = {"torch": "cuda", "pytorch": "cuda"}
"""Other names of a backend, and the one that it has in folders and records. `cuda` computes with PyTorch, on a CPU too
where there is no NVIDIA GPU."""


class BackendName(click.ParamType):
    """A backend's folder name or one of its other names; `auto` as well unless `auto` is False."""

    name = "backend"

    def __init__(self, auto: bool = True) -> None:
        self._auto = auto

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the folder name. A name that is no backend is refused with the nearest one that is."""
        names = self._names()
        wanted = value.strip().lower()
        if wanted not in {*names, *OTHER_NAMES}:
            near = difflib.get_close_matches(wanted, names, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            self.fail(f"{value!r} is not one of {', '.join(names)}.{meant}", param, ctx)
        return OTHER_NAMES.get(wanted, wanted)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names."""
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]

    def _names(self) -> list[str]:
        from autoresearch.backends import names as backend_names

        return [*(["auto"] if self._auto else []), *backend_names(), "torch"]


class FilledText(click.ParamType):
    """Text that is not empty, which would mean a default or nothing in silence."""

    refusal: str
    """Words that refuse an empty text, to follow it."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an empty text."""
        if not value.strip():
            self.fail(f"{value!r} {self.refusal}.", param, ctx)
        return value


class PresetName(FilledText):
    """A preset by name, or "auto". Which ones there are depends on the backend."""

    name, refusal = "preset", "names no preset"


class GivenPath(click.Path):
    """The path of a file or folder, which need not exist unless `exists` says so."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty path, which would mean the folder that one is in, in silence."""
        if not str(value):
            self.fail(f"{value!r} names no {self.name}.", param, ctx)
        return super().convert(value, param, ctx)


class ExistingFolder(GivenPath):
    """A folder that exists; `~` stands for the home folder also where no shell has replaced it."""

    name = "directory"

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no folder."""
        try:
            value = Path(value).expanduser() if value else value
        except RuntimeError:  # the home of a user whom nobody knows
            self.fail(f"there is no folder {str(value)!r}.", param, ctx)
        return super().convert(value, param, ctx)


class Level(click.ParamType):
    """An isolation level. The names are those of `IsolationLevel`, which is imported when they are needed."""

    name = "level"

    def choices(self) -> tuple[str, ...]:
        """List the levels, the strongest first."""
        from autoresearch.core.trial.request import IsolationLevel

        return get_args(IsolationLevel)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Name all levels, as `click.Choice` does."""
        return f"[{'|'.join(self.choices())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse a name that is no level."""
        if value not in self.choices():
            self.fail(f"{value!r} is not one of {', '.join(map(repr, self.choices()))}.", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names."""
        return [CompletionItem(name) for name in self.choices() if name.startswith(incomplete)]


def positive(text: str) -> bool:
    """Tell whether a text is a positive whole number in plain digits, of a length that `int` takes."""
    return text.isascii() and text.isdigit() and len(text) <= 12 and int(text) > 0


class Vocabularies(click.ParamType):
    """Sizes separated by commas."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Refuse everything but a list of positive integers."""
        if isinstance(value, tuple):
            return value
        parts = [str(part) for part in value] if isinstance(value, list) else str(value).split(",")
        if not all(positive(part.strip()) for part in parts):
            self.fail(f"{value!r} is not a list of sizes, such as 1024,2048.", param, ctx)
        return tuple(int(part) for part in parts)


class CorpusType(click.ParamType):
    """A corpus by name, or a path."""

    name = "corpus"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an empty name, which would mean the preset's corpus in silence."""
        if not value.strip():
            self.fail(f"{value!r} names no corpus.", param, ctx)
        return value


class PeerRun(click.ParamType):
    """The folder of a peer run, or a word for several: WORDS."""

    name = "folder"
    WORDS = ("auto", "none")

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Put the home folder in, and refuse an empty name, which would mean the folder that one is in, in silence."""
        if not value.strip():
            self.fail(f"{value!r} names no folder.", param, ctx)
        return value if value in self.WORDS else str(expand_home(value))


corpus_option = click.option(
    "--corpus", type=CorpusType(), metavar="NAME|PATH", help="Corpus to train on.  [default: the preset's]"
)
budget_option = click.option(
    "--budget",
    type=Number(min=0, min_open=True, largest=LONGEST),
    metavar="S",
    help="Training seconds.  [default: the preset's]",
)


MOST_SLOTS = 4096
"""Largest number of slots that may be asked for: more than any machine has cores or cards."""


class Slots(click.ParamType):
    """A number of slots, or "auto" for as many as the machine has."""

    name = "slots"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Refuse everything but "auto" and a positive number that a machine may have."""
        if value == "auto":
            return "auto"
        if not positive(str(value)) or int(value) > MOST_SLOTS:
            self.fail(f"{str(value)[:40]!r} is neither auto nor a number of slots from 1 to {MOST_SLOTS}.", param, ctx)
        return int(value)


class ShellCommand(FilledText):
    """A command that a shell runs."""

    name, refusal = "command", "is not a command; leave the option out to run none"


class Price(click.ParamType):
    """`MODEL=IN/OUT` or `MODEL=IN/OUT/CACHED`, dollars per million tokens."""

    name = "price"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float, float, float | None]:
        """Refuse everything but a model's name and two or three prices; the third is None where it is left away."""
        if isinstance(value, tuple):
            return cast("tuple[str, float, float, float | None]", value)
        model, _, numbers = str(value).rpartition("=")
        parts = numbers.split("/")
        try:
            usd_in, usd_out, *more = (float(part) for part in parts)
        except ValueError:
            self.fail(
                f"{value!r} is not a price, such as openai/my-model=0.5/2 (dollars per million tokens).", param, ctx
            )
        if not model or len(more) > 1 or not all(0 <= usd < 1e6 for usd in (usd_in, usd_out, *more)):
            self.fail(
                f"{value!r} is not a price, such as openai/my-model=0.5/2 (dollars per million tokens).", param, ctx
            )
        return model, usd_in, usd_out, more[0] if more else None
