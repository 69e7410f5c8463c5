"""Figures as the tables of RESULTS.md take them, and as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def figure(name: str, value: float, unit: str, note: str) -> dict[str, Any]:
    """Make the row of one figure."""
    return {"name": name, "median": value, "unit": unit, "note": note}


def say_figures(figures: Iterable[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Say each in a line, with three digits."""
    for row in figures:
        say(f"{row['name']}: {row['median']:.3g} {row['unit']} {row['note']}")
