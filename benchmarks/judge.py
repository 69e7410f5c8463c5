"""The judge against upstream's rule, simulated: what is kept by mistake, what is found, what is claimed.

Effects are drawn, with replacement, from the public record of 125 experiments: 23 improvements as reported, 9 losses as
reported, and 93 losses whose sizes were not published, here log-uniform between 0.0002 and 0.011 bpb (an assumption).
Both judges get the same number of trials in every run ("equal device time"). Every figure comes twice, from two sets of
seeds; the judge's numbers were chosen on a third.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from autoresearch.core.judge import race
from autoresearch.core.judge.noise import PRIOR_DOF, PUBLIC

RUNS, EXPERIMENTS = 2000, 100
SEEDS = {"seeds A": 0, "seeds B": 100_000}
"""Where each set begins."""
APART = 10_000_000
"""Between a run's seed for noise and its seed for effects."""
BASELINE = 0.9979
CHECK_EVERY = 20
GAINS = (
    *(0.0119, 0.0043, 0.0033, 0.0012, 0.0010, 0.0010, 0.0009, 0.0008, 0.0006, 0.0006, 0.0004, 0.0004, 0.0003, 0.0003),
    *(0.0003, 0.0002, 0.0002, *(0.00008,) * 6),  # the last six: what the reported total leaves for them
)
LOSSES = (2.2, 0.011, 0.008, 0.007, 0.007, 0.0055, 0.003, 0.0012, 0.0006)
UNPUBLISHED, SMALLEST, LARGEST = 93, 0.0002, 0.011
PICTURE = Path(__file__).with_name("judge.png")

Effect = Callable[[random.Random], float]


@dataclass
class Outcome:
    """One simulated run."""

    true: float = 0.0
    """True gain over the baseline; positive is better."""
    claimed: float = 0.0
    trials: int = 0
    keeps: int = 0
    false_keeps: int = 0
    """Keeps of changes that do not help."""
    path: list[float] = field(default_factory=list)
    """True gain after each trial."""


def no_effect(_: random.Random) -> float:
    return 0.0


def public_effect(rng: random.Random) -> float:
    n = rng.randrange(len(GAINS) + len(LOSSES) + UNPUBLISHED)
    if n < len(GAINS):
        return -GAINS[n]
    if n < len(GAINS) + len(LOSSES):
        return LOSSES[n - len(GAINS)]
    return math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST)))


def greedy(seed: int, effect: Effect, sigma: float, trials: int) -> Outcome:
    """Upstream's rule with that many trials, the baseline's included."""
    # Effects have a generator of their own: experiment n of a run has the same one under every judge.
    rng, effects = random.Random(seed), random.Random(seed + APART)
    out = Outcome(trials=trials)
    truth = 0.0
    first = best = rng.gauss(0.0, sigma)
    out.path.append(0.0)
    for _ in range(trials - 1):
        delta = effect(effects)
        seen = truth + delta + rng.gauss(0.0, sigma)
        if seen < best:
            best, truth = seen, truth + delta
            out.keeps += 1
            out.false_keeps += delta >= 0.0
        out.path.append(-truth)
    out.true, out.claimed = -truth, first - best
    return out


class Ours:
    """The race over one run, with the noise pooled as the judge does it."""

    def __init__(self, seed: int, effect: Effect, sigma: float, expected: float = PUBLIC.relative * BASELINE) -> None:
        """`expected` is the noise that the judge's prior expects."""
        self.expected = expected
        self.rng, self.effects = random.Random(seed), random.Random(seed + APART)
        self.effect, self.noise = effect, sigma
        self.out = Outcome()
        self.squares, self.own, self.extra = 0.0, 0, 0
        self.wealth, self.truth = race.FIRST_WEALTH, 0.0
        values = [self.measure(0.0), self.measure(0.0)]
        self.pool(values)
        self.first = sum(values) / 2
        self.champion = race.MeasuredMean(self.first, 2)
        self.before: tuple[race.MeasuredMean, float] | None = None

    def measure(self, true: float) -> float:
        self.out.trials += 1
        self.out.path.append(-self.truth if hasattr(self, "truth") else 0.0)
        return true + self.rng.gauss(0.0, self.noise)

    def pool(self, values: list[float]) -> None:
        mean = sum(values) / len(values)
        self.squares += sum((value - mean) ** 2 for value in values)
        self.own += len(values) - 1

    @property
    def sigma(self) -> float:
        return math.sqrt((PRIOR_DOF * self.expected**2 + self.squares) / (PRIOR_DOF + self.own))

    def again(self) -> None:
        value = self.measure(self.truth)
        n = self.champion.trials
        self.squares += (value - self.champion.mean) ** 2 * n / (n + 1)
        self.own += 1
        self.champion = race.MeasuredMean((self.champion.mean * n + value) / (n + 1), n + 1)

    def check(self) -> None:
        """The champion once more; back to the one before when it does not hold."""
        self.again()
        if self.before is not None and self.champion.mean >= self.before[0].mean:
            self.champion, self.truth = self.before
            self.before = None

    def experiment(self, number: int) -> None:
        if number and number % CHECK_EVERY == 0:
            self.check()
        delta = self.effect(self.effects)
        true = self.truth + delta
        screen, fresh, spent = self.measure(true), [], 0
        while True:
            allowance = int(race.FREE_REPEATS + race.REPEATS_PER_EXPERIMENT * number) - self.extra
            match = race.Match(
                *(screen, fresh, self.champion, self.sigma, PRIOR_DOF + self.own, self.wealth, spent, allowance)
            )
            verdict = race.judge(match)
            if verdict.step in ("keep", "discard"):
                break
            spent += 1
            self.extra += 1
            if verdict.step == "incumbent":
                self.again()
            else:
                fresh.append(self.measure(true))
        if len(fresh) > 1:
            self.pool(fresh)
        self.wealth = race.wealth_after(self.wealth, verdict.paid, kept=verdict.step == "keep")
        if verdict.step == "keep":
            self.out.keeps += 1
            self.out.false_keeps += delta >= 0.0
            self.before = (self.champion, self.truth)
            self.champion = race.MeasuredMean(self.champion.mean + verdict.belief.shrunken, max(1, len(fresh)))
            self.truth = true

    def go(self, experiments: int) -> Outcome:
        for number in range(experiments):
            self.experiment(number)
        self.out.true, self.out.claimed = -self.truth, self.first - self.champion.mean
        return self.out


