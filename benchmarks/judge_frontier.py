"""True gain bought by false keeps: racing against greedy at equal device time, for larger and smaller budgets.

The simulation is that of `benchmarks/judge.py`, with early stops and trials that share nothing. It is compared with a
judge that no run can have: one that knows the noise and the distribution of effects exactly, makes no repeats, and
keeps a change that is better in expectation and passes a test of the given level. It ends no trial early. Its false
keeps in a run where nothing helps are the level times the experiments. `AR_JUDGE_RUNS` sets the number of runs a point.
`python -m benchmarks.judge_frontier --seconds 200` computes for so long, and the next call goes on with
runs/judge_frontier.jsonl.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._pieces import Key, Pieces
from benchmarks.judge import (
    GAINS,
    LARGEST,
    LOSSES,
    PIECE,
    SMALLEST,
    TIME,
    UNPUBLISHED,
    Effect,
    Outcome,
    greedy,
    no_effect,
    public_effect,
    racing,
    together,
)

RUNS, EXPERIMENTS = int(os.environ.get("AR_JUDGE_RUNS", "500")), 100
FIRST_SEED = 200_000
BUDGETS = (0.2, 0.7, 1.4, 2.8, 5.6)
"""Wealth after the baseline, in place of `race.FIRST_WEALTH`."""
LEVELS = (0.5, 0.1, 0.05, 0.02, 0.01)
SIGMAS = (0.0007, 0.002)
PAIRING = 0.0
"""Share of the variance that trials of one seed have in common: the hardest case for the race."""
MOST_SHOWN = 6.0
"""Largest number of false keeps in the picture."""
PICTURE = Path(__file__).with_name("judge_frontier.png")
FILE = Path(__file__).parents[1] / "runs" / "judge_frontier.jsonl"


def keys(runs: int) -> list[Key]:
    """Return the pieces of every point; those of all points take turns."""
    return [
        (sigma, budget, FIRST_SEED + at, min(PIECE, runs - at))
        for at in range(0, runs, PIECE)
        for sigma in SIGMAS
        for budget in BUDGETS
    ]


def piece(key: Key) -> list[list[float]]:
    """Return false keeps where nothing helps, true and claimed gain with public effects, and greedy's in that time."""
    sigma, budget, first, count = (float(one) for one in key)
    seeds = range(int(first), int(first + count))

    def race(effect: Effect) -> list[Outcome]:
        return together([racing(n, effect, sigma, pairing=PAIRING, wealth=budget).steps(time=TIME) for n in seeds])

    found = zip(seeds, race(no_effect), race(public_effect), strict=True)
    return [
        [
            *(null.false_keeps, ours.true, ours.claimed),
            greedy(n, public_effect, sigma, round(ours.time), PAIRING, fixed=False).true,
        ]
        for n, null, ours in found
    ]


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    pieces = Pieces(FILE)
    pieces.compute(keys(RUNS), piece, math.inf)
    rows, points = [], {}
    for sigma in SIGMAS:
        ours = []
        for budget in BUDGETS:
            found = np.array([one for key in keys(RUNS) if key[:2] == (sigma, budget) for one in pieces[key]])
            (false, true, claimed, equal), error = found.mean(axis=0), found.std(axis=0) / math.sqrt(len(found))
            ours.append((false, true / equal, error[0], ratio_error(found[:, 1], found[:, 3])))
            note = (
                f"standard error {100 * ours[-1][3]:.1f} %; {false:.2f} false keeps where nothing helps, error "
                f"{error[0]:.2f}; claims {claimed / true - 1.0:+.1%} of the true gain; {len(found)} runs"
            )
            rows.append(_row(f"sigma {sigma:g}, budget {budget:g}: gain over greedy's", ours[-1][1], note))
        best = [(level * (EXPERIMENTS + 10), all_knowing(sigma, level)) for level in LEVELS]
        for level, (false, ratio) in zip(LEVELS, best, strict=True):
            note = f"{false:.1f} false keeps where nothing helps"
            rows.append(_row(f"sigma {sigma:g}, all-knowing at level {level:g}: gain over greedy's", ratio, note))
        points[sigma] = (ours, best)
    draw(points)
    return rows


def _row(name: str, ratio: float, note: str) -> dict[str, Any]:
    return {"name": name, "median": 100.0 * (ratio - 1.0), "unit": "%", "note": note}


def ratio_error(above: np.ndarray, below: np.ndarray) -> float:
    """Return the standard error of a ratio of two means over the same runs, by its linear part."""
    ratio = above.mean() / below.mean()
    return float((above - ratio * below).std() / below.mean() / math.sqrt(len(above)))


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


def draw(points: dict[float, tuple[list[tuple[float, ...]], list[tuple[float, float]]]]) -> None:
    """Draw false keeps against gain, one panel for each noise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(points), figsize=(9, 3.4), sharey=True, layout="constrained")
    for panel, (sigma, (ours, best)) in zip(panels, points.items(), strict=True):
        false, ratio, false_error, error = zip(*[point for point in ours if point[0] <= MOST_SHOWN], strict=True)
        panel.errorbar(false, ratio, error, false_error, fmt="o-", color="#1f77b4", capsize=2, label="racing")
        shown = [point for point in best if point[0] <= MOST_SHOWN]
        panel.plot(*zip(*shown, strict=True), "o-", color="#7f7f7f", label="all-knowing, no repeats and no early stops")
        panel.axhline(1.0, color="#d62728", linewidth=1, label="greedy (4.3 false keeps)")
        panel.axvline(1.0, color="black", linestyle=":", linewidth=1)
        panel.set(title=f"noise {sigma:g} bpb", xlabel="false keeps in a run where nothing helps")
    panels[0].set_ylabel("true gain over greedy's, equal time")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Compute some of the pieces that are missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge_frontier", description=__doc__)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further piece after this time")
    pieces = Pieces(FILE)
    done = pieces.compute(keys(RUNS), piece, parser.parse_args().seconds)
    print(f"{sum(key in pieces for key in keys(RUNS))} of {len(keys(RUNS))} pieces are there")
    raise SystemExit(0 if done else 3)


if __name__ == "__main__":
    main()
