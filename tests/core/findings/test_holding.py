"""How likely another device's change is to help here, by its category."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from simulated_runs import SOURCE, baseline

from autoresearch.core.findings.holding import by_promise, holding_rates, rate_of
from autoresearch.core.findings.offered import with_outcomes
from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.proposal import Finding, Origin, Proposal
from autoresearch.core.stack_parts import STACKER
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.transfers import counts, transfers_of
from autoresearch.core.trial.request import TrialResult


def origin(number, delta=-0.01, run="mac"):
    return Origin(run, number, "mlx", "Apple M4", delta)


def finding(number, category, delta=-0.01, run="mac"):
    return Finding(origin(number, delta, run), "", category, "", "")


def tried(number, category, status):
    return replace(baseline(SOURCE), experiment=number, category=category, status=status, origin=origin(number))


PAST = [
    baseline(SOURCE),
    *(tried(n, "attention", "keep") for n in (1, 2)),
    *(tried(n, "batch_sequence", status) for n, status in ((3, "discard"), (4, "crash"), (5, "discard"))),
]


def numbers(findings):
    return [one.origin.experiment for one in findings]


def test_a_category_that_held_comes_before_one_that_did_not():
    offered = [finding(10, "batch_sequence", -0.012), finding(11, "attention"), finding(12, "loss", -0.011)]
    assert numbers(by_promise(offered, [baseline(SOURCE)])) == [10, 12, 11], "by the gain there, as nothing is known"
    assert numbers(by_promise(offered, PAST)) == [11, 12, 10]


def test_a_large_gain_outweighs_a_poor_chance():
    offered = [finding(11, "attention", -0.01), finding(10, "batch_sequence", -0.1)]
    assert numbers(by_promise(offered, PAST)) == [10, 11]


def test_gains_of_two_runs_are_not_compared_as_they_are():
    offered = [finding(10, "loss", -0.3), finding(11, "loss", -0.1), finding(12, "loss", -0.001, run="h100")]
    assert numbers(by_promise(offered, PAST)) == [10, 12, 11], "the largest of each run first"


def test_one_result_moves_a_rate_a_little_and_many_decide_it():
    rates = [rate_of(holding_rates([tried(k, "loss", "keep") for k in range(n)]), "loss") for n in (0, 1, 4, 40)]
    assert rates[0] == 0.5 and rates == sorted(rates) and rates[1] < 0.75 and rates[-1] > 0.95
    known = holding_rates(PAST)
    assert (known["attention"].held, known["attention"].tried) == (2, 2)
    assert known["batch_sequence"].rate < rate_of(known, "optimizer") < known["attention"].rate
    assert rate_of(known, "optimizer") == pytest.approx((2 + 1) / (5 + 2))


def test_own_experiments_say_nothing_of_transfer():
    assert holding_rates([baseline(SOURCE), replace(PAST[1], origin=None)]) == {}


@pytest.mark.parametrize("delta", [None, 0.0, 0.5])
def test_a_change_without_a_known_gain_is_offered_all_the_same(delta):
    offered = [finding(10, "loss", delta), finding(11, "loss", -0.01)]
    assert numbers(by_promise(offered, PAST)) == [11, 10]
    assert numbers(by_promise(offered[:1], PAST)) == [10]


def test_a_change_that_was_kept_as_a_part_of_a_stack_has_held():
    stack = replace(baseline(SOURCE), experiment=8, researcher=STACKER, parameters={"stack": "3 5"}, status="keep")
    assert [holding_rates([*PAST, one])["batch_sequence"].held for one in (PAST[0], stack)] == [0, 2]
    assert holding_rates([*PAST, replace(stack, status="discard")])["batch_sequence"].held == 0
    offered = with_outcomes([finding(3, "batch_sequence"), finding(4, "batch_sequence")], [*PAST, stack], ())
    assert [(one.outcome, one.experiment) for one in offered] == [("keep", 3), ("crash", 4)]


def test_what_a_stack_has_kept_is_counted_as_held(tmp_path):
    with Ledger(tmp_path / "t") as ledger:
        ledger.create("t", {"backend": "null", "preset": "demo", "seed": 7}, "base")
        for number, (status, parameters) in enumerate((("keep", {}), ("discard", {}), ("keep", {"stack": "1"}))):
            who = STACKER if parameters else "edits"
            made = Proposal(f"x = {number}", "", "loss", researcher=who, parameters=parameters)
            made = replace(made, origin=origin(7) if number == 1 else None)
            more = {"commit": "c", "fingerprint": str(number), "program": "", "created": 0.0}
            ledger.propose(number, made, parent=0, **more)
            trial = ledger.start_trial(number, RunTrial("candidate", 7), subject=number)
            common = {"seed": 7, "backend": "null", "preset": "demo"}
            ledger.score(number, trial.k, TrialResult(status="ok", val_bpb=1.0, **common))
            ledger.decide(number, Decision(status, 1.0, None, ""), ledger.trials(experiment=number)[0])
        ledger.note("finding", None, {**asdict(origin(7)), "hypothesis": "", "category": "loss"})
        ((count,), (transfer,)) = counts(transfers_of(ledger)), transfers_of(ledger)
    assert (count["tried"], count["held"], transfer.experiment) == (1, 1, 1)
