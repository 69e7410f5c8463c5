"""A change that was kept as a part of a stack has the verdict `discard`, and has paid all the same."""

from __future__ import annotations

from dataclasses import replace

from simulated_runs import SOURCE, baseline, history_of

from autoresearch.agent.llm.memory import open_near_misses
from autoresearch.agent.llm.models import Models
from autoresearch.agent.llm.operators import choose_task
from autoresearch.agent.llm.prompt import cards_of
from autoresearch.agent.llm.providers import Provider
from autoresearch.agent.llm.quotas import next_demand
from autoresearch.agent.llm.spending import Spending
from autoresearch.agent.mix import split
from autoresearch.agent.structural import MENU
from autoresearch.agent.tuner.first_moves import first_moves
from autoresearch.agent.tuner.near_misses import retrials
from autoresearch.agent.tuner.researcher import _trust
from autoresearch.core.proposal import PairedDifference
from autoresearch.core.trainfile.constants import write_constants

REASON = "kept as part of experiment 9, a stack: -0.01000 bpb of its -0.02000"
CHANGED = write_constants(SOURCE, {"MUON_LR": 0.03})


def run_with(status, count=1, **more):
    """A run with changes of one kind that looked better, and a stack of them with this verdict."""
    start = replace(baseline(SOURCE), metrics={"steps": 300, "tokens": 10_000_000, "params": 1_000_000})
    raw = PairedDifference(-0.01, 0.01, 0, ())
    facts = {"status": "discard", "delta": -0.01, "raw": raw, "reason": REASON, "source": CHANGED, **more}
    parts = [replace(start, experiment=number, **facts) for number in range(1, count + 1)]
    named = " ".join(str(one.experiment) for one in parts)
    stack = replace(start, experiment=9, status=status, researcher="stacks", parameters={"stack": named})
    return [start, *parts, replace(stack, source=write_constants(SOURCE, {"WARMDOWN": 0.6}))]


def both(call, **more):
    """What is found where the stack was kept, and where it was not."""
    return call(run_with("keep", **more)), call(run_with("discard", **more))


def test_a_first_move_goes_on():
    moves = both(
        lambda run: [one.lever for one in first_moves(history_of(run), frozenset())], parameters={"lever": "more steps"}
    )
    assert ["more steps" in found for found in moves] == [True, False]


def test_it_is_no_near_miss():
    for near in (lambda run: open_near_misses(history_of(run)), lambda run: [*retrials(history_of(run), {}, 3.0, 0.0)]):
        run = run_with("keep")
        assert near(run) == []
        # The stack came to be discarded, and another file is the best.
        run[-1] = replace(run[-1], status="discard")
        other = replace(run[0], experiment=10, source=write_constants(SOURCE, {"WARMDOWN": 0.7}))
        assert len(near([*run, other])) == 1


def test_its_card_says_what_kept_it():
    kept, not_kept = both(lambda run: cards_of(run)[1].line)
    assert REASON in kept and "near miss" not in kept
    assert "undecided, a near miss" in not_kept


def test_its_category_has_not_missed():
    parameters = {"kind": "structural", "operator": "improve"}
    closed = both(lambda run: next_demand(run[:1] + run[-1:] + run[1:-1]).closed, count=5, parameters=parameters)
    # Three in a row rest in any case; after another category they would not.
    assert closed[1] == ("shape",)
    others = [replace(baseline(SOURCE), experiment=20 + n, category="loss", parameters=parameters) for n in range(2)]
    assert both(lambda run: next_demand([*run, *others]).closed, count=5, parameters=parameters) == ((), ("shape",))


def test_a_bold_one_is_not_followed_up():
    tasks = both(lambda run: choose_task(history_of(run)).operator, parameters={"kind": "bold", "operator": "bold"})
    assert tasks[1] == "follow_up" != tasks[0]


def test_its_researcher_and_its_model_have_gained():
    miss = replace(baseline(SOURCE), experiment=30, status="discard", researcher="tuner")
    assert both(lambda run: split([*run, miss], ["tuner", "llm"])[1] > 0.5, researcher="llm") == (True, False)
    edit = {"edit": MENU[0].name}
    kept, not_kept = both(
        lambda run: _trust(history_of(run), lambda _: True), count=6, researcher="tuner", parameters=edit
    )
    assert kept == 1.0 > not_kept
    models = Models(["a", "b"], Provider(), Spending())
    first = both(
        lambda run: sum(models.order(run, seed)[0] == "a" for seed in range(50)), count=8, parameters={"model": "a"}
    )
    assert first[0] > 40 and first[1] < 25
