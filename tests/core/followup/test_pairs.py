"""The interval of a paired difference: it holds the truth as often as it says, whatever the run has expected."""

from __future__ import annotations

import random

import pytest

from autoresearch.core.followup.pairs import RunNoise, interval_of, learn_paired, noise_of_run, pairs_needed
from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.paired import PairedNoise
from autoresearch.core.judge.posterior import Z_95, t_quantile
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.evidence import gather_evidence, gather_raced
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.trial.request import TrialResult

NOISE = RunNoise(Noise(1.0, 5.0, 2, "a test"), PairedNoise(1.0, 3.0, 0))


@pytest.mark.parametrize("true", [0.1, 1.0, 10.0])
def test_the_interval_holds_the_truth_although_the_run_expected_another_paired_noise(true):
    rng, held, runs = random.Random(1), 0, 300
    for _ in range(runs):
        first = {seed: rng.gauss(0.0, 1.0) for seed in range(4)}
        second = {seed: value - 0.5 + rng.gauss(0.0, true) for seed, value in first.items()}
        found = interval_of(first, second, NOISE)
        held += found.low <= -0.5 <= found.high
    assert held / runs > 0.88


def test_a_difference_is_taken_at_shared_seeds_and_so_is_free_of_the_seeds_part():
    first = {1: 5.0, 2: 1.0, 3: 9.0}
    second = {seed: value - 1.0 for seed, value in first.items()}
    found = interval_of(first, second, NOISE)
    assert found.difference == pytest.approx(-1.0)
    assert found.verdict == "better"
    assert interval_of(second, first, NOISE).verdict == "worse"
    assert interval_of({1: 1.0, 2: 2.0, 3: 3.0}, {1: 2.0, 2: 1.0, 3: 3.0}, NOISE).verdict == "not certain"


def test_files_that_ignore_their_seeds_still_have_an_interval_with_a_width():
    assert interval_of({1: 1.0, 2: 1.0, 3: 1.0}, {1: 1.0, 2: 1.0, 3: 1.0}, NOISE).width > 0.0
    assert learn_paired([0.5], NOISE.paired) == NOISE.paired


def test_more_seeds_are_needed_for_a_smaller_gain_and_never_more_than_the_limit():
    needed = [pairs_needed(gain, PairedNoise(0.001, 20.0, 5), 10) for gain in (-0.01, -0.002, -0.0001, 0.0)]
    assert needed == sorted(needed)
    assert (needed[0], needed[-1]) == (2, 10)


def test_the_quantile_is_students():
    assert t_quantile(Z_95, 4.0) == pytest.approx(2.776, rel=0.01)
    assert t_quantile(Z_95, 1000.0) == pytest.approx(1.962, rel=0.001)


def test_the_noise_of_a_run_that_has_moved_is_that_of_the_machine_it_is_on(tmp_path):
    with Ledger(tmp_path / "t") as ledger:
        ledger.create("t", {"backend": "null", "preset": "h100", "seed": 7}, "base")
        machine = "old"

        def trial(number, subject, seed, value):
            row = ledger.start_trial(number, RunTrial("candidate", seed), subject=subject)
            common = {"seed": seed, "backend": "null", "preset": "h100", "machine": machine}
            ledger.score(number, row.k, TrialResult(status="ok", val_bpb=value, **common))

        for number in range(4):
            more = {"commit": "c", "fingerprint": str(number), "program": "", "created": 0.0}
            ledger.propose(number, Proposal(f"x = {number}", "", "shape"), parent=0, **more)
        for number, facts in ((0, {}), (1, {"differences": [-0.5, -0.1]}), (2, {"differences": [-0.5, -0.501]})):
            if number == 2:
                machine = "new"
                trial(2, 0, 2000, 2.0)
                trial(2, 0, 2001, 2.001)
                trial(2, 1, 2002, 1.9)
            trial(number, number, 7, 1.0)
            trial(number, number, 8, 1.001)
            status = "discard" if number == 2 else "keep"
            ledger.decide(number, Decision(status, 1.0, None, "", facts), ledger.trials(experiment=number)[0])
        noise = noise_of_run(ledger)
        assert noise.between.sigma < 0.005  # the baseline had 1.0 on the old machine, and has 2.0 here
        assert [one.differences for one in gather_raced(ledger, "new")] == [(-0.5, -0.501)]
        assert len(gather_raced(ledger)) == 2 and noise.paired.pairs == 1
        # As its judge has it: the level that the prior goes by is the baseline's.
        now = Racing(JudgeOptions("h100")).noise(gather_evidence(ledger, ledger.experiment(3), 7, "new"))
        assert noise.between.sigma == pytest.approx(now.sigma)
