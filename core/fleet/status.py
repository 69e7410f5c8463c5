"""A run's status on its fleet: `fleet.json` in the run's folder, so that `ar status` need not ask the cluster."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autoresearch.core.files import write_text

NAME = "fleet.json"
CHANGED_SECONDS = 1.0
"""Shortest time between two writes, in seconds, however often the status changes."""
UNCHANGED_SECONDS = 10.0
"""Seconds between two writes of an unchanged status: the file is a sign of life."""
OLD_SECONDS = 60.0
"""Age in seconds from which a summary says how old the status is."""
WAIT_SECONDS, WAIT_AGAIN_SECONDS = 5.0, 600.0
"""Seconds without a slot before a run says that it is waiting, and between two such messages."""


@dataclass(frozen=True)
class FleetStatus:
    """A run among the other runs, by the scheduler's last answer."""

    at: float
    """Unix time in seconds."""
    nodes: int
    """Nodes with slots that fit the run."""
    places: int
    """Slots that fit the run, whichever run uses them."""
    used: int
    """Slots that this run uses."""
    offered: int
    """Further slots that this run may use."""
    priority: float
    share: float
    """Share of the device time of the runs that are present now, 0..1."""
    paused: bool
    drained: tuple[str, ...]
    """Host names of the drained nodes among those that fit."""
    others: tuple[tuple[str, int], ...]
    """Tags of the other runs, each with the number of slots it uses."""

    @property
    def waits(self) -> bool:
        """Tell whether the run can start nothing although it is not paused."""
        return not (self.used or self.offered or self.paused)

    def summary(self) -> str:
        """Return the status as one line."""
        parts = [f"{self.used} of {_count(self.places, 'slot')} on {_count(self.nodes, 'node')}"]
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
    """Read the status of the run in that folder; None when it is on no fleet, or the file is damaged."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        others = tuple((str(tag), int(used)) for tag, used in found["others"])
        return FleetStatus(**{**found, "others": others, "drained": tuple(map(str, found["drained"]))})
    except (OSError, ValueError, TypeError, KeyError):
        return None


class FleetStatusWriter:
    """Writes `fleet.json`, and reports changes that a person should know. Used by one thread."""

    def __init__(self, tag: str, folder: Path | None, say: Callable[[str], None]) -> None:
        """Report through `say`. Without a folder nothing is written."""
        self._tag, self._folder, self._say = tag, folder, say
        self._written: FleetStatus | None = None
        self._last: FleetStatus | None = None
        self._waits_since: float | None = None
        self._wait_said = float("-inf")

    def update(self, now: FleetStatus) -> None:
        """Take in the present status."""
        before, self._last = self._last, now
        if now.paused and not (before and before.paused):
            fix = f"`ar fleet resume {self._tag}` lets it go on"
            self._say(f"paused on the fleet: running trials are finished, and no new one is started; {fix}")
        if before and before.paused and not now.paused:
            self._say("resumed on the fleet")
        for names, what in (
            (_more(now.drained, before.drained if before else ()), "is drained: no trial is started there"),
            (_more(before.drained if before else (), now.drained), "is no longer drained"),
        ):
            if names:
                self._say(f"node {counted(names)} {what}")
        self._report_waiting(now)
        self._write(now)

    def close(self) -> None:
        """Remove the file: the loop ends, and what is written would soon be wrong."""
        if self._folder is not None and self._written is not None:
            with suppress(OSError):
                (self._folder / NAME).unlink(missing_ok=True)

    def _report_waiting(self, now: FleetStatus) -> None:
        if not now.waits:
            self._waits_since = None
            return
        self._waits_since = now.at if self._waits_since is None else self._waits_since
        if now.at - self._waits_since > WAIT_SECONDS and now.at - self._wait_said > WAIT_AGAIN_SECONDS:
            self._wait_said = now.at
            users = ", ".join(tag for tag, used in now.others if used)
            why = f"every slot that fits is used by {users}" if users else "its nodes are drained or gone"
            self._say(f"waiting for a slot on the fleet: {why}")

    def _write(self, now: FleetStatus) -> None:
        written = self._written
        if written is not None:
            # The share changes with every second in which something runs; that alone is no reason to write.
            same = replace(now, at=written.at, share=written.share) == written
            if now.at - written.at < (UNCHANGED_SECONDS if same else CHANGED_SECONDS):
                return
        if self._folder is not None and self._folder.is_dir():  # it is made when the run is
            with suppress(OSError):  # the ledger says it when the disk is full
                write_text(self._folder / NAME, json.dumps(asdict(now)))
                self._written = now


def counted(names: tuple[str, ...]) -> str:
    """List names; one that occurs several times, as a host with several nodes does, is listed once with a count."""
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in sorted(Counter(names).items()))


def _more(now: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    return tuple((Counter(now) - Counter(before)).elements())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
