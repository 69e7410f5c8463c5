"""True gain bought by false keeps: racing against greedy at equal device time, for larger and smaller budgets.

The simulation is that of `benchmarks/judge.py`, with early stops and trials that share nothing. It is compared with a
judge that no run can have: one that knows the noise and the distribution of effects exactly, makes no repeats, and
keeps a change that is better in expectation and passes a test of the given level. It ends no trial early. Its false
keeps in a run where nothing helps are the level times the experiments. `AR_JUDGE_RUNS` sets the number of runs a point.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import judge
from benchmarks.judge import (
    GAINS,
    LARGEST,
    LOSSES,
    SMALLEST,
    TIME,
    UNPUBLISHED,
    Outcome,
    greedy,
    no_effect,
    public_effect,
    racing,
)

RUNS, EXPERIMENTS = int(os.environ.get("AR_JUDGE_RUNS", "500")), 100
FIRST_SEED = 200_000
BUDGETS = (0.2, 0.7, 1.4, 2.8, 5.6)
"""Wealth after the baseline, in place of `race.FIRST_WEALTH`."""
LEVELS = (0.5, 0.1, 0.05, 0.02, 0.01)
SIGMAS = (0.0007, 0.002)
PICTURE = Path(__file__).with_name("judge_frontier.png")


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    rows, points = [], {}
    with ProcessPoolExecutor() as pool:
        for sigma in SIGMAS:
            ours = list(pool.map(at_budget, BUDGETS, [sigma] * len(BUDGETS)))
            for budget, (false, ratio, claimed) in zip(BUDGETS, ours, strict=True):
                note = f"{false:.2f} false keeps where nothing helps; claims {claimed:+.1%} of the true gain"
                rows.append(_row(f"sigma {sigma:g}, budget {budget:g}: gain over greedy's", ratio, note))
            best = [(level * (EXPERIMENTS + 10), all_knowing(sigma, level)) for level in LEVELS]
            for level, (false, ratio) in zip(LEVELS, best, strict=True):
                note = f"{false:.1f} false keeps where nothing helps"
                rows.append(_row(f"sigma {sigma:g}, all-knowing at level {level:g}: gain over greedy's", ratio, note))
            points[sigma] = ([one[:2] for one in ours], best)
    draw(points)
    return rows


def _row(name: str, ratio: float, note: str) -> dict[str, Any]:
    return {"name": name, "median": 100.0 * (ratio - 1.0), "unit": "%", "note": note}


def at_budget(budget: float, sigma: float, runs: int = RUNS) -> tuple[float, float, float]:
    """Return false keeps where nothing helps, true gain as a share of greedy's, and claimed over true gain less 1."""
    return sum_up([at_seed(budget, sigma, seed) for seed in range(FIRST_SEED, FIRST_SEED + runs)])


def at_seed(budget: float, sigma: float, seed: int) -> tuple[float, Outcome, Outcome]:
    """Return false keeps where nothing helps, the race's run with public effects, and greedy's in the same time."""
    false = racing(seed, no_effect, sigma, wealth=budget).go(time=TIME).false_keeps
    ours = racing(seed, public_effect, sigma, wealth=budget).go(time=TIME)
    return false, ours, greedy(seed, public_effect, sigma, round(ours.time), fixed=False)


def sum_up(found: Sequence[tuple[float, Outcome, Outcome]]) -> tuple[float, float, float]:
    """Return what `at_budget` does, of these runs."""
    false, ours, equal = zip(*found, strict=True)
    true = judge.mean(list(ours), "true")
    return (
        statistics.fmean(false),
        true / judge.mean(list(equal), "true"),
        judge.mean(list(ours), "claimed") / true - 1.0,
    )


def all_knowing(sigma: float, level: float, runs: int = 4000, trials: int = 111) -> float:
    """Return the all-knowing judge's true gain as a share of greedy's, with equally many trials.

    Its belief about the incumbent is updated as in a Kalman filter.
    """
    rng = np.random.default_rng(FIRST_SEED)
    atoms, weights = _distribution()
    effects = rng.choice(atoms, size=(runs, trials), p=weights)
    noise = rng.normal(0.0, sigma, (runs, trials))
    mean, variance = noise[:, :2].mean(axis=1), np.full(runs, sigma**2 / 2.0)
    truth = np.zeros(runs)
    threshold = -statistics.NormalDist().inv_cdf(1.0 - level)
    for n in range(trials - 2):
        seen = truth + effects[:, n] + noise[:, n + 2] - mean
        total = sigma**2 + variance
        logs = np.log(weights) - 0.5 * (seen[:, None] - atoms) ** 2 / total[:, None]
        share = np.exp(logs - logs.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        expected = share @ atoms
        spread = np.maximum(share @ atoms**2 - expected**2, 0.0)
        keep = (expected < 0.0) & (seen / np.sqrt(total) < threshold)
        pull = variance / total
        mean = mean + np.where(keep, pull * seen + (1.0 - pull) * expected, pull * (seen - expected))
        variance = pull * sigma**2 + np.where(keep, (1.0 - pull) ** 2, pull**2) * spread
        truth = np.where(keep, truth + effects[:, n], truth)
    return float(-truth.mean()) / _greedy_gain(effects, noise)


def _greedy_gain(effects: np.ndarray, noise: np.ndarray) -> float:
    best, truth = noise[:, 0], np.zeros(len(noise))
    for n in range(noise.shape[1] - 1):
        seen = truth + effects[:, n] + noise[:, n + 1]
        keep = seen < best
        best, truth = np.where(keep, seen, best), np.where(keep, truth + effects[:, n], truth)
    return float(-truth.mean())


def _distribution() -> tuple[np.ndarray, np.ndarray]:
    """Return the public effects as points and weights; losses of unpublished size lie on a fine grid."""
    count = len(GAINS) + len(LOSSES) + UNPUBLISHED
    grid = np.exp(np.linspace(math.log(SMALLEST), math.log(LARGEST), 40))
    atoms = np.concatenate([-np.array(GAINS), np.array(LOSSES), grid])
    weights = np.concatenate([np.ones(len(GAINS) + len(LOSSES)), np.full(len(grid), UNPUBLISHED / len(grid))])
    return atoms, weights / count


def draw(points: dict[float, tuple[list[tuple[float, float]], list[tuple[float, float]]]]) -> None:
    """Draw false keeps against gain, one panel for each noise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(points), figsize=(9, 3.4), sharey=True, layout="constrained")
    for panel, (sigma, (ours, best)) in zip(panels, points.items(), strict=True):
        for label, color, found in (
            ("racing", "#1f77b4", ours),
            ("all-knowing, no repeats and no early stops", "#7f7f7f", best),
        ):
            found = [point for point in found if point[0] <= 6.0]
            panel.plot(*zip(*found, strict=True), "o-", color=color, label=label)
        panel.axhline(1.0, color="#d62728", linewidth=1, label="greedy (4.3 false keeps)")
        panel.axvline(1.0, color="black", linestyle=":", linewidth=1)
        panel.set(title=f"noise {sigma:g} bpb", xlabel="false keeps in a run where nothing helps")
    panels[0].set_ylabel("true gain over greedy's, equal time")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=80)
    pyplot.close(figure)
