"""How proposals made at once should differ: waves of a simulated search of eight constants with the tuner's surrogate.

Every wave proposes one move for each device before any of them is measured. What helped is then merged, the strongest
first, as stacks are. Rules: a constant liar assumes a middling result for what runs; the determinantal rule takes what
runs for known later (`Surrogate.expecting`, the tuner's); a factorial screen measures all constants up and down in the
first wave (a Hadamard matrix folded over), and goes on with the determinantal rule. The landscape is the one of
`benchmarks.fleet`, in the coordinates of the tuner's space. `python -m benchmarks.waves [DEVICES ...]`.
"""

from __future__ import annotations

import math
import statistics
import sys
from typing import Any

import numpy as np

from autoresearch.agent.tuner.surrogate import Surrogate, fit

CONSTANTS, CANDIDATES, BOLDNESS = 8, 96, 1.4
REACH, MOST_FIRST = (0.25, 0.35), 3
"""Longest step in coordinates in the first wave and later, and most constants moved at once in the first."""
FAR, MOVED = 0.4, 0.7
"""Distance of a constant's best value from the start, and the share of the constants that have one elsewhere."""
FLOOR, HEIGHT, NOISE = 1.0, 0.5, 0.003
SCREEN_STEP = 0.15
"""Step of a factorial screen, in coordinates."""
SEEDS = 10
DEVICES = {6: 5, 16: 3, 48: 2}
"""Number of devices -> waves."""
RULES = ("constant liar", "determinantal", "factorial screen first")


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    return [row for devices in DEVICES for row in measure(devices)]


def measure(devices: int, seeds: int = SEEDS) -> list[dict[str, Any]]:
    """Measure the share of the possible gain after the last wave, for each rule."""
    waves, rows = DEVICES.get(devices, 3), []
    for rule in RULES:
        gains = [search(rule, devices, waves, seed) for seed in range(seeds)]
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        note = f"after {waves} waves; standard error {error:.1f}, {seeds} runs"
        rows.append({"name": f"{devices} devices, {rule}", "median": statistics.mean(gains), "unit": "%", "note": note})
    return rows


def search(rule: str, devices: int, waves: int, seed: int) -> float:
    """Search for so many waves; return the gain of the last incumbent, in percent of the possible one."""
    rng = np.random.default_rng(seed)
    best = 0.5 + rng.choice((-1, 1), CONSTANTS) * FAR * (rng.random(CONSTANTS) < MOVED)
    start = incumbent = np.full(CONSTANTS, 0.5)
    points = incumbent[None, :]
    scores = truth(points, best) + rng.normal(0.0, NOISE, 1)
    for wave in range(waves):
        moves = propose(rule, rng, points, scores, incumbent, devices, wave)
        found = truth(moves, best) + rng.normal(0.0, NOISE, len(moves))
        known = float(truth(incumbent[None, :], best)[0])
        stack = merged(incumbent, moves, found, known)
        points, scores = np.vstack([points, moves, stack]), np.concatenate([scores, found])
        scores = np.append(scores, truth(stack[None, :], best) + rng.normal(0.0, NOISE, 1))
        if truth(stack[None, :], best)[0] < known:
            incumbent = stack
    gained = truth(start[None, :], best) - truth(incumbent[None, :], best)
    return float(100 * gained[0] / max(truth(start[None, :], best)[0] - FLOOR, 1e-9))


def propose(
    rule: str,
    rng: np.random.Generator,
    points: np.ndarray,
    scores: np.ndarray,
    incumbent: np.ndarray,
    devices: int,
    wave: int,
) -> np.ndarray:
    """Make a wave's moves, float64 (devices, CONSTANTS), from the points (N, CONSTANTS) and scores (N,) so far."""
    if rule == "factorial screen first" and wave == 0:
        design = hadamard(2 ** math.ceil(math.log2(CONSTANTS + 1)))[:, 1 : CONSTANTS + 1]
        rows = np.vstack([design, -design])
        return incumbent + SCREEN_STEP * rows[np.arange(devices) % len(rows)]
    model, moves = fitted(points, scores), np.empty((0, CONSTANTS))
    for _ in range(devices):
        drawn = candidates(rng, incumbent, wave)
        if rule == "constant liar":
            lies = np.full(len(moves), np.median(scores))
            expected = fitted(np.vstack([points, moves]), np.concatenate([scores, lies]))
        else:
            expected = model.expecting(moves, np.zeros(len(moves), int))
        mean, deviation = expected.predict(drawn, group=0)
        moves = np.vstack([moves, drawn[np.argmax(BOLDNESS * deviation - mean)]])
    return moves


def fitted(points: np.ndarray, scores: np.ndarray) -> Surrogate:
    """Fit the tuner's process to files of one structure."""
    return fit(points, np.zeros(len(points), int), scores, np.ones(CONSTANTS), 0.01)


def candidates(rng: np.random.Generator, incumbent: np.ndarray, wave: int) -> np.ndarray:
    """Draw moves of some constants of the incumbent, float64 (CANDIDATES, CONSTANTS), as the tuner does."""
    most, reach = (MOST_FIRST, REACH[0]) if wave == 0 else (CONSTANTS, REACH[1])
    drawn = np.tile(incumbent, (CANDIDATES, 1))
    for point in drawn:
        some = rng.choice(CONSTANTS, int(rng.integers(1, most + 1)), replace=False)
        point[some] += np.clip(rng.normal(0.0, rng.choice((0.05, 0.12, 0.25)), len(some)), -reach, reach)
    return np.clip(drawn, 0.0, 1.0)


def merged(incumbent: np.ndarray, moves: np.ndarray, scores: np.ndarray, known: float) -> np.ndarray:
    """Merge the moves that look better than the score `known`, the strongest first, as a stack does."""
    stack, settled = incumbent.copy(), np.zeros(CONSTANTS, bool)
    for i in np.argsort(scores):
        if scores[i] > known - 1.5 * NOISE:
            break
        step = moves[i] - incumbent
        moved = np.abs(step) > 1e-9
        if (settled & moved & ((stack - incumbent) * step < 0)).any():
            continue
        fresh = moved & ~settled
        stack[fresh] = moves[i][fresh]
        settled |= moved
    return stack


def truth(points: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the bits per byte of points (N, CONSTANTS) without noise, (N,)."""
    return FLOOR + HEIGHT * (1.0 - np.exp(-((points - best) ** 2).mean(-1) / FAR**2))


def hadamard(size: int) -> np.ndarray:
    """Make a Hadamard matrix of a power of two by Sylvester's construction."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


if __name__ == "__main__":
    for count in [int(word) for word in sys.argv[1:]] or DEVICES:
        for one in measure(count):
            print(f"{one['name']}: {one['median']:.1f} {one['unit']} ({one['note']})", flush=True)
