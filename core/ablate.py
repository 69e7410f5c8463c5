"""Which kept changes still earn their place: take each out of the final file by a three-way merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.posterior import better_than
from autoresearch.core.judge.race import SAME_BAR, SAME_MARGIN
from autoresearch.core.merge import merge, parses
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow


@dataclass(frozen=True)
class Change:
    """One kept change of the final file's history."""

    experiment: int
    description: str
    before: str
    after: str


@dataclass(frozen=True)
class Without:
    """The final file without one change."""

    change: Change
    state: Literal["removed", "conflict", "gone"]
    """gone: taking it out changes nothing, for later changes have replaced it."""
    source: str | None
    """Only when it could be removed."""


def kept_changes(ledger: LedgerReader) -> list[Change]:
    """Every keep after the baseline, with the source that it edited, oldest first."""

    def change(row: ExperimentRow) -> Change:
        before = ledger.experiment(row.parent)
        return Change(row.number, row.hypothesis, ledger.text(before.source_sha256), ledger.text(row.source_sha256))

    return [change(row) for row in ledger.keeps() if row.number > 0]


def without(final: str, change: Change) -> Without:
    """Merge the change's reverse into the final file. A merge that no longer parses counts as a conflict."""
    merged = merge(final, change.after, change.before)
    if merged is None or not parses(merged):
        return Without(change, "conflict", None)
    return Without(change, "gone", None) if merged == final else Without(change, "removed", merged)


def as_good(values: Sequence[float], final: Sequence[float], noise: Noise) -> tuple[bool, float]:
    """Whether a file is not worse than the final one by half a sigma, and with what probability."""
    difference = sum(values) / len(values) - sum(final) / len(final)
    error = noise.sigma * (1.0 / len(values) + 1.0 / len(final)) ** 0.5
    probability = better_than(SAME_MARGIN * noise.sigma, difference, error, noise.dof)
    return probability >= SAME_BAR, probability


def smallest(final: str, removable: Sequence[Change]) -> tuple[str, list[Change]]:
    """The final file without all of these changes that can go together, newest first, and which those are."""
    source, gone = final, []
    for change in reversed(removable):
        attempt = without(source, change)
        if attempt.source is not None:
            source = attempt.source
            gone.append(change)
    return source, gone
