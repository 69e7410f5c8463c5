"""Findings of other devices as proposals: the largest gain first, in turns with the run's own, each once."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from model_server import ModelServer, reply
from simulated_runs import SOURCE, baseline, history_of, run
from test_mix import Scripted

from autoresearch.agent.command import fill_folder
from autoresearch.agent.findings import named_finding, propose_finding
from autoresearch.agent.llm.models import Models
from autoresearch.agent.llm.operators import Task
from autoresearch.agent.llm.prompt import build_messages
from autoresearch.agent.llm.providers import Provider, tokens_in
from autoresearch.agent.llm.quotas import Demand
from autoresearch.agent.llm.replies import read_header
from autoresearch.agent.llm.researcher import LLM
from autoresearch.agent.llm.spending import Spending
from autoresearch.agent.mix import Mix, split
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.proposal import Attempt, Finding, InFlight, Origin
from autoresearch.core.trainfile.constants import write_constants


def found(experiment, delta, **constants):
    """A change of these constants that another device has kept."""
    origin = Origin("mac", experiment, "mlx", "Apple M4", delta)
    return Finding(origin, f"kept {constants}", "optimizer", SOURCE, write_constants(SOURCE, constants))


SMALL, LARGE, LAST = found(2, -0.001, ADAM_BETA1=0.9), found(5, -0.02, WARMDOWN=0.7), found(9, -0.0005, FINAL_LR=0.1)
UNKNOWN = replace(
    LARGE, origin=Origin("mac", 7, "mlx", "Apple M4", -0.5), after=SOURCE + "\n\ndef f():\n    return 1\n"
)


def attempt(number, source, status="discard", origin=None, parent=0, researcher="tuner", delta=0.01):
    return Attempt(
        experiment=number, source=source, status=status, reason="", hypothesis="", category="optimizer",
        researcher=researcher, predicted_delta=None, val_bpb=3.0, estimate=3.0, delta=delta, parent=parent,
        origin=origin,
    )  # fmt: skip


def history(*findings, attempts=(), **more):
    return replace(history_of([baseline(SOURCE), *attempts]), findings=findings, **more)


def offer(given):
    return propose_finding(given, tried_programs(given))


def test_the_largest_gain_that_can_be_carried_over_comes_first_and_says_where_it_is_from():
    proposal = Tuner().propose(history(UNKNOWN, LARGE, SMALL))
    assert proposal.origin == LARGE.origin and str(proposal.origin) == "mac#5"
    assert proposal.source == write_constants(SOURCE, {"WARMDOWN": 0.7})
    assert proposal.hypothesis == "WARMDOWN 0.5 -> 0.7; kept by mlx on Apple M4 (-0.0200 there)."
    assert proposal.researcher == "tuner" and proposal.predicted_delta is None


def test_after_a_finding_the_run_has_a_turn_of_its_own():
    tried = replace(LARGE, outcome="discard", experiment=1, delta=0.01)
    first = attempt(1, LARGE.after, origin=LARGE.origin)
    given = history(tried, SMALL, attempts=[first])
    own = Tuner().propose(given)
    assert own.origin is None
    assert own == Tuner().propose(replace(given, findings=())), "its own search does not see them"
    assert offer(history(tried, SMALL, attempts=[first, attempt(2, own.source)])).origin == SMALL.origin


def test_what_is_tried_or_in_flight_or_was_hit_upon_here_is_not_offered_again():
    assert offer(history(replace(LARGE, outcome="keep"), replace(SMALL, outcome="in flight"))) is None
    assert offer(history(LARGE, SMALL, attempts=[attempt(1, LARGE.after)])).origin == SMALL.origin
    flying = InFlight(1, LARGE.after, "h", "optimizer", "tuner", None, 0, origin=LARGE.origin)
    assert offer(history(SMALL, in_flight=(flying,))) is None, "it is the run's own turn"
    assert offer(history(SMALL, thinking=1)) is None, "who thinks now may have taken it"


def test_where_none_of_the_last_three_held_findings_come_more_rarely():
    def after(own, status):
        """Three findings that ended so, one after another, and so many own proposals since."""
        origins = [Origin("mac", 20 + n, "mlx", "Apple M4") for n in range(3)]
        sources = [write_constants(SOURCE, {"ADAM_BETA1": round(0.5 + n / 100, 2)}) for n in range(3 + own)]
        tries = [attempt(n + 1, sources[n], status, origins[n]) for n in range(3)]
        return [*tries, *(attempt(n + 4, sources[n + 3]) for n in range(own))]

    assert offer(history(LARGE, attempts=after(1, "keep"))) is not None
    assert [offer(history(LARGE, attempts=after(own, "discard"))) is not None for own in range(5)] == [
        *(False, False, False, False, True)
    ]


def test_findings_starve_nobody_and_a_restarted_researcher_goes_on_as_it_would_have():
    findings = [found(n, -0.01 * n, ADAM_BETA1=round(0.5 + n / 100, 2)) for n in range(8, 0, -1)]
    straight = run(Tuner, 12, findings=findings)
    restarted = run(Tuner, 12, findings=findings, restart=True)
    assert [one.source for one in straight] == [one.source for one in restarted]
    taken = [one.origin for one in straight[1:]]
    assert taken[0] == findings[0].origin and not any(one and other for one, other in pairwise(taken))
    tried = [origin for origin in taken if origin is not None]
    assert len(tried) == len(set(tried)) >= 3, "each once"


def test_mix_takes_findings_itself_and_counts_them_for_neither():
    tuner, llm = Scripted("tuner"), Scripted("llm")
    mix = Mix([tuner, llm])
    given = history(LARGE)
    assert mix.next(given) is mix
    proposal = mix.propose(given)
    assert (proposal.researcher, proposal.origin) == ("mix", LARGE.origin) and not tuner.histories + llm.histories
    gains = [attempt(n, SOURCE, "keep", LARGE.origin, researcher="llm", delta=-1.0) for n in range(1, 9)]
    assert split([baseline(SOURCE), *gains], ["tuner", "llm"]) == [0.5, 0.5]


TASK = Task("improve", baseline(SOURCE), (), Demand("knob", (), ""))


def told(given, limit=100_000):
    return build_messages(given, TASK, form="blocks", limit=limit)[1]["content"]


def test_a_model_is_told_what_was_kept_elsewhere_with_its_change_and_what_became_of_it_here():
    text = told(history(UNKNOWN, replace(SMALL, outcome="discard", experiment=4, delta=0.002)))
    assert "mac#7 (kept by mlx on Apple M4, -0.5000 there)" in text and "-> untried here" in text
    assert "+    return 1" in text, "what it changed"
    assert "mac#2" in text and "-> here: discard, experiment 4 (+0.0020)" in text
    assert "Kept on other devices" not in told(history())


def test_where_the_context_is_short_findings_are_told_shorter():
    many = [found(n, -0.001 * n, ADAM_BETA1=round(0.3 + n / 1000, 3)) for n in range(1, 60)]
    assert told(history(*many)).count("kept by mlx") == 8
    room = tokens_in(build_messages(history(), TASK, form="blocks", limit=100_000))
    assert told(history(*many), room + 60).count("kept by mlx") < 8


def test_a_reply_names_the_finding_that_it_tries():
    given = history(LARGE, SMALL)
    assert read_header("HYPOTHESIS: more\n**FINDING:** `mac#5`\n").finding == "mac#5"
    assert named_finding(given, "mac#5") == LARGE.origin
    assert named_finding(given, "mac#2 (kept by mlx)") == SMALL.origin
    assert [named_finding(given, name) for name in ("", "none", "mac#77", "mac")] == [None] * 4


@pytest.fixture
def answered(monkeypatch):
    """The proposal of a model that says this."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    def answered(given, said):
        with ModelServer(lambda *_: {"text": said}) as server:
            provider = Provider(api_base=server.url, timeout_seconds=20.0)
            return LLM(Models(["openai/test-model"], provider, Spending(None, None))).propose(given)

    return answered


LINE = next(line for line in SOURCE.splitlines() if line.startswith("WARMDOWN"))


def test_a_models_proposal_carries_the_finding_that_it_names(answered):
    proposal = answered(history(LARGE), "FINDING: mac#5\n" + reply(LINE, "WARMDOWN = 0.7"))
    assert proposal.origin == LARGE.origin and constants_of(proposal.source)["WARMDOWN"] == 0.7
    assert answered(history(LARGE), reply(LINE, "WARMDOWN = 0.7")).origin is None


def test_a_repair_of_a_finding_is_still_about_it(answered):
    broken = replace(attempt(1, SOURCE + "\n1 / 0\n", "crash", LARGE.origin, researcher="llm"), delta=None)
    broken = replace(broken, val_bpb=None, estimate=None, parameters={"kind": "structural"})
    proposal = answered(history(LARGE, attempts=[broken]), reply("1 / 0", "X = 1"))
    assert proposal.parameters["operator"] == "debug" and proposal.origin == LARGE.origin


def test_an_outside_agent_finds_them_in_its_task(tmp_path):
    fill_folder(tmp_path, history(LARGE))
    assert "mac#5 (kept by mlx on Apple M4" in (tmp_path / "TASK.md").read_text()
