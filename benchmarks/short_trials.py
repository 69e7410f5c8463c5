"""Short trials as screens, on real proposals: their rank correlation with full trials, time saved, improvements lost.

`python -m benchmarks.short_trials FOLDER` lets the tuner propose, and gives every proposal both trials: one of a
quarter of the budget beside the best file's, as `--screen-seconds` does, and then its full ones, whatever the short one
said. No trial is ended early. So the cut that the loop would have used is known for each, and what it would have lost.

Every decided proposal is appended to FOLDER/short_trials.jsonl. The run lives in FOLDER and is taken up where it
stopped, so that it may be run in pieces: `--seconds S` starts no trial that would end after that time. `--replay-only`
reads the rows alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.judge.racing import Racing
from autoresearch.core.judge.screening import Pair, rank_correlation
from autoresearch.core.run import screens
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.run.short_trials import SCREENED, pair_of
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import SHORT_TRIAL, ExperimentRow
from benchmarks._figures import figure, say_figures
from benchmarks._real_run import settings_of_run

TAG, ROWS = "short", "short_trials.jsonl"
PROPOSALS, BUDGET_SECONDS, SHARE = 40, 60.0, 0.25
DRAWS = 2000
"""Bootstrap samples for the interval of the rank correlation."""


def carry_out(
    folder: Path, *, backend: str, preset_name: str, budget: float, proposals: int, seconds: float | None
) -> None:
    """Start the run in `folder`, or resume it, and append a row for each proposal that is decided."""
    overrides = RunOverrides(judge="racing", budget=budget, screen_seconds=SHARE * budget, stop_early="off")
    config, preset = settings_of_run(folder, backend, preset_name, overrides)
    executor, path = LocalExecutor(), folder / ROWS
    limits = Limits(experiments=proposals, hours=None if seconds is None else seconds / 3600)
    try:
        # Drawn with certainty, each stands for itself alone.
        with (
            mock.patch.object(screens, "measured_anyway", lambda *_: (True, 1.0)),
            Run(folder, TAG, config, preset) as run,
        ):
            append(path, run.ledger)  # of a session that died after a decision

            def decided(_: ExperimentRow) -> None:
                append(path, run.ledger)

            Loop(run, Tuner(), Racing(config.judge_options), executor, limits=limits, on_decided=decided).go()
    finally:
        executor.close()


def append(path: Path, reader: LedgerReader) -> None:
    """Append a row for every decided proposal with both trials that has none yet."""
    known = {row["experiment"] for row in read(path)}
    for verdict in reader.events(SCREENED):
        row = reader.experiment(verdict["experiment"])
        if row.number in known or row.state != "decided" or (pair := pair_of(reader, row, verdict)) is None:
            continue
        full = next(one for one in reader.trials(experiment=row.number) if one.subject == row.number)
        short = next(one for one in reader.events(SHORT_TRIAL) if one["experiment"] == one["subject"] == row.number)
        told = {
            "experiment": row.number,
            "category": row.category,
            "status": row.status,
            "short": pair.short,
            "full": pair.full,
            "cut": verdict["cut"],
            "worth": row.status == "keep" or row.judged.get("n", 1) > 1 or row.trials > 1,
            "short_seconds": short["wall_seconds"],
            "full_seconds": full.result["wall_seconds"],
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows; a last line that was cut off by a kill is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def interval(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the central 95 % of the rank correlation over bootstrap samples of the proposals."""
    draw = np.random.default_rng(0)
    found = [
        value
        for _ in range(DRAWS)
        if (value := rank_correlation([pairs[i] for i in draw.integers(0, len(pairs), len(pairs))])) is not None
    ]
    return (float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))) if found else (-1.0, 1.0)


def rows(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sum up: name, median, unit and note of each figure."""
    pairs = [Pair(one["short"], one["full"]) for one in told]
    rank = rank_correlation(pairs)
    low, high = interval(pairs) if pairs else (-1.0, 1.0)
    gone = [one for one in told if one["short"] > one["cut"]]
    full = sum(one["full_seconds"] for one in told)
    saved = sum(one["full_seconds"] for one in gone) - sum(one["short_seconds"] for one in told)
    worse = [one for one in told if one["short"] > 0.0]
    kept, worth = [one for one in told if one["status"] == "keep"], [one for one in told if one["worth"]]

    def share(some: Sequence[Mapping[str, Any]], of: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
        return sum(one in some for one in of), f"of {len(of)}"

    lost, lost_of = share(gone, kept)
    second, second_of = share(gone, worth)
    strict, strict_of = share(worse, kept)
    return [
        figure(
            "rank correlation of short and full differences",
            float("nan") if rank is None else rank,
            "",
            f"{len(pairs)} proposals, 95 % {low:.2f} to {high:.2f}",
        ),
        figure("let go by the cut", len(gone), "proposals", f"of {len(told)}"),
        figure("device time saved", 100 * saved / max(full, 1e-9), "%", "of first full trials, short ones paid"),
        figure("kept changes lost", lost, "changes", lost_of),
        figure("worth a second trial, but let go", second, "changes", second_of),
        figure("kept changes lost without a margin", strict, "changes", f"{strict_of}; all worse in short let go"),
        figure(
            "short trial's share of a full one's time",
            100 * statistics.median([one["short_seconds"] / one["full_seconds"] for one in told] or [float("nan")]),
            "%",
            "start-up and scoring included",
        ),
    ]


def run() -> list[dict[str, Any]]:
    """Run 40 proposals of 60 s on the cpu preset, or resume them; return the figures."""
    folder = Path(__file__).parents[1] / "runs" / "short_trials"
    carry_out(folder, backend="cuda", preset_name="cpu", budget=BUDGET_SECONDS, proposals=PROPOSALS, seconds=None)
    return rows(read(folder / ROWS))


def report(folder: Path, say: Callable[[str], None]) -> None:
    """Say what a short trial would have saved and lost."""
    told = read(folder / ROWS)
    for one in told:
        end = "let go" if one["short"] > one["cut"] else "goes on"
        say(f"  {one['experiment']:>3} {one['status']:<8} short {one['short']:+.4f} full {one['full']:+.4f}: {end}")
    if told:
        say_figures(rows(told), say)


def main() -> None:
    """Run, or resume, and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.short_trials", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--proposals", type=int, default=PROPOSALS)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="training seconds of a full trial")
    parser.add_argument("--seconds", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--replay-only", action="store_true", help="run no trial")
    given = parser.parse_args()
    if not given.replay_only:
        carry_out(
            given.folder,
            backend=given.backend,
            preset_name=given.preset,
            budget=given.budget,
            proposals=given.proposals,
            seconds=given.seconds,
        )
    report(given.folder, print)


if __name__ == "__main__":
    main()
