from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_runs import SOURCE, baseline, history_of

from autoresearch.agent.mix import Mix, split
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import Attempt, Cost, FailedProposalError, InFlight, Proposal, Researcher


class Scripted(Researcher):
    def __init__(self, name, error=None):
        self.name, self.error, self.histories = name, error, []

    def propose(self, history):
        self.histories.append(history)
        if self.error is not None:
            raise self.error
        return Proposal(source=SOURCE, hypothesis="h", category="mlp", researcher=self.name)


def attempts_by(*gains):
    """Researcher and gain of each experiment; a gain of 0 is a miss."""
    found = [baseline(SOURCE)]
    for number, (name, gain) in enumerate(gains, 1):
        one = Attempt(
            experiment=number, source=SOURCE, status="keep" if gain else "discard", reason="", hypothesis="",
            category="mlp", researcher=name, predicted_delta=None, val_bpb=3.0, estimate=3.0, delta=-gain, parent=0,
        )  # fmt: skip
        found.append(one)
    return found


def test_each_gets_a_turn_and_both_read_the_same_history():
    tuner, llm = Scripted("tuner"), Scripted("llm")
    mix = Mix([tuner, llm])
    assert mix.propose(history_of(attempts_by())).researcher == "tuner"
    assert mix.propose(history_of(attempts_by(("tuner", 0.1)))).researcher == "llm"
    assert len(llm.histories[0].attempts) == 2


def test_the_budget_goes_where_it_has_paid_and_neither_is_shut_out():
    paid = attempts_by(*[("tuner", 0.0)] * 10, *[("llm", 0.02)] * 10)
    tuner, llm = split(paid, ["tuner", "llm"])
    assert llm > 0.7 and tuner >= 0.15 and tuner + llm == pytest.approx(1.0)
    assert split(attempts_by(("tuner", 0), ("llm", 0)), ["tuner", "llm"]) == [0.5, 0.5]
    mix, turns = Mix([Scripted("tuner"), Scripted("llm")]), []
    for seed in range(100):
        turns.append(mix.propose(history_of(paid, seed=seed)).researcher)
    assert 5 <= turns.count("tuner") <= 40


def test_what_stood_in_for_a_model_does_not_count_as_the_tuners():
    stood_in = [replace(one, parameters={"operator": "stand_in"}) for one in attempts_by(*[("tuner", 0.01)] * 6)[1:]]
    tuner = attempts_by(*[("tuner", 0.0)] * 6)
    assert split([*tuner, *stood_in], ["tuner", "llm"])[1] > 0.5


def test_when_one_has_nothing_the_other_goes_on_and_what_was_paid_is_counted():
    failing = Scripted("llm", FailedProposalError("no model answered.", cost=Cost(10, 5, 0.25, "m")))
    proposal = Mix([failing, Scripted("tuner")]).propose(history_of(attempts_by()))
    assert proposal.researcher == "tuner" and proposal.cost == Cost(10, 5, 0.25, "m")


def test_when_none_has_anything_the_error_names_them_all():
    mix = Mix([Scripted("llm", ProposalError("a.")), Scripted("tuner", ProposalError("b."))])
    with pytest.raises(ProposalError, match=r"llm: a\.; tuner: b\."):
        mix.propose(history_of(attempts_by()))


def test_with_many_devices_the_first_to_be_asked_does_not_get_every_first_turn():
    mix, run = Mix([Scripted("tuner"), Scripted("llm")]), history_of(attempts_by())
    flying = InFlight(1, SOURCE, "h", "mlp", "tuner", None, 0)
    assert mix.propose(replace(run, in_flight=(flying,))).researcher == "llm"
    turns = [mix.propose(replace(run, in_flight=(flying,), thinking=number)).researcher for number in range(1, 31)]
    assert 5 <= turns.count("llm") <= 25  # a proposal of the model's may be in the making
