"""The language-model researcher against a local server, well-behaved and faulty, through litellm."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from model_server import TOKENS_IN, TOKENS_OUT, ModelServer, reply
from simulated_runs import ROOT, baseline, history_of

from autoresearch.agent.llm.memory import Digest, score_predictions
from autoresearch.agent.llm.models import Models
from autoresearch.agent.llm.providers import Price, Provider, without_keys
from autoresearch.agent.llm.replies import read_header
from autoresearch.agent.llm.researcher import LLM
from autoresearch.agent.llm.spending import Spending
from autoresearch.core.errors import UsageError
from autoresearch.core.proposal import Attempt, FailedProposalError, InFlight, PairedDifference, TrialFigures

NULL = (ROOT / "backends" / "null" / "train.py").read_text(encoding="utf-8")
MODEL = "openai/test-model"
PRICE = Price(2e-6, 10e-6)
ONE = PRICE.of(TOKENS_IN, TOKENS_OUT)
LINE = "LEARNING_RATE = 0.25  # Adagrad's step before the schedule"
GOOD = reply(LINE, LINE.replace("0.25", "0.5"))
SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def history():
    return history_of([baseline(NULL)])


def researcher(server, *, names=(MODEL,), max_usd=None, path=None, timeout=30.0, prices=None, context=None, **more):
    prices = dict.fromkeys(names, PRICE) if prices is None else prices
    provider = Provider(api_base=server.url, timeout_seconds=timeout, prices=prices, context_tokens=context)
    spending = Spending(path, max_usd)
    return LLM(Models(names, provider, spending, backoff_seconds=0.01, max_output_tokens=2000), **more)


def scripted(*acts, then=None):
    """These acts in order, and then the last one or `then` for ever."""
    return lambda number, _: acts[number] if number < len(acts) else (then or acts[-1])


def test_a_good_reply_becomes_a_proposal_with_its_prediction_and_its_dollars():
    with ModelServer(scripted({"text": GOOD})) as server:
        proposal = researcher(server).propose(history())
    assert proposal.source == NULL.replace(LINE, LINE.replace("0.25", "0.5"))
    assert (proposal.category, proposal.predicted_delta, proposal.hypothesis) == ("optimizer", -0.01, "A better value.")
    assert proposal.cost.usd == pytest.approx(ONE)
    assert (proposal.cost.tokens_in, proposal.cost.tokens_out, proposal.cost.model) == (TOKENS_IN, TOKENS_OUT, MODEL)
    assert proposal.parameters["kind"] == "knob"


PASSING = {
    "429": {"status": 429},
    "429 with a time to wait": {"status": 429, "headers": {"Retry-After": "0"}},
    "500": {"status": 500},
    "503": {"status": 503},
    "cut stream": {"text": GOOD, "cut": True},
    "timeout": {"text": GOOD, "sleep": 1.5},
    "empty": {"text": ""},
    "no JSON": {"raw": "<html>proxy</html>"},
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_tried_again(fault):
    with ModelServer(scripted(PASSING[fault], PASSING[fault], {"text": GOOD})) as server:
        proposal = researcher(server, timeout=1.0 if fault == "timeout" else 30.0).propose(history())
        assert len(server.requests) == 3
        assert proposal.cost.usd == pytest.approx(server.billed * ONE)
    assert proposal.source != NULL


MENDED = {
    "prose only": "I would raise the learning rate.",
    "wrong language": "```javascript\nconst LEARNING_RATE = 0.5;\n```",
    "broken block": GOOD.replace("=======", ""),
    "lines that are not there": reply("NO_SUCH = 1", "NO_SUCH = 2"),
    "an edit to another file": GOOD.replace("<<<<<<< SEARCH", "runtime.py\n<<<<<<< SEARCH"),
    "nothing changed": reply(LINE, LINE),
    "a giant reply": "la " * 400_000,
}


@pytest.mark.parametrize("fault", MENDED)
def test_a_bad_reply_is_told_what_is_wrong_and_mended(fault):
    with ModelServer(scripted({"text": MENDED[fault]}, {"text": GOOD})) as server:
        proposal = researcher(server).propose(history())
        second = server.requests[1]["messages"]
    assert proposal.source == NULL.replace(LINE, LINE.replace("0.25", "0.5"))
    assert proposal.parameters["repairs"] == 1 and proposal.cost.usd == pytest.approx(2 * ONE)
    assert [one["role"] for one in second] == ["system", "user", "assistant", "user"]
    assert "Your edit was not taken" in second[-1]["content"]


def test_after_three_repairs_the_whole_file_is_asked_for():
    whole = "```python\n" + NULL.replace("0.25", "0.5") + "```\n"
    bad = {"text": MENDED["broken block"]}
    with ModelServer(scripted(bad, bad, bad, bad, {"text": whole})) as server:
        proposal = researcher(server).propose(history())
        assert "whole new train file" in server.requests[4]["messages"][-1]["content"]
        assert len(server.requests) == 5
    assert proposal.parameters["format"] == "whole" and "LEARNING_RATE = 0.5 " in proposal.source


def test_a_model_that_never_gives_a_usable_edit_is_stood_in_for_and_its_dollars_are_counted():
    with ModelServer(scripted({"text": "No idea."})) as server:
        proposal = researcher(server).propose(history())
    assert proposal.researcher == "tuner" and proposal.source != NULL
    assert proposal.cost.usd == pytest.approx(5 * ONE)


@pytest.mark.parametrize(
    "act",
    [
        {"status": 401, "message": f"Incorrect API key provided: {SECRET}", "code": "invalid_api_key"},
        {"status": 404, "message": "The model does not exist", "code": "model_not_found"},
        {"status": 500},
    ],
)
def test_without_an_answer_the_error_says_why_and_never_holds_the_key(act, tmp_path):
    with ModelServer(scripted(act)) as server, pytest.raises(FailedProposalError) as caught:
        researcher(server, path=tmp_path / "calls.jsonl").propose(history())
    assert MODEL in str(caught.value) and "--model" in str(caught.value)
    assert SECRET not in str(caught.value) + (tmp_path / "calls.jsonl").read_text()


def test_empty_replies_are_billed_even_when_nothing_else_comes():
    with ModelServer(scripted({"text": ""})) as server, pytest.raises(FailedProposalError) as caught:
        researcher(server).propose(history())
    assert caught.value.cost.usd == pytest.approx(4 * ONE)


def test_another_model_catches_an_outage():
    def script(_, body):
        return {"text": GOOD} if body["model"] == "sound" else {"status": 404, "message": "no such model"}

    with ModelServer(script) as server:
        llm = researcher(server, names=("openai/absent", "openai/sound"))
        models = {llm.propose(history_of([baseline(NULL)], seed=seed)).cost.model for seed in range(5)}
        asked = [request["model"] for request in server.requests]
    assert models == {"openai/sound"}
    assert asked.count("absent") <= 1  # a wrong name is asked last from then on


def test_what_is_remembered_of_each_format_decides_which_is_asked_for():
    with ModelServer(scripted({"text": GOOD})) as server:
        llm = researcher(server)
        assert llm.best_format(MODEL) == "blocks"
        for _ in range(4):
            llm.models.spending.judge_format(MODEL, "blocks", False)
        assert llm.best_format(MODEL) == "whole"


def test_calls_in_flight_count_against_the_limit_and_a_resumed_run_goes_on_from_what_it_spent(tmp_path):
    spending = Spending(tmp_path / "calls.jsonl", 1.0)
    first = spending.start("m", 0.6)
    with pytest.raises(Exception, match="could cost"):
        spending.start("m", 0.6)
    spending.end(first, "reply", cost=_cost(0.25))
    spending.start("m", 0.6)  # the process dies here
    again = Spending(tmp_path / "calls.jsonl", 1.0)
    assert again.spent == 0.25 and again.committed == pytest.approx(0.85)
    with pytest.raises(Exception, match="could cost"):
        again.start("m", 0.2)


def test_a_line_of_the_account_that_a_crash_cut_off_takes_no_other_with_it(tmp_path):
    calls = tmp_path / "calls.jsonl"
    spending = Spending(calls)
    spending.end(spending.start("m", 0.6), "reply", cost=_cost(0.25))
    calls.write_bytes(calls.read_bytes() + b'{"event": "started", "call": "1-\xff')
    again = Spending(calls)
    again.end(again.start("m", 0.6), "reply", cost=_cost(0.5))
    assert Spending(calls).spent == 0.75


def _cost(usd):
    from autoresearch.core.proposal import Cost

    return Cost(1, 1, usd, "m")


def test_the_limit_on_dollars_is_never_passed():
    limit = 0.1
    with ModelServer(scripted({"text": GOOD})) as server:
        llm = researcher(server, max_usd=limit)
        with pytest.raises(FailedProposalError, match="--max-usd"):
            for seed in range(1000):
                llm.propose(history_of([baseline(NULL)], seed=seed))
        assert 0.03 < server.billed * ONE <= limit
        assert llm.models.spending.spent == pytest.approx(server.billed * ONE)


def test_an_unknown_price_is_unknown_and_cannot_keep_a_limit():
    with ModelServer(scripted({"text": GOOD})) as server:
        assert researcher(server, prices={}).propose(history()).cost.usd is None
        with pytest.raises(FailedProposalError, match="price of openai/test-model is not known"):
            researcher(server, prices={}, max_usd=1.0).propose(history())


def test_a_short_context_drops_old_detail_and_keeps_the_rules():
    attempts = [baseline(NULL)]
    for number in range(1, 40):
        attempts.append(_discard(number))
    with ModelServer(scripted({"text": GOOD})) as server:
        digest = Digest()
        digest.write("Small steps help.", attempts)
        for context in (32_000, 5_000):
            try:
                researcher(server, context=context, digest=digest).propose(history_of(attempts))
            except FailedProposalError:
                pass
        long, short = (request["messages"][1]["content"] for request in (server.requests[0], server.requests[-1]))
    assert "#1 LEARNING_RATE=0.301 [" in long and "```diff" in long
    assert len(short) < len(long) and "#1 LEARNING_RATE" not in short and "def logits(model, tokens)" in short
    system = server.requests[-1]["messages"][0]["content"]
    assert "No work at import" in system and "reverted by the" in system


def _discard(number):
    source = NULL.replace("0.25", f"0.{number + 300}")
    return Attempt(
        experiment=number, source=source, status="discard", reason="worse by 0.01", hypothesis=f"Try {number}.",
        category="optimizer", researcher="other", predicted_delta=-0.01, val_bpb=3.1, estimate=3.1, delta=0.01,
        parent=0,
    )  # fmt: skip


def test_every_ten_experiments_the_model_writes_a_page_that_a_person_may_edit(tmp_path):
    attempts = [baseline(NULL), *(_discard(number) for number in range(1, 11))]
    page = tmp_path / "digest.md"
    page.write_text("My own note: try momentum.\n")

    def script(_, body):
        return (
            {"text": "Large steps hurt (#1)."}
            if "Write the page anew" in body["messages"][-1]["content"]
            else {"text": GOOD}
        )

    with ModelServer(script) as server:
        proposal = researcher(server, digest=Digest(page)).propose(history_of(attempts))
        assert "My own note: try momentum." in server.requests[0]["messages"][0]["content"]
        assert "Large steps hurt (#1)." in server.requests[1]["messages"][1]["content"]
        assert proposal.cost.usd == pytest.approx(len(server.requests) * ONE)
        page.write_text(page.read_text().replace("Large", "Very large"))
        asked = len(server.requests)
        researcher(server, digest=Digest(page)).propose(history_of(attempts))
        assert "Very large steps" in server.requests[asked]["messages"][1]["content"]


def test_predictions_are_scored_by_raw_differences_and_bugs_are_told_from_ideas_that_were_worse():
    crash = replace(_discard(2), status="crash", reason="IndexError", val_bpb=None, delta=None)
    with ModelServer(scripted({"text": GOOD})) as server:
        worse = replace(_discard(1), raw=PairedDifference(0.01, 0.002, 0, ()))
        near = replace(_discard(3), raw=PairedDifference(-0.003, 0.005, 0, (TrialFigures(0, 3.1),)))
        researcher(server).propose(history_of([baseline(NULL), worse, crash, near]))
        text = server.requests[0]["messages"][1]["content"]
    assert "2 predictions: 50% had the right sign, off by 0.0135 bpb" in text
    assert "raw +0.0100 +- 0.0020; cautious +0.0100; -0.0100 was expected; worse" in text
    assert (
        "#0's trials 3.1000; raw -0.0030 +- 0.0050; cautious +0.0100; -0.0100 was expected; undecided, a near" in text
    )
    assert "Near misses: not kept, but better by raw scores: #3 (-0.0030 +- 0.0050 against #0)" in text
    assert "bug, which says nothing about the idea (crash): IndexError" in text and "refuted:" not in text


def test_the_model_sees_what_is_in_flight_even_in_a_short_context():
    source = NULL.replace(LINE, LINE.replace("0.25", "0.75"))
    flight = InFlight(1, source, "Faster still.", "optimizer", "llm", -0.02, 0, {"kind": "knob"})
    with ModelServer(scripted({"text": GOOD})) as server:
        for context in (32_000, 5_000):
            researcher(server, context=context).propose(replace(history(), in_flight=(flight,)))
        long, short = (request["messages"][1]["content"] for request in server.requests)
    assert (
        "#1 LEARNING_RATE=0.75 [optimizer, knob]: -0.0200 is expected. Faster still." in long
        and "+LEARNING_RATE = 0.75" in long
    )
    assert "Faster still." in short


def test_a_header_is_read_however_it_is_decorated():
    header = read_header("**Hypothesis:** *more steps*\n- Category: Batch / Sequence\nPredicted delta: −0.02 bpb\n")
    assert (header.hypothesis, header.category, header.predicted_delta) == ("more steps", "batch_sequence", -0.02)
    assert read_header("nothing").predicted_delta is None


def test_keys_are_taken_out_of_messages():
    assert without_keys(f"bad key {SECRET}, Bearer abc and sk-abc***def") == "bad key ***, *** and ***"


def test_the_account_holds_one_line_per_event(tmp_path):
    path = tmp_path / "run" / "calls.jsonl"
    with ModelServer(scripted({"status": 500}, {"text": GOOD})) as server:
        researcher(server, path=path).propose(history())
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["event"] for one in events] == ["started", "ended", "started", "ended", "edit"]
    assert [one.get("outcome") for one in events[1::2]] == ["server", "reply"]


def followed(*acts):
    """A turn in which a bold change that came close may be followed up, with these replies."""
    bold = NULL.replace(LINE, f"{LINE}\nBOLD = 1")
    near = replace(_discard(1), source=bold, parameters={"kind": "bold"}, raw=PairedDifference(0.001, 0.005, 0, ()))
    with ModelServer(scripted(*acts)) as server:
        return researcher(server).propose(history_of([baseline(NULL), near])), server.requests


def test_a_follow_up_edits_the_bold_file_and_shows_what_it_measured():
    proposal, requests = followed({"text": reply("BOLD = 1", "BOLD = 2")})
    assert "BOLD = 2" in proposal.source and proposal.parameters["operator"] == "follow_up"
    assert "raw +0.0010 +- 0.0050" in requests[0]["messages"][1]["content"].partition("# Your task")[2]


def test_a_model_may_drop_a_follow_up_and_edit_the_best_file_in_the_same_reply():
    proposal, requests = followed({"text": f"DROP: too slow\n{GOOD}"})
    assert len(requests) == 1 and "BOLD" not in proposal.source and "LEARNING_RATE = 0.5" in proposal.source
    assert (proposal.parameters["operator"], proposal.parameters["dropped"]) == ("improve", 1)


def test_a_model_that_only_drops_is_asked_for_an_edit_of_the_best_file():
    proposal, requests = followed({"text": "DROP: too slow"}, {"text": GOOD})
    assert "The file to edit this time" not in requests[1]["messages"][1]["content"] and len(requests) == 2
    assert proposal.parameters["dropped"] == 1 and proposal.parameters["repairs"] == 0


def test_a_dropped_follow_up_stays_dropped_where_the_tuner_takes_the_turn():
    proposal, _ = followed({"text": f"DROP: too slow\n{GOOD.replace('LEARNING_RATE', 'NO_SUCH')}"})
    assert (proposal.parameters["operator"], proposal.parameters["dropped"]) == ("stand_in", 1)


@pytest.mark.parametrize("error", [UsageError("ideas.toml is odd.", fix="mend it"), RuntimeError("odd")])
def test_what_was_paid_before_an_unexpected_error_is_counted(error):
    def ideas():
        if server.requests:
            raise error
        return ()

    with ModelServer(scripted({"text": "DROP: too slow"})) as server:
        bold = NULL.replace(LINE, f"{LINE}\nBOLD = 1")
        near = replace(_discard(1), source=bold, parameters={"kind": "bold"}, raw=PairedDifference(0.001, 0.005, 0, ()))
        with pytest.raises(FailedProposalError, match="odd") as caught:
            researcher(server, ideas=ideas).propose(history_of([baseline(NULL), near]))
    assert caught.value.cost.usd == pytest.approx(ONE)


def test_predictions_that_the_tuner_or_a_stack_computed_are_not_taken_for_the_models():
    mine = replace(_discard(1), raw=PairedDifference(0.01, 0.002, 0, ()))
    others = [replace(mine, experiment=2, researcher="tuner"), replace(mine, experiment=3, researcher="stacks")]
    assert score_predictions([baseline(NULL), mine, *others]) == score_predictions([baseline(NULL), mine])
    assert score_predictions([baseline(NULL), *others]) is None


def test_a_cheaper_model_goes_on_where_a_call_to_another_could_pass_the_limit():
    prices = {"openai/dear": Price(1e-3, 1e-3), "openai/cheap": PRICE}
    with ModelServer(scripted({"text": GOOD})) as server:
        llm = researcher(server, names=tuple(prices), prices=prices, max_usd=1.0)
        models = {llm.propose(history_of([baseline(NULL)], seed=seed)).cost.model for seed in range(6)}
        with pytest.raises(FailedProposalError, match="pass --max-usd 1 "):
            researcher(server, names=("openai/dear",), prices=prices, max_usd=1.0).propose(history())
    assert models == {"openai/cheap"}


def test_a_page_of_lessons_is_never_written_anew_from_one_experiment_or_by_the_order_of_verdicts(tmp_path):
    page = Digest(tmp_path / "digest.md")
    numbers = [1, 2, 4, 5, 6, 7, 8, 9, 10, 3]
    assert page.due([_discard(number) for number in numbers])
    page.write("Lessons.", [_discard(number) for number in numbers])
    assert "after experiment 10;" in (tmp_path / "digest.md").read_text()
    assert not page.due([_discard(57)])  # all that `ar ablate` shows
    assert not page.due([_discard(number) for number in range(1, 21)], since=15)
