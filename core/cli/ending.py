"""What `ar loop` shows when it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.run import Run


def show_end(settings: Settings, run: Run, reason: str, prepared: Prepared) -> None:
    """The picture; then the summary as JSON, or the table and where things are."""
    from autoresearch.core.report.figures import draw_progress
    from autoresearch.core.report.table import write_table
    from autoresearch.core.store.summary import summarise

    rows = [row for row in run.ledger.experiments() if row.state == "decided"]
    picture, yardsticks = run.folder / "progress.png", prepared.manifest.yardsticks
    if rows:
        draw_progress(rows, picture, {"gzip": yardsticks.gzip_bpb, "xz": yardsticks.xz_bpb})
    summary = {**summarise(run.ledger), "picture": str(picture) if rows else None}
    if settings.json:
        click.echo(json.dumps({"summary": summary}))
        return
    write_table(rows)
    settings.say(f"{run.tag}: {reason}" if reason else run.tag)
    if summary["best_experiment"] == 0:
        settings.say("nothing was kept: the baseline is the best file so far")
    elif summary["delta"] is not None:
        if summary["estimated_delta"] is not None and run.config.judge == "racing":
            settings.say(
                f"estimate: {summary['best_estimate']:.6f} bpb, {summary['estimated_delta']:+.6f} against the baseline "
                f"(shrunken; the raw figures below flatter the best)"
            )
        settings.say(
            f"best: experiment {summary['best_experiment']}, {summary['best_bpb']:.6f} bpb, "
            f"{summary['delta']:+.6f} against the baseline's {summary['baseline_bpb']:.6f}"
        )
        settings.say(f"train file: {summary['best_train']} (branch {summary['branch']}; `ar apply` takes it over)")
    for one in summary["findings"]:
        settings.say(findings_words(one))
    if rows:
        settings.say(f"picture: {picture}")


def findings_words(count: dict[str, Any]) -> str:
    """What became of one run's findings, in a line."""
    left = count["offered"] - count["tried"]
    rest = f"; {left} not tried" if left else ""
    where = f"{count['backend']} on {count['device']}"
    noun = "finding" if count["offered"] == 1 else "findings"
    return f"{count['held']} of {count['offered']} {noun} of {count['run']} ({where}) held here{rest}"
