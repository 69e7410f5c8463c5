"""`ar verify`: check a run's improvement on the held-out test set, which no choice has used."""

from __future__ import annotations

import json
from typing import Any

import click

from autoresearch.core.cli.context import Settings, pass_settings


@click.command()
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option("--seeds", type=click.IntRange(min=3), default=3, metavar="N", help="Trials of each of the two files.")
@pass_settings
def verify(settings: Settings, tag: str | None, seeds: int) -> None:
    """Measure a run's best file and its baseline on the held-out test set.

    Each is trained with N fresh seeds. The run records the interval and every look at the test set: a test set that
    one looks at often, and chooses by, is no longer held out.
    """
    from autoresearch.core.cli.followup import remeasuring
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.errors import PrerequisiteError
    from autoresearch.core.followup import verify as followup
    from autoresearch.core.store.ledger import Ledger

    with open_reader(settings.workspace, tag) as reader:
        folder = reader.folder
    with Ledger(folder) as ledger:
        run, best = ledger.run(), ledger.incumbent()
        if best is None or best.number == 0:
            raise PrerequisiteError(
                f"the run {run.tag!r} has no kept change to verify.", fix="let `ar loop` find one first"
            )
        look = len(ledger.events("verify started")) + 1
        sources = {n: ledger.text(ledger.experiment(n).source_sha256) for n in (0, best.number)}
        settings.say(
            f"{run.tag}: experiment {best.number} against the baseline on the held-out test set, "
            f"{seeds} fresh seeds each ({2 * seeds} trials of {run.config['train_seconds']:g} s); "
            f"look {look} at this test set"
        )
        # Noted before the first trial: a look that is interrupted counts as well.
        ledger.note("verify started", best.number, {"look": look, "seeds": seeds})
        with remeasuring(
            settings, ledger, (0, best.number), folder / "verify", "test", (followup.SEED_OFFSET, look)
        ) as remeasurer:
            record = {"tag": run.tag, "look": look, **followup.verify(remeasurer, look, seeds, sources)}
        ledger.note("verified", best.number, record)
    click.echo(json.dumps(record) if settings.json else _sentence(record))


def _sentence(record: dict[str, Any]) -> str:
    told = {
        "better": "the improvement holds",
        "worse": "the best file is worse than the baseline",
        "not certain": "not certain: the interval contains zero (more --seeds would narrow it)",
    }[record["verdict"]]
    look = record["look"]
    often = "first look at this test set" if look == 1 else f"look {look} at this test set: every look weakens it"
    return (
        f"experiment {record['experiment']} on test: {record['delta']:+.6f} bpb, "
        f"95 % {record['low']:+.6f} to {record['high']:+.6f}; {told} ({often})"
    )
