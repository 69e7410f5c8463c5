"""What a run is told of runs on other devices: which of their keeps, what became of each here, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from dataclasses import replace

import pytest
from loop_fixtures import CONFIG, Scripted, Widths, make_workspace, open_run, width_of
from side_by_side import Edits, Field, numbers, two_constants

from autoresearch.core.findings.offered import offered_changes
from autoresearch.core.findings.peers import PeerRuns, folders_of
from autoresearch.core.judge.decision import Demotion
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Origin, Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.stack_parts import PARTS, STACKER
from autoresearch.core.store.git import Repository
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.schema import SCHEMA_VERSION
from autoresearch.core.store.transfers import transfers_of

MAC = replace(CONFIG, device="Apple M4")


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


@pytest.fixture
def said():
    return []


def go(workspace, tag, config, researcher, executor=None, n=None, peers=None):
    with open_run(workspace, tag, config, peers=peers) as run:
        Loop(run, researcher, Greedy(), executor or Scripted(), limits=Limits(n)).go()


def mac(workspace, *widths, tag="mac", config=MAC):
    """A run on another device that has tried these widths."""
    go(workspace, tag, config, Widths(*widths), n=len(widths))


def peers(workspace, said, *wanted):
    return PeerRuns(folders_of(workspace, wanted or ("auto",)), said.append)


def opened(workspace, peers, tag="t", config=CONFIG):
    """A run with a baseline."""
    if not (workspace / "runs" / tag).exists():
        go(workspace, tag, config, Widths(), n=0)
    return open_run(workspace, tag, config, peers=peers)


def told(workspace, said, *wanted, tag="t", config=CONFIG):
    """What a run knows when it is taken up."""
    with opened(workspace, peers(workspace, said, *wanted), tag, config) as run:
        return run.history("").findings


def names(findings):
    return [str(one.origin) for one in findings]


class Taker(Researcher):
    """Takes over the first untried finding's width; else proposes one from its list."""

    name = "taker"

    def __init__(self, *widths):
        self.widths = list(widths)

    def propose(self, history):
        for one in history.findings:
            if one.outcome == "untried":
                return Proposal(one.after, f"as {one.origin}", "shape", researcher=self.name, origin=one.origin)
        source = re.sub(r"WIDTH = \d+", f"WIDTH = {self.widths.pop(0)}", history.incumbent.source)
        return Proposal(source, "own", "shape", researcher=self.name)


def test_the_keeps_of_another_device_are_findings_the_largest_gain_first(workspace, said):
    mac(workspace, 9, 12, 4, 2)
    first, second, third = told(workspace, said)
    assert names([first, second, third]) == ["mac#3", "mac#4", "mac#1"], "no baseline, and no discard"
    assert first.origin == Origin("mac", 3, "null", "Apple M4") and first.origin.delta == pytest.approx(-0.5)
    assert (width_of(first.before), width_of(first.after)) == (9, 4)
    assert (first.outcome, first.experiment, first.category) == ("untried", None, "shape")
    assert said == ["mac (null on Apple M4) has kept 3 changes: offered here as proposals"]


def test_a_run_of_the_same_backend_and_device_is_none_and_so_is_the_run_itself(workspace, said):
    mac(workspace, 9, tag="same", config=CONFIG)
    mac(workspace, 8, tag="t", config=CONFIG)
    assert told(workspace, said) == () and said == []


def test_a_run_of_the_null_backend_has_findings_for_null_runs_alone(workspace, said):
    mac(workspace, 9)
    found = peers(workspace, said)
    assert found.look(workspace / "runs/t", "null", "scripted")
    assert found.look(workspace / "runs/t", "cuda", "NVIDIA H100") == []


def test_a_keep_that_did_not_hold_is_withdrawn_and_the_ledger_says_so(workspace, said):
    mac(workspace, 9, 8)
    with opened(workspace, peers(workspace, said)) as run:
        assert names(run.history("").findings) == ["mac#1", "mac#2"]
        with Ledger(workspace / "runs/mac") as ledger:
            ledger.demote(Demotion(2, "it did not hold"), 1)
        assert names(run.history("").findings) == ["mac#1"]
        assert [(one.origin.experiment, one.gone) for one in transfers_of(run.ledger)] == [(1, False), (2, True)]


def test_nothing_is_said_or_noted_twice_by_a_run_that_is_taken_up(workspace, said):
    mac(workspace, 9)
    go(workspace, "t", CONFIG, Taker(20), n=1, peers=peers(workspace, said))
    assert names(told(workspace, said)) == ["mac#1"] and len(said) == 1
    with LedgerReader(workspace / "runs/t") as reader:
        assert len(reader.events("finding")) == 1


