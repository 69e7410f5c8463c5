"""A small Gaussian process over the search space: which of several candidates is worth a trial.

The kernel is a sum of one term for each dimension and one term over all of them: most constants act on their own, some
act in pairs. See Rasmussen and Williams, Gaussian Processes for Machine Learning, ch. 2, and Duvenaud et al., Additive
Gaussian Processes (arXiv:1112.4394).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LENGTHS = (0.15, 0.3, 0.6)
"""Candidate length scales, in coordinates (0..1)."""
_NOISES = (0.02, 0.1, 0.4)
"""Candidate noise variances, as shares of the kernel's."""
_GROUP_VARIANCE = 0.5
"""Variance between structures of the file, as a share of the kernel's variance."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted process. Values are in the units they were fitted in; lower is better."""

    points: np.ndarray
    """float64 (N, D), coordinates 0..1."""
    groups: np.ndarray
    """int (N,): the structure of the file in which each point was measured."""
    weights: np.ndarray
    """float64 (D,), summing to 1: the share of the variance that each dimension may explain."""
    length: float
    vectors: np.ndarray
    """float64 (N, N): eigenvectors of the kernel matrix, a column each."""
    spectrum: np.ndarray
    """float64 (N,): its eigenvalues, noise included."""
    projected: np.ndarray
    """float64 (N,): the standardised values along the eigenvectors."""
    centre: float
    scale: float
    noise: float
    """Noise variance, as a share of the kernel's."""

    def expecting(self, points: np.ndarray, groups: np.ndarray) -> Surrogate:
        """Return this process once the results at points (N, D) of these structures (N,) are known.

        They are taken to come as predicted, so that no mean changes. What shrinks are the deviations, by as much as
        the results will teach: a greedy choice by them is a determinantal one, of points that differ from each other
        (Desautels et al. 2014, Parallelizing Exploration-Exploitation Tradeoffs in Gaussian Process Bandit
        Optimization; Kathuria et al. 2016, arXiv:1611.04088).
        """
        if not len(points):
            return self
        known = self.vectors @ self.projected
        y = np.concatenate([known, self._across(points, groups) @ (self.projected / self.spectrum)])
        points, groups = np.vstack([self.points, points]), np.concatenate([self.groups, groups])
        eigenvalues, vectors = np.linalg.eigh(_covariance(points, groups, points, groups, self.weights, self.length))
        spectrum = np.maximum(eigenvalues, 0.0) + self.noise
        found = (points, groups, self.weights, self.length, vectors, spectrum, vectors.T @ y)
        return Surrogate(*found, self.centre, self.scale, self.noise)

    def predict(self, points: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Predict points (M, D) in structure `group`: mean and standard deviation, both (M,), noise left out."""
        across = self._across(points, np.full(len(points), group))
        mean = across @ (self.projected / self.spectrum)
        # The prior variance of a point: 1 from the kernel, whose two terms and weights sum to 1, and the group's.
        # Rounding may make the difference negative.
        variance = np.maximum(1.0 + _GROUP_VARIANCE - across**2 @ (1 / self.spectrum), 1e-9)
        return self.centre + self.scale * mean, self.scale * np.sqrt(variance)

    def _across(self, points: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return the covariance of points (M, D) of structures (M,) with the known ones, along the eigenvectors."""
        return _covariance(points, groups, self.points, self.groups, self.weights, self.length) @ self.vectors


def fit(points: np.ndarray, groups: np.ndarray, values: np.ndarray, weights: np.ndarray, scale: float) -> Surrogate:
    """Fit to points (N, D), their structures (N,) and values (N,), with length scale and noise of greatest likelihood.

    `scale` is the standard deviation expected of the values, used as a floor while there are few of them.
    """
    weights = weights / weights.sum()
    centre = float(np.median(values))
    spread = max(float(np.std(values)), scale, 1e-9)
    y = (values - centre) / spread
    fits = []
    for length in _LENGTHS:
        # One decomposition serves every noise.
        eigenvalues, vectors = np.linalg.eigh(_covariance(points, groups, points, groups, weights, length))
        projected = vectors.T @ y
        for noise in _NOISES:
            spectrum = np.maximum(eigenvalues, 0.0) + noise
            likelihood = -0.5 * float((projected**2 / spectrum).sum() + np.log(spectrum).sum())
            model = Surrogate(points, groups, weights, length, vectors, spectrum, projected, centre, spread, noise)
            fits.append((likelihood, model))
    return max(fits, key=lambda fitted: fitted[0])[1]


def _covariance(
    a: np.ndarray, a_groups: np.ndarray, b: np.ndarray, b_groups: np.ndarray, weights: np.ndarray, length: float
) -> np.ndarray:
    return _kernel(a, b, weights, length) + _GROUP_VARIANCE * (a_groups[:, None] == b_groups[None, :])


def _kernel(a: np.ndarray, b: np.ndarray, weights: np.ndarray, length: float) -> np.ndarray:
    # (M, N, D) at once: the points are few (see `_REMEMBERED`), and loops over them would be slower.
    squares = (a[:, None, :] - b[None, :, :]) ** 2
    alone = np.exp(-squares / (2 * length**2)) @ weights
    # Twice the length of the terms for single constants: distances add up over dimensions, and all points would be
    # strangers otherwise.
    together = np.exp(-(squares @ (weights * len(weights))) / (8 * length**2))
    return 0.7 * alone + 0.3 * together
