"""A trial's training loss over its time, from the events that it has left, in a few words."""

from __future__ import annotations

import json
from pathlib import Path

POINTS = 12


def loss_curve(folder: Path, train_seconds: float, points: int = POINTS) -> str:
    """Such as "3.91 at 8 %, 3.2 at 17 %": about `points` points over the training time; empty where there are none.

    `folder` is the trial's; the loss is the train file's own count, in nats.
    """
    losses = _losses(folder / "events.jsonl")
    if not losses or train_seconds <= 0:
        return ""
    chosen = sorted({round(i * (len(losses) - 1) / max(1, points - 1)) for i in range(points)})
    return ", ".join(f"{losses[i][1]:.4g} at {min(1.0, losses[i][0] / train_seconds):.0%}" for i in chosen)


def _losses(path: Path) -> list[tuple[float, float]]:
    """Seconds since the first batch, and loss; a line that a crash cut off is passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found, started = [], None
    for line in lines:
        try:
            event = json.loads(line)
            if event["event"] == "first_batch":
                started = float(event["t"])
            elif event["event"] == "log" and started is not None and isinstance(event.get("loss"), int | float):
                found.append((float(event["t"]) - started, float(event["loss"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found
