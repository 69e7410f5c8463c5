"""Numeric proposals: a few constants of the incumbent, moved.

Candidates come from three sources: steps around the incumbent, draws from optuna's tree-structured Parzen estimator
(TPE), and draws from CMA-ES started from all trials. A Gaussian process says which candidate is worth the next trial.

TPE: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization. CMA-ES started from the measurements of other
searches: Nomura et al. 2021, arXiv:2012.06932.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoresearch.agent.syntax.constant_priors import fitted, footprint, prior_of
from autoresearch.agent.syntax.constants import Number, numbers_of
from autoresearch.agent.tuner.observations import Observations, footprint_ceiling, observe
from autoresearch.agent.tuner.space import Dimension, space_of
from autoresearch.agent.tuner.surrogate import Surrogate, fit
from autoresearch.agent.tuner.value import Belief
from autoresearch.core.proposal import History
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint

CMA_FROM = 20
"""Number of attempts from which CMA-ES is used: it starts from the best tenth, and one point has no shape."""
_STEPS = 192
"""Number of candidates from steps around the incumbent."""
_DRAWS = 8
"""Number of draws from each sampler; each gives candidates on several subsets of the constants."""
_BOLDNESS = 1.4
"""Standard deviations by which uncertainty favours a candidate; with fewer the search stays near known files."""
_REMEMBERED = 80
"""Number of best attempts, and of latest ones, that the process is fitted to: its cost grows with their cube."""
_PACE = ((3, 4, 0.25), (8, 6, 0.3), (math.inf, 8, 0.35))
"""Number of scores below which the row holds, most constants moved at once, longest step in coordinates.

Several constants from the start: far from the best file most of them can be improved, and the process tells their
shares apart. A step of 0.17 doubles a learning rate.
"""
_GROWTH = 2.0
"""Largest factor by which one proposal may grow the footprint, or any one size."""


@dataclass(frozen=True)
class Move:
    """A numeric edit of the incumbent."""

    source: str
    changes: Mapping[str, tuple[Number, Number]]
    """Values before and after, by constant."""
    category: str
    predicted_delta: float | None
    """Expected change against the incumbent, in bpb; None while too little is known."""
    measured: int
    """Number of scores that the prediction rests on."""
    belief: Belief
    """Effect that the process predicts, from few scores or many."""
    fine: float
    """Chance that it does not fail, from what has failed."""


def propose_move(history: History, tried: frozenset[str], rng: np.random.Generator, widen: float = 1.0) -> Move | None:
    """Choose the most promising untried move; None when no candidate is new.

    `widen` raises the spans of the search space to that power.
    """
    dimensions = space_of(history, widen)
    if not dimensions:
        return None
    now = numbers_of(history.incumbent.source)
    seen = observe(history, dimensions)
    # Both samplers are made anew for every proposal, from the history alone: a resumed run proposes what it would have
    # proposed.
    seed = int(rng.integers(2**31))
    draws = np.vstack([parzen_draws(seen, dimensions, seed, _DRAWS), cma_draws(seen, dimensions, seed, _DRAWS)])
    candidates = _candidates(seen, dimensions, draws, rng, widen)
    # A little below the smallest footprint that failed after growing: a larger one most likely does not fit either.
    ceiling = min(_GROWTH * footprint(now), 0.99 * footprint_ceiling(history))
    settings = _settings(candidates, dimensions, now, ceiling)
    if not settings:
        return None
    points = np.array([[d.coordinate(values[d.name]) for d in dimensions] for values in settings])
    # The values as they can really be set, not the drawn coordinates: rounding and repair may have moved a candidate
    # far.
    merit, delta, deviation = _appraise(seen, points, dimensions)
    risk = seen.risk(points)
    merit -= risk * seen.penalty
    for i in np.argsort(-merit, kind="stable"):
        changes = {name: (now[name], value) for name, value in settings[i].items() if value != now[name]}
        source = write_constants(history.incumbent.source, {name: after for name, (_, after) in changes.items()})
        if fingerprint(source) not in tried:
            main = max(changes, key=lambda name: prior_of(name).weight)
            known = float(delta[i]) if seen.measured >= 5 else None
            category, belief = prior_of(main).category or "optimizer", Belief(float(delta[i]), float(deviation[i]))
            return Move(source, changes, category, known, seen.measured, belief, 1.0 - float(risk[i]))
    return None


def _candidates(
    seen: Observations, dimensions: Sequence[Dimension], draws: np.ndarray, rng: np.random.Generator, widen: float
) -> list[dict[int, float]]:
    """Draw coordinates on random subsets of the dimensions, those with more weight more often."""
    weights = np.array([dimension.weight for dimension in dimensions])
    towards = np.array([dimension.towards for dimension in dimensions])
    known = np.ptp(seen.points, axis=0) > 0
    most, reach = next((most, reach) for below, most, reach in _PACE if seen.measured < below)
    most, reach = min(len(dimensions), most), min(1.0, reach * widen)
    found = []
    for i in range(_STEPS + 8 * len(draws)):
        size = int(rng.integers(1, most + 1))
        subset = rng.choice(len(dimensions), size=size, replace=False, p=weights / weights.sum())
        origin = seen.incumbent[subset]
        if i < _STEPS:
            step = rng.normal(0.0, rng.choice((0.05, 0.12, 0.25)), size=size)
        else:
            step = draws[(i - _STEPS) // 8][subset] - origin
        # A constant that was never moved goes in its promising direction first.
        step = np.where(known[subset] | (towards[subset] == 0), step, towards[subset] * np.abs(step))
        moved = np.clip(origin + np.clip(step, -reach, reach), 0.0, 1.0)
        found.append(dict(zip(map(int, subset), map(float, moved), strict=True)))
    return found


def _settings(
    candidates: Sequence[Mapping[int, float]],
    dimensions: Sequence[Dimension],
    now: Mapping[str, Number],
    ceiling: float,
) -> list[dict[str, Number]]:
    """Turn candidates into repaired values of all constants; drop those that change nothing or grow too much."""
    found: dict[tuple[Number, ...], dict[str, Number]] = {}
    size = footprint(now)
    for candidate in candidates:
        moved = {dimensions[i].name: dimensions[i].value(coordinate) for i, coordinate in candidate.items()}
        for i in candidate:
            name = dimensions[i].name
            if dimensions[i].scale in ("power_of_two", "whole") and moved[name] > _GROWTH * now[name] > 0:
                moved[name] = int(_GROWTH * now[name])
        values = fitted(now, moved)
        if values != now and footprint(values) <= max(size, ceiling):
            found.setdefault(tuple(values.values()), values)
    return list(found.values())


def fit_surrogate(seen: Observations, dimensions: Sequence[Dimension]) -> Surrogate:
    """Fit a process to the measurements; group 0 is the incumbent's structure. What is in flight is left out."""
    weights = np.array([dimension.weight for dimension in dimensions])
    values = seen.values[: len(seen.values) - seen.pending]
    best = np.argsort(values, kind="stable")[:_REMEMBERED]
    # The best ones to know the valley's floor, the latest ones because the search is there now.
    chosen = np.union1d(best, np.arange(len(values))[-_REMEMBERED:])
    scale = 0.01 * abs(float(np.median(values)))
    return fit(seen.points[chosen], seen.groups[chosen], values[chosen], weights, scale)


