"""The judge on real trials: edits that change nothing after a real gain, and ten changes whose sign is known.

    python -m benchmarks.real_judge --minutes 10

trains the demo's plain file on one core, with its first gain, that again a few times at the same seeds, and with each
of ten changes, at eight seeds each, and adds the trials to `real_judge.jsonl`; the same command goes on where it
stopped. `python -m benchmarks --only real_judge` then lets the racing judge decide, thousands of times: a trial that it
asks for is one of those stored, of that file and at that seed, eight seeds of the run standing for the eight stored
ones in an order of their own. "Unpaired" is the same judge with a seed drawn anew for every trial, so that nothing is
shared. Greedy decides by one trial each, at fresh seeds or at one. No trial is ended early.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.agent.structural import MENU
from autoresearch.core.config import load_presets
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.trainfile.constants import write_constants, write_preset
from autoresearch.core.trial.request import TrialTerms
from benchmarks._figures import figure
from benchmarks._one_core import run_trial
from benchmarks._pieces import Key, Pieces
from benchmarks.judge import Outcome, SimulatedRun
from benchmarks.trial_overhead import prepared_for

RESULTS = Path(__file__).with_suffix(".jsonl")
FOLDER = Path(backends.__path__[0]) / "cuda"
PRESET = load_presets(FOLDER / "presets.toml")["demo"]
SECONDS = 10.0
SEEDS, AGAIN = range(8), 4
"""Seeds of every file, and trials of the better file at each of them."""
EDITS = 30
"""Edits that change nothing, one after another."""
REPLAYS = 400
PLAIN, BETTER = "plain", "better"
GAIN = {"BATCH_TOKENS": 1024, "DEVICE_BATCH_ROWS": 4}
CHANGES: dict[str, str | dict[str, float]] = {
    "memory": "memory on",
    "followers": "followers on",
    "softcap off": "softcap off",
    "wider": "shape wider",
    "value embeddings off": "value embeddings none",
    "half the tokens a step": {"BATCH_TOKENS": 512, "DEVICE_BATCH_ROWS": 2},
    "two blocks": {"DEPTH": 2},
    "matrices' rate / 4": {"MUON_LR": 0.01},
    "head's rate x 2": {"HEAD_LR": 0.008},
    "embeddings' rate / 3": {"EMBED_LR": 0.2, "VALUE_EMBED_LR": 0.2},
}
"""Edits of the menu by name, and constants."""
SURE = 2.5
"""Standard errors from which on the sign of a change counts as known."""


def files() -> dict[str, str]:
    """Make every file that is trained, by name."""
    plain = write_preset((FOLDER / "train.py").read_text(encoding="utf-8"), PRESET)
    better = write_constants(plain, GAIN)
    menu = {edit.name: edit for edit in MENU}
    found = {PLAIN: plain, BETTER: better}
    for name, change in CHANGES.items():
        changed = menu[change].apply(better) if isinstance(change, str) else write_constants(better, change)
        if changed is None:
            raise ValueError(f"the change {name!r} does not fit the file")
        found[name] = changed
    return found


Score = tuple[str, int, int]
"""File, seed, and which of several equal trials."""


def wanted() -> Iterator[Score]:
    """Every trial, those of all files at one seed before those at the next."""
    for seed in SEEDS:
        for name in (PLAIN, BETTER, *CHANGES):
            yield from ((name, seed, copy) for copy in range(AGAIN if name == BETTER else 1))


def stored() -> dict[Score, float]:
    """Read val_bpb of every trial so far."""
    pieces = Pieces(RESULTS)
    return {score: pieces[score] for score in wanted() if score in pieces}


def measure(minutes: float) -> bool:
    """Run the trials that are lacking, until the time is up; tell whether all are there."""
    sources = files()
    terms = TrialTerms.of_preset("cuda", PRESET, prepared_for(PRESET).folder, SECONDS)

    def one(key: Key) -> float:
        name, seed, _ = key
        with tempfile.TemporaryDirectory() as folder:
            result = run_trial(terms.request(sources[str(name)], Path(folder), int(seed)))
        if result.val_bpb is None:
            raise RuntimeError(f"{name}, seed {seed}: {result.status}: {result.reason}")
        print(f"{name}, seed {seed}: {result.val_bpb:.4f}", file=sys.stderr, flush=True)
        return result.val_bpb

    return Pieces(RESULTS).compute(wanted(), one, 60 * minutes, cores=1)


@dataclass
class Replayed:
    """Stored trials in the place of new ones: `measure` of a `SimulatedRun`. Files are told by their level."""

    trials: dict[Score, float]
    names: dict[float, str]
    rng: random.Random
    paired: bool

    def __post_init__(self) -> None:
        self.order = self.rng.sample(list(SEEDS), len(SEEDS))
        self.known: dict[int, int] = {}

    def __call__(self, level: float, seed: int) -> float:
        """Return a stored val_bpb of the file at this level and at the stored seed that stands for this one."""
        if self.paired:
            at = self.known.setdefault(seed, self.order[len(self.known) % len(self.order)])
        else:
            at = self.rng.choice(self.order)
        name = self.names[level]
        return self.trials[name, at, self.rng.randrange(AGAIN) if name == BETTER else 0]


def effect(trials: dict[Score, float], name: str, base: str) -> tuple[float, float]:
    """Mean difference of two files over the seeds, and its standard error, in bpb."""

    def mean(file: str, seed: int) -> float:
        return statistics.fmean(value for (one, at, _), value in trials.items() if (one, at) == (file, seed))

    differences = [mean(name, seed) - mean(base, seed) for seed in SEEDS]
    return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))


def replay(
    trials: dict[Score, float], start: str, effects: list[tuple[float, str]], seed: int, paired: bool
) -> Outcome:
    """Let the racing judge decide the changes, (difference in bpb, file) each, one after another from `start`."""
    levels = {0.0: start} | {delta: name for delta, name in effects if delta}
    left = iter([delta for delta, _ in effects])
    judge = Racing(JudgeOptions("demo", stop_early="off"))
    source = Replayed(trials, levels, random.Random(seed), paired)
    return SimulatedRun(seed, lambda _: next(left), 0.0, judge, measure=source).go(len(effects))


def after_a_gain(trials: dict[Score, float]) -> Iterator[dict[str, Any]]:
    """The gain, and then edits that change nothing: how many of those are kept."""
    gain = effect(trials, BETTER, PLAIN)[0]
    for paired in (True, False):
        runs = [replay(trials, PLAIN, [(gain, BETTER), *[(0.0, BETTER)] * EDITS], n, paired) for n in range(REPLAYS)]
        # A step of nothing stands for the gained file: what was kept beyond the first is a false keep.
        kept = [run.keeps - 1 for run in runs]
        worst = f"{sum(one > 1 for one in kept)} of {REPLAYS} runs keep more than one, the worst {max(kept)}"
        spent = statistics.fmean(run.trials for run in runs)
        title = f"{EDITS} edits that change nothing after a gain of {-gain:.3f}, {'paired' if paired else 'unpaired'}"
        yield figure(f"{title}: kept", statistics.fmean(kept), "a run", f"{worst}; {spent:.0f} trials a run")
    for fixed in (False, True):
        kept = [greedy(trials, random.Random(n), fixed) for n in range(REPLAYS)]
        title = f"greedy, the same at {'one seed' if fixed else 'fresh seeds'}"
        yield figure(f"{title}: kept", statistics.fmean(kept), "a run", f"the worst {max(kept)}")


def greedy(trials: dict[Score, float], rng: random.Random, fixed: bool) -> int:
    """How many of EDITS trials of the better file greedy takes for improvements, after the first of it."""
    draw: Callable[[], int] = partial(rng.choice, SEEDS)
    seed, kept = draw(), 0
    best = trials[BETTER, seed, rng.randrange(AGAIN)]
    for _ in range(EDITS):
        value = trials[BETTER, seed if fixed else draw(), rng.randrange(AGAIN)]
        kept, best = kept + (value < best), min(value, best)
    return kept


def verdicts(trials: dict[Score, float]) -> Iterator[dict[str, Any]]:
    """Each of the ten changes alone, on the better file: how often it is kept, and in how many trials."""
    right: dict[bool, list[float]] = {True: [], False: []}
    spent: dict[bool, list[float]] = {True: [], False: []}
    for name in CHANGES:
        delta, error = effect(trials, name, BETTER)
        known = abs(delta) > SURE * error
        words = []
        for paired in (True, False):
            runs = [replay(trials, BETTER, [(delta, name)], n, paired) for n in range(REPLAYS)]
            kept = statistics.fmean(run.keeps for run in runs)
            used = statistics.fmean(run.trials for run in runs)
            words.append(f"{'paired' if paired else 'unpaired'}: kept {100 * kept:.0f} %, {used:.1f} trials")
            if known:
                right[paired].append(kept if delta < 0 else 1.0 - kept)
                spent[paired].append(used)
        sign = "better" if delta < 0 else "worse"
        note = f"{sign if known else 'sign not known'}, standard error {error:.4f}; {'; '.join(words)}"
        yield figure(name, delta, "bpb", note)
    for paired in (True, False):
        title = f"right verdicts on changes of known sign, {'paired' if paired else 'unpaired'}"
        note = (
            f"{len(right[paired])} changes, {statistics.fmean(spent[paired]):.1f} trials each, the start's two included"
        )
        yield figure(title, 100 * statistics.fmean(right[paired]), "%", note)


def run() -> list[dict[str, Any]]:
    """Replay the judge on the stored trials."""
    trials = stored()
    if lacking := sum(one not in trials for one in wanted()):
        raise RuntimeError(f"{lacking} trials are lacking: python -m benchmarks.real_judge --minutes 10")
    return [*after_a_gain(trials), *verdicts(trials)]


def main() -> int:
    """Run trials until the time is up or none is lacking."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_judge", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="start no trial after so long")
    complete = measure(parser.parse_args().minutes)
    print("all trials are there" if complete else "the time is up; give the same command again", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
