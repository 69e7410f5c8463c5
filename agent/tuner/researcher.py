"""The tuner, a researcher that needs no network: a search over constants and a menu of structural edits.

It keeps nothing between proposals. Everything is rebuilt from the history, with random numbers drawn from the run's
seed and the number of attempts, so a resumed run goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from autoresearch.agent.findings import own, propose_finding
from autoresearch.agent.structural import MENU
from autoresearch.agent.syntax.constants import Number
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.agent.tuner.first_moves import FirstMove, propose_first_move
from autoresearch.agent.tuner.numeric import Move, propose_move
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import Attempt, History, InFlight, Proposal, Researcher
from autoresearch.core.trainfile.fingerprint import fingerprint

_WIDENINGS = (1.0, 2.0, 4.0)
"""Powers of the spans, used one after another when nothing untried is left within the narrower ones."""


class Tuner(Researcher):
    """Searches the constants and the menu of structural edits."""

    name = "tuner"

    def __init__(self, *, structural: bool = True) -> None:
        """`structural` allows edits of the menu beside numeric moves."""
        self._structural = structural

    def propose(self, history: History) -> Proposal:
        """Propose another device's finding, a first move, a numeric move or a menu edit, but nothing tried before.

        Raises `ProposalError` when every edit that it knows was tried on this incumbent.
        """
        rng = np.random.default_rng([abs(history.seed), history.turn])
        tried = tried_programs(history)
        found = propose_finding(history, tried)
        if found is not None:
            return replace(found, researcher=self.name)
        first = propose_first_move(history, tried)
        if first is not None:
            return self._from_first_move(first)
        structural_first = self._structural and rng.random() < _structural_share(history.attempts)
        if structural_first:
            proposal = self._from_menu(history, tried, rng)
            if proposal is not None:
                return proposal
        for widen in _WIDENINGS:
            move = propose_move(history, tried, rng, widen)
            if move is not None:
                return self._from_move(move)
        proposal = self._from_menu(history, tried, rng) if self._structural and not structural_first else None
        if proposal is None:
            raise ProposalError(
                "the tuner has tried every edit it knows on the current train file.",
                fix="continue with another --researcher, or add numeric constants to the constants block",
            )
        return proposal

    def _from_first_move(self, move: FirstMove) -> Proposal:
        return Proposal(
            source=move.source,
            hypothesis=f"{_in_words(move.changes)}: {move.reason}.",
            category=move.category,
            researcher=self.name,
            parameters={"lever": move.lever, **{name: after for name, (_, after) in move.changes.items()}},
        )

    def _from_move(self, move: Move) -> Proposal:
        if move.predicted_delta is None:
            reason = "a step large enough to show what it does"
        else:
            reason = f"{move.measured} trials so far place it at {move.predicted_delta:+.4f} bpb"
        return Proposal(
            source=move.source,
            hypothesis=f"{_in_words(move.changes)}: {reason}.",
            category=move.category,
            predicted_delta=move.predicted_delta,
            researcher=self.name,
            parameters={name: after for name, (_, after) in move.changes.items()},
        )

    def _from_menu(self, history: History, tried: frozenset[str], rng: np.random.Generator) -> Proposal | None:
        times = _times_tried((*history.attempts, *history.in_flight))
        weights = np.array([edit.weight / (1 + 4 * times.get(edit.name, 0)) for edit in MENU])
        order = rng.choice(len(MENU), size=len(MENU), replace=False, p=weights / weights.sum())
        for edit in (MENU[i] for i in order):
            source = edit.apply(history.incumbent.source)
            if source is not None and fingerprint(source) not in tried:
                return Proposal(
                    source=source,
                    hypothesis=edit.hypothesis,
                    category=edit.category,
                    researcher=self.name,
                    parameters={"edit": edit.name},
                )
        return None


def _in_words(changes: Mapping[str, tuple[Number, Number]]) -> str:
    return ", ".join(f"{name} {before} -> {after}" for name, (before, after) in changes.items())


def _times_tried(attempts: tuple[Attempt | InFlight, ...]) -> Mapping[str, int]:
    times: dict[str, int] = {}
    for attempt in attempts:
        edit = attempt.parameters.get("edit")
        if attempt.researcher == Tuner.name and isinstance(edit, str):
            times[edit] = times.get(edit, 0) + 1
    return times


def _structural_share(attempts: tuple[Attempt, ...]) -> float:
    """Return the menu's share of proposals: none at first, then by how often each kind was kept, from 10 to 50 %."""
    mine = [attempt for attempt in own(attempts) if attempt.researcher == Tuner.name]
    if not mine:
        return 0.0
    rates = []
    for menu in (True, False):
        kind = [attempt for attempt in mine if ("edit" in attempt.parameters) == menu]
        # One keep in four tries is assumed until there is evidence; the last trials count.
        kept = sum(attempt.status == "keep" for attempt in kind[-12:])
        rates.append((kept + 1) / (len(kind[-12:]) + 4))
    return min(0.5, max(0.1, 0.8 * rates[0] / (rates[0] + rates[1])))
