"""How quickly the tuner finds good constants, against random search and plain TPE, on a simulated landscape.

The landscape: bits per byte as a smooth bowl in the logarithms of 16 constants of a small train file, with its lowest
point, curvatures and pairwise interactions drawn anew for every seed; a third of the constants hardly matter. A score
carries seed noise of 0.002, and a file crashes when its Muon rate is far too high or its model is too large. All
searchers see the same file, the same box, the same noise and the same greedy judge; what is reported is the
incumbent's score without its noise, which the searchers never see.

`random` draws all constants anew from the box. `random steps` moves one to three constants of the incumbent at random:
the harder opponent. `TPE` is optuna's multivariate sampler on all constants at once. In `tuner with an archive` every
tenth proposal starts from a near miss instead of the incumbent: the best discarded file of a category, the categories
in turn. It is judged against the incumbent as any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from autoresearch.agent.syntax.constant_priors import footprint, repair
from autoresearch.agent.syntax.constants import Number, constants_of, numbers_of
from autoresearch.agent.tuner.numeric import parzen_draws
from autoresearch.agent.tuner.observations import observe
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.agent.tuner.space import Dimension, search_space
from autoresearch.core.proposal import Attempt, History, Proposal
from autoresearch.core.trainfile.constants import write_constants

SOURCE = '''"""A simulated train file."""

# ---- constants: as in a real one
PRESET = "simulated"
DEPTH = 4
DIM = 256
HEAD_DIM = 64
SEQ_LEN = 512
BATCH_TOKENS = 2**15
DEVICE_BATCH_ROWS = 16
MUON_LR = 0.02
EMBED_LR = 0.3
HEAD_LR = 0.004
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
MUON_MOMENTUM = 0.95
WEIGHT_DECAY = 0.1
WARMDOWN = 0.5
FINAL_LR = 0.05
INIT_SCALE = 1.0
ROPE_BASE = 10000.0
# ---- end of constants
'''
NOISE = 0.002
FLOOR = 1.2
EXPERIMENTS = 60
SEEDS = 12
ARCHIVE_EVERY = 10

Searcher = Callable[[History], Proposal]
Measured = tuple[float | None, Mapping[str, float | int | str | None]]
"""Bits per byte, None where the trial failed, and what else the trial's record has of it, such as `tokens`."""


class Landscape:
    """The simulated landscape: true bits per byte of a source, and whether it crashes."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._start = numbers_of(SOURCE)
        self._names = list(self._start)
        n = len(self._names)
        self._optimum = rng.normal(0.0, 0.8, n)
        curvature = np.where(rng.random(n) < 0.35, 0.05, rng.lognormal(0.0, 0.7, n))
        mixing = np.eye(n) + 0.25 * np.triu(rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.15), 1)
        self._matrix = mixing.T @ np.diag(curvature) @ mixing
        # The first file starts 0.1 bits above the lowest point, whatever was drawn.
        self._matrix *= 0.1 / self._height(np.zeros(n))

    def _height(self, point: np.ndarray) -> float:
        away = point - self._optimum
        return float(away @ self._matrix @ away)

    def score(self, source: str) -> float | None:
        """Compute bits per byte without noise; None when the file crashes."""
        values = numbers_of(source)
        if values["MUON_LR"] > 0.16 or footprint(values) > 2.5 * footprint(self._start):
            return None
        point = np.array([_distance(name, values[name], self._start[name]) for name in self._names])
        return FLOOR + 2 * math.tanh(self._height(point) / 2)


def _distance(name: str, value: Number, start: Number) -> float:
    """How far a constant has moved: in log units, of 1 - x for memories; shares count tenfold per unit over four."""
    if name in ("WARMDOWN", "FINAL_LR"):
        return 2.5 * (value - start) * (4 if name == "FINAL_LR" else 1)
    if "BETA" in name or "MOMENTUM" in name:
        return math.log((1 - value) / (1 - start))
    return math.log(value / start)


def explore(
    searcher: Searcher, source: str, measure: Callable[[int, str], Measured], history: History, experiments: int
) -> list[Attempt]:
    """Run the baseline and `experiments` more under the greedy judge.

    `measure` is given an experiment's number and source; `history` holds the facts that stay the same.
    """
    attempts: list[Attempt] = []
    incumbent: Attempt | None = None
    proposal = Proposal(source=source, hypothesis="", category="optimizer")
    for experiment in range(experiments + 1):
        if incumbent is not None:
            proposal = searcher(replace(history, incumbent=incumbent, attempts=tuple(attempts)))
        measured, metrics = measure(experiment, proposal.source)
        best = None if incumbent is None else incumbent.val_bpb
        kept = measured is not None and (best is None or measured < best)
        attempt = Attempt(
            experiment=experiment, source=proposal.source, reason="", hypothesis=proposal.hypothesis,
            category=proposal.category, researcher=proposal.researcher, parameters=proposal.parameters, metrics=metrics,
            status="crash" if measured is None else "keep" if kept else "discard", predicted_delta=None,
            val_bpb=measured, estimate=None, delta=None, parent=0 if incumbent is None else incumbent.experiment,
        )  # fmt: skip
        attempts.append(attempt)
        incumbent = attempt if kept or incumbent is None else incumbent
    return attempts


def start_of(source: str, seed: int, **more: Any) -> History:
    """Make an empty history whose incumbent is a source that was never measured."""
    unmeasured = Attempt(
        experiment=0, source=source, status="keep", reason="", hypothesis="", category="shape", researcher="",
        predicted_delta=None, val_bpb=None, estimate=None, delta=None, parent=0,
    )  # fmt: skip
    facts: dict[str, Any] = {"backend": "null", "device": "simulated", "preset": "simulated", "budget_seconds": 1.0}
    return History(program="", seed=seed, vocabularies=(), incumbent=unmeasured, attempts=(), **{**facts, **more})


def search(searcher: Searcher, seed: int, experiments: int) -> list[float]:
    """Run one search on the landscape of a seed: the incumbent's true score after each experiment, in bpb."""
    landscape, rng = Landscape(seed), np.random.default_rng(1000 + seed)

    def measure(experiment: int, source: str) -> Measured:
        true, noise = landscape.score(source), NOISE * float(rng.normal())
        return None if true is None else true + noise, {}

    attempts = explore(searcher, SOURCE, measure, start_of(SOURCE, seed), experiments)
    curve: list[float] = []
    for attempt in attempts[1:]:
        true = landscape.score(attempt.source) if attempt.status == "keep" else None
        curve.append(true if true is not None else curve[-1] if curve else landscape.score(SOURCE) or math.inf)
    return curve


