"""Several proposals of a language model made at once, and what a prompt says of what is not being tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_server import ModelServer
from simulated_runs import SOURCE, baseline, history_of
from test_llm import GOOD, MODEL, history, researcher, scripted
from test_prompt import edit, run_of

from autoresearch.agent.llm.memory import card_of, held, shortened
from autoresearch.agent.llm.operators import Task, choose_task
from autoresearch.agent.llm.prompt import Detail, task_text
from autoresearch.agent.llm.quotas import Demand
from autoresearch.agent.llm.researcher import _Talk
from autoresearch.core.cli.run.options import ResearcherOptions, assumptions
from autoresearch.core.proposal import TITLE, PairedDifference, TrialFigures, Withdrawn


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


def text_of(history, base=None, operator="improve", **detail):
    base = base or history.incumbent
    material = (base,) if operator == "follow_up" else ()
    return task_text(history, Task(operator, base, material, Demand("knob", (), "")), Detail(**detail), "", ())


def bold(number, **more):
    return edit(number, parameters={"kind": "bold", "operator": "bold"}, **more)


def test_a_follow_up_that_is_being_asked_for_is_not_asked_for_a_second_time():
    past = history_of([*run_of(1), bold(2)])
    assert choose_task(past).operator == "follow_up"
    assert choose_task(past, {("follow_up", 2)}).operator != "follow_up"
    with ModelServer(scripted({"text": GOOD})) as server:
        llm = researcher(server)
        tasks = [llm._take_task(past) for _ in range(3)]
        assert [task.operator for task in tasks].count("follow_up") == 1
        llm._give_back(tasks[0])  # it brought nothing
        assert llm._take_task(past).operator == "follow_up"


def test_a_follow_up_that_a_model_dropped_stays_dropped_before_its_proposal_is_decided():
    past = history_of([*run_of(1), bold(2)])
    dropped = f"DROP: it is too slow\n{GOOD.replace('LEARNING_RATE = 0.25', 'MUON_LR = 0.02')}"
    line = next(line for line in SOURCE.splitlines() if line.startswith("MUON_LR"))
    answer = GOOD.replace(next(one for one in GOOD.splitlines() if one.startswith("LEARNING_RATE")), line, 1)
    with ModelServer(scripted({"text": f"DROP: it is too slow\n{answer}"}, {"text": dropped})) as server:
        llm = researcher(server)
        llm.propose(past)
        assert "DROP:" in server.requests[0]["messages"][1]["content"]
        assert llm._take_task(past).operator != "follow_up"


def test_prompts_made_at_once_differ():
    one, two, three = (text_of(replace(history_of(run_of(3)), thinking=count)) for count in range(3))
    assert "being made at this moment" not in one
    assert "1 other proposal is being made" in two and "2 other proposals are being made" in three


def test_the_digest_is_asked_for_by_one_proposal_at_a_time_and_not_again_at_once_when_it_failed():
    past, digests = history_of(run_of(10)), []

    def script(_, body):
        digest = "Write the page anew" in body["messages"][-1]["content"]
        digests.append(1) if digest else None
        return {"status": 401} if digest else {"text": GOOD}

    with ModelServer(script) as server:
        llm = researcher(server)
        with llm._digest_lock:  # another proposal is asking for it
            llm._renew_digest(_talk(past), (MODEL,))
            assert not digests
        llm._renew_digest(_talk(past), (MODEL,))
        llm._renew_digest(_talk(past), (MODEL,))
        assert len(digests) == 1


def _talk(past):
    return _Talk(past, choose_task(past), frozenset())


def test_a_task_on_another_file_shows_the_best_one_or_how_it_differs():
    base = bold(2, source=SOURCE.replace("DEPTH = 3", "DEPTH = 9"))
    past = history_of([*run_of(1), base])
    whole, short = (text_of(past, base, "follow_up", best_too=best_too) for best_too in (True, False))
    assert "has instead of it" not in whole and "DEPTH = 3" in whole
    assert "What the best file, experiment 0, has instead of it" in short
    assert "-DEPTH = 9" in short and "+DEPTH = 3" in short


def test_withdrawn_proposals_are_told_of_as_not_being_tried():
    past = replace(history_of(run_of(1)), withdrawn=(Withdrawn("Four followers.", "loss", "it does not fit"),))
    assert "Withdrawn before they were tried" in text_of(past)
    assert "[loss] Four followers. — it does not fit" in text_of(past)


def test_what_the_best_file_holds_is_no_near_miss_to_combine():
    best = SOURCE.replace("DEPTH = 3", "DEPTH = 2").replace("ADAM_BETA1 = 0.8", "ADAM_BETA1 = 0.7")
    part = edit(1, source=SOURCE.replace("DEPTH = 3", "DEPTH = 2"))
    other = edit(2, source=SOURCE.replace("WARMDOWN = 0.5", "WARMDOWN = 0.9"), category="schedule")
    sources = {0: SOURCE, 1: part.source, 2: other.source, 3: best}
    assert held(part, sources, best) and not held(other, sources, best)
    kept = edit(3, source=best, status="keep", raw=PairedDifference(-0.1, 0.01, 0, ()))
    text = text_of(history_of([baseline(SOURCE), part, other, kept]))
    assert "Near misses: not kept, but better by raw scores: #2 (" in text


def test_a_card_gives_the_training_loss_and_its_hypothesis_ends_with_a_word():
    trial = TrialFigures(0, 1.1418, 211, 422_000, 45.0, 2.5432)
    card = card_of(edit(1, trials=(trial,), hypothesis="very " * 200), {0: SOURCE})
    assert "training loss 2.543 at the end" in card.line and card.line.endswith("very…")
    assert shortened("one two three", 9) == "one two…" and shortened("one", 9) == "one"


def test_a_proposal_is_named_by_what_it_changes():
    with ModelServer(scripted({"text": GOOD})) as server:
        assert researcher(server).propose(history()).parameters[TITLE] == "LEARNING_RATE=0.5"


def test_the_contract_names_the_documents():
    with ModelServer(scripted({"text": GOOD})) as server:
        researcher(server).propose(history())
        assert "data.documents()" in server.requests[0]["messages"][0]["content"]


def test_an_assumed_context_is_said_and_a_given_one_is_not():
    options = ResearcherOptions(model=("openai/some-unknown-model",))
    (said,) = assumptions("llm", options)
    assert "32,768" in said and "--context-tokens" in said
    assert assumptions("llm", replace(options, context_tokens=200_000)) == () == assumptions("tuner", options)
