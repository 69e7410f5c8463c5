"""A trial taken apart by its recorded events: where its seconds went, and its curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Events = Sequence[Mapping[str, Any]]
"""{"t": seconds since the trial's start, "event": ..., ...}, in order."""


@dataclass(frozen=True)
class Anatomy:
    """Seconds. All parts together are the trial."""

    start_up: float
    """To the first real batch: import, build, warm-up."""
    training: float
    """First batch to the end of `train`."""
    freezing: float
    """Weights written, checked and out of the train child's reach; the child and the feeder gone."""
    scoring: float
    audit: float
    """0 without an audit."""
    ending: float

    @property
    def outside(self) -> float:
        """What is not training."""
        return self.start_up + self.freezing + self.scoring + self.audit + self.ending


@dataclass(frozen=True)
class LossCurve:
    """Points of the live curve. The loss is what the train file logs; seconds and tokens are the core's."""

    seconds: list[float]
    """Since the first batch."""
    tokens: list[float]
    loss: list[float]


def read_events(folder: Path) -> list[dict[str, Any]]:
    """What a trial has recorded in its folder."""
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def take_apart(events: Events) -> Anatomy:
    """The parts of a trial that went well. Raises `ValueError` naming the event that is missing."""
    first, trained, frozen = (_time(events, name) for name in ("first_batch", "trained", "frozen"))
    scored, finished = _time(events, "scored"), _time(events, "finished")
    audited = next((float(event["t"]) for event in events if event["event"] == "audited"), scored)
    return Anatomy(first, trained - first, frozen - trained, scored - frozen, audited - scored, finished - audited)


def curve_of(events: Events) -> LossCurve:
    """The training curve; tokens by the feeder's count, between whose reports they are interpolated."""
    start = _time(events, "first_batch")
    counted = [(float(event["t"]), float(event["tokens"])) for event in events if event["event"] in ("progress", "end")]
    times, tokens = zip(*[(start, 0.0), *counted], strict=True)
    points = [
        (float(event["t"]), float(event["loss"]))
        for event in events
        if event["event"] == "log" and isinstance(event.get("loss"), int | float) and math.isfinite(event["loss"])
    ]
    at = [when for when, _ in points]
    seen = np.interp(at, times, tokens).tolist() if points else []
    return LossCurve([when - start for when in at], seen, [loss for _, loss in points])


def _time(events: Events, name: str) -> float:
    for event in events:
        if event["event"] == name:
            return float(event["t"])
    raise ValueError(f"the trial has recorded no {name!r}")
