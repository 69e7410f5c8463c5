"""What runs on other devices have found, as a run knows it, and what became of it here.

Bits per byte compare on one kind of device only, so a change that held on one is no fact on another. It is a finding:
an edit that deserves a trial of its own there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from autoresearch.core.findings.peers import PeerKeeps, PeerRuns, RunIdentity
from autoresearch.core.proposal import Attempt, Finding, InFlight, Origin
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.transfers import GONE, KNOWN, origin_of, tries_of


class OfferedChanges:
    """Of one run. The ledger notes which it knows: a report needs no other run, and resuming says nothing twice."""

    def __init__(self, ledger: Ledger, peers: PeerRuns) -> None:
        self._ledger, self.peers = ledger, peers
        run = ledger.run()
        self._own: RunIdentity = (run.tag, run.config["backend"], run.config["device"])
        self._known = {origin_of(event) for event in ledger.events(KNOWN)}
        self._gone = {origin_of(event) for event in ledger.events(GONE)}

    def look(self, device: str, attempts: Sequence[Attempt], in_flight: Sequence[InFlight]) -> tuple[Finding, ...]:
        """All there are now, the largest gain first, those that were tried here among them.

        `device` is what trials run on today, which may be another than the run was started on.
        """
        kept = self.peers.look(self._ledger.folder, self._own[1], device)
        found = offered_changes(kept, self._own)
        self._note(kept, found)
        return with_outcomes(found, attempts, in_flight)

    def _note(self, kept: Sequence[PeerKeeps], findings: Sequence[Finding]) -> None:
        """Write down what is new, and what its run has given up since."""
        news = [finding for finding in findings if finding.origin not in self._known]
        for finding in news:
            about = {"hypothesis": finding.hypothesis, "category": finding.category}
            self._ledger.note(KNOWN, None, {**asdict(finding.origin), **about})
            self._known.add(finding.origin)
        identity = Counter(one.origin.identity for one in news)
        for (run, backend, device), count in identity.items():
            changes = "a change" if count == 1 else f"{count} changes"
            self.peers.say(f"{run} ({backend} on {device}) has kept {changes}: offered here as proposals")
        standing = frozenset[Origin]().union(*(one.standing for one in kept))
        read = {one.identity for one in kept}
        for origin in sorted(self._known - standing - self._gone, key=str):
            if origin.identity in read:
                self._ledger.note(GONE, None, asdict(origin))
                self._gone.add(origin)


def findings_for(
    peers: PeerRuns | None, folder: Path, own: RunIdentity, attempts: Sequence[Attempt]
) -> tuple[Finding, ...]:
    """Of a run that nobody writes, in that folder; nothing is noted."""
    kept = [] if peers is None else peers.look(folder, *own[1:])
    return with_outcomes(offered_changes(kept, own), attempts, ())


def offered_changes(kept: Sequence[PeerKeeps], own: RunIdentity) -> list[Finding]:
    """What is new to a run, the largest gain first: neither its own come back, nor one finding by two ways."""
    standing = frozenset[Origin]().union(*(one.standing for one in kept))
    found = []
    for one in kept:
        for finding in one.findings:
            root = one.roots.get(finding.origin)
            if root is None or (root.identity != own and root not in standing):
                found.append(finding)
    return sorted(found, key=lambda one: (one.origin.delta or 0.0, str(one.origin), one.origin.device))


def with_outcomes(
    findings: Iterable[Finding], attempts: Sequence[Attempt], in_flight: Sequence[InFlight]
) -> tuple[Finding, ...]:
    """Each finding with what became of it here."""
    findings = tuple(findings)
    if not findings:
        return ()
    tries = tries_of(attempts)
    flying = {one.origin: one.experiment for one in in_flight if one.origin is not None}
    told = []
    for finding in findings:
        tried = tries.get(finding.origin)
        if finding.origin in flying:
            finding = replace(finding, outcome="in flight", experiment=flying[finding.origin])
        elif tried is not None:
            finding = replace(finding, outcome=tried.status, experiment=tried.experiment, delta=tried.delta)
        told.append(finding)
    return tuple(told)
