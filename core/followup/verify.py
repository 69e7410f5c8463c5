"""Compare a run's best file with its baseline on the held-out test set, which no selection has ever used.

Both are trained at the same seeds, as many as it takes: until the interval of the difference is narrower than the gain,
or a limit is reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.core.followup.pairs import PairedInterval, RunNoise, interval_of, pairs_needed
from autoresearch.core.followup.remeasure import Remeasurer, Wanted
from autoresearch.core.judge.paired import PairedNoise

SEED_OFFSET = 1_000_000_000
"""Distance of the first seed from the run's: no loop counts that far."""


@dataclass(frozen=True)
class Plan:
    """The seeds that a comparison is expected to take, and its limits."""

    least: int
    """Seeds that are measured in any case."""
    limit: int
    """Most seeds."""
    expected: int
    """Seeds at which the interval should be narrower than the claimed gain."""
    claimed: float | None
    """The run's own measured difference, final less baseline, in bits per byte; None where it has none."""

    @classmethod
    def make(cls, least: int, limit: int, claimed: float | None, paired: PairedNoise) -> Plan:
        """Expect as many seeds as the claimed gain needs at the run's paired noise."""
        needed = limit if not claimed else pairs_needed(claimed, paired, limit)
        return cls(least, limit, min(limit, max(least, needed)), claimed)

    def stop(self, found: PairedInterval, seeds: int) -> str | None:
        """Return the reason to measure no further seed; None to go on."""
        if seeds < self.least:
            return None
        if found.width < abs(found.difference):
            return "the interval is narrower than the gain"
        if self.claimed and self.claimed < found.low <= 0.0 <= found.high and found.width < -self.claimed:
            return "the interval holds zero and is too narrow for the gain that the run claims"
        return "the limit of seeds is reached" if seeds >= self.limit else None


def verify(
    remeasurer: Remeasurer, look: int, plan: Plan, sources: Mapping[int, str], noise: RunNoise
) -> dict[str, Any]:
    """Train the baseline and the best file at the same seeds; the record holds the scores and the paired interval.

    Where several trials run at once, as many seeds of the expected ones as there are pairs of devices are measured
    before the plan is asked; later ones one by one.

    `sources` are those two by experiment, the baseline first. `look` counts the calls for this run from 1 and is part
    of the trials' names. Raises `ArError` when a trial does not end well.
    """
    scores: dict[int, dict[int, float]] = {number: {} for number in sources}
    baseline, final = scores.values()
    why: str | None = None
    seeds = 0
    while why is None:
        count = max(1, min(remeasurer.at_once // len(sources), plan.expected - seeds))
        wanted = {  # both files in turn, so that a machine that slows down slows both
            (number, k): Wanted(f"{look}-{number}-{k + 1}", source, remeasurer.first_seed + k)
            for k in range(seeds, seeds + count)
            for number, source in sources.items()
        }
        found_now = remeasurer.measure_all(list(wanted.values()))
        for (number, _), one in wanted.items():
            scores[number][one.seed] = found_now[one.name]
        seeds += count
        found = interval_of(baseline, final, noise)
        why = plan.stop(found, seeds)
        if why is None and seeds >= plan.least:
            remeasurer.say(
                f"{seeds} seeds: {found.difference:+.5f} bpb, 95 % {found.low:+.5f} to {found.high:+.5f}; not narrower "
                "than the gain, one more seed"
            )
    return {
        "experiment": max(sources),
        "seeds": seeds,
        "baseline_test_bpb": list(baseline.values()),
        "final_test_bpb": list(final.values()),
        "delta": found.difference,
        "low": found.low,
        "high": found.high,
        "verdict": found.verdict,
        "claimed": plan.claimed,
        "paired_noise": found.paired.sigma,
        "stopped": why,
    }
