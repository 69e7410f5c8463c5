"""Groups of options as dataclasses, and the kinds of values that options take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, TypeVar, cast, get_args

import click
from click.shell_completion import CompletionItem

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


class BackendName(click.ParamType):
    """`auto` or a backend's folder name."""

    name = "backend"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse a name that is no backend."""
        from autoresearch.backends import names as backend_names

        names = ["auto", *backend_names()]
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(names)}.", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names."""
        from autoresearch.backends import names as backend_names

        return [CompletionItem(name) for name in ["auto", *backend_names()] if name.startswith(incomplete)]


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


class Vocabularies(click.ParamType):
    """Sizes separated by commas."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Refuse everything but a list of positive integers."""
        if isinstance(value, tuple):
            return value
        parts = [str(part) for part in value] if isinstance(value, list) else str(value).split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no list of sizes, such as 1024,2048", param, ctx)
        return tuple(int(part) for part in parts)


class CorpusType(click.ParamType):
    """A corpus by name, or a path."""

    name = "corpus"


class Slots(click.ParamType):
    """A number of slots, or "auto" for as many as the machine has."""

    name = "slots"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Refuse everything but a positive number and "auto"."""
        if value == "auto" or (isinstance(value, int) and value > 0):
            return value
        if not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        return int(value)


class Price(click.ParamType):
    """`MODEL=IN/OUT`, dollars per million tokens."""

    name = "price"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float, float]:
        """Refuse everything but a model's name and two prices."""
        if isinstance(value, tuple):
            return cast("tuple[str, float, float]", value)
        model, _, numbers = str(value).rpartition("=")
        parts = numbers.split("/")
        try:
            usd_in, usd_out = (float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is no price, such as openai/my-model=0.5/2 (dollars per million tokens)", param, ctx)
        if not model or not (0 <= usd_in < 1e6 and 0 <= usd_out < 1e6):
            self.fail(f"{value!r} is no price, such as openai/my-model=0.5/2 (dollars per million tokens)", param, ctx)
        return model, usd_in, usd_out
