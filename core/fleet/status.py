"""How a run stands on its fleet: `fleet.json` in the run's folder, so that `ar status` need not ask the cluster."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autoresearch.core.store.exports import write_text

NAME = "fleet.json"
AT_MOST_SECONDS = 1.0
"""Between two writings where something changes all the time."""
AT_LEAST_SECONDS = 10.0
"""Between two writings where nothing changes: the file is a sign of life."""
OLD_SECONDS = 60.0
TURN_SECONDS, TURN_SAID_SECONDS = 5.0, 600.0
"""Without a place before it is said whose turn it is, and between two times that it is said."""


@dataclass(frozen=True)
class FleetStatus:
    """A run among the others, as it heard last."""

    at: float
    """Unix seconds."""
    nodes: int
    places: int
    """Those that fit the run, whoever uses them."""
    used: int
    """By this run."""
    offered: int
    """To this run, beside what it uses."""
    priority: float
    share: float
    """Of the device time of the runs that are there now, 0..1."""
    paused: bool
    drained: tuple[str, ...]
    """Host names of the run's own nodes."""
    others: tuple[tuple[str, int], ...]
    """Other runs' tags, with the places that they use."""

    @property
    def waits(self) -> bool:
        """Whether it can start nothing, though nobody has paused it."""
        return not (self.used or self.offered or self.paused)

    def words(self) -> str:
        """One line."""
        parts = [f"{self.used} of {_count(self.places, 'place')} on {_count(self.nodes, 'node')}"]
        if self.paused:
            parts.append("paused")
        elif self.waits:
            parts.append("waits for its turn")
        if self.others:
            listed = ", ".join(f"{tag} ({used})" for tag, used in self.others)
            parts.append(f"{_count(len(self.others), 'other run')}: {listed}")
            parts.append(f"priority {self.priority:g}, {100 * self.share:.0f} % of the device time")
        if self.drained:
            parts.append(f"drained: {counted(self.drained)}")
        age = time.time() - self.at
        return "fleet: " + "; ".join(parts) + (f" (as it was {age / 60:.0f} min ago)" if age > OLD_SECONDS else "")


def read_fleet_status(folder: Path) -> FleetStatus | None:
    """Of the run in that folder; None when it is on no fleet, or nothing sensible is written there."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        others = tuple((str(tag), int(used)) for tag, used in found["others"])
        return FleetStatus(**{**found, "others": others, "drained": tuple(map(str, found["drained"]))})
    except (OSError, ValueError, TypeError, KeyError):
        return None


class Board:
    """Writes it down, and says what a person should know of it. Called by one thread."""

    def __init__(self, tag: str, folder: Path | None, say: Callable[[str], None]) -> None:
        """No folder: nothing is written down."""
        self._tag, self._folder, self._say = tag, folder, say
        self._written: FleetStatus | None = None
        self._said: FleetStatus | None = None
        self._waits_since: float | None = None
        self._turn_said = float("-inf")

    def show(self, now: FleetStatus) -> None:
        """How it stands now."""
        before, self._said = self._said, now
        if now.paused and not (before and before.paused):
            fix = f"`ar fleet resume {self._tag}` lets it go on"
            self._say(f"paused on the fleet: what runs is finished, and nothing new is started; {fix}")
        if before and before.paused and not now.paused:
            self._say("resumed on the fleet")
        for names, what in (
            (_more(now.drained, before.drained if before else ()), "is drained: no trial is started there"),
            (_more(before.drained if before else (), now.drained), "is no longer drained"),
        ):
            if names:
                self._say(f"node {counted(names)} {what}")
        self._say_waits(now)
        self._write(now)

    def close(self) -> None:
        """The loop ends; what is written would soon be wrong."""
        if self._folder is not None and self._written is not None:
            with suppress(OSError):
                (self._folder / NAME).unlink(missing_ok=True)

    def _say_waits(self, now: FleetStatus) -> None:
        if not now.waits:
            self._waits_since = None
            return
        self._waits_since = now.at if self._waits_since is None else self._waits_since
        if now.at - self._waits_since > TURN_SECONDS and now.at - self._turn_said > TURN_SAID_SECONDS:
            self._turn_said = now.at
            who = ", ".join(tag for tag, used in now.others if used) or "nobody: its nodes are drained, or gone"
            self._say(f"waiting for a place on the fleet: those that fit are used by {who}")

    def _write(self, now: FleetStatus) -> None:
        written = self._written
        if written is not None:
            same = replace(now, at=written.at, share=written.share) == written
            if now.at - written.at < (AT_LEAST_SECONDS if same else AT_MOST_SECONDS):
                return
        if self._folder is not None and self._folder.is_dir():  # it is made when the run is
            with suppress(OSError):  # the ledger says it when the disk is full
                write_text(self._folder / NAME, json.dumps(asdict(now)))
                self._written = now


def counted(names: tuple[str, ...]) -> str:
    """Names, those that several have once: a host may be several nodes."""
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in sorted(Counter(names).items()))


def _more(now: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    return tuple((Counter(now) - Counter(before)).elements())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
