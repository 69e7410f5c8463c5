"""Kinds of values that options take."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem


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


class Vocabularies(click.ParamType):
    """Sizes separated by commas."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Refuse what is no list of positive integers."""
        if isinstance(value, tuple):
            return value
        parts = [str(part) for part in value] if isinstance(value, list) else str(value).split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no list of sizes, such as 1024,2048", param, ctx)
        return tuple(int(part) for part in parts)


class CorpusType(click.ParamType):
    """A corpus by name, or a path."""

    name = "corpus"
