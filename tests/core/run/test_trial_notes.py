"""The incumbent's loss curve, as a researcher is shown it."""

from __future__ import annotations

import json

from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.judge.decision import RunTrial
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal
from autoresearch.core.report.web.api import experiment
from autoresearch.core.report.web.queries import RunQueries
from autoresearch.core.run.history import attempt_of, loss_curve, with_notes
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.trial.request import TrialResult


def write_events(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    events = [{"t": 1.0, "event": "spawned"}, {"t": 3.0, "event": "first_batch"}]
    events += [
        {"t": 3.0 + 0.1 * i, "event": "log", "step": i, "loss": 5.0 - 0.02 * i, "progress": 0.01 * i}
        for i in range(1, count + 1)
    ]
    text = "\n".join(json.dumps(event) for event in events) + '\n{"t": 9.0, "event": "lo'
    (folder / "events.jsonl").write_text(text)


def test_a_dozen_points_from_the_first_to_the_last(tmp_path):
    write_events(tmp_path, 100)
    points = loss_curve(tmp_path, 10.0).split(", ")
    assert len(points) == 12
    assert (points[0], points[-1]) == ("4.98 at 1%", "3 at 100%")


def test_short_curves_are_shown_whole_and_missing_ones_not_at_all(tmp_path):
    write_events(tmp_path, 2)
    assert loss_curve(tmp_path, 10.0) == "4.98 at 1%, 4.96 at 2%"
    assert loss_curve(tmp_path / "missing", 10.0) == ""
    (tmp_path / "events.jsonl").write_text("no events\n[]\n")
    assert loss_curve(tmp_path, 10.0) == ""


def test_the_curve_is_of_the_file_s_own_trial_also_where_the_incumbent_was_measured_before_it(tmp_path):
    with open_run(make_workspace(tmp_path / "w")) as run:
        Loop(run, Widths(), Greedy(), Scripted(), limits=Limits(0)).go()
        row = run.propose(Proposal("x = 1\n", "another", "shape"), "")
        for role, subject, points in (("incumbent", 0, 3), ("candidate", row.number, 2)):
            trial = run.ledger.start_trial(row.number, RunTrial(role, 8 - subject), subject=subject)
            result = TrialResult(status="ok", val_bpb=1.0, seed=trial.seed, backend="null", preset="demo")
            run.ledger.score(row.number, trial.k, result)
            write_events(run.folder / "trials" / f"{row.number}-{trial.k}", points)
        noted = with_notes(attempt_of(run.ledger.experiment(row.number), "x = 1\n"), run.ledger, run.attempts)
        child = run.propose(Proposal("x = 2\n", "an edit of it", "shape"), "", row.number)
    assert noted.metrics["loss_curve"] == "4.98 at 5%, 4.96 at 10%"
    with RunQueries(tmp_path / "w/runs/t") as reader:
        assert (reader.first_trial(row.number).k, reader.first_trial(child.number)) == (2, None)
        # The dashboard draws the parent's curve beside a file's own.
        assert len(experiment(reader, child.number)["before"]) == 2