def tuner(history: History) -> Proposal:
    return Tuner(structural=False).propose(history)


def with_archive(history: History) -> Proposal:
    missed: dict[str, Attempt] = {}
    for one in history.attempts:
        if one.status == "discard" and one.val_bpb is not None:
            best = missed.get(one.category)
            if best is None or best.val_bpb is None or one.val_bpb < best.val_bpb:
                missed[one.category] = one
    count = len(history.attempts)
    if count % ARCHIVE_EVERY or not missed:
        return tuner(history)
    chosen = sorted(missed.items())[count // ARCHIVE_EVERY % len(missed)][1]
    return tuner(replace(history, incumbent=chosen))


def random(history: History) -> Proposal:
    rng = np.random.default_rng([history.seed, len(history.attempts)])
    return _with(history, rng.random(_size(history)))


def random_steps(history: History) -> Proposal:
    rng = np.random.default_rng([history.seed, len(history.attempts)])
    dimensions = space(history)
    point = observe(history, dimensions).incumbent
    subset = rng.choice(len(point), size=int(rng.integers(1, 4)), replace=False)
    point[subset] = rng.random(len(subset))
    return _with(history, point)


def plain_tpe(history: History) -> Proposal:
    seed = history.seed * 10_000 + len(history.attempts)
    dimensions = space(history)
    return _with(history, parzen_draws(observe(history, dimensions), dimensions, seed, draws=1)[0])


def space(history: History) -> tuple[Dimension, ...]:
    """Return the constants that may move, in the box about the values of the start."""
    start = history.attempts[0].source if history.attempts else history.incumbent.source
    return search_space(constants_of(history.incumbent.source), constants_of(start), history.vocabularies)


def _size(history: History) -> int:
    return len(space(history))


def _with(history: History, point: np.ndarray) -> Proposal:
    values = {d.name: d.value(float(u)) for d, u in zip(space(history), point, strict=True)}
    source = write_constants(history.incumbent.source, repair({**numbers_of(history.incumbent.source), **values}))
    return Proposal(source=source, hypothesis="", category="optimizer")


def curves(searcher: Searcher, seeds: int = SEEDS, experiments: int = EXPERIMENTS) -> np.ndarray:
    """Run all seeds: float64 (seeds, experiments), the incumbent's true bits per byte after each experiment."""
    return np.array([search(searcher, seed, experiments) for seed in range(seeds)])


def experiments_to_reach(curve: np.ndarray, target: float) -> int | None:
    """Find the first experiment, counted from 1, after which the curve is at or below the target."""
    below = np.flatnonzero(curve <= target)
    return int(below[0]) + 1 if len(below) else None


def run() -> list[dict[str, Any]]:
    """Report each searcher's median best-so-far, and how soon the tuner reaches the others' final best."""
    note = f"{SEEDS} seeds, {EXPERIMENTS} experiments, noise {NOISE}, lowest point {FLOOR}, start {FLOOR + 0.1:.1f}"
    searchers = {"random": random, "random steps": random_steps, "TPE": plain_tpe, "tuner": tuner}
    searchers["tuner with an archive"] = with_archive
    medians = {name: np.median(curves(searcher), axis=0) for name, searcher in searchers.items()}
    rows: list[dict[str, Any]] = []
    for name, median in medians.items():
        for at in (EXPERIMENTS // 4, EXPERIMENTS // 2, EXPERIMENTS):
            rows.append(
                {
                    "name": f"search: {name}, best after {at}",
                    "median": float(median[at - 1]),
                    "unit": "bpb",
                    "note": note,
                }
            )
    for name in ("random", "random steps", "TPE"):
        reached = experiments_to_reach(medians["tuner"], float(medians[name][-1]))
        rows.append(
            {
                "name": f"search: tuner reaches what {name} has after {EXPERIMENTS}",
                "median": reached,
                "unit": "experiments",
                "note": note,
            }
        )
    return rows