def _appraise(
    seen: Observations, points: np.ndarray, dimensions: Sequence[Dimension]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of points (M, D) merit (minus the lower confidence bound), predicted change and its deviation, in bpb.

    The deviation is what is left when everything in flight has its result, so that a batch of proposals differs.
    """
    under_way = slice(len(seen.points) - seen.pending, None)
    model = fit_surrogate(seen, dimensions).expecting(seen.points[under_way], seen.groups[under_way])
    mean, deviation = model.predict(np.vstack([points, seen.incumbent[None, :]]), group=0)
    return _BOLDNESS * deviation[:-1] - mean[:-1], mean[:-1] - mean[-1], deviation[:-1]


def parzen_draws(seen: Observations, dimensions: Sequence[Dimension], seed: int, draws: int) -> np.ndarray:
    """Ask multivariate TPE, told every attempt. Coordinates, float64 (draws, D).

    Constants that some files lack make groups of their own: each is modelled by the attempts that have it.
    """
    import optuna

    with warnings.catch_warnings():  # hide optuna's ExperimentalWarning: it says nothing to the person who watches
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=False)
    study = _study(sampler)
    study.add_trials(_told(seen, dimensions))
    return _ask(study, dimensions, draws)


def cma_draws(seen: Observations, dimensions: Sequence[Dimension], seed: int, draws: int) -> np.ndarray:
    """Ask CMA-ES, started from every attempt. Coordinates, float64 (draws, D); none while there are few attempts."""
    import optuna

    whole = [trial for trial in _told(seen, dimensions) if len(trial.params) == len(dimensions)]
    if len(whole) < CMA_FROM or len(dimensions) < 2:
        return np.empty((0, len(dimensions)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.CmaEsSampler(
            seed=seed, n_startup_trials=0, source_trials=whole, warn_independent_sampling=False
        )
    return _ask(_study(sampler), dimensions, draws)


def _study(sampler: Any) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=sampler)


def _box(dimensions: Sequence[Dimension]) -> dict[str, Any]:
    import optuna

    return {dimension.name: optuna.distributions.FloatDistribution(0.0, 1.0) for dimension in dimensions}


def _told(seen: Observations, dimensions: Sequence[Dimension]) -> list[Any]:
    import optuna

    box, trials = _box(dimensions), []
    for point, has, value in zip(seen.points, seen.present, seen.values, strict=True):
        params = {d.name: float(u) for d, u, there in zip(dimensions, point, has, strict=True) if there}
        known = {name: box[name] for name in params}
        trials.append(optuna.trial.create_trial(params=params, distributions=known, value=float(value)))
    return trials


def _ask(study: Any, dimensions: Sequence[Dimension], draws: int) -> np.ndarray:
    box = _box(dimensions)
    asked = [study.ask(box).params for _ in range(draws)]
    return np.array([[params[dimension.name] for dimension in dimensions] for params in asked])
