"""The idea bank: public findings as data, with their sources and how far to believe them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from autoresearch.core.errors import UsageError
from autoresearch.core.proposal import CATEGORIES, Attempt, History, Platform
from autoresearch.core.textfile import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Verdict = Literal["helps", "hurts", "neutral", "mixed"]
Confidence = Literal["low", "medium", "high"]
BANK = Path(__file__).parent / "ideas.toml"
USER_FILE = "ideas.toml"
"""File in the workspace with a person's own ideas, in the same form."""
MOST_LETTERS = 1000
"""Letters of an idea, or of its source: language models read them before every proposal."""


class Idea(BaseModel):
    """One public finding about a change of a train file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    change: str = Field(max_length=MOST_LETTERS)
    platform: Platform
    category: str
    verdict: Verdict
    delta: float | None = Field(None, allow_inf_nan=False)
    """Change of val_bpb on that platform in bpb; negative is better. None where no number is known."""
    source: str = Field(max_length=MOST_LETTERS)
    confidence: Confidence
    added: str | None = Field(None, pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    """Month in which the bank took it up, as YYYY-MM; None for entries of its first edition."""

    @field_validator("category")
    @classmethod
    def _known_category(cls, value: str) -> str:
        if value not in CATEGORIES:
            raise ValueError(f"no category {value[:40]!r}; there are {', '.join(CATEGORIES)}")
        return value

    def brief(self, number: int, shown: int) -> str:
        """Point at this entry of the bank by its number, or write all of it where the bank shows fewer entries."""
        return f"{number}: {self.change} ({self.verdict})" if number <= shown else str(self)

    def __str__(self) -> str:
        delta = "" if self.delta is None else f" {self.delta:+.4f} bpb"
        where = f"{self.platform}, {self.source}; {self.confidence} confidence"
        return f"[{self.category}] {self.change}: {self.verdict}{delta} ({where})"


def load_ideas(workspace: Path | None = None) -> tuple[Idea, ...]:
    """Read the person's own file where the workspace has one, then the bank. Raises `UsageError` when malformed."""
    return (*_own(workspace), *_read(BANK))


def numbered_ideas(workspace: Path | None = None) -> tuple[Idea, ...]:
    """Read the bank, then the person's own file: so an edit of it during a run leaves the numbers before it alone."""
    return (*_read(BANK), *_own(workspace))


def _own(workspace: Path | None) -> tuple[Idea, ...]:
    path = workspace / USER_FILE if workspace is not None else None
    return _read(path) if path is not None and path.exists() else ()


def bank_text(ideas: Sequence[Idea]) -> str:
    """Write ideas as a numbered list, with each source once where it is named many times in a row; "" for none."""
    lines, source = [], ""
    for number, idea in enumerate(ideas, 1):
        if idea.source != source:
            source = idea.source
            lines.append(f"By {source}:")
        delta = "" if idea.delta is None else f" {idea.delta:+.4f} bpb"
        where = f"{idea.platform}, {idea.confidence} confidence"
        lines.append(f"{number}. [{idea.category}] {idea.change}: {idea.verdict}{delta} ({where})")
    return "\n".join(lines)


def _read(path: Path) -> tuple[Idea, ...]:
    fix = "see `ar ideas --example` for the form of an entry"
    try:
        entries = tomllib.loads(read_text(path)).get("idea", [])
        if not isinstance(entries, list):
            raise ValueError("idea is not a list of tables")
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no TOML, no UTF-8, or a number too long
        raise UsageError(f"{path} cannot be read as ideas: {error}.", fix=fix) from error
    ideas = []
    for number, entry in enumerate(entries, 1):
        try:
            ideas.append(Idea.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "entry"
            raise UsageError(
                f"{path}: idea {number}, {where}: {first['msg'].removeprefix('Value error, ')}.", fix=fix
            ) from error
    return tuple(ideas)


def platform_of(history: History) -> Platform:
    """Name the platform whose findings come closest to this run's device."""
    if history.backend == "mlx":
        return "apple"
    if history.backend != "cuda":
        return "any"
    near: dict[str, Platform] = {"demo": "cpu", "h200": "h100"}  # an H200 is an H100 with more memory
    named = next((name for name in get_args(Platform) if history.preset.startswith(name)), None)
    return named or near.get(history.preset, "any")


def nearest_ideas(ideas: Sequence[Idea], history: History, closed: Sequence[str], count: int = 8) -> list[Idea]:
    """Choose ideas: those of the same platform first, then by their reported gain; closed categories are left out.

    Categories that were tried less come first among equals, so that the list changes as the run goes on.
    """
    platform, tries = platform_of(history), _tries(history.attempts)
    trust = {"high": 3, "medium": 2, "low": 1}

    def rank(idea: Idea) -> tuple[int, int, float]:
        near = 2 * (idea.platform == platform) + (idea.platform == "any")
        worth = trust[idea.confidence] * abs(idea.delta or 0.0005)
        return (-near, min(3, tries.get(idea.category, 0)), -worth)

    found = [idea for idea in ideas if idea.category not in closed]
    return sorted(found, key=rank)[:count]


def _tries(attempts: Sequence[Attempt]) -> dict[str, int]:
    tries: dict[str, int] = {}
    for attempt in attempts[-20:]:
        tries[attempt.category] = tries.get(attempt.category, 0) + 1
    return tries
