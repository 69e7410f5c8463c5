"""The headline of a run: the same measured mean in every view."""

from __future__ import annotations

import json
import math
import sqlite3

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Proposal
from autoresearch.core.report.document.gather import gather
from autoresearch.core.report.document.page import html_page, markdown
from autoresearch.core.report.follow import RunFollower
from autoresearch.core.report.terminal.panel import best_line
from autoresearch.core.report.web.api import run_summary, state
from autoresearch.core.report.web.queries import RunQueries
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.exports import summarise
from autoresearch.core.store.headline import headline_of
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.rows import TrialRow, machine_of
from autoresearch.core.takeaway.certificate import make
from autoresearch.core.trial.request import TrialResult


@pytest.fixture
def workspace(tmp_path):
    """A run with two keeps by the racing judge, whose last keep was measured once more."""
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(7, 5, 12, 13), Racing(), Scripted(), limits=Limits(4)).go()
    return folder


def test_the_mean_is_of_trials_that_chose_nothing_and_its_interval_is_the_noises(workspace):
    with RunQueries(workspace / "runs/first") as reader:
        headline = headline_of(reader)
        own = [t.val_bpb for t in reader.trials(subject=headline.experiment) if t.experiment != headline.experiment]
        sigma = reader.last_facts()["sigma"]
    assert own and not headline.best.selected
    assert headline.best.value == pytest.approx(sum(own) / len(own))
    assert headline.best.half >= 1.96 * sigma / math.sqrt(len(own))
    assert headline.gain == pytest.approx(headline.best.value - headline.baseline.value)
    assert headline.gain_half > 0


def test_the_cautious_estimate_is_never_better_than_what_was_measured(workspace):
    """The judge's estimate dates from the decision; trials after that may have been worse."""
    with RunQueries(workspace / "runs/first") as reader:
        headline, best = headline_of(reader), reader.incumbent()
    assert headline.best.value <= headline.cautious < headline.baseline.value
    assert headline.cautious >= best.estimate
    with sqlite3.connect(workspace / "runs/first/ledger.sqlite") as ledger:
        ledger.execute("UPDATE experiments SET estimate = ? WHERE number = ?", (best.estimate - 0.5, best.number))
    with RunQueries(workspace / "runs/first") as reader:
        lucky = headline_of(reader)
    assert lucky.best.value <= lucky.cautious < lucky.baseline.value


def test_every_view_shows_the_same_number_and_the_cautious_estimate_beside_it(workspace, capsys):
    with RunQueries(workspace / "runs/first") as reader:
        headline, report = headline_of(reader), gather(reader)
        snapshot = RunFollower(reader).look()
        best, cautious = f"{headline.best.value:.4f}", f"{headline.cautious:.4f}"
        assert summarise(reader)["best_bpb"] == headline.best.value
        assert summarise(reader)["best_estimate"] == headline.cautious
        assert state(snapshot, {})["best_bpb"] == headline.best.value
        assert snapshot.keeps[-1] == (headline.experiment, headline.best.value)
        assert run_summary(reader)["steps"][-1][:2] == (headline.experiment, headline.best.value)
        texts = [best_line(snapshot), html_page(report, None), markdown(report)]
    for command in (["status"], ["results"], ["report", "--markdown"]):
        assert ar(["--workspace", str(workspace), *command]) == 0
        told = capsys.readouterr()
        texts.append(told.out + told.err)
    for text in texts:
        assert f"{best} ± {headline.best.half:.4f}" in text
        assert cautious in text
        assert "cautious estimate" in text.lower()


def test_why_0_tells_both_noises(workspace, capsys):
    assert ar(["--workspace", str(workspace), "results", "--why", "0"]) == 0
    assert "; paired noise 0." in capsys.readouterr().out
    assert ar(["--workspace", str(workspace), "--json", "results", "--why", "0"]) == 0
    assert {"sigma", "dof", "paired", "paired_dof"} == json.loads(capsys.readouterr().out)["noise_now"].keys()


def test_the_picture_and_the_table_of_keeps_have_the_same_means(workspace):
    with RunQueries(workspace / "runs/first") as reader:
        report = gather(reader)
    assert report.means[0] == report.headline.baseline.value
    assert report.means[report.headline.experiment] == report.headline.best.value


def test_a_best_file_is_not_compared_with_a_baseline_of_another_machine(tmp_path):
    """Greedy measures the best file alone on a machine that is new to the run."""
    with Ledger(tmp_path / "t") as ledger:
        ledger.create("t", {"backend": "null", "preset": "demo", "seed": 7}, "base")

        def trial(number, subject, value, machine):
            row = ledger.start_trial(number, RunTrial("candidate", 7), subject=subject)
            common = {"seed": 7, "backend": "null", "preset": "demo", "machine": machine}
            ledger.score(number, row.k, TrialResult(status="ok", val_bpb=value, **common))

        for number, value in ((0, 2.0), (1, 1.5)):
            more = {"commit": "c", "fingerprint": str(number), "program": "", "created": 0.0}
            ledger.propose(number, Proposal(f"x = {number}", "", "shape"), parent=0, **more)
            trial(number, number, value, "old")
            ledger.decide(number, Decision("keep", value, None, ""), ledger.trials(experiment=number)[0])
        assert headline_of(ledger).gain == pytest.approx(-0.5)
        more = {"commit": "c", "fingerprint": "2", "program": "", "created": 0.0}
        ledger.propose(2, Proposal("x = 2", "", "shape"), parent=1, **more)
        trial(2, 1, 3.0, "new")
        headline = headline_of(ledger)
        assert (headline.best.value, headline.baseline, headline.gain) == (3.0, None, None)
        with pytest.raises(PrerequisiteError, match="has no score on the machine of its best file"):
            make(ledger, {})


def test_the_machine_of_a_file_is_where_it_was_measured_last_whichever_experiment_asked(tmp_path):
    def trial(experiment, ended, machine, value=1.0):
        found = {"machine": machine}
        return TrialRow(experiment, 1, "incumbent", 0, 7, 1, 0.0, ended, "ok" if value else "crash", value, found)

    # Experiment 5 has gone on, on the new machine, after 8 had ended on the old one; a crash measures nothing.
    assert machine_of([trial(5, 9.0, "new"), trial(8, 3.0, "old"), trial(9, 10.0, "third", None)]) == "new"
    assert machine_of([]) == ""
