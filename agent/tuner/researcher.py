"""The tuner, a researcher that needs no network: one queue of changes, the most promising for the device's time first.

Edits of the menu, first moves, constants that a kept change has opened, near misses tried again and moves that the
surrogate proposes all stand in one queue. For each there is a belief of its effect: from public runs, the surrogate and
what this run has shown. It is worth the gain that may be expected of it, by the second of the device.

The tuner keeps nothing between proposals. Everything is rebuilt from the history, with random numbers drawn from the
run's seed and the number of attempts, so a resumed run goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from autoresearch.agent.findings import own, propose_finding
from autoresearch.agent.structural import MENU, Edit, Expectation
from autoresearch.agent.syntax.constants import Number
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.agent.tuner.first_moves import FirstMove, few_steps, first_moves, taught
from autoresearch.agent.tuner.near_misses import Retrial, retrials
from autoresearch.agent.tuner.numeric import Move, propose_move
from autoresearch.agent.tuner.observations import FAILED, difference, score
from autoresearch.agent.tuner.opened import opened_moves
from autoresearch.agent.tuner.value import Belief, expected_gain, expected_seconds
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import Attempt, History, Proposal, Researcher
from autoresearch.core.stack_parts import is_kept, kept_parts
from autoresearch.core.trainfile.fingerprint import fingerprint

_WIDENINGS = (1.0, 2.0, 4.0)
"""Powers of the spans, used one after another when nothing untried is left within the narrower ones."""
USUAL_CHANCE, USUAL_SHARE, USUAL_SHARE_FEW_STEPS = 0.15, 0.002, 0.008
"""Chance that an edit of the menu without figures of its own helps, and its gain as a share of the score, in long runs
and in those of few steps. Of 126 public experiments on an H100 22 were kept, with a median gain of 0.0008 of 0.98; on
Macs, whose runs have fewer steps, kept changes gained 0.003 to 0.025 of 1.4."""
NUMERIC_TRUST = 1 / 3
"""Share of the surrogate's expected gains that is believed before the run has shown any: it is widest where least is
known."""
MOVED_ON = 0.5
"""Deviations by which an edit's effect may differ on another incumbent than the one it was tried on."""
ALIKE = 0.5
"""Correlation assumed of the effects of two edits of one category, which also tend to change the same lines."""
STOPPED_ERROR = 2.0
"""Error of a prediction for a trial that was stopped early, in units of the noise."""


@dataclass(frozen=True)
class Candidate:
    """A change that may be proposed."""

    belief: Belief
    merit: float
    """Expected gain in bpb by the second of the device."""
    make: Callable[[], Proposal | None]
    """Makes the proposal; None where the change does not fit the incumbent or was tried."""


@dataclass(frozen=True)
class _Scale:
    """Sizes of this run's scores, in bits per byte."""

    level: float
    """A typical score."""
    paired_noise: float
    """0 where it is not known."""


class Tuner(Researcher):
    """Searches the constants and the menu of structural edits."""

    name = "tuner"

    def __init__(self, *, structural: bool = True) -> None:
        """`structural` allows edits of the menu beside numeric moves."""
        self._structural = structural

    def propose(self, history: History) -> Proposal:
        """Propose another device's finding, or the change that promises the largest gain for the device's time.

        Raises `ProposalError` when every edit that it knows was tried on this incumbent.
        """
        rng = np.random.default_rng([abs(history.seed), history.turn])
        tried = tried_programs(history)
        found = propose_finding(history, tried)
        if found is not None:
            return replace(found, researcher=self.name)
        queue = sorted(self._queue(history, tried, rng), key=lambda candidate: -candidate.merit)
        for candidate in queue:
            proposal = candidate.make()
            if proposal is not None:
                return replace(proposal, researcher=self.name)
        for widen in _WIDENINGS[1:]:
            move = propose_move(history, tried, rng, widen)
            if move is not None:
                return replace(_from_move(move), researcher=self.name)
        raise ProposalError(
            "the tuner has tried every edit it knows on the current train file.",
            fix="continue with another --researcher, or add numeric constants to the constants block",
        )

    def _queue(self, history: History, tried: frozenset[str], rng: np.random.Generator) -> Iterator[Candidate]:
        noise = history.paired_noise or history.noise or 0.0
        scale = _Scale(score(history.incumbent) or 1.0, noise if math.isfinite(noise) else 0.0)

        def candidate(belief: Belief, make: Callable[[], Proposal | None], trust: float = 1.0) -> Candidate:
            gain = trust * expected_gain(belief, scale.paired_noise)
            return Candidate(belief, gain / expected_seconds(history, belief, scale.paired_noise), make)

        for move in first_moves(history, tried):
            belief = _believed(history, scale, move.expectation, "lever", move.lever)
            yield candidate(belief, partial(_from_first_move, move, belief))
        for move in opened_moves(history, tried, scale.level):
            belief = _prior(move.expectation, scale.level)
            yield candidate(belief, partial(_from_first_move, move, belief))
        for retrial in retrials(history, tried, scale.level, scale.paired_noise):
            yield candidate(retrial.belief, partial(_from_retrial, retrial))
        numeric = propose_move(history, tried, rng)
        if numeric is not None:
            trust = NUMERIC_TRUST * _trust(
                history, lambda one: not one.parameters.keys() & {"edit", "lever", "combines"}
            )
            yield candidate(numeric.belief, partial(_from_move, numeric), trust * numeric.fine)
        if self._structural:
            yield from self._menu(history, tried, rng, scale, candidate)

    def _menu(
        self,
        history: History,
        tried: frozenset[str],
        rng: np.random.Generator,
        scale: _Scale,
        candidate: Callable[..., Candidate],
    ) -> Iterator[Candidate]:
        few = few_steps(history)
        flying = {one.parameters.get("edit") for one in history.in_flight}
        # Edits of equal promise come in an order that differs from run to run.
        jitter = rng.uniform(0.8, 1.2, size=len(MENU))
        usual = _trust(history, lambda one: "edit" in one.parameters)
        for edit, luck in zip(MENU, jitter, strict=True):
            if edit.name in flying:
                continue
            known = edit.few_steps if few else None
            share = USUAL_SHARE_FEW_STEPS if few else USUAL_SHARE
            if known is not None:
                known = replace(known, chance=known.chance * taught(history))
            expectation = known or Expectation(min(0.5, USUAL_CHANCE * edit.weight), share)
            belief = _believed(history, scale, expectation, "edit", edit.name)
            make = partial(_from_edit, edit, belief, history.incumbent.source, tried)
            yield candidate(belief, make, (1.0 if known else float(luck) * usual) * crowding(history, edit.category))


