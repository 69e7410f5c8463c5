"""What an edit of the menu is, and what most of them are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoresearch.agent.syntax.constants import Value, read_constants
from autoresearch.agent.syntax.source_keys import tree_key
from autoresearch.agent.syntax.trees import parsed, statements
from autoresearch.agent.tuner.transforms import Transform, imported_names, with_constants


@dataclass(frozen=True)
class Edit:
    """One structural edit."""

    name: str
    """Unique on the menu."""
    category: str
    hypothesis: str
    transform: Transform
    weight: float = 1.0
    """How readily it is tried, from what has paid in public runs."""

    def apply(self, source: str) -> str | None:
        """The edited source: it parses and is another program. None when the edit does not fit."""
        edited = self.transform(source) if parsed(source) is not None else None
        if edited is None or statements(edited) is None or tree_key(edited) == tree_key(source):
            return None
        return edited


def framework(source: str) -> Literal["torch", "mlx"] | None:
    """By what the file imports; None where it is neither, so that a menu edit passes it over."""
    names = imported_names(source)
    return "torch" if {"torch", "F"} <= names else "mlx" if {"mx", "nn"} <= names else None


def number(source: str, name: str) -> float | None:
    """A numeric constant's value."""
    constant = read_constants(source).get(name)
    value = constant.value if constant else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def set_constant(source: str, name: str, value: Value) -> str | None:
    """The source with this constant; None where it is missing or of another kind."""
    return with_constants(source, {name: value})


def switch_constant(source: str, name: str, value: float) -> str | None:
    """Between nothing and something: None where a number would only change its size."""
    now = number(source, name)
    return None if now is None or bool(now) == bool(value) else set_constant(source, name, float(value))
