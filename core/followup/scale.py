"""Does the improvement hold, fade or flip at other budgets and at other widths?

The final file and the baseline are trained at the same seeds under each condition. A budget is the run's training time
times a factor. A width is a constant of both files, such as the model dimension, times a factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from autoresearch.core.errors import SourceError, UsageError
from autoresearch.core.followup.pairs import PairedInterval, RunNoise, interval_of
from autoresearch.core.followup.remeasure import Remeasurer, Wanted
from autoresearch.core.judge.posterior import Z_95, t_quantile
from autoresearch.core.trainfile.constants import read_constants, write_constants

SEED_OFFSET = 1_800_000_000
"""Distance of the first seed from the run's: beyond `verify`'s and `ablate`'s."""
WIDTHS = ("DIM", "MODEL_DIM", "D_MODEL", "N_EMBD", "EMBED_DIM", "HIDDEN", "HIDDEN_DIM", "WIDTH")
"""Names of a model's width, looked for in this order."""
DEPTHS = ("DEPTH", "N_LAYER", "N_LAYERS", "LAYERS", "NUM_LAYERS")
"""Names of a model's depth, looked for where there is no width."""
VOCABULARY = "VOCAB_SIZE"
"""The constant that only prepared sizes fit."""
HEAD_NAMES = ("HEAD_DIM",)
"""Names of a size that a width is a multiple of."""

Axis = Literal["budget", "width"]
Trend = Literal["holds", "fades", "flips", "not certain"]


@dataclass(frozen=True)
class Condition:
    """One budget and one width at which both files are trained."""

    axis: Axis
    factor: float
    train_seconds: float
    baseline: str
    final: str
    values: tuple[int, int] | None = None
    """Value of the width in the baseline and in the final file; None where it is theirs."""

    @property
    def name(self) -> str:
        """Return a name for the condition's trials: "budget-x2", "width-x0.5"."""
        return f"{self.axis}-x{self.factor:g}"


@dataclass(frozen=True)
class Width:
    """A constant that stands for the size of the model in both files."""

    constant: str
    baseline: int
    final: int


def width_of(baseline: str, final: str, asked: str | None = None) -> Width | None:
    """Find the constant that makes the model wider: the one asked for, else the first known name in both files.

    Raises `UsageError` when the one asked for is not a whole number above 1 in both.
    """
    known = [_whole(source) for source in (baseline, final)]
    for name in (asked,) if asked else (*WIDTHS, *DEPTHS):
        if all(name in values for values in known):
            return Width(name, *(values[name] for values in known))
    if asked:
        raise UsageError(
            f"{asked} is not a whole number above 1 in the constants block of both files.",
            fix=f"name one that is: {', '.join(sorted(set(known[0]) & set(known[1]))) or 'there is none'}",
        )
    return None


def conditions_of(
    baseline: str,
    final: str,
    train_seconds: float,
    budgets: Iterable[float],
    width: Width | None,
    factors: Iterable[float],
) -> list[Condition]:
    """List the conditions, the run's own budget first and then the cheapest."""
    found = [Condition("budget", 1.0, train_seconds, baseline, final)]
    for factor in sorted(set(budgets) - {1.0}):
        found.append(Condition("budget", factor, factor * train_seconds, baseline, final))
    if width is not None:
        for factor in sorted(set(factors) - {1.0}):
            values = _scaled(baseline, width.constant, factor), _scaled(final, width.constant, factor)
            if values[0] == width.baseline or values[1] == width.final or min(values) < 1:
                continue  # the next multiple of the head size is the old width of a file
            first = write_constants(baseline, {width.constant: values[0]})
            second = write_constants(final, {width.constant: values[1]})
            found.append(Condition("width", factor, train_seconds, first, second, values))
    return [found[0], *sorted(found[1:], key=lambda one: one.train_seconds)]


def check_vocabularies(conditions: Sequence[Condition], width: Width | None, vocabularies: Iterable[int]) -> None:
    """Refuse to scale the vocabulary to sizes that the run's text was not prepared with. Raises `UsageError`."""
    if width is None or width.constant != VOCABULARY:
        return
    sizes = {value for one in conditions for value in one.values or ()}
    missing, prepared = sorted(sizes - set(vocabularies)), ", ".join(map(str, sorted(vocabularies)))
    if missing:
        raise UsageError(
            f"{VOCABULARY} = {', '.join(map(str, missing))}: the run's text is prepared with {prepared} alone.",
            fix="--widths with factors that give one of these, or another --constant",
        )


def scale(
    remeasurer: Remeasurer, conditions: Sequence[Condition], seeds: int, width: Width | None, noise: RunNoise
) -> dict[str, Any]:
    """Measure every condition; the record holds scores, intervals and what becomes of the improvement.

    A file that does not run under a condition, for want of memory or otherwise, costs that condition alone.
    """
    rows, found = [], {}
    for condition in conditions:
        row, interval = _measure(remeasurer, condition, seeds, noise)
        rows.append({**row, "constant": width.constant if width and condition.axis == "width" else None})
        if interval is not None:
            found[condition.name] = interval
    own = found.get(conditions[0].name)
    for condition, row in zip(conditions, rows, strict=True):
        other = found.get(condition.name)
        row["trend"] = None if own is None or other is None or other is own else trend_of(own, other)
    return {"seeds": seeds, "conditions": rows, "verdict": verdict_of(conditions, rows, own)}


