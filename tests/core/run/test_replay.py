"""The figures of `--why` follow from the recorded trials: histories made at random, decided by the real judge."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.decision import Decision, Demotion, RunTrial
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.evidence import gather_evidence
from autoresearch.core.run.replay import decide_again
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.trial.request import TrialResult

SEED = 7


def make(folder: Path, effects, noise: float, pairing: float, rng: random.Random, judge, width: int = 1) -> Ledger:
    """Build a ledger of these true effects, each on top of what was kept, decided by the judge on made-up trials.

    Up to `width` experiments are under way side by side, and go on in a random order.
    """
    ledger = Ledger(folder)
    config = {"backend": "null", "preset": "", "seed": SEED, "judge": judge.name, "calibrate": 2, "train_seconds": 1.0}
    ledger.create("t", config, "0" * 40)
    level, by_seed = {}, {}

    def propose(number, effect):
        best = ledger.incumbent()
        level[number] = 1.0 if best is None else level[best.number] + effect
        category = "simplification" if rng.random() < 0.2 else "shape"
        proposal = Proposal(f"x = {number} {'+ 1 ' * rng.randint(0, 3)}", f"change {number}", category)
        common = {"commit": "0" * 40, "fingerprint": str(number), "program": "", "created": 0.0}
        ledger.propose(number, proposal, parent=best.number if best else 0, **common)

    def finish(trial):
        shared = by_seed.setdefault(trial.seed, rng.gauss(0.0, noise * pairing**0.5))
        value = level[trial.subject] + shared + rng.gauss(0.0, noise * (1.0 - pairing) ** 0.5)
        crashed = trial.experiment > 0 and trial.subject == trial.experiment and rng.random() < 0.05
        outcome = {"status": "crash", "reason": "made up"} if crashed else {"status": "ok", "val_bpb": value}
        more = {"seed": trial.seed, "backend": "null", "preset": "", "machine": "m"}
        ledger.score(trial.experiment, trial.k, TrialResult(**outcome, **more, tokens=rng.choice((900, 1000))))

    def go_on(number):
        step = judge.consider(gather_evidence(ledger, ledger.experiment(number), SEED, "m"))
        if isinstance(step, Demotion):
            ledger.demote(step, ledger.keep_before(step.experiment).number)
        elif isinstance(step, Decision):
            ledger.decide(number, step, ledger.trials(experiment=number)[0])
            return "decided"
        elif isinstance(step, RunTrial):
            best = ledger.incumbent()
            subject = {"candidate": number, "baseline": 0}.get(step.role, best.number if best else 0)
            return ledger.start_trial(number, step, subject=subject)
        return None

    waiting, under_way = list(enumerate([0.0, *effects])), {}
    while waiting or under_way:
        if waiting and len(under_way) < (width if ledger.incumbent() else 1):
            number, effect = waiting.pop(0)
            propose(number, effect)
            under_way[number] = None
        number = rng.choice(list(under_way))
        if under_way[number] is not None:
            finish(under_way[number])
            under_way[number] = None
        elif (step := go_on(number)) == "decided":
            del under_way[number]
        else:
            under_way[number] = step
    return ledger


HISTORIES = st.tuples(
    st.lists(st.sampled_from((0.0, 0.0, 0.01, -0.002, -0.005, -0.03)), min_size=1, max_size=5),
    st.sampled_from((0.0007, 0.002, 0.01)),
    st.sampled_from((0.0, 0.5, 0.9)),
    st.integers(0, 2**32),
    st.integers(1, 3),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES, st.sampled_from((Racing, Racing, Greedy)))
def test_every_figure_follows_from_the_recorded_trials(history, judge):
    effects, noise, pairing, seed, width = history
    with (
        tempfile.TemporaryDirectory() as name,
        make(Path(name) / "t", effects, noise, pairing, random.Random(seed), judge(), width) as ledger,
    ):
        for row in ledger.experiments():
            again = decide_again(ledger, row)
            assert again.decision is not None
            assert again.differences == ()
            assert again.decision.reason == row.reason


@pytest.fixture
def changed(tmp_path):
    """A run whose best file's trials were changed after the decisions."""
    ledger = make(tmp_path / "runs/t", [-0.05, 0.02, 0.02], 0.0007, 0.0, random.Random(3), Racing())
    with ledger._transaction() as write:
        write("UPDATE trials SET val_bpb = 1.2 WHERE subject = 1 AND experiment != 1")
    ledger.close()
    return tmp_path


def test_trials_that_were_changed_afterwards_no_longer_bear_the_figures_out(changed, capsys):
    assert ar(["--workspace", str(changed), "results", "--why", "3"]) == 0
    assert "these figures differ: " in capsys.readouterr().out
    assert ar(["--workspace", str(changed), "--json", "results", "--why", "3"]) == 0
    again = json.loads(capsys.readouterr().out)["again"]
    assert any(one.startswith("measured ") for one in again["differences"])


def test_a_change_that_was_given_up_since_was_kept_then(tmp_path):
    folder = tmp_path / "t"
    with make(folder, [-0.05, 0.02], 0.0007, 0.0, random.Random(3), Racing()) as ledger:
        ledger.demote(Demotion(1, "demoted: a test"), 0)
        ledger_rows = {row.number: row for row in ledger.experiments()}
        assert ledger_rows[1].status == "discard"
        for row in ledger_rows.values():
            assert decide_again(ledger, row).differences == ()


def test_a_trial_that_was_under_way_at_a_decision_does_not_count_for_it(tmp_path):
    with make(tmp_path / "t", [0.02, 0.02], 0.0007, 0.0, random.Random(3), Racing()) as ledger:
        first = ledger.experiment(1)
        with ledger._transaction() as write:  # the baseline's second trial, as if it had ended a moment later
            write("UPDATE trials SET ended = ? WHERE experiment = 0 AND k = 2", (first.decided + 1e-3,))
        assert len(ledger.trials(subject=0)) == 2
        assert decide_again(ledger, first).differences
        assert not decide_again(ledger, ledger.experiment(2)).differences
