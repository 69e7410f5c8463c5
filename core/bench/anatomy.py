"""Take a trial apart by its recorded events: the seconds of each part, and its loss curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.core.events import (
    Audited,
    FeedEnded,
    FeedProgress,
    Finished,
    FirstBatch,
    Frozen,
    Log,
    Scored,
    Trained,
    TrialEvent,
)

Events = Sequence[TrialEvent]
"""Events of one trial, in order, as read from its folder."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of a trial in seconds. Their sum is the whole trial."""

    start_up: float
    """Start of the trial to the first real batch: import, build, warm-up."""
    training: float
    """First batch to the end of `train`."""
    freezing: float
    """End of `train` until the weights are checked and out of the child's reach; child and feeder end meanwhile."""
    scoring: float
    audit: float
    """0 for a trial that was not audited."""
    ending: float

    @property
    def outside(self) -> float:
        """Seconds that are not training."""
        return self.start_up + self.freezing + self.scoring + self.audit + self.ending


@dataclass(frozen=True)
class LossCurve:
    """Points of a training curve. The train file logs the loss; seconds and tokens are measured by the core."""

    seconds: list[float]
    """Seconds since the first batch."""
    tokens: list[float]
    loss: list[float]


def take_apart(events: Events) -> Anatomy:
    """Compute the parts of a trial that ended well. Raises `ValueError`, which names the missing event."""
    first, trained, frozen = (_time(events, kind) for kind in (FirstBatch, Trained, Frozen))
    scored, finished = _time(events, Scored), _time(events, Finished)
    audited = _time(events, Audited) if any(isinstance(event, Audited) for event in events) else scored
    return Anatomy(first, trained - first, frozen - trained, scored - frozen, audited - scored, finished - audited)


def curve_of(events: Events) -> LossCurve:
    """Build the training curve. Tokens are interpolated between the feeder's reports."""
    start = _time(events, FirstBatch)
    counted = [(one.t or 0.0, float(one.tokens)) for one in events if isinstance(one, FeedProgress | FeedEnded)]
    times, tokens = zip(*[(start, 0.0), *counted], strict=True)
    logged = [event for event in events if isinstance(event, Log)]
    points = [(event.t or 0.0, float(event.loss)) for event in logged if event.loss is not None]
    at = [when for when, _ in points]
    seen = np.interp(at, times, tokens).tolist() if points else []
    return LossCurve([when - start for when in at], seen, [loss for _, loss in points])


def _time(events: Events, kind: type[TrialEvent]) -> float:
    for event in events:
        if isinstance(event, kind) and event.t is not None:
            return event.t
    raise ValueError(f"the trial has recorded no {kind.name!r}")
