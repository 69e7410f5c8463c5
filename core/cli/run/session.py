"""What `ar loop` shows when it ends.

Ctrl-C while the loop runs: first finish the trial, then kill it.

A machine that does not fall asleep while the loop works.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings
from autoresearch.core.run.loop import Stop

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.run.run import Run


def show_end(settings: Settings, run: Run, reason: str, prepared: Prepared) -> None:
    """The picture; then the summary as JSON, or the table and where things are."""
    from autoresearch.core.report.document.figures import draw_progress
    from autoresearch.core.report.terminal.table import write_table
    from autoresearch.core.store.exports import summarise

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


EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


@contextmanager
def listen(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Turn signals into wishes inside the block. Must be entered in the main thread."""

    def tell(message: str) -> None:
        # A handler that comes in the middle of a write to stderr may not write there; the wish counts all the same.
        with suppress(RuntimeError):
            say(message)

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if stop.wish == "go on":
            tell("stopping after the current trial; press Ctrl-C again to kill it (it is run again when you go on)")
            stop.finish(EXIT_INTERRUPTED)
        else:
            tell("killing the current trial")
            stop.kill(EXIT_INTERRUPTED)

    def terminated(_number: int, _frame: FrameType | None) -> None:
        stop.kill(EXIT_TERMINATED)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupted),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminated),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def awake() -> Iterator[None]:
    """On macOS, `caffeinate` for as long as the block runs or this process lives. Elsewhere nothing."""
    caffeinate = shutil.which("caffeinate") if sys.platform == "darwin" else None
    if caffeinate is None:
        yield
        return
    keeper = subprocess.Popen(
        [caffeinate, "-i", "-m", "-w", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        keeper.terminate()
        keeper.wait()
