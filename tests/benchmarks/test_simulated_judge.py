"""The simulation asks the real judge: its evidence is what the loop would gather."""

from __future__ import annotations

import random

import pytest

from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.judge.race import MAX_RACE
from autoresearch.core.judge.racing import CHECK_EVERY, Racing
from benchmarks.judge import BASELINE, Outcome, Runs, SimulatedRun, no_effect, public_effect, together


class Watched(Racing):
    """Remembers what it was asked and what it answered."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def consider(self, evidence):
        step = super().consider(evidence)
        self.seen.append((evidence, step))
        return step


def test_a_source_is_measured_once_at_a_seed_and_every_count_is_that_of_the_trials():
    judge = Watched()
    run = SimulatedRun(3, public_effect, 0.0007, judge, pairing=0.5)
    outcome = run.go(60)
    asked = [(evidence, step) for evidence, step in judge.seen if isinstance(step, RunTrial)]
    assert outcome.trials == len(asked)
    # Trials that were ended early cost a part of their time; the path has an entry for each whole one.
    assert outcome.trials - outcome.stopped < outcome.time < outcome.trials
    assert len(outcome.path) == int(outcome.time)
    measured = [
        (evidence.incumbent.experiment if step.role == "incumbent" else evidence.candidate.experiment, step.seed)
        for evidence, step in asked
    ]
    assert len(set(measured)) == len(measured)
    decided = [step for _, step in judge.seen if isinstance(step, Decision)]
    assert len(decided) == 61
    assert outcome.keeps == sum(step.status == "keep" for step in decided) - 1
    before = sum(step.role == "incumbent" and not evidence.candidate.trials for evidence, step in asked)
    assert before <= outcome.keeps + 60 // CHECK_EVERY
    assert all(len(evidence.candidate.trials) <= 1 + MAX_RACE for evidence, _ in judge.seen[3:])


def test_the_candidate_is_compared_with_the_incumbent_and_its_predecessor_is_the_keep_before():
    judge = Watched()
    SimulatedRun(1, lambda _: -0.02, 0.0007, judge).go(5)
    last, step = judge.seen[-1]
    assert isinstance(step, Decision)
    assert step.status == "keep"
    assert last.incumbent is not None
    assert last.predecessor is not None
    assert (last.candidate.experiment, last.incumbent.experiment, last.predecessor.experiment) == (5, 4, 3)
    assert last.facts == next(step.facts for evidence, step in reversed(judge.seen[:-1]) if isinstance(step, Decision))


def test_ending_trials_early_saves_time_and_loses_few_improvements():
    runs = [SimulatedRun(seed, public_effect, 0.0007, Racing(), pairing=0.5).go(60) for seed in range(2)]
    assert sum(one.time for one in runs) < 0.95 * sum(one.trials for one in runs)
    assert sum(one.lost for one in runs) <= 0.1 * sum(one.keeps for one in runs)


def test_without_noise_greedy_keeps_nothing_of_edits_that_change_nothing():
    outcome = SimulatedRun(0, no_effect, 0.0, Greedy()).go(20)
    assert (outcome.keeps, outcome.true, outcome.claimed) == (0, 0.0, 0.0)
    assert outcome.trials == 21
    assert BASELINE > 0


def test_runs_side_by_side_are_those_that_each_would_be_alone():
    def run(seed):
        return SimulatedRun(seed, public_effect, 0.002, Racing(), pairing=0.5)

    alone = [run(seed).go(time=12.0) for seed in range(3)]
    assert together([run(seed).steps(time=12.0) for seed in range(3)]) == alone
    assert sum(one.stopped for one in alone) > 0


def test_the_luck_of_the_draw_is_taken_out_of_a_ratio():
    seeds = list(range(200))
    plain = Runs(seeds, [], [], [])
    rng = random.Random(1)
    outcomes = [
        [Outcome(true=factor * (0.02 + luck) + rng.gauss(0.0, 1e-4)) for luck in plain.luck[:, 0]]
        for factor in (1.2, 1.0)
    ]
    runs = Runs(seeds, outcomes[0], outcomes[1], outcomes[1])
    ratio, error = runs.times(runs.fresh)
    assert ratio == pytest.approx(1.2, abs=0.003)
    assert 1e-4 < error < 2e-3
    # Its expectation is that of the public record.
    assert abs(plain.luck[:, 0].mean()) < 4 * plain.luck[:, 0].std() / 200**0.5
