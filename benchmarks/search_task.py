"""How quickly the tuner improves the demo's plain file, against random search and TPE.

The task: the `cuda` backend's plain file of the demo on one core, ten seconds of training a trial, scored on 40 kB of
text; thirty experiments, three seeds. All searches of a seed start from the same trial, under the same greedy judge.
`tuner` is the whole tuner. `random` draws from the same menu of edits and the same constants in the same box: each edit
and each constant is as likely as another. `random steps` moves one to three constants of the incumbent, and `TPE`
draws all constants, which are what it can search. The seeds are fresh; the task is not, for earlier tuners were
developed with it in sight. A trial is a forked process that trains on the real feed's rows and scores as `ar` does, but
by a clock that counts the processor's time: hundreds of trials on a machine that others use would not compare by the
wall's. It has no sandbox and no audit.

    python -m benchmarks.search_task --minutes 10

runs trials for that long and adds them to `search_task.jsonl`; the same command goes on where it stopped. The table and
the picture are made from that file by `python -m benchmarks --only search_task`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.agent.structural import MENU, Edit
from autoresearch.agent.syntax.constant_priors import repair
from autoresearch.agent.syntax.constants import constants_of, numbers_of
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.agent.tuner.space import Dimension
from autoresearch.core.config import data_dir, load_presets
from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.prepare import prepare
from autoresearch.core.proposal import History, Proposal
from autoresearch.core.trainfile.constants import write_constants, write_preset
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trial.request import TrialTerms
from benchmarks._one_core import run_trial
from benchmarks.search import (
    Measured,
    Searcher,
    experiments_to_reach,
    explore,
    plain_tpe,
    random_steps,
    space,
    start_of,
)

RESULTS = Path(__file__).with_suffix(".jsonl")
PICTURE = Path(__file__).with_suffix(".png")
FOLDER = Path(backends.__path__[0]) / "cuda"
PRESET = load_presets(FOLDER / "presets.toml")["demo"]
SECONDS = 10.0
"""Of training: the demo's."""


def random_changes(history: History) -> Proposal:
    """Draw an edit of the menu or a new value for one constant of the box, each as likely as another."""
    rng = np.random.default_rng([history.seed, len(history.attempts)])
    source, tried = history.incumbent.source, tried_programs(history)
    changes: list[Edit | Dimension] = [*MENU, *space(history)]
    while True:
        change = changes[int(rng.integers(len(changes)))]
        if isinstance(change, Edit):
            changed = change.apply(source)
        else:
            value = change.value(float(rng.random()))
            changed = write_constants(source, repair({**numbers_of(source), change.name: value}))
        if changed is not None and fingerprint(changed) not in tried:
            return Proposal(source=changed, hypothesis="", category=change.category)


SEARCHERS: dict[str, Searcher] = {
    "random": random_changes,
    "random steps": random_steps,
    "TPE": plain_tpe,
    "tuner": lambda history: Tuner().propose(history),
}
EXPERIMENTS, SEEDS = 30, (20, 21, 22)
OPTIONS = PrepareOptions(
    corpus="stdlib", vocabularies=(2048,), seq_lens=(256,), val_bytes=40_000, test_bytes=20_000, shards=None
)


_METRICS = ("tokens", "steps", "params")
_MEASURED = ("status", "val_bpb", *_METRICS, "train_seconds")


class Stopped(Exception):  # noqa: N818 - no error
    """The time is up."""


class Trials:
    """Bits per byte of sources: from the file where it has them, from a trial otherwise."""

    def __init__(self, source: str, path: Path, deadline: float) -> None:
        """`source` is where the searches start; after `deadline`, by the monotonic clock, no trial is started."""
        self.start, self._path, self._deadline = source, path, deadline
        self._known = stored(path)
        self._prepared: Prepared | None = None

    def measure(self, searcher: str, seed: int, experiment: int, source: str) -> Measured:
        """Look a trial up in the file, or run it. Raises `Stopped` when it would have to be run after the deadline."""
        mark = hashlib.sha256(source.encode()).hexdigest()[:16]
        row = self._known.get((searcher, seed), {}).get(experiment)
        if row is None or row["source"] != mark:
            row = {"searcher": searcher, "seed": seed, "experiment": experiment, "source": mark}
            row |= self._same_start(seed, mark) if experiment == 0 else {}
            if "status" not in row:
                row |= self._run(source, seed)
            _add(self._known, row)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{searcher} {seed} {experiment}: {row['status']} {row['val_bpb']}", file=sys.stderr, flush=True)
        return row["val_bpb"], {name: row[name] for name in _METRICS}

    def _same_start(self, seed: int, mark: str) -> dict[str, Any]:
        """The first trial of another search of that seed: all of one seed begin with the same trial."""
        for (_, other), rows in self._known.items():
            if other == seed and 0 in rows and rows[0]["source"] == mark:
                return {name: rows[0][name] for name in (*_MEASURED, "constants")}
        return {}

    def _run(self, source: str, seed: int) -> dict[str, Any]:
        if time.monotonic() > self._deadline:
            raise Stopped
        if self._prepared is None:
            self._prepared = prepare(OPTIONS, data_dir(), lambda line: print(f"  {line}", file=sys.stderr))
        terms = TrialTerms.of_preset("cuda", PRESET, self._prepared.folder, SECONDS)
        with tempfile.TemporaryDirectory() as folder:
            result = run_trial(terms.request(source, Path(folder), seed))
        start, now = (constants_of(text) for text in (self.start, source))
        changed = {name: value for name, value in now.items() if value != start.get(name)}
        return {**{name: getattr(result, name) for name in _MEASURED}, "constants": changed}


