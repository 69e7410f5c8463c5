"""Tuner and language model together: one history, and the budget split by what has paid."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from autoresearch.agent.findings import own, propose_finding
from autoresearch.agent.llm.models import total
from autoresearch.agent.llm.spending import FailedProposalError
from autoresearch.agent.syntax.source_keys import tried_keys
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import Attempt, Cost, History, Proposal, Researcher

_WINDOW = 24
"""Experiments of each that count."""
_LEAST = 0.15
"""Of the budget, for either."""


class Mix:
    """Implements `core.proposal.Researcher`. Both read the same history, so each builds on what the other found."""

    name = "mix"
    thinks_ahead = True

    def __init__(self, researchers: Sequence[Researcher]) -> None:
        """The first has the first turn."""
        self._researchers = tuple(researchers)

    def propose(self, history: History) -> Proposal:
        """What another device has kept, at times; else the edit of whoever's turn it is, or of one who has any."""
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
                paid.append(getattr(error, "cost", Cost()))
                continue
            cost = total([proposal.cost, *paid]) if paid else proposal.cost
            return replace(proposal, researcher=proposal.researcher or researcher.name, cost=cost)
        raise FailedProposalError("; ".join(errors), cost=total(paid))

    def cancel(self) -> None:
        """Nobody waits for a proposal any more."""
        for researcher in self._researchers:
            stop = getattr(researcher, "cancel", None)
            if stop is not None:
                stop()

    def next(self, history: History) -> Researcher:
        """Whose turn it is; its own where that needs neither."""
        return self if _finding(history) is not None else self._order(history)[0]

    def _order(self, history: History) -> list[Researcher]:
        """Each once first; then drawn, with each one's chance as its share of the gains."""
        unused = [one for one in self._researchers if not _by(history.attempts, one.name)]
        if unused:
            first = unused[0]
        else:
            shares = split(history.attempts, [one.name for one in self._researchers])
            rng = random.Random(f"{history.seed} {history.turn} mix")
            first = rng.choices(self._researchers, weights=shares)[0]
        return [first, *(one for one in self._researchers if one is not first)]


def _finding(history: History) -> Proposal | None:
    return propose_finding(history, tried_keys((*history.sources, history.incumbent.source)))


def split(attempts: Sequence[Attempt], names: Sequence[str]) -> list[float]:
    """Each one's share of the budget: by the bits per byte that its last experiments gained each, never below a floor.

    The gains are smoothed by a quarter of all gains, so that one early keep does not decide a night.
    """
    gains = []
    for name in names:
        last = _by(attempts, name)[-_WINDOW:]
        gained = sum(max(0.0, -(one.delta or 0.0)) for one in last if one.status == "keep")
        gains.append((gained, len(last)))
    total = sum(gained for gained, _ in gains)
    count = sum(tries for _, tries in gains)
    if total == 0 or count == 0:
        return [1.0 / len(names)] * len(names)
    prior = total / count
    rates = [(gained + 4 * prior) / (tries + 4) for gained, tries in gains]
    free = 1.0 - _LEAST * len(names)
    return [_LEAST + free * rate / sum(rates) for rate in rates]


def _by(attempts: Sequence[Attempt], name: str) -> list[Attempt]:
    """The experiments of one researcher; what stood in for a model was that model's turn."""
    return [one for one in own(attempts) if one.experiment and _turn(one) == name]


def _turn(attempt: Attempt) -> str:
    return "llm" if attempt.parameters.get("operator") == "stand_in" else attempt.researcher
