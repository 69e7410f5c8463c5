"""`ar ablate`: take kept changes out again, and find those that no longer help."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import add_options
from autoresearch.core.cli.run.options import (
    RESEARCHERS,
    ResearcherOptions,
    check_researcher,
    make_researcher,
)

if TYPE_CHECKING:
    from autoresearch.core.followup.ablate import Change, Repair
    from autoresearch.core.followup.remeasure import Bench
    from autoresearch.core.judge.noise import Noise
    from autoresearch.core.proposal import History
    from autoresearch.core.store.ledger import Ledger
    from autoresearch.core.store.rows import ExperimentRow, RunRow

SEED_OFFSET, SEEDS_PER_CALL = 1_500_000_000, 1000
"""Seeds that no loop and no `ar verify` uses; each call takes new ones."""
PROPOSED = "ablated_train.py"
"""File in the run's folder that the smaller train file is written to."""
REPAIRERS = tuple(name for name in RESEARCHERS if name not in ("tuner", "mix"))
"""Researchers that can follow an instruction in plain language."""


@click.command()
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option("--seeds", type=click.IntRange(min=1), default=2, metavar="N", help="Trials of each train file.")
@click.option(
    "--researcher",
    type=click.Choice(REPAIRERS),
    help="Researcher that takes out changes a merge cannot.  [default: none, such changes stay]",
)
@add_options(ResearcherOptions, "options")
@pass_settings
def ablate(settings: Settings, tag: str | None, seeds: int, researcher: str | None, options: ResearcherOptions) -> None:
    """Take each kept change out of a run's best file in turn, and measure the rest.

    Changes whose loss is below half the noise are then taken out together. If that file is as good as the best one, it
    is written into the run's folder for you to review. A change that later changes were built on cannot be taken out
    by a merge: a --researcher can try it, else it stays.
    """
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.cli.train import cancel_on_signal
    from autoresearch.core.errors import PrerequisiteError
    from autoresearch.core.followup.ablate import kept_changes
    from autoresearch.core.followup.remeasure import Bench, usual_speeds
    from autoresearch.core.report.terminal.live import live_view
    from autoresearch.core.store.ledger import Ledger

    if researcher is not None:
        check_researcher(researcher, options)
    with open_reader(settings.workspace, tag) as reader:
        folder = reader.folder
    with Ledger(folder) as ledger:
        run, best, changes = ledger.run(), ledger.incumbent(), kept_changes(ledger)
        if best is None or not changes:
            raise PrerequisiteError(f"the run {run.tag!r} has no kept change.", fix="let `ar loop` find one first")
        final, noise = ledger.text(best.source_sha256), _noise(ledger, run.config["preset"], best.val_bpb)
        call = len(ledger.events("ablated")) + 1
        most = seeds * (len(changes) + 2)
        settings.say(f"{run.tag}: {len(changes)} kept changes, at most {most} trials; {noise.words()}")
        with cancel_on_signal() as cancel, live_view(run.config["train_seconds"], verbosity=settings.verbosity) as view:
            usual = {final: usual_speeds(ledger, best.number)}
            bench = Bench(run.config, folder / "ablate" / str(call), "val", view, cancel, usual, settings.say)
            costs: list[Any] = []
            repair = None if researcher is None else _repair(settings, researcher, options, ledger, costs)
            first = run.config["seed"] + SEED_OFFSET + SEEDS_PER_CALL * call
            study = Study(bench, first, seeds, noise, repair)
            record = {"tag": run.tag, **study.go(final, changes), "repairs": [vars(cost) for cost in costs]}
        source = record.pop("source")
        record["path"] = _propose(folder / PROPOSED, source)
        ledger.note("ablated", best.number, record)
    if settings.json:
        click.echo(json.dumps(record))
    else:
        show(settings, record)


class Study:
    """Measures train files that lack one kept change, or several."""

    def __init__(self, bench: Bench, seed: int, seeds: int, noise: Noise, repair: Repair | None = None) -> None:
        self.bench, self.seed, self.seeds, self.noise, self.repair = bench, seed, seeds, noise, repair

    def go(self, final: str, changes: Sequence[Change]) -> dict[str, Any]:
        """Measure every file. `source` in the result is the smaller file, None when it is not as good as the final."""
        from autoresearch.core.followup.ablate import as_good, smallest, without

        reference = self._measure("final", final)
        rows, removable = [], []
        for change in changes:
            attempt = without(final, change, self.repair)
            row: dict[str, Any] = {"experiment": change.experiment, "description": change.description}
            row["repaired"] = attempt.repaired
            if attempt.source is None:
                rows.append({**row, "verdict": attempt.state, "delta": None, "probability": None})
                continue
            values = self._measure(f"without-{change.experiment}", attempt.source)
            fine, probability = as_good(values, reference, self.noise)
            if fine:
                removable.append(change)
            delta = sum(values) / len(values) - sum(reference) / len(reference)
            rows.append({**row, "verdict": "idle" if fine else "earns", "delta": delta, "probability": probability})
        source, gone = smallest(final, removable, self.repair)
        proposed = bool(gone) and (
            len(removable) == 1 or as_good(self._measure("small", source), reference, self.noise)[0]
        )
        return {
            "final_val_bpb": reference,
            "sigma": self.noise.sigma,
            "changes": rows,
            "removed": sorted(change.experiment for change in gone) if proposed else [],
            "source": source if proposed else None,
        }

    def _measure(self, name: str, source: str) -> list[float]:
        return [self.bench.measure(f"{name}-{k + 1}", source, self.seed + k) for k in range(self.seeds)]


def show(settings: Settings, record: dict[str, Any]) -> None:
    """Print a line for each change, then the path of the smaller file."""
    words = {
        "idle": "not missed",
        "earns": "earns its place",
        "conflict": "stays: later changes were built on it",
        "gone": "replaced by later changes",
    }
    for row in record["changes"]:
        delta = "" if row["delta"] is None else f" ({row['delta']:+.6f} bpb without it)"
        delta += ", taken out by the researcher" if row["repaired"] else ""
        what = " ".join(row["description"].split())
        click.echo(f"{row['experiment']}\t{words[row['verdict']]}{delta}\t{what}")
    if record["path"]:
        removed = ", ".join(str(number) for number in record["removed"])
        settings.say(f"as good without {removed}, review it: {record['path']}")
    else:
        settings.say("the best file stays as it is")


def _noise(ledger: Any, preset: str, level: float | None) -> Noise:
    from autoresearch.core.judge.racing import Racing
    from autoresearch.core.run.evidence import gather_repeats

    return Racing(preset=preset).pool(gather_repeats(ledger), 1.0 if level is None else level)


def _propose(path: Path, source: str | None) -> str | None:
    from autoresearch.core.store.exports import write_text

    if source is None:
        return None
    write_text(path, source)
    return str(path)


def _repair(
    settings: Settings, researcher: str, options: ResearcherOptions, ledger: Ledger, costs: list[Any]
) -> Repair:
    from autoresearch.core.followup.ablate import repair_by

    made = make_researcher(researcher, options, run_folder=ledger.folder, workspace=settings.workspace)
    best = ledger.incumbent()
    if best is None:
        raise ValueError("a run without a best file has nothing to repair")
    return repair_by(made, _context(ledger.run(), best, ledger.text(best.source_sha256)), costs.append)


def _context(run: RunRow, best: ExperimentRow, source: str) -> History:
    """Make the history that a researcher sees when it takes a change out."""
    from autoresearch.core.run.history import attempt_of, history_of

    incumbent = attempt_of(best, source)
    return history_of(run.config, "", [incumbent], incumbent)
