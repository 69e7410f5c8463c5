"""`ar scale`: see whether a run's improvement holds at other budgets and other widths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import Whole, add_options, is_typed
from autoresearch.core.cli.run.options import FleetOptions
from autoresearch.core.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.core.followup.remeasure import Countdown
    from autoresearch.core.followup.scale import Condition, Width
    from autoresearch.core.store.ledger import Ledger
    from autoresearch.core.store.reader import LedgerReader

PICTURE = "scale.png"
"""Name of the picture in the run's folder."""
LARGEST = 64.0
"""Largest factor of a budget or a width: beyond, a slip of the finger is likelier than a wish."""


class Factors(click.ParamType):
    """Positive factors separated by commas, or "none"."""

    name = "factors"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read "0.5,2,4". Fails for anything that is no factor between 1 / LARGEST and LARGEST."""
        if isinstance(value, tuple):
            return value
        if str(value).strip().lower() == "none":
            return ()
        try:
            found = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            found = (0.0,)
        if not all(1.0 / LARGEST <= one <= LARGEST for one in found):
            self.fail(
                f"{value!r} is neither none nor a list of factors from {1.0 / LARGEST:g} to {LARGEST:g}, such as 0.5,2",
                param,
                ctx,
            )
        return found


@click.command()
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option(
    "--seeds", type=Whole(min=2, max=100), default=3, metavar="N", help="Number of seeds at which each file is trained."
)
@click.option(
    "--budgets",
    type=Factors(),
    default="0.5,2,4",
    metavar="LIST",
    show_default=True,
    help="Multiples of the run's training time to measure in addition to the time itself, or none.",
)
@click.option(
    "--widths",
    type=Factors(),
    default="0.5,2",
    metavar="LIST",
    show_default=True,
    help="Multiples of the model's width to measure, or none.",
)
@click.option(
    "--constant",
    metavar="NAME",
    help="Constant of the train file that sets the width.  [default: DIM or the like, else the depth]",
)
@click.option("--plan", is_flag=True, help="Print which trials it would take and how long; run nothing.")
@add_options(FleetOptions, "fleet")
@pass_settings
def scale(
    settings: Settings,
    tag: str | None,
    seeds: int,
    budgets: tuple[float, ...],
    widths: tuple[float, ...],
    constant: str | None,
    plan: bool,
    fleet: FleetOptions,
) -> None:
    """See whether a run's improvement holds, fades or flips at other budgets and widths.

    The best file and the baseline are trained at the same fresh seeds with the run's budget, with half, twice and four
    times that, and with a model half and twice as wide if both files have a constant for the width. A file that does
    not fit the memory loses only its own condition. Writes a picture into the run's folder. After an interruption the
    same command resumes.
    """
    from autoresearch.core.cli.followup import kept_run, read_kept_run
    from autoresearch.core.cli.output import check_writable

    if is_typed(click.get_current_context(), "constant") and not widths:
        raise UsageError("--constant names a width, and --widths none measures none.", fix="leave one of them out")
    if plan:
        with read_kept_run(settings, tag, "follow") as (reader, run, best):
            # The plan is what was asked for here, and no message beside the measurements.
            say = settings.say if settings.json else click.echo
            conditions, width, countdown = _planned(say, reader, best.number, seeds, budgets, widths, constant)
        if settings.json:
            click.echo(json.dumps(_plan_record(run.tag, conditions, countdown, seeds, width)))
        return
    with kept_run(settings, tag, "follow") as (ledger, _, best):
        conditions, width, countdown = _planned(settings.say, ledger, best.number, seeds, budgets, widths, constant)
        check_writable(ledger.folder / PICTURE, "move away what is in its place")
        record = _measure(settings, ledger, best.number, conditions, seeds, width, countdown, fleet)
    _show(settings, record, ledger.folder / PICTURE)


def _planned(
    say: Callable[[str], None],
    ledger: LedgerReader,
    best: int,
    seeds: int,
    budgets: tuple[float, ...],
    factors: tuple[float, ...],
    constant: str | None,
) -> tuple[list[Condition], Width | None, Countdown]:
    """List the conditions, and tell `say` which trials they take, and how long."""
    from autoresearch.core.cli.followup import countdown_of
    from autoresearch.core.followup import scale as followup

    run, both = ledger.run(), (0, best)
    baseline, final = (ledger.source(n) for n in both)
    width = followup.width_of(baseline, final, constant) if factors else None
    conditions = followup.conditions_of(baseline, final, float(run.config["train_seconds"]), budgets, width, factors)
    followup.check_vocabularies(conditions, width, run.config["vocabularies"])
    countdown = countdown_of(ledger, both, 0)
    for condition in conditions:
        countdown.add(condition.train_seconds, 2 * seeds)
    say(f"{run.tag}: experiment {best} against the baseline, {seeds} seeds of both each time")
    for line in plan_lines(conditions, countdown, seeds, width, asked=bool(factors)):
        say(line)
    return conditions, width, countdown


def _measure(
    settings: Settings,
    ledger: Ledger,
    best: int,
    conditions: list[Condition],
    seeds: int,
    width: Width | None,
    countdown: Countdown,
    fleet: FleetOptions,
) -> dict[str, Any]:
    """Train both files under every condition; return the record, which the ledger has then too."""
    from autoresearch.core.cli.followup import call_of, placed, remeasuring
    from autoresearch.core.followup import scale as followup
    from autoresearch.core.followup.pairs import noise_of_run

    number, both = len(ledger.events("scaled")) + 1, (0, best)
    folder = ledger.folder / "scale" / str(number)
    record: dict[str, Any] = {"tag": ledger.run().tag, "experiment": best, "call": number}
    with placed(settings, ledger, fleet, "scale") as place:
        call = call_of(ledger, "scale", number, place)
        with remeasuring(
            settings, ledger, both, folder, "val", followup.SEED_OFFSET, call, countdown, place
        ) as remeasurer:
            record |= followup.scale(remeasurer, conditions, seeds, width, noise_of_run(ledger))
    ledger.note("scaled", best, record)
    return record


def _show(settings: Settings, record: dict[str, Any], picture: Path) -> None:
    """Draw the picture and print the record."""
    from autoresearch.core.cli.output import draw_picture
    from autoresearch.core.report.document.scaling import draw_scaling

    drawn = draw_picture(settings, picture, lambda: draw_scaling(record, picture))
    if settings.json:
        click.echo(json.dumps({**record, "picture": str(picture) if drawn else None}))
        return
    for line in table(record):
        click.echo(line)
    settings.say(f"experiment {record['experiment']}: {record['verdict']}")
    if drawn:
        settings.say(f"picture: {picture}")


def plan_lines(
    conditions: list[Condition], countdown: Countdown, seeds: int, width: Width | None, *, asked: bool
) -> list[str]:
    """Say which trials it will take, and how long."""
    from autoresearch.core.report.wording import spell

    budgets = ", ".join(f"{one.train_seconds:g} s" for one in conditions if one.axis == "budget")
    lines = [f"budgets {budgets}"]
    wide = [one for one in conditions if one.axis == "width" and one.values]
    if wide and width is not None:
        told = ", ".join(
            f"{a} and {b}" if a != b else str(a) for a, b in (one.values for one in wide if one.values is not None)
        )
        now = f"{width.baseline} and {width.final}" if width.baseline != width.final else str(width.final)
        lines.append(f"widths {width.constant} = {told} (now {now})")
    elif asked and width is None:
        lines.append("no widths: the files share no constant with a known name for one (--constant names another)")
    elif asked:
        lines.append(f"no widths: {width.constant if width else ''} cannot be scaled so")
    lines.append(f"{countdown.trials} trials, about {spell(countdown.seconds)}")
    return lines


def _plan_record(
    tag: str, conditions: list[Condition], countdown: Countdown, seeds: int, width: Width | None
) -> dict[str, Any]:
    rows = [
        {"axis": one.axis, "factor": one.factor, "train_seconds": one.train_seconds, "values": one.values}
        for one in conditions
    ]
    return {
        "tag": tag,
        "seeds": seeds,
        "constant": width.constant if width else None,
        "conditions": rows,
        "trials": countdown.trials,
        "seconds": countdown.seconds,
    }


def table(record: dict[str, Any]) -> list[str]:
    """Write one tab-separated line for each condition."""
    from autoresearch.core.report.wording import one_line

    lines = ["condition\tbaseline\tbest\tdifference\t95 %\t"]
    for row in record["conditions"]:
        failed = one_line(row["failed"] or "")
        name = f"{row['train_seconds']:g} s"
        if row["axis"] == "width":
            first, second = row["values"]
            name = f"{row['constant']} {first}" + (f", {second}" if first != second else "")
        if row["delta"] is None:
            lines.append(f"{name}\t-\t-\t-\t-\t{failed}")
            continue
        means = [sum(values) / len(values) for values in (row["baseline_val_bpb"], row["final_val_bpb"])]
        told = row["trend"] or f"{row['verdict']}, the run's own budget"
        told += f"; {failed}" if failed else ""
        figures = f"{means[0]:.5f}\t{means[1]:.5f}\t{row['delta']:+.5f}\t{row['low']:+.5f} to {row['high']:+.5f}"
        lines.append(f"{name}\t{figures}\t{told}")
    return lines
