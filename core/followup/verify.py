"""Compare a run's best file with its baseline on the held-out test set, which no selection has ever used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoresearch.core.followup.remeasure import Remeasurer
from autoresearch.core.followup.welch import welch

SEED_OFFSET = 1_000_000_000
"""Distance of the first seed from the run's: no loop counts that far."""


def verify(remeasurer: Remeasurer, look: int, seeds: int, sources: Mapping[int, str]) -> dict[str, Any]:
    """Train the baseline and the best file with `seeds` seeds each; the record holds the scores and Welch's interval.

    `sources` are those two by experiment, the baseline first. `look` counts the calls for this run from 1 and is part
    of the trials' names. Raises `ArError` when a trial does not end well.
    """
    values = remeasurer.measure_in_turn({f"{look}-{number}": source for number, source in sources.items()}, seeds)
    baseline, final = values.values()
    interval = welch(baseline, final)
    return {
        "experiment": max(sources),
        "seeds": seeds,
        "baseline_test_bpb": baseline,
        "final_test_bpb": final,
        "delta": interval.difference,
        "low": interval.low,
        "high": interval.high,
        "verdict": interval.verdict,
    }
