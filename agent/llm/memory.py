"""The memory of a run for a model: a card for every experiment, a score of its predictions, and a digest.

A card says what the trials measured: raw scores beside the cautious estimate. It is written once and stays as it is, so
that providers can cache the prompt up to the newest one.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autoresearch.agent.syntax.constants import constants_of
from autoresearch.core.files import write_text
from autoresearch.core.proposal import Attempt, History, InFlight, PairedDifference, TrialFigures
from autoresearch.core.stack_parts import STACKER, kept_parts

DIGEST_EVERY = 10
"""Number of decided experiments between two digests."""
CLEAR = 2.0
"""Standard errors from which on a raw difference is called clear."""
_DIFF_LINES = 40
"""Number of lines after which a diff is cut."""
_HELD = 0.8
"""Share of a change's lines that the best file must have for the change to be in it."""
_NAMED = 3
"""Number of changed constants that a title names."""
_TRIALS = 4
"""Number of trials of one source that a card lists."""
_NOTES = 3
"""Latest notes of the owner that a card shows."""
_HEADER = re.compile(r"<!-- after experiment (\d+)[^>]*-->\n?")
_COMPUTED = ("tuner", STACKER)
"""Researchers whose predictions are computed from trials."""
_OWN_BASE = ("debug", "follow_up")
"""Operators that edit another file than the best one: their parameter "base" names it."""


@dataclass(frozen=True)
class Card:
    """A summary of one experiment."""

    line: str
    """The change and its result, in one line."""
    diff: str
    """The change as a unified diff; empty for the baseline."""


def verdict(attempt: Attempt, parts: Collection[int] = ()) -> str:
    """Say what an experiment means for its idea; a bug means nothing for it, and one noisy trial little.

    `parts` are the experiments that were kept as parts of stacks.
    """
    if attempt.status == "keep":
        return "kept"
    if attempt.experiment in parts:
        return _one_line(attempt.reason)
    if attempt.status in ("crash", "invalid", "timeout"):
        return f"bug, which says nothing about the idea ({attempt.status}): {_one_line(attempt.reason)}"
    if attempt.status != "discard":
        predicted = attempt.metrics.get("predicted_bpb")
        score = f", {predicted:.4f} predicted" if isinstance(predicted, int | float) else ""
        return f"{attempt.status} early{score}: {_one_line(attempt.reason)}"
    raw = attempt.raw
    if raw is None:
        return f"not kept: {_one_line(attempt.reason)}"
    if raw.error is None:
        return "not kept"
    if raw.value > CLEAR * raw.error:
        return "worse"
    return "undecided, a near miss" if raw.value < 0 else "undecided"


def is_near_miss(attempt: Attempt) -> bool:
    """Tell whether a change was not kept although its trials were better than the incumbent's at equal seeds."""
    return attempt.status == "discard" and attempt.raw is not None and attempt.raw.value < 0


def card_of(
    attempt: Attempt, sources: Mapping[int, str], parts: Collection[int] = (), *, elsewhere: bool = False
) -> Card:
    """Make the card of one experiment. `sources` holds the train files by experiment; empty for a card without diff.

    `parts` are the experiments that were kept as parts of stacks. `elsewhere` says that it was measured on another
    machine than today's.
    """
    there = " on another machine" if elsewhere and attempt.val_bpb is not None else ""
    if attempt.experiment == 0:
        figures = measured(attempt.trials) if attempt.trials else _number(attempt.val_bpb) + there
        return Card(f"#0 baseline: {figures}{remarks_on(attempt)}", "")
    told = (
        [measured(attempt.trials)] if attempt.trials else [] if attempt.val_bpb is None else [_short(attempt) + there]
    )
    if attempt.raw is not None:
        told.append(_compared(attempt.raw))
        told.append(f"raw {difference(attempt.raw)}")
    if attempt.delta is not None:
        told.append(f"cautious {attempt.delta:+.4f}")
    if attempt.predicted_delta is not None:
        told.append(f"{attempt.predicted_delta:+.4f} was expected")
    told.append(verdict(attempt, parts))
    line = without_marks(f"{_title(attempt, sources)}: {'; '.join(told)} — {_words(attempt)}")
    return Card(line + remarks_on(attempt), _diff(attempt, sources))


