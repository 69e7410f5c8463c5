"""How much noise two trials share that begin with the same weights, read the text in the same order, or both.

A file as it is, once more as it is, and with one constant changed are trained at every pair of a first draw of the
weights and an order of the text. The standard deviation of the difference of two trials tells what they share: over
trials with another draw and another order, with one of them in common, and with both. What is left with both is the
machine's own noise where the files are equal, and also what the change does to each seed where they are not.

`python -m benchmarks.seed_shares FOLDER --backend cuda --preset cpu --budget 60` goes on with what FOLDER holds.
Trials are run one after another. On a machine that does other things too the noise is mostly the machine's, so that
`--batches 60` ends every trial after as many batches, whatever the time, and lets the file take them for its budget.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.trainfile.constants import read_constants, write_constants, write_preset
from autoresearch.core.trial.request import TrialTerms
from autoresearch.core.trial.supervisor import run_trial
from benchmarks._pieces import Key, Pieces
from benchmarks.trial_overhead import prepared_for

SEEDS = 4
"""First draws of the weights, and orders of the text; every pair of them is trained."""
BATCHES = 60
"""Batches of a trial of the null backend."""
FACTOR = 1.3
"""Factor on the constant of the changed file."""
CONSTANTS = {"null": "LEARNING_RATE", "cuda": "MUON_LR", "mlx": "MUON_LR"}
FILES = ("as it is", "as it is, again", "changed")
SHARED = ("neither", "first weights", "order of the text", "both")
DRAW = """

_built_with_the_seed = build


def build(spec):
    from dataclasses import replace

    return _built_with_the_seed(replace(spec, seed={seed}))
"""
"""Appended to a file: its weights are drawn with a seed of their own, and the trial's seed orders the text alone."""
COUNTED = """

_trained_by_time = train


class _Counted:
    def __init__(self, inner):
        self.inner, self.progress = inner, 0.0

    def __getattr__(self, name):
        return getattr(self.inner, name)


class _CountedData(_Counted):
    def batches(self, *args, **more):
        for number, batch in enumerate(self.inner.batches(*args, **more)):
            if number >= {batches}:
                return
            self.clock.progress = number / {batches}
            yield batch


def train(model, data, clock):
    counted = _CountedData(data)
    counted.clock = _Counted(clock)
    return _trained_by_time(model, counted, counted.clock)
"""
"""Appended to a file: it trains for that many batches, and its clock counts them."""


def one_trial(key: Key) -> dict[str, Any]:
    """Train one file with one draw and one order; return its score and what tells how busy the machine was."""
    backend, preset_name, budget, batches, constant, file, draw, order = key
    folder = Path(backends.__path__[0]) / str(backend)
    preset = load_presets(folder / "presets.toml")[str(preset_name)]
    source = write_preset((folder / "train.py").read_text(encoding="utf-8"), preset)
    if file == FILES[2]:
        value = read_constants(source)[str(constant)]
        assert isinstance(value, int | float)
        source = write_constants(source, {str(constant): FACTOR * value})
    terms = TrialTerms.of_preset(str(backend), preset, prepared_for(preset).folder, float(budget))
    with tempfile.TemporaryDirectory() as place:
        source += DRAW.format(seed=draw) + (COUNTED.format(batches=batches) if batches else "")
        request = terms.request(source, Path(place), int(order))
        # The appended functions are this benchmark's own, and nobody gains by the score.
        result = run_trial(replace(request, gate=False, audit=False))
    if result.status != "ok":
        raise RuntimeError(f"{file}, draw {draw}, order {order}: {result.status}: {result.reason}")
    print(f"  {file}, draw {draw}, order {order}: {result.val_bpb}", file=sys.stderr)
    return {"val_bpb": result.val_bpb, "tokens": result.tokens}


def components(scores: np.ndarray) -> np.ndarray:
    """Return the variances of draws, of orders and of the rest in scores by draw and order (at least two of each).

    Two-way random effects, by the mean squares (Searle, Casella, McCulloch 1992, "Variance components", chapter 4);
    an estimate may be below zero.
    """
    draws, orders = scores.shape
    by_draw, by_order, mean = scores.mean(axis=1, keepdims=True), scores.mean(axis=0, keepdims=True), scores.mean()
    rest = float(((scores - by_draw - by_order + mean) ** 2).sum()) / ((draws - 1) * (orders - 1))
    of_draw = (orders * float(((by_draw - mean) ** 2).sum()) / (draws - 1) - rest) / orders
    of_order = (draws * float(((by_order - mean) ** 2).sum()) / (orders - 1) - rest) / draws
    return np.array([of_draw, of_order, rest])