Three = tuple[list[Outcome], list[Outcome], list[Outcome]]


def compare(effect: Effect, sigma: float, seeds: range) -> Three:
    """Ours, greedy with as many trials as ours took, and greedy with as many experiments."""
    ours = [Ours(seed, effect, sigma).go(EXPERIMENTS) for seed in seeds]
    equal = [greedy(seed, effect, sigma, one.trials) for seed, one in zip(seeds, ours, strict=True)]
    same = [greedy(seed, effect, sigma, EXPERIMENTS + 1) for seed in seeds]
    return ours, equal, same


def compare_all(runs: int = RUNS, step: int = 250) -> Iterator[tuple[str, str, Effect, float, Three]]:
    """(set of seeds, scenario, effect, sigma, outcomes) of every scenario, on every core."""
    with ProcessPoolExecutor() as pool:
        for where, first in SEEDS.items():
            for name, effect, sigma in SCENARIOS:
                seeds = [range(n, min(n + step, first + runs)) for n in range(first, first + runs, step)]
                parts = pool.map(compare, [effect] * len(seeds), [sigma] * len(seeds), seeds)
                ours, equal, same = (list(chain.from_iterable(lists)) for lists in zip(*parts, strict=True))
                yield where, name, effect, sigma, (ours, equal, same)


def mean(outcomes: list[Outcome], name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in outcomes)


SCENARIOS = (
    ("no change helps", no_effect, 0.0007),
    ("no change helps", no_effect, 0.002),
    ("public effects", public_effect, 0.0007),
    ("public effects", public_effect, 0.002),
)


def run() -> list[dict[str, Any]]:
    """name, median, unit, note of every measurement. Means over the runs; the picture goes beside this file."""
    rows: list[dict[str, Any]] = []
    curves = {}
    for where, name, effect, sigma, found in compare_all():
        for judge, outcomes in zip(("racing", "greedy, equal time", "greedy, 100 experiments"), found, strict=True):
            rows += _rows(f"{name}, sigma {sigma:g}, {where}: {judge}", outcomes, null=effect is no_effect)
        if effect is public_effect and sigma not in curves:
            curves[sigma] = found[:2]
    draw(curves)
    return rows


def _rows(name: str, outcomes: list[Outcome], *, null: bool) -> list[dict[str, Any]]:
    error = statistics.pstdev([one.true for one in outcomes]) / math.sqrt(len(outcomes))
    note = f"{len(outcomes)} runs, {mean(outcomes, 'trials'):.1f} trials, {mean(outcomes, 'keeps'):.2f} keeps a run"
    rows = [{"name": f"{name}: false keeps", "median": mean(outcomes, "false_keeps"), "unit": "a run", "note": note}]
    true, claimed = mean(outcomes, "true"), mean(outcomes, "claimed")
    if not null:
        note = f"standard error {error:.5f}"
        rows.append({"name": f"{name}: true gain", "median": true, "unit": "bpb", "note": note})
    note = "" if null else f"{claimed / true - 1.0:+.1%} of the true gain"
    return [*rows, {"name": f"{name}: claimed gain", "median": claimed, "unit": "bpb", "note": note}]


def draw(curves: dict[float, tuple[list[Outcome], list[Outcome]]]) -> None:
    """True gain against trials spent, and what each judge claims at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(9, 3.4), sharey=True, layout="constrained")
    for panel, (sigma, (ours, equal)) in zip(panels, curves.items(), strict=True):
        for label, color, outcomes in (("racing", "#1f77b4", ours), ("greedy", "#d62728", equal)):
            length = min(len(one.path) for one in outcomes)
            means = [statistics.fmean(one.path[n] for one in outcomes) for n in range(length)]
            panel.plot(range(1, length + 1), means, color=color, label=f"{label}, true")
            panel.axhline(mean(outcomes, "claimed"), color=color, linestyle=":", label=f"{label}, claimed at the end")
        panel.set(title=f"noise {sigma:g} bpb", xlabel="trials")
    panels[0].set_ylabel("gain over the baseline, bpb")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=80)
    pyplot.close(figure)
