"""A withdrawn proposal is told of where its number has no experiment."""

from __future__ import annotations

import json

import pytest
from loop_fixtures import open_run
from side_by_side import Edits, Field, edit, two_constants

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal
from autoresearch.core.report.document.gather import gather
from autoresearch.core.report.document.page import html_page, markdown
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.restore import mend

REASON = "it does not fit"


@pytest.fixture
def workspace(tmp_path):
    """Return a workspace whose run has withdrawn the proposals 1 and 4; 4 is a number that the next one gets again."""
    folder = two_constants(tmp_path / "w")
    with open_run(folder) as run:
        Loop(run, Edits(), Greedy(), Field(1), limits=Limits(0)).go()
        source = run.ledger.source(0)
        for change in ({"WIDTH": 5}, {"DEPTH": 4}, {"HEIGHT": 3}):
            run.propose(Proposal(edit(source, change), "an edit", "shape", researcher="edits"), "program")
        run.withdraw(run.ledger.experiment(1), REASON)
        Loop(run, Edits(), Greedy(), Field(1), limits=Limits(2)).go()
        last = Proposal(edit(source, {"WIDTH": 4}), "an edit", "shape", researcher="edits")
        run.withdraw(run.propose(last, "program"), REASON)
        assert run.ledger.next_number() == 4
    return folder


def call(workspace, *arguments):
    return ar(["--workspace", str(workspace), *arguments])


def test_the_table_and_the_report_name_a_number_without_an_experiment(workspace, capsys):
    assert call(workspace, "results") == 0
    said = capsys.readouterr()
    assert [line.split("\t")[0] for line in said.out.splitlines()[1:]] == ["0", "2", "3"]
    line = f"there is no experiment 1: its proposal was withdrawn before a trial, because {REASON}"
    assert line in said.err and "experiment 4" not in said.err
    assert call(workspace, "results", "--last", "2") == 0
    assert "withdrawn" not in capsys.readouterr().err
    with LedgerReader(workspace / "runs/t") as reader:
        report = gather(reader)
        assert reader.withdrawn() == {1: REASON}
    assert line in markdown(report)
    assert "There is no experiment 1: its proposal" in html_page(report, None)


def test_results_says_why_a_number_has_no_experiment(workspace, capsys):
    assert call(workspace, "results", "--why", "1") == 0
    assert capsys.readouterr().out == f"experiment 1: withdrawn before a trial: {REASON}\n"
    assert call(workspace, "results", "--why", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"experiment": 1, "status": "withdrawn", "reason": REASON}
    assert call(workspace, "results", "--why", "4") == 2
    assert "there is no experiment 4" in capsys.readouterr().err


def test_withdrawn_numbers_come_back_with_a_ledger_that_is_restored(workspace):
    ledger = workspace / "runs/t/ledger.sqlite"
    ledger.write_bytes(b"damaged" * 1000)
    assert mend(ledger.parent, lambda _: None)
    with LedgerReader(ledger.parent) as reader:
        assert reader.withdrawn() == {1: REASON}
