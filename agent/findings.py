"""Findings of other devices as proposals: which is tried when."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.agent.syntax.source_keys import tree_key
from autoresearch.agent.transfer.carry import Carried, carry
from autoresearch.core.proposal import Attempt, Finding, History, InFlight, Origin, Proposal

PAUSE, LONG_PAUSE = 1, 4
"""Proposals of its own that a run makes between two findings; the second where none of the last ones held."""
RECENT = 3
"""Findings that are looked at for that."""


def propose_finding(history: History, tried: frozenset[str]) -> Proposal | None:
    """The largest gain elsewhere that can be carried over and was not tried here; None where it is not its turn.

    Its researcher is left to whoever proposes it.
    """
    if not _due(history):
        return None
    for finding in history.findings:
        if finding.outcome != "untried":
            continue
        carried = carry(finding, history.incumbent.source, history.vocabularies)
        if carried is not None and tree_key(carried.source) not in tried:
            return Proposal(
                source=carried.source,
                hypothesis=_in_words(finding, carried),
                category=finding.category,
                parameters=carried.parameters,
                origin=finding.origin,
            )
    return None


def named_finding(history: History, name: str) -> Origin | None:
    """The finding that a proposal says it tries, such as "night#12"; None where it names none that is known."""
    words = name.strip(" `*_.").split()
    return next((one.origin for one in history.findings if words and str(one.origin) == words[0]), None)


def where(origin: Origin) -> str:
    """A finding's name, its device and its gain there."""
    gain = "" if origin.delta is None else f", {origin.delta:+.4f} there"
    return f"{origin} (kept by {origin.backend} on {' '.join(origin.device.split())}{gain})"


def _due(history: History) -> bool:
    """Whether the run has made enough proposals of its own since the last finding."""
    if history.thinking:
        return False  # whoever thinks at this moment may have taken the same one
    proposed: list[Attempt | InFlight] = [*history.attempts, *history.in_flight]
    proposed.sort(key=lambda one: one.experiment)
    since = next((at for at, one in enumerate(reversed(proposed)) if one.origin is not None), None)
    decided = [one for one in history.attempts if one.origin is not None][-RECENT:]
    barren = len(decided) == RECENT and all(one.status != "keep" for one in decided)
    return since is None or since >= (LONG_PAUSE if barren else PAUSE)


def own(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Without what was found elsewhere: it says nothing about who proposed it here."""
    return [one for one in attempts if one.origin is None]


def _in_words(finding: Finding, carried: Carried) -> str:
    origin = finding.origin
    gain = "" if origin.delta is None else f" ({origin.delta:+.4f} there)"
    without = f", without {', '.join(carried.left_out)}" if carried.left_out else ""
    return f"{carried.words}{without}; kept by {origin.backend} on {' '.join(origin.device.split())}{gain}."