def trend_of(own: PairedInterval, other: PairedInterval) -> Trend:
    """Compare an improvement under another condition with the one at the run's own budget.

    It flips when the interval lies on the other side of zero, and fades when it is smaller by more than the interval of
    the difference of the two. It holds when its own interval excludes zero and it does not fade.
    """
    if own.verdict == "not certain":
        return "not certain"
    sign = -1.0 if own.verdict == "better" else 1.0
    if other.verdict not in ("not certain", own.verdict):
        return "flips"
    lost = sign * (own.difference - other.difference)
    error = math.hypot(own.error, other.error)
    dof = error**4 / (own.error**4 / own.dof + other.error**4 / other.dof)  # Satterthwaite 1946
    if lost > t_quantile(Z_95, dof) * error:
        return "fades"
    return "holds" if other.verdict == own.verdict else "not certain"


def verdict_of(conditions: Sequence[Condition], rows: Sequence[Mapping[str, Any]], own: PairedInterval | None) -> str:
    """Sum up in a sentence: at the run's own budget, at the longest one measured, and at the other widths."""
    if own is None:
        return "not measured: the trials at the run's own budget failed"
    if own.verdict != "better":
        what = "no improvement is certain" if own.verdict == "not certain" else "the best file is worse"
        return f"{what} at the run's own budget, so there is none to follow to others"
    parts = []
    longest = max((c for c in conditions if c.axis == "budget"), key=lambda one: one.factor)
    for condition, row in sorted(zip(conditions, rows, strict=True), key=lambda pair: pair[0].axis):
        if condition.axis == "budget" and (condition is not longest or longest.factor <= 1.0):
            continue
        where = f"{condition.factor:g} times the {condition.axis}"
        parts.append(f"it {TOLD[row['trend']]} at {where}" if row["trend"] else f"it was not measured at {where}")
    return ", ".join(parts) or "measured at the run's own budget alone"


TOLD: Mapping[str, str] = {"holds": "holds", "fades": "fades", "flips": "flips", "not certain": "is not certain"}
"""Trends as verbs."""


def _measure(
    remeasurer: Remeasurer, condition: Condition, seeds: int, noise: RunNoise
) -> tuple[dict[str, Any], PairedInterval | None]:
    """Train both files at every seed, in turn, until one of them fails."""
    config = {**remeasurer.config, "train_seconds": condition.train_seconds}
    # Another width has a speed of its own; with no trial to compare with, its first one sets what is usual.
    usual = remeasurer.usual if condition.axis == "budget" else {}
    here = replace(remeasurer, config=config, usual=usual)
    scores: dict[str, dict[int, float]] = {"baseline": {}, "final": {}}
    memory: dict[str, float | None] = {}
    failed: str | None = None
    wanted = {
        (who, k): Wanted(f"{condition.name}-{who}-{k + 1}", source, remeasurer.first_seed + k)
        for k in range(seeds)
        for who, source in (("baseline", condition.baseline), ("final", condition.final))
    }
    outcomes = here.outcomes(list(wanted.values()), until_one_fails=True)
    for (who, _), one in wanted.items():
        outcome = outcomes.get(one.name)
        if outcome is None:
            continue
        if outcome.val_bpb is not None:
            scores[who][one.seed] = outcome.val_bpb
            memory[who] = max(memory.get(who) or 0.0, outcome.peak_memory_mb or 0.0) or None
        elif failed is None:
            fits = "does not fit the memory" if "memory" in outcome.reason.lower() else "did not run"
            failed = f"the {'best file' if who == 'final' else 'baseline'} {fits} ({outcome.reason})"
    if failed:
        remeasurer.countdown.drop(condition.train_seconds, len(wanted) - len(outcomes))
        remeasurer.say(f"{condition.name}: {failed}; the other conditions go on")
    both = set(scores["baseline"]) & set(scores["final"])
    interval = interval_of(scores["baseline"], scores["final"], noise) if both else None
    row: dict[str, Any] = {
        "axis": condition.axis,
        "factor": condition.factor,
        "train_seconds": condition.train_seconds,
        "values": list(condition.values) if condition.values else None,
        "baseline_val_bpb": list(scores["baseline"].values()),
        "final_val_bpb": list(scores["final"].values()),
        "delta": interval.difference if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "paired_noise": interval.paired.sigma if interval else None,
        "verdict": interval.verdict if interval else None,
        "peak_memory_mb": [memory.get("baseline"), memory.get("final")],
        "failed": failed,
    }
    return row, interval


def _whole(source: str) -> dict[str, int]:
    """Read the constants that are whole numbers above 1; {} without a block."""
    try:
        values = read_constants(source)
    except SourceError:
        return {}
    return {n: v for n, v in values.items() if isinstance(v, int) and not isinstance(v, bool) and v > 1}


def _scaled(source: str, constant: str, factor: float) -> int:
    """Scale a constant of a file, to the nearest multiple of its head size where it is one now."""
    values = _whole(source)
    value = values[constant]
    for name in HEAD_NAMES if constant in WIDTHS else ():
        unit = values.get(name, 1)
        if value % unit == 0:
            return max(1, math.floor(value * factor / unit + 0.5)) * unit
    return math.floor(value * factor + 0.5)