def test_a_finding_becomes_an_ordinary_experiment_once_and_is_not_offered_again(workspace, said):
    mac(workspace, 9, 3)
    executor = Scripted()
    go(workspace, "t", CONFIG, Taker(20), executor, n=2, peers=peers(workspace, said))
    assert [width_of(request.source) for request in executor.requests] == [10, 3, 9]
    best, other = told(workspace, said)
    assert (best.outcome, best.experiment, best.delta) == ("keep", 1, pytest.approx(-0.7))
    assert (other.outcome, other.experiment, other.delta) == ("discard", 2, pytest.approx(0.6))
    with LedgerReader(workspace / "runs/t") as reader:
        rows = list(reader.experiments())
        assert [row.origin for row in rows] == [None, best.origin, other.origin]
        assert reader.verify().fault is None
    message = Repository.open(workspace)._git("log", "-1", "--format=%B", rows[1].commit)
    assert "Origin: mac#2 on Apple M4" in message


def test_what_is_in_flight_is_so_and_the_history_says_it(workspace, said):
    mac(workspace, 9)
    with opened(workspace, peers(workspace, said)) as run:
        (finding,) = run.history("").findings
        run.propose(Taker().propose(run.history("")), "")
        (now,) = run.history("").findings
        assert (now.outcome, now.experiment) == ("in flight", 1)
        assert [one.origin for one in run.history("").in_flight] == [finding.origin]


def test_a_finding_does_not_come_back_to_where_it_was_made_nor_by_two_ways(workspace, said):
    go(workspace, "t", CONFIG, Widths(9), n=1)
    go(workspace, "mac", MAC, Taker(), n=1, peers=peers(workspace, said))
    assert told(workspace, said) == (), "mac#1 is its own"
    h200 = replace(CONFIG, device="NVIDIA H200")
    assert names(told(workspace, said, tag="third", config=h200)) == ["t#1"], "mac#1 is the same"
    shutil.rmtree(workspace / "runs/t")
    assert names(told(workspace, said, tag="fourth", config=h200)) == ["mac#1"]


def stacked(workspace, tag, stack, *parts):
    """Make an experiment of a run a kept stack of others, whose own verdict is then a discard."""
    connection = sqlite3.connect(workspace / "runs" / tag / "ledger.sqlite")
    with connection:
        named = json.dumps({PARTS: " ".join(map(str, parts))})
        connection.execute("UPDATE experiments SET status = 'discard' WHERE number > 0 AND number < ?", (stack,))
        values = (STACKER, named, stack)
        connection.execute("UPDATE experiments SET researcher = ?, parameters = ? WHERE number = ?", values)
    connection.close()


def test_a_stack_does_not_bring_a_part_back_to_where_it_was_made(workspace, said):
    go(workspace, "t", CONFIG, Widths(9), n=1)
    go(workspace, "mac", MAC, Taker(8, 7), n=3, peers=peers(workspace, said))
    stacked(workspace, "mac", 3, 1, 2)
    (other,) = told(workspace, said)
    assert (str(other.origin), width_of(other.before), width_of(other.after)) == ("mac#2", 9, 8), "mac#1 is its own"
    h200 = replace(CONFIG, device="NVIDIA H200")
    assert names(told(workspace, said, tag="third", config=h200)) == ["mac#2", "t#1"], "mac#1 is the same"
    with LedgerReader(workspace / "runs/third") as reader:
        assert not [one for one in transfers_of(reader) if one.gone]
    shutil.rmtree(workspace / "runs/t")
    assert names(told(workspace, said, tag="fourth", config=h200)) == ["mac#3"], "whole, where all of it is new"


def test_a_stack_of_nothing_but_a_runs_own_changes_is_not_offered_to_it(workspace, said):
    go(workspace, "t", CONFIG, Widths(9), n=1)
    go(workspace, "mac", MAC, Taker(8), n=2, peers=peers(workspace, said))
    stacked(workspace, "mac", 2, 1)
    assert told(workspace, said) == ()


def test_a_folder_that_was_copied_from_another_machine_is_read_where_it_lies(workspace, said, tmp_path):
    mac(workspace, 9)
    shutil.move(workspace / "runs/mac", tmp_path / "copied")
    assert told(workspace, said) == ()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "copied").iterdir())
    assert names(told(workspace, said, "auto", str(tmp_path / "copied"))) == ["mac#1"]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "copied").iterdir()) == before
    assert told(workspace, said, "none") == ()


def test_a_copy_that_is_not_as_it_was_written_is_not_believed(workspace, said, tmp_path):
    mac(workspace, 9)
    folder = shutil.move(workspace / "runs/mac", tmp_path / "copied")
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("UPDATE experiments SET delta = -9 WHERE number = 1")
    connection.commit()
    assert told(workspace, said, str(folder)) == ()
    assert "experiment 1: its row or its trials are not what was written" in said[-1]


