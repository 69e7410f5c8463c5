"""Draws where good trials were: optuna's tree-structured Parzen estimator, and CMA-ES started from all trials.

TPE: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization. CMA-ES started from what other searches have
measured: Nomura et al. 2021, arXiv:2012.06932.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from autoresearch.agent.observations import Observations
from autoresearch.agent.space import Dimension

CMA_FROM = 20
"""Attempts: CMA-ES starts from the best tenth of them, and one point has no shape."""


def parzen_draws(seen: Observations, dimensions: Sequence[Dimension], seed: int, draws: int) -> np.ndarray:
    """Ask multivariate TPE, told every attempt. Coordinates, float64 (draws, D).

    Constants that some files lack make groups of their own: each is modelled by the attempts that have it.
    """
    import optuna

    with warnings.catch_warnings():  # what is young in optuna is nothing for the person who watches
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
