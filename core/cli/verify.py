"""`ar verify`: check a run's improvement on the held-out test set, which no choice has used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import Whole, add_options
from autoresearch.core.cli.run.options import FleetOptions
from autoresearch.core.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.core.followup.pairs import RunNoise
    from autoresearch.core.followup.remeasure import Countdown
    from autoresearch.core.followup.verify import Plan
    from autoresearch.core.store.ledger import Ledger

LEAST_SEEDS = 3
"""Least seeds for each file when nobody names a number."""
DEFAULT_LIMIT = 10
"""Most seeds that are measured when nobody names a limit."""


@click.command()
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option(
    "--seeds", type=Whole(min=3), default=LEAST_SEEDS, metavar="N", help="Minimum number of seeds for each file."
)
@click.option(
    "--max-seeds",
    type=Whole(min=3),
    metavar="N",
    help=f"Maximum number of seeds for each file.  [default: {DEFAULT_LIMIT}, or --seeds if that is more]",
)
@add_options(FleetOptions, "fleet")
@pass_settings
def verify(settings: Settings, tag: str | None, seeds: int, max_seeds: int | None, fleet: FleetOptions) -> None:
    """Measure a run's best file and its baseline on the held-out test set.

    Both are trained at the same fresh seeds and compared seed by seed. Seeds are added until the 95 % interval is
    narrower than the gain, or --max-seeds is reached. The run records the interval and every look at the test set,
    because a test set that often guides choices is no longer held out. After an interruption the same command resumes,
    as the same look.
    """
    from autoresearch.core.cli.followup import call_of, countdown_of, kept_run, placed, remeasuring
    from autoresearch.core.followup import verify as followup
    from autoresearch.core.followup.pairs import noise_of_run
    from autoresearch.core.store.headline import headline_of

    limit = max(DEFAULT_LIMIT, seeds) if max_seeds is None else max_seeds
    if limit < seeds:
        raise UsageError(f"--max-seeds {limit} is less than --seeds {seeds}.", fix="raise it, or leave it out")
    with (
        kept_run(settings, tag, "verify") as (ledger, run, best),
        placed(settings, ledger, fleet, "verify") as place,
    ):
        both = (0, best.number)
        look, unfinished = _look(ledger, best.number)
        sources = {n: ledger.source(n) for n in both}
        noise = noise_of_run(ledger)
        headline = headline_of(ledger)
        plan = followup.Plan.make(seeds, limit, None if headline is None else headline.gain, noise.paired)
        countdown = countdown_of(ledger, both, 2 * plan.expected)
        call = call_of(ledger, "verify", look, place)
        settings.say(f"{run.tag}: experiment {best.number} against the baseline on the held-out test set")
        settings.say(_plan_text(plan, noise, countdown, float(run.config["train_seconds"]), look))
        if not unfinished:  # noted before the first trial: a look that is interrupted counts as well
            ledger.note("verify started", best.number, {"look": look, "seeds": seeds, "experiment": best.number})
        with remeasuring(
            settings, ledger, both, ledger.folder / "verify", "test", followup.SEED_OFFSET, call, countdown, place
        ) as remeasurer:
            record = {"tag": run.tag, "look": look, **followup.verify(remeasurer, look, plan, sources, noise)}
        ledger.note("verified", best.number, record)
    click.echo(json.dumps(record) if settings.json else _sentence(record))


def expected_seconds(ledger: Ledger, best: int) -> float:
    """Estimate in seconds how long `ar verify` with its defaults will take for this best experiment."""
    from autoresearch.core.cli.followup import countdown_of
    from autoresearch.core.followup.pairs import noise_of_run
    from autoresearch.core.followup.verify import Plan
    from autoresearch.core.store.headline import headline_of

    headline = headline_of(ledger)
    claimed = None if headline is None else headline.gain
    trials = 2 * Plan.make(LEAST_SEEDS, DEFAULT_LIMIT, claimed, noise_of_run(ledger).paired).expected
    each = countdown_of(ledger, (0, best), trials).overhead + float(ledger.run().config["train_seconds"])
    return trials * each


def _look(ledger: Ledger, best: int) -> tuple[int, bool]:
    """Return the number of this look at the test set, and whether an interrupted one goes on."""
    started = ledger.events("verify started")
    last = started[-1] if started else {}
    ended = {record.get("look") for record in ledger.events("verified")}
    if last and last.get("experiment") == best and last.get("look") not in ended:
        return int(last["look"]), True
    return len(started) + 1, False


def _plan_text(plan: Plan, noise: RunNoise, countdown: Countdown, train_seconds: float, look: int) -> str:
    """Say how many trials it will take, why, and how long."""
    from autoresearch.core.report.wording import spell

    each = countdown.overhead + train_seconds
    if plan.claimed is None:
        why = "the run has no measured gain of its own to plan with"
    elif plan.expected < plan.limit:
        why = (
            f"at the run's paired noise of {noise.paired.sigma:.5f} bpb that many should make the interval narrower "
            f"than the gain of {abs(plan.claimed):.5f} that the run measured"
        )
    else:
        why = (
            f"at the run's paired noise of {noise.paired.sigma:.5f} bpb the gain of {abs(plan.claimed):.5f} that the "
            "run measured needs that many or more"
        )
    return (
        f"{plan.expected} seeds expected, {2 * plan.expected} trials of {train_seconds:g} s, about "
        f"{spell(2 * plan.expected * each)}: {why}; at least {plan.least}, at most {plan.limit} seeds "
        f"({spell(2 * plan.limit * each)}); look {look} at this test set"
    )


def _sentence(record: dict[str, Any]) -> str:
    told = {
        "better": "the improvement holds",
        "worse": "the best file is worse than the baseline",
        "not certain": "not certain: the interval contains zero",
    }[record["verdict"]]
    if record["verdict"] == "not certain" and record["stopped"].startswith("the limit"):
        told += " (more --max-seeds would narrow it)"
    elif record["verdict"] == "not certain":
        told = f"the gain that the run claims ({record['claimed']:+.6f}) does not hold, and there may be none"
    look = record["look"]
    often = "first look at this test set" if look == 1 else f"look {look} at this test set: every look weakens it"
    return (
        f"experiment {record['experiment']} on test: {record['delta']:+.6f} bpb, "
        f"95 % {record['low']:+.6f} to {record['high']:+.6f}, {record['seeds']} seeds; {told} ({often})"
    )