def variances(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the variance of the difference of two trials for each of SHARED; scores are by draw and order."""
    apart, paired = components(mine) + components(theirs), components(mine - theirs)
    return np.array([
        apart.sum(),
        paired[0] + apart[1] + apart[2],
        apart[0] + paired[1] + apart[2],
        paired.sum(),
    ])  # fmt: skip


def spreads(mine: np.ndarray, theirs: np.ndarray) -> list[tuple[float, float, float]]:
    """Return standard deviation, share of the variance that is gone, and that share's standard error, for SHARED.

    The error is a jackknife's over draws and orders; NaN with fewer than three of them.
    """
    found = variances(mine, theirs)
    errors = np.full(len(found), math.nan)
    if min(mine.shape) > 2:
        gone = [
            1.0 - part / part[0]
            for axis, size in enumerate(mine.shape)
            for part in (variances(np.delete(mine, n, axis), np.delete(theirs, n, axis)) for n in range(size))
        ]
        size = len(mine)
        errors = np.sqrt(((np.array(gone) - np.mean(gone, axis=0)) ** 2).sum(axis=0) * (size - 1) / size)
    return [(math.sqrt(max(0.0, one)), 1.0 - one / found[0], error) for one, error in zip(found, errors, strict=True)]


def rows_of(scores: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement, of scores by file, draw and order."""
    rows = []
    for name, other in (("equal files", FILES[1]), ("changed file", FILES[2])):
        for shared, (deviation, gone, error) in zip(SHARED, spreads(scores[FILES[0]], scores[other]), strict=True):
            note = f"{gone:.0%} of the variance gone, standard error {error:.0%}" if shared != SHARED[0] else ""
            rows.append({"name": f"{name}, {shared} shared", "median": deviation, "unit": "bpb", "note": note})
    return rows


def keys(backend: str, preset: str, budget: float, batches: int, constant: str, seeds: int) -> list[Key]:
    """Return every trial; files take turns, so that a slow hour hits all of them."""
    pairs = itertools.product(range(seeds), range(seeds))
    return [(backend, preset, budget, batches, constant, file, draw, order) for draw, order in pairs for file in FILES]


def measure(path: Path, wanted: Sequence[Key], seconds: float = math.inf) -> list[dict[str, Any]]:
    """Run the trials that are missing and return the figures; none before all are there."""
    pieces = Pieces(path)
    if not pieces.compute(wanted, one_trial, seconds, cores=1):
        return []
    seeds = math.isqrt(len(wanted) // len(FILES))
    scores = {file: [pieces[key]["val_bpb"] for key in wanted if key[5] == file] for file in FILES}
    return rows_of({file: np.array(some).reshape(seeds, seeds) for file, some in scores.items()})


def run() -> list[dict[str, Any]]:
    """Measure the null backend, by batches."""
    path = Path(__file__).parents[1] / "runs" / "seed_shares.jsonl"
    return measure(path, keys("null", "demo", 30.0, BATCHES, CONSTANTS["null"], SEEDS))


def main() -> None:
    """Run, or go on, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seed_shares", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", choices=sorted(CONSTANTS), default="null")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--budget", type=float, default=1.0, help="training seconds of a trial")
    parser.add_argument("--batches", type=int, default=0, help="end a trial after so many, and not by time")
    parser.add_argument("--constant", help="constant that the changed file has larger by a third")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="draws, and orders: three times its square trials")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further trial after this time")
    given = parser.parse_args()
    constant = given.constant or CONSTANTS[given.backend]
    wanted = keys(given.backend, given.preset, given.budget, given.batches, constant, given.seeds)
    rows = measure(given.folder / "seed_shares.jsonl", wanted, given.seconds)
    if not rows:
        raise SystemExit(3)
    for row in rows:
        print(f"{row['name']}: {row['median']:.5f} {row['unit']} {row['note']}")


if __name__ == "__main__":
    main()
