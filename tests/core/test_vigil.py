"""Trials that say nothing about their source are run again, not judged."""

from __future__ import annotations

import os
import re
import stat
import sys
from types import SimpleNamespace

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run, width_of

from autoresearch.core import flights
from autoresearch.core.cli.awake import awake
from autoresearch.core.errors import ArError
from autoresearch.core.judge.decision import Demotion
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.loop import Limits, Loop
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.source import Repository
from autoresearch.core.trial.result import TrialResult
from autoresearch.core.vigil import asleep_seconds, spoiled


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def result(speed, status="ok"):
    return TrialResult(status=status, seed=0, backend="null", preset="demo", tokens_per_second=speed)


def trials(*speeds):
    return [SimpleNamespace(result={"tokens_per_second": speed}) for speed in speeds]


def test_a_trial_far_below_the_runs_usual_speed_is_run_once_more_and_then_believed():
    common = {"slept": 0.0, "incumbent": trials(100.0), "repeated": False}
    assert "tokens/s" in spoiled(result(50.0), same=trials(100.0, 90.0, 110.0), **common)
    assert spoiled(result(70.0), same=trials(100.0), **common) is None
    assert spoiled(result(50.0), same=[], **common) is None  # a larger model is slower by right
    assert spoiled(result(20.0), same=[], **common) is not None
    assert spoiled(result(50.0), same=trials(100.0), **{**common, "repeated": True}) is None
    assert spoiled(result(None, "crash"), same=trials(100.0), **common) is None
    assert "slept for 60 s" in spoiled(result(100.0), same=[], **{**common, "slept": 60.0})


def test_the_clock_of_sleep_stands_still_while_the_machine_is_awake():
    assert asleep_seconds() == pytest.approx(asleep_seconds(), abs=0.5)


def test_a_sleep_in_a_trial_has_it_run_again_under_its_number(workspace, monkeypatch):
    clock = {"asleep": 0.0}
    monkeypatch.setattr(flights, "asleep_seconds", lambda: clock["asleep"])

    def during(request):
        if width_of(request.source) == 9 and len(executor.requests) == 2:
            clock["asleep"] += 3600.0

    executor, events = Scripted(during=during), []
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), executor, limits=Limits(1), observer=events.append).go()
        assert [(trial.k, trial.starts) for trial in run.ledger.trials(experiment=1)] == [(1, 2)]
        assert len(run.ledger.events("trial repeated")) == 1
    assert [width_of(request.source) for request in executor.requests] == [10, 9, 9]
    assert "slept for 3600 s" in next(event["reason"] for event in events if event["event"] == "repeated")


def test_a_trial_that_fails_on_a_full_disk_is_not_held_against_its_source(workspace, monkeypatch):
    monkeypatch.setattr(flights, "disk_is_full", lambda _: True)
    with open_run(workspace) as run, pytest.raises(ArError, match=r"is full\. Fix: free some space"):
        Loop(run, Widths(9), Greedy(), Scripted({9: "crash"}), limits=Limits(1)).go()
    monkeypatch.undo()
    with open_run(workspace) as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
        assert run.ledger.experiment(1).status == "keep"


def test_a_champion_that_does_not_hold_gives_its_place_back_and_everything_follows(workspace):
    class Demotes(Greedy):
        def consider(self, evidence):
            if evidence.candidate.experiment == 2 and evidence.incumbent.experiment == 1:
                return Demotion(1, "demoted: it was luck")
            return super().consider(evidence)

    with open_run(workspace) as run:
        Loop(run, Widths(9, 12), Demotes(), Scripted(), limits=Limits(2)).go()
        commits = [row.commit for row in run.ledger.experiments()]
        assert run.ledger.run().incumbent == 0
    with LedgerReader(workspace / "runs/t") as reader:
        demoted = reader.experiment(1)
        assert (demoted.status, demoted.reason.partition(";")[0]) == ("discard", "demoted: it was luck")
    assert Repository.open(workspace).ref("refs/heads/autoresearch/t") == commits[0]
    assert re.search(r"WIDTH = 10\b", (workspace / "runs/t/best_train.py").read_text())
    with open_run(workspace) as run:  # and it is taken up again as it stands
        assert [attempt.status for attempt in run.attempts] == ["keep", "discard", "discard"]


def test_on_macos_the_loop_keeps_the_machine_awake_and_lets_it_sleep_afterwards(tmp_path, monkeypatch):
    said = tmp_path / "arguments"
    fake = tmp_path / "caffeinate"
    fake.write_text(f'#!/bin/sh\necho "$@" > {said}\nexec sleep 60\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with awake():
        for _ in range(500):
            if said.exists() and said.read_text():
                break
            __import__("time").sleep(0.01)
    assert said.read_text().split() == ["-i", "-m", "-w", str(os.getpid())]