Stored = dict[tuple[str, int], dict[int, dict[str, Any]]]
"""Rows by searcher and seed, then by experiment."""


def stored(path: Path) -> Stored:
    """Read every trial of the file that still counts."""
    known: Stored = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        _add(known, json.loads(line))
    return known


def _add(known: Stored, row: dict[str, Any]) -> None:
    """Add a row; later rows of the same search are dropped, because it took another way there."""
    rows = known.setdefault((row["searcher"], row["seed"]), {})
    for later in [experiment for experiment in rows if experiment >= row["experiment"]]:
        del rows[later]
    rows[row["experiment"]] = row


def task_source() -> str:
    """Return the backend's train file with the demo preset's constants."""
    return write_preset((FOLDER / "train.py").read_text(encoding="utf-8"), PRESET)


def search(name: str, seed: int, trials: Trials) -> None:
    """Run one search, as far as the trials go."""
    start = start_of(trials.start, seed, backend="cuda", device="cpu", preset="demo", budget_seconds=SECONDS)

    def measure(experiment: int, source: str) -> Measured:
        return trials.measure(name, seed, experiment, source)

    explore(SEARCHERS[name], trials.start, measure, start, EXPERIMENTS)


def best_so_far(rows: dict[int, dict[str, Any]]) -> np.ndarray:
    """Compute the best score after the baseline and after each experiment, in bpb."""
    values = [rows[experiment]["val_bpb"] for experiment in range(EXPERIMENTS + 1)]
    return np.minimum.accumulate([np.inf if value is None else value for value in values])


def run() -> list[dict[str, Any]]:
    """Report the median best-so-far of each searcher from the stored trials, and draw the picture."""
    known = stored(RESULTS)
    lacking = [name for name in SEARCHERS for seed in SEEDS if len(known.get((name, seed), {})) <= EXPERIMENTS]
    if lacking:
        raise RuntimeError(
            f"trials are lacking for {', '.join(lacking)}: python -m benchmarks.search_task --minutes 10"
        )
    curves = {name: np.array([best_so_far(known[name, seed]) for seed in SEEDS]) for name in SEARCHERS}
    medians = {name: np.median(curve, axis=0) for name, curve in curves.items()}
    draw(curves)
    note = f"{len(SEEDS)} seeds, {EXPERIMENTS} experiments of {SECONDS:g} s, cuda demo on a CPU"
    rows = [
        {"name": f"search task: {name}, best after {at}", "median": float(median[at]), "unit": "bpb", "note": note}
        for name, median in medians.items()
        for at in (0, 2, 5, 10, 15, 20, 30)
    ]
    for name in ("random", "random steps", "TPE"):
        reached = experiments_to_reach(medians["tuner"][1:], float(medians[name][-1]))
        title = f"search task: tuner reaches what {name} has after {EXPERIMENTS}"
        rows.append({"name": title, "median": reached, "unit": "experiments", "note": note})
    return rows


def draw(curves: dict[str, np.ndarray]) -> None:
    """Draw median and range of the best so far."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, curve in curves.items():
        line = axes.step(range(curve.shape[1]), np.median(curve, axis=0), where="post", label=name)[0]
        axes.fill_between(
            range(curve.shape[1]), curve.min(0), curve.max(0), step="post", alpha=0.15, color=line.get_color()
        )
    axes.set(xlabel="experiments", ylabel="best val_bpb so far")
    axes.legend(title="median and range of three seeds")
    figure.savefig(PICTURE, dpi=120)
    pyplot.close(figure)


def main() -> int:
    """Run trials until the time is up or none is lacking."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_task", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="start no trial after so long")
    parser.add_argument("--only", choices=list(SEARCHERS), action="append")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append", help="several may run side by side")
    parser.add_argument("--train-file", type=Path, help="start from a copy, so that a run in pieces is not disturbed")
    arguments = parser.parse_args()
    source = arguments.train_file.read_text(encoding="utf-8") if arguments.train_file else task_source()
    trials = Trials(source, RESULTS, deadline=time.monotonic() + 60 * arguments.minutes)
    try:
        for seed in arguments.seed or SEEDS:
            for name in arguments.only or SEARCHERS:
                search(name, seed, trials)
    except Stopped:
        print("the time is up; give the same command again to go on", file=sys.stderr)
        return 0
    print("all trials are there", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
