"""Notes on the incumbent for researchers: its training loss over time, and the last page of `ar train --profile`."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from autoresearch.core.events import FirstBatch, Log, read_events
from autoresearch.core.textfile import read_text
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trial.profile import PAGE

POINTS = 12
"""Points of a loss curve."""
PROFILE_CHARACTERS = 4000
"""Characters of a profile's page that are passed on: the parts of a step and the longest operations."""


def loss_curve(folder: Path, train_seconds: float, points: int = POINTS) -> str:
    """Return a trial's training loss such as "3.91 at 8 %, 3.2 at 17 %"; empty where it logged none.

    `folder` is the trial's. The loss is the train file's own count, in nats; at most `points` points are told.
    """
    losses = _losses(folder)
    if not losses or train_seconds <= 0:
        return ""
    chosen = sorted({round(i * (len(losses) - 1) / max(1, points - 1)) for i in range(points)})
    return ", ".join(f"{losses[i][1]:.4g} at {min(1.0, losses[i][0] / train_seconds):.0%}" for i in chosen)


def _losses(folder: Path) -> list[tuple[float, float]]:
    """Return seconds since the first batch, and loss, of every point that a trial has logged."""
    found: list[tuple[float, float]] = []
    started: float | None = None
    for event in read_events(folder):
        if isinstance(event, FirstBatch):
            started = event.t
        elif isinstance(event, Log) and started is not None and event.t is not None and event.loss is not None:
            found.append((event.t - started, event.loss))
    return found


def last_profile(runs: Path, backend: str, preset: str, incumbent: str) -> str:
    """Return the newest profile of this backend and preset under `runs`/trials, with its date; "" without one.

    `incumbent` is the source of the best train file so far.
    """
    named = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(backend)}(-\d+)?")
    for path in sorted((runs / "trials").glob(f"*/{PAGE}"), reverse=True):
        if named.fullmatch(path.parent.name) and _preset_of(path.parent) == preset:
            try:
                page = path.read_text(encoding="utf-8").strip()[:PROFILE_CHARACTERS]
                when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            except (OSError, UnicodeDecodeError):
                continue
            same = _same(path.parent, incumbent)
            what = "the best train file so far" if same else "another version of the train file"
            return f"Of {what}, {when}.\n\n{page.removeprefix('# ')}"
    return ""


def _preset_of(trial: Path) -> str | None:
    try:
        return str(json.loads((trial / "result.json").read_text(encoding="utf-8"))["preset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _same(trial: Path, incumbent: str) -> bool:
    try:
        return fingerprint(read_text(trial / "train.py")) == fingerprint(incumbent)
    except (OSError, UnicodeDecodeError):
        return False
