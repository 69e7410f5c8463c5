"""Several researchers on one history; their gains so far decide whose turn it is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from autoresearch.agent.findings import propose_finding
from autoresearch.agent.llm.models import total
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import (
    Attempt,
    Cost,
    FailedProposalError,
    History,
    InFlight,
    Proposal,
    Researcher,
    paid_for,
)
from autoresearch.core.stack_parts import is_kept, kept_parts

Proposed = TypeVar("Proposed", Attempt, InFlight, Attempt | InFlight)
_WINDOW = 24
"""Number of latest experiments of each researcher that count."""
_LEAST = 0.15
"""Smallest share of the proposals that a researcher gets, 0..1."""


class Mix(Researcher):
    """Asks several researchers in turn. All read the same history, so each builds on the others' improvements."""

    name = "mix"
    thinks_ahead = True
    reads_profiles = True

    def __init__(self, researchers: Sequence[Researcher]) -> None:
        """Take the researchers; the first has the first turn."""
        self._researchers = tuple(researchers)

    def propose(self, history: History) -> Proposal:
        """Propose a due finding of another device, else ask the researcher whose turn it is, else the others.

        Raises `FailedProposalError` when none has a proposal; every call that was paid for is in the cost.
        """
        found = _finding(history)
        if found is not None:
            return replace(found, researcher=self.name)
        paid: list[Cost] = []
        errors = []
        for researcher in self._order(history):
            try:
                proposal = researcher.propose(history)
            except ProposalError as error:
                errors.append(f"{researcher.name}: {error.message}")
                paid.append(paid_for(error))
                continue
            cost = total([proposal.cost, *paid]) if paid else proposal.cost
            return replace(proposal, researcher=proposal.researcher or researcher.name, cost=cost)
        raise FailedProposalError("; ".join(errors), cost=total(paid))

    def cancel(self) -> bool:
        """End the proposals of all researchers."""
        waits = [researcher.cancel() for researcher in self._researchers]
        return any(waits)

    def next(self, history: History) -> Researcher:
        """Return the researcher whose turn it is; this one when a finding is due."""
        return self if _finding(history) is not None else self._order(history)[0]

    def _order(self, history: History) -> list[Researcher]:
        """Return the researchers in the order in which they are asked: each once at first, later drawn by its share."""
        proposed: list[Attempt | InFlight] = [*history.attempts, *history.in_flight]
        unused = [one for one in self._researchers if not _by(proposed, one.name)]
        if unused and not history.thinking:  # a proposal in the making may be its first one
            first = unused[0]
        else:
            shares = split(history.attempts, [one.name for one in self._researchers])
            rng = random.Random(f"{history.seed} {history.turn} mix")
            first = rng.choices(self._researchers, weights=shares)[0]
        return [first, *(one for one in self._researchers if one is not first)]


def _finding(history: History) -> Proposal | None:
    return propose_finding(history, tried_programs(history))


def split(attempts: Sequence[Attempt], names: Sequence[str]) -> list[float]:
    """Compute each researcher's share of the proposals from the bits per byte that its last experiments gained.

    A part of a kept stack has its share of the stack's gain. No researcher's share falls below a floor. Four average
    experiments are added to each, so that one early keep does not decide a night.
    """
    gains, parts = [], kept_parts(attempts)
    for name in names:
        last = _by(attempts, name)[-_WINDOW:]
        kept = (one for one in last if is_kept(one, parts))
        gained = sum(max(0.0, -(one.delta or 0.0)) for one in kept)
        gains.append((gained, len(last)))
    whole = sum(gained for gained, _ in gains)
    count = sum(tries for _, tries in gains)
    if whole == 0 or count == 0:
        return [1.0 / len(names)] * len(names)
    prior = whole / count
    rates = [(gained + 4 * prior) / (tries + 4) for gained, tries in gains]
    free = 1.0 - _LEAST * len(names)
    return [_LEAST + free * rate / sum(rates) for rate in rates]


def _by(attempts: Sequence[Proposed], name: str) -> list[Proposed]:
    """Return the experiments of one researcher; a proposal made in place of a model's counts as that model's turn."""
    return [one for one in attempts if one.origin is None and one.experiment and _turn(one) == name]


def _turn(attempt: Attempt | InFlight) -> str:
    return "llm" if attempt.parameters.get("operator") == "stand_in" else attempt.researcher