def without_marks(text: str) -> str:
    """Put a card's own text on one line without the mark that the owner's remarks begin with.

    A hypothesis, or the text of an error, could else forge a remark of the owner, or another experiment's card.
    """
    return " ".join(text.replace("|", "/").split())


def remarks_on(attempt: Attempt) -> str:
    """Write the owner's pin and latest notes on an experiment; "" where there are none."""
    pin = " | pinned by the owner" if attempt.pinned else ""
    return pin + "".join(f" | the owner's note: {_one_line(note)}" for note in attempt.notes[-_NOTES:])


def card_in_flight(flight: InFlight, sources: Mapping[int, str]) -> Card:
    """Make the card of an experiment that is not decided yet."""
    expected = f" {flight.predicted_delta:+.4f} is expected." if flight.predicted_delta is not None else ""
    return Card(without_marks(f"{_title(flight, sources)}:{expected} {_words(flight)}"), _diff(flight, sources))


def measured(trials: Sequence[TrialFigures]) -> str:
    """Write scores, steps and time a step of trials, such as "1.1418, 211 steps, 213 ms"."""
    scores = ", ".join(_score(one) for one in trials[:_TRIALS])
    more = f" and {len(trials) - _TRIALS} more" if len(trials) > _TRIALS else ""
    steps = ", ".join(str(one.steps) for one in trials[:_TRIALS] if one.steps)
    speed = next((f", {1000 * t.train_seconds / t.steps:.0f} ms" for t in trials if t.steps and t.train_seconds), "")
    tokens = next((f", {_tokens(one.tokens)} tokens" for one in trials if one.tokens), "")
    loss = next((f", training loss {one.train_loss:.3f} at the end" for one in trials if one.train_loss), "")
    ran = f"{f'{steps} steps' if steps else ''}{speed}{tokens}{loss}".removeprefix(", ")
    if not ran:
        return f"{scores}{more}"
    return f"{scores}, {ran}" if len(trials) == 1 else f"{scores}{more} ({ran})"


def _compared(raw: PairedDifference) -> str:
    """Write the trials that a candidate was compared with."""
    trials = raw.trials[-_TRIALS:]
    steps = ", ".join(str(one.steps) for one in trials if one.steps)
    scores = ", ".join(_score(one) for one in trials)
    return f"#{raw.against}'s trials {scores}{f' ({steps} steps)' if steps else ''}"


def difference(raw: PairedDifference) -> str:
    """Write a difference with its standard error."""
    return f"{raw.value:+.4f}" + (f" +- {raw.error:.4f}" if raw.error is not None else "")


