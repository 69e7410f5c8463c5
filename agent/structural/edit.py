"""One edit of the menu, and the helpers that most edits are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoresearch.agent.syntax.constants import numbers_of
from autoresearch.agent.syntax.transforms import Transform, imported_names, with_constants
from autoresearch.core.trainfile.constants import ConstantValue
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trainfile.trees import parsed, statements


@dataclass(frozen=True)
class Expectation:
    """A prior of what a change brings."""

    chance: float
    """Probability that it helps."""
    share: float
    """Typical gain where it helps, as a share of the score."""


@dataclass(frozen=True)
class Edit:
    """One structural edit."""

    name: str
    """Name, unique on the menu; a proposal carries it as its parameter "edit"."""
    category: str
    hypothesis: str
    transform: Transform
    weight: float = 1.0
    """Weight among the edits of the menu, from what has paid in public runs."""
    few_steps: Expectation | None = None
    """Expected effect where a run has few steps; None where only `weight` is known."""

    def apply(self, source: str) -> str | None:
        """Edit a source: the result parses and is another program. None when the edit does not fit."""
        edited = self.transform(source) if parsed(source) is not None else None
        if edited is None or statements(edited) is None or fingerprint(edited) == fingerprint(source):
            return None
        return edited


def framework(source: str) -> Literal["torch", "mlx"] | None:
    """Tell a file's framework by its imports; None where it is neither."""
    names = imported_names(source)
    return "torch" if {"torch", "F"} <= names else "mlx" if {"mx", "nn"} <= names else None


def number(source: str, name: str) -> float | None:
    """Read a numeric constant; None where the file has no such number."""
    return numbers_of(source).get(name)


def set_constant(source: str, name: str, value: ConstantValue) -> str | None:
    """Set a constant; None where it is missing or of another kind."""
    return with_constants(source, {name: value})


def switch_constant(source: str, name: str, value: float) -> str | None:
    """Switch a number between zero and `value`: None where it would only change its size."""
    now = number(source, name)
    return None if now is None or bool(now) == bool(value) else set_constant(source, name, float(value))
