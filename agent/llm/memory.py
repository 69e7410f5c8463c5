"""A run's memory for a language model: a card for each experiment, the accuracy of its predictions, and a digest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.proposal import Attempt, InFlight

DIGEST_EVERY = 10
"""Number of decided experiments between two digests."""
_DIFF_LINES = 40
"""Number of lines after which a diff is cut."""
_HEADER = re.compile(r"<!-- after experiment (\d+)[^>]*-->\n?")


@dataclass(frozen=True)
class Card:
    """A summary of one experiment."""

    line: str
    """The change and its result, in one line."""
    diff: str
    """The change as a unified diff; empty for the baseline."""


def verdict(attempt: Attempt) -> str:
    """Say what an experiment's result means for its idea; a bug says nothing about the idea."""
    if attempt.status == "keep":
        return "kept"
    if attempt.status == "discard":
        return f"idea refuted: {attempt.reason}"
    return f"bug, which says nothing about the idea ({attempt.status}): {attempt.reason}"


def card_of(attempt: Attempt, sources: Mapping[int, str]) -> Card:
    """Make the card of one experiment. `sources` holds the train files by experiment; empty for a card without diff."""
    if attempt.experiment == 0:
        return Card(f"#0 baseline: {_number(attempt.val_bpb)} bpb", "")
    delta = f"{attempt.delta:+.4f}" if attempt.delta is not None else "no score"
    expected = f", {attempt.predicted_delta:+.4f} was expected" if attempt.predicted_delta is not None else ""
    why = " ".join(verdict(attempt).split())[:300]
    return Card(f"{_title(attempt)} {delta}{expected}. {_words(attempt)} -> {why}", _diff(attempt, sources))


def card_in_flight(flight: InFlight, sources: Mapping[int, str]) -> Card:
    """Make the card of an experiment that is not decided yet."""
    expected = f" {flight.predicted_delta:+.4f} is expected." if flight.predicted_delta is not None else ""
    return Card(f"{_title(flight)}{expected} {_words(flight)}", _diff(flight, sources))


def _title(one: Attempt | InFlight) -> str:
    facts = [one.category, *[str(one.parameters[key]) for key in ("kind", "operator") if key in one.parameters]]
    return f"#{one.experiment} [{', '.join(facts)}]"


def _words(one: Attempt | InFlight) -> str:
    return " ".join(one.hypothesis.split())[:300]


def _diff(one: Attempt | InFlight, sources: Mapping[int, str]) -> str:
    base = one.parameters.get("base", one.parent)
    before = sources.get(base if isinstance(base, int) else one.parent, "")
    return diff_of(before, one.source) if before else ""


def diff_of(before: str, after: str, lines: int = _DIFF_LINES) -> str:
    """Make a short unified diff, without its two first lines."""
    diff = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""))[2:]
    more = f"\n... and {len(diff) - lines} lines more" if len(diff) > lines else ""
    return "\n".join(diff[:lines]) + more


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6f}"


@dataclass(frozen=True)
class PredictionAccuracy:
    """Accuracy of the predictions, over experiments that have both a prediction and a score."""

    count: int
    right_sign: float
    """Share of predictions with the right sign, 0..1."""
    mean_error: float
    """Mean absolute difference between predicted and measured change, in bpb."""
    bias: float
    """Mean of measured less predicted change; above 0 is too hopeful."""

    def __str__(self) -> str:
        hope = "too hopeful" if self.bias > 0 else "too gloomy"
        return (
            f"{self.count} predictions: {self.right_sign:.0%} had the right sign, off by {self.mean_error:.4f} bpb"
            f" on average ({abs(self.bias):.4f} {hope})"
        )


def score_predictions(attempts: Sequence[Attempt]) -> PredictionAccuracy | None:
    """Score the predictions of a run; None while there are none to score."""
    pairs = [
        (one.predicted_delta, one.delta)
        for one in attempts
        if one.experiment and one.predicted_delta is not None and one.delta is not None
    ]
    if not pairs:
        return None
    right = sum((predicted < 0) == (measured < 0) for predicted, measured in pairs) / len(pairs)
    error = sum(abs(measured - predicted) for predicted, measured in pairs) / len(pairs)
    bias = sum(measured - predicted for predicted, measured in pairs) / len(pairs)
    return PredictionAccuracy(len(pairs), right, error, bias)


class Digest:
    """A page of lessons, kept in the run's folder, where a person may edit it."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is the page; None keeps it in memory."""
        self._path, self._text = path, ""

    def read(self) -> str:
        """Read the page as it is now, without its first line; empty when there is none."""
        return _HEADER.sub("", self._page(), count=1).strip()

    def due(self, attempts: Sequence[Attempt]) -> bool:
        """Tell whether DIGEST_EVERY experiments were decided since the page was written."""
        decided = attempts[-1].experiment if attempts else 0
        return decided - self._after() >= DIGEST_EVERY

    def write(self, text: str, attempts: Sequence[Attempt]) -> None:
        """Replace the page, and note the last of these attempts in its first line."""
        number = attempts[-1].experiment
        page = f"<!-- after experiment {number}; edit freely, it is read before every proposal -->\n{text.strip()}\n"
        if self._path is None:
            self._text = page
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(page, encoding="utf-8")
        new.replace(self._path)

    def _page(self) -> str:
        if self._path is None:
            return self._text
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _after(self) -> int:
        found = _HEADER.search(self._page())
        return int(found.group(1)) if found else 0