def _tokens(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count >= 1e5 else str(count)


def _score(trial: TrialFigures) -> str:
    return "no score" if trial.val_bpb is None else f"{trial.val_bpb:.4f}"


def _short(attempt: Attempt) -> str:
    steps = attempt.metrics.get("steps")
    return f"{attempt.val_bpb:.4f}" + (f", {steps} steps" if steps else "")


def _title(one: Attempt | InFlight, sources: Mapping[int, str]) -> str:
    facts = [one.category, *[str(one.parameters[key]) for key in ("kind", "operator") if key in one.parameters]]
    if one.parameters.get("operator") in _OWN_BASE and "base" in one.parameters:
        facts[-1] += f" of #{one.parameters['base']}"
    before = base_of(one, sources)
    changed = changed_constants(before, one.source) if before else ""
    return f"#{one.experiment}{f' {changed}' if changed else ''} [{', '.join(facts)}]"


@lru_cache(maxsize=512)
def changed_constants(before: str, after: str) -> str:
    """Name the constants that an edit sets, such as "DEPTH=4, MUON_LR=0.02"; "" where it sets none."""
    old, new = constants_of(before), constants_of(after)
    changed = [f"{name}={value}" for name, value in new.items() if name not in old or old[name] != value]
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return ", ".join(changed[:_NAMED]) + more


def _words(one: Attempt | InFlight) -> str:
    return shortened(one.hypothesis, 500)


def _one_line(text: str) -> str:
    return shortened(text, 300)


def shortened(text: str, limit: int) -> str:
    """Put a text on one line of at most `limit` characters; one that is cut ends after a word, with a mark."""
    words = " ".join(text.split())
    if len(words) <= limit:
        return words
    cut = words[: limit - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut).rstrip(",;:") + "…"


def held(one: Attempt, sources: Mapping[int, str], best: str) -> bool:
    """Tell whether the best file has an experiment's change already, made again or as part of a later one.

    It has most of the lines that the change adds, and hardly any of those that it takes out.
    """
    before = base_of(one, sources)
    if not before or not best:
        return False
    there = Counter(line.strip() for line in best.splitlines())
    old, new = (Counter(line.strip() for line in text.splitlines() if line.strip()) for text in (before, one.source))
    added, removed = new - old, old - new
    count = added.total() + removed.total()
    if not count:
        return True
    # A removed line that stands elsewhere in the file as well must be there less often.
    done = sum((added & there).values()) + sum(n for line, n in removed.items() if there[line] <= new[line])
    return done >= _HELD * count


def open_near_misses(history: History) -> list[Attempt]:
    """List the near misses whose change the best file does not have, in order; no parts of kept stacks."""
    sources, best = {one.experiment: one.source for one in history.attempts}, history.incumbent.source
    missed = [one for one in history.attempts if is_near_miss(one)]
    parts = kept_parts(history.attempts)
    return [one for one in missed if one.experiment not in parts and not held(one, sources, best)]


def base_of(one: Attempt | InFlight, sources: Mapping[int, str]) -> str:
    """Return the source that an experiment edited; "" where it is not known.

    That is its parent, which a rebase moves along. Only a repair or a follow-up edited another file; once rebased it is
    an edit of the incumbent as well, so the nearer of the two files counts.
    """
    parent, base = sources.get(one.parent, ""), one.parameters.get("base")
    if one.parameters.get("operator") not in _OWN_BASE or not isinstance(base, int) or base not in sources:
        return parent
    if not parent or base == one.parent:
        return sources[base]
    return min((sources[base], parent), key=lambda source: diff_of(source, one.source, lines=10**6).count("\n"))


def _diff(one: Attempt | InFlight, sources: Mapping[int, str]) -> str:
    before = base_of(one, sources)
    return diff_of(before, one.source) if before else ""


@lru_cache(maxsize=1024)  # every prompt shows the experiments of those before it
def diff_of(before: str, after: str, lines: int = _DIFF_LINES) -> str:
    """Make a short unified diff, without its two first lines."""
    diff = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""))[2:]
    more = f"\n... and {len(diff) - lines} lines more" if len(diff) > lines else ""
    return "\n".join(diff[:lines]) + more


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


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
    """Score the predictions of a run by raw differences, which nothing pulls to 0; None while there are none.

    Those that the tuner or a stack computes are left out: a model would take their errors for its own.
    """
    pairs = [
        (one.predicted_delta, one.raw.value)
        for one in attempts
        if one.experiment and one.predicted_delta is not None and one.raw is not None
        if one.researcher not in _COMPUTED
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

    def due(self, attempts: Sequence[Attempt], since: int = 0) -> bool:
        """Tell whether DIGEST_EVERY of these experiments are newer than the page, and than the experiment `since`.

        They are counted, because a page that is written from fewer would lose what it held.
        """
        last = max(self._after(), since)
        return sum(one.experiment > last for one in attempts) >= DIGEST_EVERY

    def write(self, text: str, attempts: Sequence[Attempt]) -> None:
        """Replace the page, and note the newest of these attempts in its first line."""
        number = max(one.experiment for one in attempts)
        page = f"<!-- after experiment {number}; edit freely, it is read before every proposal -->\n{text.strip()}\n"
        if self._path is None:
            self._text = page
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, page)

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