def test_two_folders_of_one_run_count_once_and_it_is_said(workspace, said, tmp_path):
    mac(workspace, 9)
    shutil.copytree(workspace / "runs/mac", tmp_path / "z" / "mac")
    found = told(workspace, said, "auto", str(tmp_path / "z" / "mac"))
    assert names(found) == ["mac#1"]
    assert any("another folder holds a run 'mac'" in line for line in said)


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "no ledger", "newer", "other rows"])
def test_a_ledger_that_cannot_be_read_is_said_once_and_costs_nothing(workspace, said, damage):
    mac(workspace, 9)
    mac(workspace, 8, tag="sound", config=replace(CONFIG, device="NVIDIA H200"))
    folder = workspace / "runs/mac"
    path = folder / "ledger.sqlite"
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:9000])
    elif damage == "no ledger":
        path.write_text("hello")
    else:
        connection = sqlite3.connect(path)
        connection.execute(
            "PRAGMA user_version = 99" if damage == "newer" else "UPDATE runs SET config = '{\"device\": 3}'"
        )
        connection.commit()
        connection.close()
    with opened(workspace, peers(workspace, said, "auto", str(folder))) as run:
        assert [names(run.history("").findings) for _ in range(3)] == [["sound#1"]] * 3
    complaints = [line for line in said if line.startswith(f"no findings are taken from {folder}")]
    assert len(complaints) == 1


def test_a_ledger_of_the_version_before_is_read_and_left_as_it_is(workspace, said):
    mac(workspace, 9)
    connection = sqlite3.connect(workspace / "runs/mac/ledger.sqlite")
    connection.execute("ALTER TABLE experiments DROP COLUMN origin")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    connection.commit()
    assert names(told(workspace, said)) == ["mac#1"]
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION - 1,)


def test_a_ledger_that_is_being_written_is_read_and_what_it_keeps_meanwhile_is_found(workspace, said):
    look = peers(workspace, said)
    with opened(workspace, look) as run, open_run(workspace, "mac", MAC) as other:

        def whats_known(request):
            known.append(names(run.history("").findings))
            with other.ledger._transaction():  # in the middle of a step
                known.append(names(run.history("").findings))

        known = []
        Loop(other, Widths(9, 12, 3), Greedy(), Scripted(during=whats_known), limits=Limits(3)).go()
        assert known[::2] == known[1::2] == [[], [], ["mac#1"], ["mac#1"]]
        assert names(run.history("").findings) == ["mac#3", "mac#1"]


def test_what_was_read_before_stays_while_a_ledger_is_away(workspace, said):
    mac(workspace, 9)
    look = peers(workspace, said, str(workspace / "runs/mac"))
    with opened(workspace, look) as run:
        assert names(run.history("").findings) == ["mac#1"]
        shutil.move(workspace / "runs/mac", workspace / "away")
        assert names(run.history("").findings) == ["mac#1"]
        shutil.move(workspace / "away", workspace / "runs/mac")
        assert names(run.history("").findings) == ["mac#1"]
        assert not [one for one in transfers_of(run.ledger) if one.gone]


class Given(Edits):
    """Says that every edit is a finding."""

    def propose(self, history):
        edit = super().propose(history)
        return replace(edit, origin=Origin("mac", len(self.histories), "mlx", "Apple M4", -0.1))


def test_where_a_proposal_came_from_outlives_that_it_is_re_applied_and_taken_up(workspace, said):
    mac(workspace, 9)
    with opened(workspace, peers(workspace, said)) as run:
        row = run.propose(Taker().propose(run.history("")), "")
        moved = run.rebase(row, run.ledger.text(row.source_sha256) + "\nWIDER = 1\n", 0)
        assert (str(moved.origin), moved.commit == row.commit) == ("mac#1", False)
        assert "Origin: mac#1" in run.repository._git("log", "-1", "--format=%B", moved.commit)
    with opened(workspace, peers(workspace, said)) as again:
        (waiting,) = again.ledger.undecided()
        assert waiting.origin == row.origin
        assert [one.outcome for one in again.history("").findings] == ["in flight"]
        again.withdraw(waiting, "it does not fit any more")
        assert [one.outcome for one in again.history("").findings] == ["untried"], "it may be carried over anew"


def test_a_second_chance_keeps_where_the_edit_came_from(tmp_path):
    workspace = two_constants(tmp_path / "w")
    researcher = Given({"WIDTH": 9}, {"HEIGHT": 9})
    with open_run(workspace) as run:
        Loop(run, researcher, Greedy(), Field(2), limits=Limits(3)).go()
        rows = list(run.ledger.experiments())
    again = rows[3]
    assert again.parameters["rebased"] == 2 and numbers_of(workspace, again) == {"WIDTH": 9, "DEPTH": 10, "HEIGHT": 9}
    assert again.origin == rows[2].origin


def numbers_of(workspace, row):
    with LedgerReader(workspace / "runs/t") as reader:
        return numbers(reader.text(row.source_sha256))


def test_the_same_gain_from_two_runs_is_always_in_the_same_order(workspace, said):
    for tag, device in (("b", "Apple M4"), ("a", "NVIDIA H200")):
        mac(workspace, 9, tag=tag, config=replace(CONFIG, device=device))
    kept = peers(workspace, said).look(workspace / "runs/t", "null", "scripted")
    own = ("t", "null", "scripted")
    assert names(offered_changes(kept, own)) == names(offered_changes(kept[::-1], own)) == ["a#1", "b#1"]
