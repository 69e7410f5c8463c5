"""Several proposals in one reply of a language model, where that is cheaper."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_server import ModelServer, reply
from test_llm import GOOD, LINE, MODEL, NULL, PRICE, history, researcher, scripted

from autoresearch.agent.llm.providers import Price
from autoresearch.agent.llm.replies import split_proposals
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import Cost, InFlight
from autoresearch.core.run.proposers import Proposers, ask_batch
from autoresearch.core.run.stopping import Stop

SCALE, ROWS = "INIT_SCALE = 0.02", "BATCH_ROWS = 16  # rows of a batch"
INIT = reply(SCALE, "INIT_SCALE = 0.01", category="init", words="Start smaller.")
BATCH = reply(ROWS, ROWS.replace("16", "8"), category="batch_sequence", words="More steps.")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


def numbered(*parts):
    return "\n".join(f"**PROPOSAL {n}**\n{part}" for n, part in enumerate(parts, 1))


def test_one_reply_makes_several_experiments_and_is_paid_for_once():
    scale = next(line for line in NULL.splitlines() if line.startswith(SCALE))
    init = INIT.replace(SCALE, scale)
    with ModelServer(scripted({"text": numbered(GOOD, init, BATCH)})) as server:
        first, second, third = researcher(server).propose_batch(history(), 3)
        assert len(server.requests) == 1
        assert "3 proposals in this answer" in server.requests[0]["messages"][-1]["content"]
        assert first.cost.usd == pytest.approx(server.billed * PRICE.of(*_tokens()))
    assert (second.cost.usd, third.cost.usd, second.cost.tokens_in) == (0.0, 0.0, 0)
    assert [one.category for one in (first, second, third)] == ["optimizer", "init", "batch_sequence"]
    assert first.source == NULL.replace(LINE, LINE.replace("0.25", "0.5")), "each is an edit of the best file alone"
    assert LINE in second.source and LINE in third.source and "INIT_SCALE = 0.01" in second.source
    assert third.hypothesis == "More steps." and third.parameters["model"] == MODEL


def _tokens():
    from model_server import TOKENS_IN, TOKENS_OUT

    return TOKENS_IN, TOKENS_OUT


def test_what_cannot_be_used_is_left_out_and_the_first_is_mended():
    same = reply("WARMDOWN = 0.5", "WARMDOWN = 0.7")
    cases = {
        "a block that is not there": reply("NO_SUCH = 1", "NO_SUCH = 2"),
        "the same program once more": GOOD.replace("A better value.", "The same."),
        "a second one of the category": reply("ADAGRAD_EPS = 1e-4", "ADAGRAD_EPS = 1e-5"),
        "a whole file": "```python\n" + NULL.replace("0.25", "0.125") + "```",
        "prose": "I have no other idea.",
        "cut": same[: len(same) // 2],
    }
    for why, part in cases.items():
        with ModelServer(scripted({"text": numbered(GOOD, part, BATCH)})) as server:
            made = researcher(server).propose_batch(history(), 3)
            assert [one.category for one in made] == ["optimizer", "batch_sequence"], why
    with ModelServer(scripted({"text": numbered("no edit", BATCH)}, {"text": GOOD})) as server:
        made = researcher(server).propose_batch(history(), 2)
        assert len(server.requests) == 2 and len(made) == 2 and made[0].parameters["repairs"] == 1


def test_a_reply_with_more_than_was_asked_for_or_without_numbers_does_no_harm():
    with ModelServer(scripted({"text": GOOD})) as server:
        assert len(researcher(server).propose_batch(history(), 4)) == 1
    with ModelServer(scripted({"text": numbered(GOOD, *["x"] * 2000, BATCH)})) as server:
        assert len(researcher(server).propose_batch(history(), 3)) == 1
    answers = ask_batch(_Batch([1, 2, 3]), history(), 2)
    assert len(answers) == 2
    assert ask_batch(_Batch([]), history(), 2)[0].proposal is None
    assert ask_batch(_Batch(ProposalError("nothing")), history(), 2)[0].refusal == "nothing"


class _Batch:
    name = "batch"
    thinks_ahead = True

    def __init__(self, made):
        self.made = made

    def batch_size(self, _history, wanted):
        return wanted + 7

    def propose_batch(self, _history, _count):
        if isinstance(self.made, Exception):
            raise self.made
        return [replace(_proposal(), source=f"x = {one}") for one in self.made]

    propose = None


def _proposal():
    from autoresearch.core.proposal import Proposal

    return Proposal("x", "why", "optimizer")


def test_a_smaller_batch_than_was_asked_for_leaves_nobody_waiting():
    proposers = Proposers(_Batch([1, 2]), Stop(), lambda: None)
    assert proposers.batch_size(history(), 5) == 5 and proposers.batch_size(history(), 1) == 1
    proposers.ask(history(), 5)
    assert proposers.busy == 5
    while not (taken := proposers.take()):
        pass
    assert [one.proposal.source for one in taken] == ["x = 1", "x = 2"] and proposers.busy == 0
    assert {one.proposal.researcher for one in taken} == {"batch"}


def test_the_lines_between_proposals_are_found_outside_of_edits_alone():
    block = "<<<<<<< SEARCH\n# PROPOSAL 2\n=======\n# PROPOSAL 3\n>>>>>>> REPLACE"
    assert split_proposals(f"PROPOSAL 1\n{block}") == [block]
    assert split_proposals("Here they are.\n### Proposal 1:\na\nPROPOSAL 2 of 2\nb\n") == ["a", "b\n"]
    assert split_proposals(f"{block}\nPROPOSAL 2\nb") == [block, "b"]
    assert split_proposals("<think>PROPOSAL 1\nx</think>only") == ["only"]
    assert split_proposals("My proposal 1 is this") == ["My proposal 1 is this"]
    assert split_proposals("a" * 100_000) == ["a" * 100_000]


def test_one_call_is_made_for_several_only_where_it_saves_money():
    def size(wanted=4, price=None, past=None, cached=0, calls=2):
        with ModelServer(scripted({"text": GOOD})) as server:
            llm = researcher(server, prices={MODEL: price} if price else {})
            for _ in range(calls):  # prompts of 10,000 tokens, as the run's calls had so far
                cost = Cost(10_000, 800, 0.1, MODEL, cached, 0.1)
                llm.models.spending.end(llm.models.spending.start(MODEL, 1.0), "reply", cost)
            return llm.batch_size(past or history(), wanted)

    usual = Price(2e-6, 10e-6, 2e-7)
    assert [size(wanted, usual) for wanted in (1, 2, 3, 9)] == [1, 2, 3, 4]
    assert size(price=usual, cached=9_500) == 1, "from the cache the prompt costs little"
    assert size(price=Price(1e-7, 1e-4)) == 1 and size(price=Price(0.0, 0.0)) == 1
    assert size(price=None) == 1 and size(price=usual, calls=0) == 1, "nothing is known yet"
    flying = [
        InFlight(n, NULL + f"\nx{n} = 1\n", "", "optimizer", "llm", None, 0, {"kind": "knob", "operator": "improve"})
        for n in range(1, 10)
    ]
    assert size(price=usual, past=replace(history(), in_flight=tuple(flying))) == 1, "a bold change is due"


def test_a_researcher_that_fails_to_say_its_batch_size_is_asked_for_one():
    class Odd(_Batch):
        def batch_size(self, _history, _wanted):
            raise KeyError("no model")

    assert Proposers(Odd([]), Stop(), lambda: None).batch_size(history(), 3) == 1
