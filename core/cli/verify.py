"""`ar verify`: does the win hold on text that nothing has been chosen by?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings

if TYPE_CHECKING:
    from autoresearch.core.followup.remeasure import Bench

SEED_OFFSET, SEEDS_PER_LOOK = 1_000_000_000, 1000
"""Seeds that no loop reaches, and other ones at every look."""


@click.command()
@click.option("--tag", metavar="TAG", help="The run.  [default: the one that was started last]")
@click.option("--seeds", type=click.IntRange(min=3), default=3, metavar="N", help="Trials of each of the two files.")
@pass_settings
def verify(settings: Settings, tag: str | None, seeds: int) -> None:
    """Measure a run's best file and its baseline on the hidden test split.

    Each is trained with N fresh seeds. The interval and every look at the test text are recorded with the run: a test
    that is looked at often, and chosen by, is no test any more.
    """
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.errors import PrerequisiteError
    from autoresearch.core.followup.remeasure import Bench, usual_speeds
    from autoresearch.core.store.ledger import Ledger

    with open_reader(settings.workspace, tag) as reader:
        folder = reader.folder
    with Ledger(folder) as ledger:
        run, best = ledger.run(), ledger.incumbent()
        if best is None or best.number == 0:
            raise PrerequisiteError(f"the run {run.tag!r} has no keep to verify.", fix="let `ar loop` find one first")
        look = len(ledger.events("verify started")) + 1
        sources = {n: ledger.text(ledger.experiment(n).source_sha256) for n in (0, best.number)}
        settings.say(
            f"{run.tag}: experiment {best.number} against the baseline on the test split, {seeds} fresh seeds each "
            f"({2 * seeds} trials of {run.config['train_seconds']:g} s); look {look} at this test"
        )
        # Before the first trial: a look that is broken off has still been one.
        ledger.note("verify started", best.number, {"look": look, "seeds": seeds})
        bench = Bench(run.config, folder / "verify", "test", say=settings.say)
        bench.usual.update({source: usual_speeds(ledger, number) for number, source in sources.items()})
        record = {"tag": run.tag, "look": look, **_measure(settings, bench, look, seeds, sources)}
        ledger.note("verified", best.number, record)
    click.echo(json.dumps(record) if settings.json else _words(record))


def _measure(settings: Settings, bench: Bench, look: int, seeds: int, sources: dict[int, str]) -> dict[str, Any]:
    from autoresearch.core.cli.train import cancel_on_signal
    from autoresearch.core.followup.welch import welch
    from autoresearch.core.report.terminal.live import live_view

    values: dict[int, list[float]] = {number: [] for number in sources}
    seconds, first = bench.config["train_seconds"], bench.config["seed"] + SEED_OFFSET + SEEDS_PER_LOOK * look
    with cancel_on_signal() as cancel, live_view(seconds, verbosity=settings.verbosity) as view:
        bench = replace(bench, observer=view, cancel=cancel)
        for k in range(seeds):  # in turn, so that a machine that slows down slows both
            for number, source in sources.items():
                values[number].append(bench.measure(f"{look}-{number}-{k + 1}", source, first + k))
    baseline, final = values.values()
    interval = welch(baseline, final)
    return {
        "experiment": max(sources),
        "seeds": seeds,
        "baseline_test_bpb": baseline,
        "final_test_bpb": final,
        "delta": interval.difference,
        "low": interval.low,
        "high": interval.high,
        "verdict": interval.verdict,
    }


def _words(record: dict[str, Any]) -> str:
    told = {
        "better": "the win holds",
        "worse": "the final file is worse than the baseline",
        "not certain": "not certain: the interval holds zero (more --seeds would narrow it)",
    }[record["verdict"]]
    look = record["look"]
    often = "the first look at this test" if look == 1 else f"look {look} at this test: each makes it weaker"
    return (
        f"experiment {record['experiment']} on test: {record['delta']:+.6f} bpb, "
        f"95 % {record['low']:+.6f} to {record['high']:+.6f}; {told} ({often})"
    )
