"""A loop gives candidates' trials a rule, records those it ended as stopped, and learns from the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from loop_fixtures import CONFIG, Scripted, ScriptedHandle, Widths, make_workspace, open_run, width_of

from autoresearch.core.judge.futility import BINS, EPSILON, replay
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.stop_rules import lessons
from autoresearch.core.store.exports import decided_record
from autoresearch.core.store.reader import LedgerReader


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


class CurvedHandle(ScriptedHandle):
    """Gives a result with a curve, ended where the request's rule says so; only a bad width shows in the curve."""

    def result(self, timeout=None):
        whole = super().result(timeout)
        width = width_of(self.request.source)
        level = width / 10 if width > 20 else 1.0
        curve = tuple(level + 1.0 - 1.0 * n / (BINS - 1) + 0.01 * (self.request.seed % 3) for n in range(BINS))
        if whole.status != "ok":
            return whole
        whole = whole.model_copy(update={"curve": curve, "train_seconds": 10.0, "steps": 100, "cpu_seconds": 10.0})
        at, stop = (BINS - 1, None) if self.request.stop is None else replay(self.request.stop, curve)
        if stop is None or stop.interval is None:
            return whole
        predicted = {"predicted_bpb": stop.predicted, "predicted_low": stop.interval[0]}
        ended = {"status": "stopped", "reason": stop.reason, "val_bpb": None, "curve": curve[: at + 1]}
        return whole.model_copy(update={**ended, **predicted, "predicted_high": stop.interval[1]})


class Curved(Scripted):
    def submit(self, request, observer=None):
        super().submit(request, observer)
        return CurvedHandle(self, request)


def go(workspace, widths, *, stop_early="on", n=None, script=None, preset=CONFIG.preset):
    executor = Curved(script)
    options = JudgeOptions(preset, stop_early=stop_early)
    config = replace(CONFIG, judge="racing", judge_options=options)
    with open_run(workspace, config=config) as run:
        Loop(run, Widths(*widths), Racing(options), executor, limits=Limits(n or len(widths))).go()
        return executor.requests, [run.ledger.experiment(number) for number in run.ledger.decisions()], run.attempts


def test_a_candidate_without_prospects_is_stopped_and_has_no_score(workspace):
    requests, rows, attempts = go(workspace, [40, 11])
    assert [row.status for row in rows] == ["keep", "stopped", "discard"]
    stopped = rows[1]
    assert stopped.val_bpb is stopped.estimate is stopped.delta is None
    assert "nats from the best file's" in stopped.reason
    record = decided_record(stopped)
    assert record["predicted_low"] < record["predicted"] < record["predicted_high"]
    assert record["predicted"] > 1.5
    assert decided_record(rows[2])["predicted"] is None
    # Researchers are told, and the trial cost no wealth.
    assert attempts[1].status == "stopped"
    assert attempts[1].metrics["predicted_bpb"] == record["predicted"]
    assert stopped.judged.get("wealth") == rows[0].judged["wealth"]
    # The baseline always runs to its end.
    assert [request.stop is None for request in requests] == [True, True, False, False]


@pytest.mark.parametrize(("preset", "epsilon"), [("h100", EPSILON[1]), ("demo", EPSILON[0])])
def test_noisy_trials_need_a_smaller_chance_to_be_stopped(workspace, preset, epsilon):
    requests, _, _ = go(workspace, [11], preset=preset)
    [stop] = [request.stop for request in requests if request.stop is not None]
    assert stop.epsilon == epsilon


def test_with_the_option_off_nothing_is_stopped(workspace):
    requests, rows, _ = go(workspace, [40], stop_early="off")
    assert all(request.stop is None for request in requests)
    assert rows[1].status == "discard"


def test_a_kept_change_is_measured_again_to_the_end_and_its_race_looks_at_its_health_alone(workspace):
    requests, rows, _ = go(workspace, [6, 7])
    assert [row.status for row in rows] == ["keep", "keep", "discard"]
    for request in requests:
        if request.stop is not None and request.stop.needs is not None:
            assert request.stop.score == pytest.approx(1.0 if width_of(request.source) == 6 else 0.6)
    again = [request for request in requests if width_of(request.source) == 6][1:]
    assert again
    assert all(request.stop is None or request.stop.needs is None for request in again)


def test_finished_trials_are_learnt_from_and_a_resumed_run_has_the_same_rule(workspace):
    requests, _, _ = go(workspace, [40, 11, 12, 13])
    with LedgerReader(workspace / "runs" / "t") as ledger:
        learnt = lessons(ledger)
    # 40 was ended early by its curve, so that it teaches nothing.
    assert [round(one.difference, 3) for one in learnt] == [0.1, 0.2, 0.3]
    assert all(len(one.curve) == len(one.incumbent) == BINS for one in learnt)
    first, *_, last = [request.stop for request in requests if request.stop is not None]
    assert last.forecasts[0].dof > first.forecasts[0].dof
    # The same history in two pieces: the rule of the last trial is the same.
    other = make_workspace(workspace.parent / "other")
    go(other, [40, 11, 12, 13], n=2)
    again, _, _ = go(other, [40, 11, 12, 13])
    assert again[-1].stop == last


def test_the_rule_holds_for_a_file_whose_trial_failed_to_log(workspace):
    _, rows, _ = go(workspace, [40, 11], script={40: "crash"})
    assert [row.status for row in rows] == ["keep", "crash", "discard"]
