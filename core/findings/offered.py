"""Changes that peer runs have kept, offered to this run, and what became of each here.

Bits per byte compare on one kind of device only, so a change that was kept on one device is not known to help on
another. It is offered to the researchers as an edit that deserves a trial of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from autoresearch.core.findings.holding import by_promise
from autoresearch.core.findings.peers import PeerKeeps, PeerRuns, RunIdentity
from autoresearch.core.proposal import Attempt, Finding, InFlight, Origin
from autoresearch.core.stack_parts import kept_parts
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.transfers import GONE, KNOWN, origin_of, outcome_of, tries_of


class OfferedChanges:
    """The changes offered to one run.

    The ledger records which of them the run has seen. So a report needs no other run's files, and a resumed run
    announces nothing twice.
    """

    def __init__(self, ledger: Ledger, peers: PeerRuns) -> None:
        self._ledger, self.peers = ledger, peers
        run = ledger.run()
        self._own: RunIdentity = (run.tag, run.config["backend"], run.config["device"])
        self._known = {origin_of(event) for event in ledger.events(KNOWN)}
        self._gone = {origin_of(event) for event in ledger.events(GONE)}

    def look(self, device: str, attempts: Sequence[Attempt], in_flight: Sequence[InFlight]) -> tuple[Finding, ...]:
        """Read the peer runs and return everything on offer, the most promising first, tried changes included.

        `device` is the device that trials run on today, which may differ from the one that the run was started on.
        """
        kept = self.peers.look(self._ledger.folder, self._own[1], device)
        found = offered_changes(kept, self._own)
        self._note(kept, found)
        return with_outcomes(by_promise(found, attempts), attempts, in_flight)

    def _note(self, kept: Sequence[PeerKeeps], findings: Sequence[Finding]) -> None:
        """Record and announce new changes, and record those that their runs have given up since."""
        news = [finding for finding in findings if finding.origin not in self._known]
        for finding in news:
            about = {"hypothesis": finding.hypothesis, "category": finding.category}
            self._ledger.note(KNOWN, None, {**asdict(finding.origin), **about})
            self._known.add(finding.origin)
        for (run, backend, device), count in Counter(one.origin.identity for one in news).items():
            changes = "a change" if count == 1 else f"{count} changes"
            self.peers.say(f"{run} ({backend} on {device}) has kept {changes}: offered here as proposals")
        still_kept = frozenset[Origin]().union(*(one.keeps for one in kept))
        # A change of a run that could not be read this time is not given up: nothing is known about it.
        read = {one.identity for one in kept}
        for origin in sorted(self._known - still_kept - self._gone, key=str):
            if origin.identity in read:
                self._ledger.note(GONE, None, asdict(origin))
                self._gone.add(origin)


def findings_for(
    peers: PeerRuns | None, folder: Path, own: RunIdentity, attempts: Sequence[Attempt]
) -> tuple[Finding, ...]:
    """Return what would be offered to the run in `folder`, and write nothing. None for `peers`: nothing is offered."""
    kept = [] if peers is None else peers.look(folder, *own[1:])
    return with_outcomes(by_promise(offered_changes(kept, own), attempts), attempts, ())


def offered_changes(kept: Sequence[PeerKeeps], own: RunIdentity) -> list[Finding]:
    """Select the changes that are new to the run `own`, the largest gain first.

    Left out are the run's own changes that a peer took over, and a change that a peer took over from another peer which
    still keeps it: that one is offered once, by the run that made it. A stack with such a change among its parts is
    offered as its other parts: as a whole it would make that change a second time.
    """
    still_kept = frozenset[Origin]().union(*(one.keeps for one in kept))
    found = []
    for one in kept:

        def is_new(finding: Finding, roots: Mapping[Origin, Origin] = one.roots) -> bool:
            root = roots.get(finding.origin)
            return root is None or (root.identity != own and root not in still_kept)

        for finding in one.findings:
            parts = one.parts.get(finding.origin, ())
            offered = (finding,) if all(map(is_new, parts)) else parts
            found += [change for change in offered if is_new(change)]
    return sorted(found, key=lambda one: (one.origin.delta or 0.0, str(one.origin), one.origin.device))


def with_outcomes(
    findings: Iterable[Finding], attempts: Sequence[Attempt], in_flight: Sequence[InFlight]
) -> tuple[Finding, ...]:
    """Add to each finding what became of it here: untried, in flight, or the verdict of its experiment."""
    findings = tuple(findings)
    if not findings:
        return ()
    parts = kept_parts(attempts)
    tries = tries_of(attempts, parts)
    under_way = {one.origin: one.experiment for one in in_flight if one.origin is not None}
    known = []
    for finding in findings:
        tried = tries.get(finding.origin)
        if finding.origin in under_way:
            finding = replace(finding, outcome="in flight", experiment=under_way[finding.origin])
        elif tried is not None:
            outcome = outcome_of(tried, parts) or tried.status
            finding = replace(finding, outcome=outcome, experiment=tried.experiment, delta=tried.delta)
        known.append(finding)
    return tuple(known)
