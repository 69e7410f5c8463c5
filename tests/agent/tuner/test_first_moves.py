"""First moves of the tuner: the work is fitted to the time before rates are searched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_runs import SOURCE, baseline, history_of

from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.agent.tuner.first_moves import FEW_STEPS, first_moves
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.proposal import InFlight

FITTING = {"steps": 2000, "tokens": 10_000_000, "params": 1_000_000}
"""Figures of a trial that give no reason for a first move."""


def start(**metrics):
    return replace(baseline(SOURCE), metrics={**FITTING, **metrics})


def then(attempts, proposal, status, **metrics):
    """The run after one more experiment."""
    last = attempts[-1]
    one = replace(last, experiment=len(attempts), source=proposal.source, status=status, category=proposal.category)
    return [*attempts, replace(one, parameters=proposal.parameters, metrics={**last.metrics, **metrics})]


def changed(proposal):
    before, after = constants_of(SOURCE), constants_of(proposal.source)
    return {name: after[name] for name in before if after[name] != before[name]}


@pytest.mark.parametrize(("steps", "batch"), [(FEW_STEPS / 2, 2**12), (FEW_STEPS / 20, 2**11)])
def test_a_run_of_few_steps_gets_a_smaller_batch(steps, batch):
    proposal = Tuner().propose(history_of([start(steps=steps)]))
    assert changed(proposal)["BATCH_TOKENS"] == batch and proposal.category == "batch_sequence"
    assert f"{steps:,.0f} steps" in proposal.hypothesis and "BATCH_TOKENS 8192 ->" in proposal.hypothesis


def test_a_model_that_the_time_cannot_train_becomes_smaller():
    far, near = (changed(Tuner().propose(history_of([start(tokens=tokens)]))) for tokens in (50_000, 200_000))
    assert far == {"DEPTH": 2, "DIM": 64}
    assert near == {"DEPTH": 2}


@pytest.mark.parametrize("figures", [{}, {"steps": None, "tokens": None}, {"steps": 0}])
def test_without_a_reason_in_the_figures_there_is_no_first_move(figures):
    history = history_of([start(**figures)])
    assert not list(first_moves(history, tried_programs(history)))
    assert "lever" not in Tuner().propose(history).parameters


def test_a_move_that_paid_is_made_again_and_one_that_did_not_is_left_to_the_search():
    attempts = [start(steps=50)]
    first = Tuner().propose(history_of(attempts))
    kept, missed = then(attempts, first, "keep", steps=200), then(attempts, first, "discard", steps=200)
    assert changed(Tuner().propose(history_of(kept)))["BATCH_TOKENS"] == changed(first)["BATCH_TOKENS"] // 2
    assert "lever" not in Tuner().propose(history_of(missed)).parameters


def test_a_move_that_paid_goes_on_although_its_first_reason_is_gone():
    attempts = [start(tokens=200_000)]
    first = Tuner().propose(history_of(attempts))
    kept = then(attempts, first, "keep", tokens=900_000)
    again = Tuner().propose(history_of(kept))
    assert (changed(first)["DEPTH"], changed(again)["DEPTH"]) == (2, 1)
    assert "experiment 1 paid" in again.hypothesis


def test_a_move_that_was_kept_together_with_others_has_paid():
    attempts = [start(tokens=200_000)]
    first = Tuner().propose(history_of(attempts))
    missed = then(attempts, first, "discard", tokens=900_000)
    assert not list(first_moves(history_of(missed), frozenset()))
    stack = replace(first, parameters={"combines": "1+7"})
    (move,) = first_moves(history_of(then(missed, stack, "keep")), frozenset())
    assert move.changes == {"DEPTH": (2, 1)} and "experiment 1 paid" in move.reason


def test_a_move_in_flight_is_not_made_a_second_time():
    history = history_of([start(steps=50, tokens=50_000)])
    first = Tuner().propose(history)
    flying = InFlight(1, first.source, first.hypothesis, first.category, "tuner", None, 0, first.parameters)
    second = Tuner().propose(replace(history, in_flight=(flying,)))
    assert {first.parameters["lever"], second.parameters["lever"]} == {"more steps", "smaller model"}


def test_a_move_changes_nothing_that_does_not_follow_from_it():
    # Warm-up and warm-down overlap, which a file may mean, and it has no rate of the head to raise.
    source = SOURCE.replace("WARMDOWN = 0.5", "WARMUP = 0.1\nWARMDOWN = 1.0")
    history = history_of([replace(start(steps=50), source=source)])
    moves = {one.lever: set(one.changes) for one in first_moves(history, tried_programs(history))}
    assert "more steps" in moves and "faster head" not in moves
    assert not any("WARMUP" in names for names in moves.values())
