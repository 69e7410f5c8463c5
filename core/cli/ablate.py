"""`ar ablate`: take kept changes out again, and find those that no longer help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import Whole, add_options
from autoresearch.core.cli.run.options import (
    RESEARCHERS,
    FleetOptions,
    ResearcherOptions,
    check_researcher,
    make_researcher,
    refuse_unread,
)
from autoresearch.core.report.wording import counted, one_line, spell

if TYPE_CHECKING:
    from autoresearch.core.followup.ablate import Repair
    from autoresearch.core.store.ledger import Ledger

PROPOSED = "ablated_train.py"
"""File in the run's folder that the smaller train file is written to."""
REPAIRERS = tuple(name for name in RESEARCHERS if name not in ("tuner", "mix", "submit"))
"""Researchers that can follow an instruction in plain language."""


@click.command()
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option("--seeds", type=Whole(min=1), default=2, metavar="N", help="Trials of each train file.")
@click.option(
    "--researcher",
    type=click.Choice(REPAIRERS),
    help="Researcher that takes out changes which a merge cannot.  [default: none, such changes stay]",
)
@add_options(ResearcherOptions, "options")
@add_options(FleetOptions, "fleet")
@pass_settings
def ablate(
    settings: Settings,
    tag: str | None,
    seeds: int,
    researcher: str | None,
    options: ResearcherOptions,
    fleet: FleetOptions,
) -> None:
    """Take each kept change out of a run's best file in turn, and measure the rest.

    All files are trained at the same fresh seeds. Constants get back the values that they had before the change; later
    changes that moved such a constant further are taken out with it. Changes whose removal costs less than half the
    noise are then taken out together. If that file is as good as the best one, it is written into the run's folder for
    you to review. A merge cannot take out a code change that later changes were built on: a --researcher can try,
    otherwise it stays. After an interruption the same command resumes.
    """
    from autoresearch.core.cli.followup import call_of, countdown_of, kept_run, placed, remeasuring
    from autoresearch.core.followup import ablate as followup
    from autoresearch.core.followup.pairs import noise_of_run

    refuse_unread(click.get_current_context(), researcher)
    if researcher is not None:
        check_researcher(researcher, options, otherwise="leave --researcher out")
    with kept_run(settings, tag) as (ledger, run, best), placed(settings, ledger, fleet, "ablate") as place:
        changes = followup.kept_changes(ledger)
        final, noise = ledger.text(best.source_sha256), noise_of_run(ledger)
        call = call_of(ledger, "ablate", len(ledger.events("ablated")) + 1, place)
        trials = seeds * (len(changes) + 1)
        countdown = countdown_of(ledger, (best.number,), trials)
        each = countdown.overhead + float(run.config["train_seconds"])
        settings.say(
            f"{run.tag}: the best file and {counted(len(changes), 'file')} without a change, "
            f"{counted(seeds, 'seed')} each: {trials} trials of {run.config['train_seconds']:g} s, "
            f"about {spell(trials * each)}; {seeds} more if several changes are not missed; {noise.describe()}"
        )
        costs: list[Any] = []
        folder_of_call = ledger.folder / "ablate" / str(call.number)
        with remeasuring(
            settings, ledger, (best.number,), folder_of_call, "val", followup.SEED_OFFSET, call, countdown, place
        ) as remeasurer:
            repair = None if researcher is None else _repair(settings, researcher, options, ledger, costs)
            ablation = followup.Ablation(remeasurer, seeds, noise, repair)
            record = {"tag": run.tag, **ablation.run(final, changes), "repairs": [vars(cost) for cost in costs]}
        source = record.pop("source")
        record["path"] = _propose(ledger.folder / PROPOSED, source)
        ledger.note("ablated", best.number, record)
    if settings.json:
        click.echo(json.dumps(record))
    else:
        show(settings, record)


def show(settings: Settings, record: dict[str, Any]) -> None:
    """Print a line for each change, then the path of the smaller file."""
    words = {
        "idle": "not missed",
        "earns": "earns its place",
        "undecided": "not certain, so it stays",
        "conflict": "stays: later changes were built on it",
        "gone": "replaced by later changes",
    }
    for row in record["changes"]:
        delta = ""
        if row["delta"] is not None:
            delta = f" ({row['delta']:+.6f} bpb without it, 95 % {row['low']:+.6f} to {row['high']:+.6f})"
        delta += ", taken out by the researcher" if row["repaired"] else ""
        if row["with_later"]:
            delta += f", together with {', '.join(map(str, row['with_later']))}, which moved its constants on"
        what = one_line(row["description"])
        click.echo(f"{row['experiment']}\t{words[row['verdict']]}{delta}\t{what}")
    undecided = sum(row["verdict"] == "undecided" for row in record["changes"])
    if undecided:
        settings.say(f"{counted(undecided, 'change')} not decided at {counted(record['seeds'], 'seed')}: try --seeds")
    if record["path"]:
        removed = ", ".join(str(number) for number in record["removed"])
        settings.say(f"as good without {removed}, review it: {record['path']}")
    else:
        settings.say("the best file stays as it is")


def _propose(path: Path, source: str | None) -> str | None:
    from autoresearch.core.files import write_text

    if source is None:
        return None
    write_text(path, source)
    return str(path)


def _repair(
    settings: Settings, researcher: str, options: ResearcherOptions, ledger: Ledger, costs: list[Any]
) -> Repair:
    from autoresearch.core.followup.ablate import repair_by

    made = make_researcher(researcher, options, run_folder=ledger.folder, workspace=settings.workspace)
    return repair_by(made, ledger, costs.append)
