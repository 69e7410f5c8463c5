"""Starting a run and taking one up: what is checked, and what is repaired."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import loop_fixtures
import pytest
from loop_fixtures import CONFIG, Scripted, Widths, git, make_workspace, open_run

from autoresearch.core.errors import LedgerError, PrerequisiteError, SourceError, UsageError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.git import Repository
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.restore import mend


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def go(workspace, *widths):
    with open_run(workspace) as run:
        return Loop(run, Widths(*widths), Greedy(), Scripted(), limits=Limits(len(widths))).go()


def test_a_train_file_with_uncommitted_changes_is_refused_and_leaves_no_run(workspace):
    train = workspace / "backends/null/train.py"
    train.write_text(train.read_text().replace("WIDTH = 8", "WIDTH = 11"))
    with pytest.raises(PrerequisiteError, match=r"not committed\. Fix: git add .* or --allow-dirty"):
        open_run(workspace)
    assert not (workspace / "runs").exists()
    with open_run(workspace, allow_dirty=True) as run:
        assert "WIDTH = 10" in run.ledger.text(run.ledger.experiment(0).source_sha256)
    assert "WIDTH = 11" in train.read_text()


def test_other_dirty_files_do_not_matter_and_are_not_touched(workspace):
    (workspace / "notes.txt").write_text("dirty")
    git(workspace, "add", "notes.txt")
    before = (workspace / ".git/index").read_bytes()
    go(workspace, 9, 12)
    assert (workspace / "notes.txt").read_text() == "dirty"
    assert (workspace / ".git/index").read_bytes() == before
    assert git(workspace, "status", "--porcelain").splitlines() == ["M  notes.txt", "?? runs/"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 8), ("train_seconds", 3.0), ("prepared_sha256", "f" * 64), ("vocabularies", (512,))],
)
def test_going_on_with_another_configuration_is_an_error_that_names_the_field(workspace, field, value):
    go(workspace, 9)
    with pytest.raises(UsageError, match=f"was started with {field} = "):
        open_run(workspace, config=replace(CONFIG, **{field: value}))
    open_run(workspace).__exit__()


def test_a_second_loop_on_the_run_is_refused_while_the_first_lives(workspace):
    here = str(Path(loop_fixtures.__file__).parent)
    code = f"""
import sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from loop_fixtures import open_run
run = open_run(Path({str(workspace)!r}))
print("open", flush=True)
time.sleep(60)
"""
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "open\n"
        with pytest.raises(LedgerError, match=rf"is being written by process {first.pid} on"):
            open_run(workspace)
    finally:
        first.kill()
        first.wait()
    assert go(workspace, 9).exit_code == 0


def test_refs_of_an_earlier_run_whose_ledger_is_gone_are_not_overwritten(workspace):
    go(workspace, 9)
    (workspace / "runs/t").rename(workspace / "moved")
    before = Repository.open(workspace).refs("t")
    with pytest.raises(SourceError, match=r"its ledger is gone\. Fix: choose another --tag"):
        open_run(workspace)
    assert Repository.open(workspace).refs("t") == before


def test_the_runs_branch_must_not_be_checked_out(workspace):
    go(workspace, 9)
    git(workspace, "switch", "-q", "autoresearch/t")
    with pytest.raises(PrerequisiteError, match=r"is checked out, and the run moves it\. Fix: git switch -"):
        open_run(workspace)
    git(workspace, "switch", "-q", "-")
    assert go(workspace, 9, 8).exit_code == 0


@pytest.mark.parametrize("name", ["autoresearch", "autoresearch/t/mine"])
def test_a_branch_in_the_place_of_the_runs_is_named_before_anything_is_made(workspace, name):
    git(workspace, "branch", name)
    with pytest.raises(SourceError, match=f"the branch '{name}' leaves no room .* Fix: git branch -m {name} another"):
        open_run(workspace)
    assert not (workspace / "runs" / "t").exists()
    git(workspace, "branch", "-m", name, "another-name")
    with open_run(workspace) as run:
        assert run.incumbent_number() == 0


def test_a_branch_that_somebody_moved_is_not_overwritten(workspace):
    go(workspace, 9)
    git(workspace, "branch", "-f", "autoresearch/t", "main")
    with pytest.raises(SourceError, match="was moved by somebody else"):
        open_run(workspace)
    assert git(workspace, "rev-parse", "autoresearch/t") == git(workspace, "rev-parse", "main")


def test_experiments_that_a_damaged_ledger_has_lost_keep_their_refs_and_the_run_goes_on(workspace):
    go(workspace, 9, 8)
    folder = workspace / "runs/t"
    with LedgerReader(folder) as reader:
        commits = [row.commit for row in reader.experiments()]
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if commits[2].encode() in line)
    journal.write_bytes(b"".join(lines[:first]))
    (folder / "ledger.sqlite").write_bytes(b"")
    assert mend(folder, lambda _: None)
    with open_run(workspace) as run:
        assert [row.number for row in run.ledger.experiments()] == [0, 1]
    repository = Repository.open(workspace)
    assert repository.refs("t") == dict(enumerate(commits))
    assert repository.ref("refs/heads/autoresearch/t") == commits[1]
    assert go(workspace, 9, 7).exit_code == 0


def test_branch_refs_and_files_that_a_crash_left_behind_are_repaired(workspace):
    go(workspace, 9, 8)
    with LedgerReader(workspace / "runs/t") as reader:
        commits = [row.commit for row in reader.experiments()]
    git(workspace, "branch", "-f", "autoresearch/t", commits[1])
    table = (workspace / "runs/t/results.tsv").read_text()
    (workspace / "runs/t/results.tsv").unlink()
    (workspace / "runs/t/best_train.py").write_text("old")
    (workspace / "runs/t/trials/1-1/weights.safetensors").write_text("left over")
    with open_run(workspace):
        pass
    assert git(workspace, "rev-parse", "autoresearch/t") == commits[2]
    assert (workspace / "runs/t/results.tsv").read_text() == table
    assert "WIDTH = 8" in (workspace / "runs/t/best_train.py").read_text()
    assert not (workspace / "runs/t/trials/1-1/weights.safetensors").exists()


def test_a_workspace_without_its_pages_is_told_what_to_do(workspace):
    git(workspace, "mv", "program.md", "other.md")
    with pytest.raises(PrerequisiteError, match=r"no readable .*program\.md.*ar init"):
        open_run(workspace)
    git(workspace, "mv", "other.md", "program.md")
    (workspace / "backends/null/train.py").unlink()
    with pytest.raises(PrerequisiteError, match=r"no readable train file"):
        open_run(workspace)
    assert not (workspace / "runs").exists()


def test_a_preset_that_the_train_file_does_not_fit_is_named(workspace):
    train = workspace / "backends/null/train.py"
    train.write_text(train.read_text().replace("WIDTH = 8", "BREADTH = 8"))
    with pytest.raises(SourceError, match="has no constant 'WIDTH'"):
        open_run(workspace, allow_dirty=True)
    assert not (workspace / "runs").exists()
