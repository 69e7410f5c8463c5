"""Findings of other devices as proposals: which is tried when."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agent.transfer.carry import CarriedFinding, carry
from autoresearch.core.proposal import Attempt, Finding, History, InFlight, Origin, Proposal
from autoresearch.core.stack_parts import is_kept, kept_parts
from autoresearch.core.trainfile.fingerprint import fingerprint

PAUSE, LONG_PAUSE = 1, 4
"""Number of proposals of its own that a run makes between two findings; the second when no recent finding held."""
RECENT = 3
"""Number of decided findings that choose between the two pauses."""


def propose_finding(history: History, tried: frozenset[str]) -> Proposal | None:
    """Propose the most promising change that can be carried over and was not tried here; None where none is due.

    `tried` are fingerprints that are passed over. The proposal's researcher is left empty.
    """
    if not _due(history):
        return None
    for finding in history.findings:
        if finding.outcome != "untried":
            continue
        carried = carry(finding, history.incumbent.source, history.vocabularies)
        if carried is not None and fingerprint(carried.source) not in tried:
            return Proposal(
                source=carried.source,
                hypothesis=_hypothesis(finding, carried),
                category=finding.category,
                parameters=carried.parameters,
                origin=finding.origin,
            )
    return None


def named_finding(history: History, name: str) -> Origin | None:
    """Look up the finding that a proposal says it tries, such as "night#12"; None where it names no known one."""
    words = name.strip(" `*_.").split()
    return next((one.origin for one in history.findings if words and str(one.origin) == words[0]), None)


def described_origin(origin: Origin) -> str:
    """Describe a finding by its name, its device and its gain there."""
    gain = "" if origin.delta is None else f", {origin.delta:+.4f} there"
    return f"{origin} (kept by {origin.backend} on {' '.join(origin.device.split())}{gain})"


def own(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Leave out the findings of other devices, which say nothing about the researcher that passed them on."""
    return [one for one in attempts if one.origin is None]


def _due(history: History) -> bool:
    """Tell whether the run has made enough proposals of its own since the last finding."""
    if history.thinking:
        return False  # a proposal in the making may try the same finding
    proposed: list[Attempt | InFlight] = [*history.attempts, *history.in_flight]
    proposed.sort(key=lambda one: one.experiment)
    since = next((at for at, one in enumerate(reversed(proposed)) if one.origin is not None), None)
    decided = [one for one in history.attempts if one.origin is not None][-RECENT:]
    parts = kept_parts(history.attempts)
    barren = len(decided) == RECENT and all(not is_kept(one, parts) for one in decided)
    return since is None or since >= (LONG_PAUSE if barren else PAUSE)


def _hypothesis(finding: Finding, carried: CarriedFinding) -> str:
    origin = finding.origin
    gain = "" if origin.delta is None else f" ({origin.delta:+.4f} there)"
    without = f", without {', '.join(carried.left_out)}" if carried.left_out else ""
    return f"{carried.summary}{without}; kept by {origin.backend} on {' '.join(origin.device.split())}{gain}."
