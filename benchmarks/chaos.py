"""Chaos on the null backend: signals, a damaged ledger and a full disk at random moments, many times.

`python -m benchmarks.chaos 200` sends SIGKILL 200 times to the loop and to what it started. `--term` sends SIGTERM,
`--truncate` also cuts the ledger off at a random byte after every second signal, and `--full-disk` runs on a small
tmpfs that is filled up to a random rest instead. Trials here have a fixed number of steps, so that the decisions of an
undisturbed run can be compared one by one.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._chaos_arena import Arena, Launch

KILLS = 20
EXPERIMENTS_PER_KILL = 0.15
DISK_BYTES, MOST_LEFT_BYTES = 96 * 2**20, 2**20
"""Size of the small tmpfs, and the most that is left free on it."""


@dataclass(frozen=True)
class Outcome:
    """Result of one disturbed run."""

    kills: int
    experiments: int
    differences: int
    """Experiments that differ from the undisturbed run's in source, status, result or number of trials."""
    orphans: int | None
    """Processes that outlived the loop; None where they were not counted."""
    disagreements: tuple[str, ...]
    """Records that disagree, of ledger, journal, git, results.tsv and best_train.py."""
    seconds: float
    refusals: int = 0
    """Times that the loop ended by itself with one line about the full disk."""
    unclear: int = 0
    """Times that it ended by itself in any other way, such as a traceback."""


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    with tempfile.TemporaryDirectory() as name:
        outcome = disturb(Path(name), KILLS, seed=0)
    note = f"{outcome.kills} kills, {outcome.experiments} experiments, {outcome.seconds:.0f} s"
    counts = (outcome.differences, outcome.orphans, len(outcome.disagreements))
    names = ("experiments that differ from an undisturbed run", "orphan processes", "records that disagree")
    return [{"name": n, "median": count, "unit": "", "note": note} for n, count in zip(names, counts, strict=True)]


def disturb(
    folder: Path,
    kills: int,
    *,
    seed: int,
    number: int = signal.SIGKILL,
    truncate: bool = False,
    experiments: int | None = None,
    minutes: float = math.inf,
    launch: Launch | None = None,
    shared: Path | None = None,
) -> Outcome:
    """Signal a run `kills` times, let it finish, and compare it with an undisturbed one.

    `truncate` also cuts the ledger off at a random byte after every second signal. After `minutes` no more are sent.
    `launch` and `shared` are the arena's.
    """
    started, rng = time.monotonic(), random.Random(seed)
    experiments = experiments or max(3, round(kills * EXPERIMENTS_PER_KILL))
    calm, wild = (Arena(folder / name, shared or folder, experiments, launch) for name in ("calm", "wild"))
    calm_since = time.monotonic()
    calm.finish()
    # Up to a whole experiment and the start before it, so that every moment is met on a slow machine too.
    reach = max(2.5, 1.5 * (time.monotonic() - calm_since) / experiments)
    orphans = sent = 0
    for kill in range(kills):
        if time.monotonic() - started > 60 * minutes:
            break
        sent += 1
        orphans += wild.kill_after(rng.uniform(0.2, reach), number)
        ledger = wild.run_folder / "ledger.sqlite"
        if truncate and kill % 2 and ledger.is_file() and ledger.stat().st_size:
            os.truncate(ledger, rng.randrange(ledger.stat().st_size))
    wild.finish()
    seconds = time.monotonic() - started
    return Outcome(sent, experiments, differences(calm, wild), orphans, tuple(wild.disagreements()), seconds)


def differences(calm: Arena, wild: Arena) -> int:
    """Count the experiments of one run that differ in the other."""
    expected, found = calm.story(), wild.story()
    return sum(one != other for one, other in zip(expected, found, strict=False)) + abs(len(expected) - len(found))


def fill_up(folder: Path, times: int, *, seed: int) -> Outcome:
    """Run `times` times on a nearly full disk, then to the end. Needs a namespace of its own.

    `namespace` gives one: this mounts the small disk.
    """
    started, rng = time.monotonic(), random.Random(seed)
    experiments = max(3, round(times * EXPERIMENTS_PER_KILL))
    calm, wild = (Arena(folder / name, folder, experiments) for name in ("calm", "wild"))
    calm.finish()
    runs = wild.run_folder.parent
    runs.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(runs)], check=True)
    said = [wild.run_full(runs / "filler", int(MOST_LEFT_BYTES ** rng.uniform(0.0, 1.0))) for _ in range(times)]
    wild.finish()
    seconds = time.monotonic() - started
    counts = {"refusals": said.count("refused"), "unclear": said.count("unclear")}
    return Outcome(times, experiments, differences(calm, wild), None, tuple(wild.disagreements()), seconds, **counts)


def namespace(arguments: list[str]) -> list[str]:
    """Return a command that gives another one its own mounts, and the right to make them."""
    return ["unshare", "-Urm", *arguments]


def main() -> None:
    """Make one kind of trouble, as often as asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("times", type=int, nargs="?", default=KILLS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--experiments", type=int, help="in the run  [default: one for about seven signals]")
    parser.add_argument("--minutes", type=float, default=math.inf, help="send no more signals after that")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--term", action="store_true", help="SIGTERM in place of SIGKILL")
    kind.add_argument("--truncate", action="store_true", help="cut the ledger off as well")
    kind.add_argument("--full-disk", action="store_true", help="fill the disk instead")
    kind.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        if chosen.full_disk:
            again = [sys.executable, "-m", "benchmarks.chaos", str(chosen.times), "--seed", str(chosen.seed)]
            sys.exit(subprocess.run(namespace([*again, "--inside", where]), check=False).returncode)
        if chosen.inside:
            print(fill_up(chosen.inside, chosen.times, seed=chosen.seed))
            return
        number = signal.SIGTERM if chosen.term else signal.SIGKILL
        limits = {"experiments": chosen.experiments, "minutes": chosen.minutes}
        print(disturb(Path(where), chosen.times, seed=chosen.seed, number=number, truncate=chosen.truncate, **limits))


if __name__ == "__main__":
    main()