def crowding(history: History, category: str) -> float:
    """Return the share of an edit's uncertainty that edits of its category under way leave, 0.5 to 1.

    A determinantal choice with `ALIKE` as the correlation of two edits of one category: the variance of one given the
    results of n others. The surrogate does the same for numeric moves, so those do not count here.
    """
    count = sum("edit" in one.parameters and one.category == category for one in history.in_flight)
    return 1.0 - count * ALIKE**2 / (1.0 + (count - 1) * ALIKE) if count else 1.0


def _prior(expectation: Expectation, level: float) -> Belief:
    """Describe a gain that comes with some chance, and is nothing otherwise, by its mean and deviation."""
    gain, chance = expectation.share * level, expectation.chance
    return Belief(-chance * gain, gain * math.sqrt(chance * (1.0 - chance)))


def _believed(history: History, scale: _Scale, expectation: Expectation, key: str, name: str) -> Belief:
    """Believe what public runs say, and what this run has shown each time the change was tried."""
    belief = prior = _prior(expectation, scale.level)
    known, parts = {one.experiment: one for one in history.attempts}, kept_parts(history.attempts)
    for one in history.attempts:
        parent = known.get(one.parent)
        if one.parameters.get(key) != name or parent is None:
            continue
        measured = difference(one, parent)
        noise = one.raw.error if one.raw is not None and one.raw.error is not None else scale.paired_noise
        if is_kept(one, parts) and measured is not None:
            # The same step once more: it goes on to pay, but less, for nothing pays for ever.
            belief = prior = Belief(0.4 * measured, -0.4 * measured) if measured < 0 else prior.weaker(0.5)
        elif one.status in FAILED:
            belief = belief.weaker(0.25)
        elif one.status == "stopped":
            predicted, before = one.metrics.get("predicted_bpb"), score(parent)
            lost = float(predicted) - before if isinstance(predicted, int | float) and before is not None else 0.0
            lost = max(lost, 0.0) if math.isfinite(lost) else 0.0
            belief = belief.after(lost, max(STOPPED_ERROR * noise, MOVED_ON * prior.deviation))
        elif measured is not None:
            belief = belief.after(measured, math.hypot(noise, MOVED_ON * prior.deviation))
    return belief


def _trust(history: History, belongs: Callable[[Attempt], bool]) -> float:
    """Return how far a kind of change has been worth in this run what was thought of it: 1 at the start, and at most.

    At most, so that a kind that pays now does not keep the others from being tried at all.
    """
    mine = [one for one in own(history.attempts[1:]) if one.researcher == Tuner.name and belongs(one)][-24:]
    parts = kept_parts(history.attempts)
    kept = sum(is_kept(one, parts) for one in mine)
    return min(1.0, (1.0 + 2.0 * kept) / (1.0 + len(mine) / 3.0))


def _from_first_move(move: FirstMove, belief: Belief) -> Proposal:
    return Proposal(
        source=move.source,
        hypothesis=f"{_in_words(move.changes)}: {move.reason}.",
        category=move.category,
        predicted_delta=belief.mean,
        parameters={"lever": move.lever, **{name: after for name, (_, after) in move.changes.items()}},
    )


def _from_move(move: Move) -> Proposal:
    if move.predicted_delta is None:
        reason = "a step large enough to show what it does"
    else:
        reason = f"{move.measured} trials so far place it at {move.predicted_delta:+.4f} bpb"
    return Proposal(
        source=move.source,
        hypothesis=f"{_in_words(move.changes)}: {reason}.",
        category=move.category,
        predicted_delta=move.predicted_delta,
        parameters={name: after for name, (_, after) in move.changes.items()},
    )


def _from_retrial(retrial: Retrial) -> Proposal:
    numbers = " and ".join(map(str, retrial.experiments))
    what = f"experiment {numbers} once more" if len(retrial.experiments) == 1 else f"experiments {numbers} together"
    return Proposal(
        source=retrial.source,
        hypothesis=f"{what[0].upper()}{what[1:]}: below the best file of the time, but not by enough to be kept.",
        category=retrial.category,
        predicted_delta=retrial.belief.mean,
        parameters={"combines": "+".join(map(str, retrial.experiments))},
    )


def _from_edit(edit: Edit, belief: Belief, source: str, tried: frozenset[str]) -> Proposal | None:
    edited = edit.apply(source)
    if edited is None or fingerprint(edited) in tried:
        return None
    return Proposal(
        source=edited,
        hypothesis=edit.hypothesis,
        category=edit.category,
        predicted_delta=belief.mean,
        parameters={"edit": edit.name},
    )


def _in_words(changes: Mapping[str, tuple[Number, Number]]) -> str:
    return ", ".join(f"{name} {before} -> {after}" for name, (before, after) in changes.items())
