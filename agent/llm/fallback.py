"""A proposal made without a model, where its replies could not be used or broke the quotas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from autoresearch.agent.llm.quotas import Demand
from autoresearch.agent.llm.taxonomy import Change, classify
from autoresearch.agent.structural import MENU, Edit
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import History, Proposal
from autoresearch.core.trainfile.fingerprint import fingerprint

_COMBINATIONS = 8
"""Number of combinations of the menu's edits that are looked at."""
_TOGETHER = 6
"""Number of edits in a combination."""


@dataclass(frozen=True)
class StandIn:
    """A proposal and its kind of change."""

    proposal: Proposal
    change: Change


def stand_in(history: History, demand: Demand, tried: frozenset[str]) -> StandIn | None:
    """Propose by the tuner where a number suffices, else from the menu of structural edits, several together if needed.

    Where nothing meets the demand, the closed categories are allowed first, then smaller changes: a proposal that
    breaks a quota is better than the end of the run. None when the tuner has nothing left either.
    """
    found = _meeting(history, demand, tried)
    if found is None and demand.closed:
        found = _meeting(history, replace(demand, closed=()), tried)
    if found is None and demand.least == "bold":
        found = _meeting(history, Demand("structural", demand.closed, ""), tried)
    return found if found is not None else _from_tuner(history, Demand("knob", (), ""), tried)


def _meeting(history: History, demand: Demand, tried: frozenset[str]) -> StandIn | None:
    if demand.least == "knob":
        found = _from_tuner(history, demand, tried)
        if found is not None:
            return found
    return _from_menu(history, demand, tried)


def _from_tuner(history: History, demand: Demand, tried: frozenset[str]) -> StandIn | None:
    try:
        proposal = Tuner().propose(history)
    except ProposalError:
        return None
    return _checked(history, proposal, demand, tried)


def _from_menu(history: History, demand: Demand, tried: frozenset[str]) -> StandIn | None:
    rng = np.random.default_rng([abs(history.seed), history.turn, 1])
    for most in (1,) * (demand.least != "bold") + (_TOGETHER,) * _COMBINATIONS:
        for proposal in _edits(history.incumbent.source, rng, most):
            found = _checked(history, proposal, demand, tried)
            if found is not None:
                return found
    return None


def _edits(source: str, rng: np.random.Generator, most: int) -> Iterator[Proposal]:
    """Yield edits of the menu in random order, by their names as those of the tuner are.

    With `most` above 1 they are combined, one of each category, until there are that many.
    """
    now = source
    made: list[Edit] = []
    for edit in (MENU[i] for i in rng.permutation(len(MENU))):
        edited = edit.apply(now) if edit.category not in [one.category for one in made] else None
        if edited is None:
            continue
        if most > 1:
            now, made = edited, [*made, edit]
        edits = made or [edit]
        if most == 1 or len(made) > 1:
            yield Proposal(
                source=edited,
                hypothesis=" ".join(one.hypothesis for one in edits),
                category=edits[0].category,
                parameters={"edit": " + ".join(one.name for one in edits)},
            )
        if len(made) == most:
            return


def _checked(history: History, proposal: Proposal, demand: Demand, tried: frozenset[str]) -> StandIn | None:
    if fingerprint(proposal.source) in tried:
        return None
    change = classify(history.incumbent.source, proposal.source, proposal.category)
    return None if demand.breach(change) else StandIn(proposal, change)
