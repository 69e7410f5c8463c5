"""A run that came back from a backup: without git's refs, without their commits, or older than they are."""

from __future__ import annotations

import pytest
from loop_fixtures import Scripted, Widths, copy_of, finished_run, git, open_run

from autoresearch.core.errors import SourceError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.git import Repository
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.restore import mend


def forget_refs(workspace, *, commits):
    """Delete every ref of the run, and with `commits` what they alone keep."""
    for name in git(
        workspace, "for-each-ref", "--format=%(refname)", "refs/autoresearch", "refs/heads/autoresearch"
    ).split():
        git(workspace, "update-ref", "-d", name)
    if commits:
        git(workspace, "reflog", "expire", "--expire=now", "--all")
        git(workspace, "prune", "--expire=now")


def commits_of(workspace):
    with LedgerReader(workspace / "runs/t") as reader:
        return {row.number: row.commit for row in reader.experiments()}


@pytest.mark.parametrize("commits", [False, True])
def test_refs_and_commits_that_git_lacks_are_made_again_from_the_ledger(tmp_path, commits):
    workspace = copy_of(finished_run, tmp_path / "w")
    forget_refs(workspace, commits=commits)
    with open_run(workspace) as run:
        assert not run.lost
    repository = Repository.open(workspace)
    assert repository.refs("t") == commits_of(workspace) and len(repository.refs("t")) == 4
    assert repository.ref("refs/heads/autoresearch/t") == commits_of(workspace)[3]


def test_what_a_power_cut_left_empty_is_made_again(tmp_path):
    workspace = copy_of(finished_run, tmp_path / "w")
    commits, folder = commits_of(workspace), workspace / ".git"
    names = ["refs/autoresearch/t/1", "refs/autoresearch/t/3", "refs/heads/autoresearch/t"]
    objects = git(
        workspace, "rev-parse", *(f"{commits[3]}{part}" for part in ("", "^{tree}", ":backends/null/train.py"))
    )
    for path in (*names, *(f"objects/{name[:2]}/{name[2:]}" for name in objects.split())):
        (folder / path).unlink()
        (folder / path).touch()
    with open_run(workspace) as run:
        assert not run.lost
    repository = Repository.open(workspace)
    assert repository.refs("t") == commits
    assert repository.ref(names[-1]) == commits[3]
    assert not git(workspace, "fsck", "--no-dangling", "--no-reflogs")


def test_commits_that_come_out_otherwise_end_the_loop_with_what_to_do(tmp_path, monkeypatch):
    workspace = copy_of(finished_run, tmp_path / "w")
    forget_refs(workspace, commits=True)
    # The environment comes before the configuration of git, and one that names an author would hide the other.
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "somebody else")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "else@example.org")
    with pytest.raises(SourceError, match=r"lacks the commit of experiment 3 of the run 't'.*Fix: git fetch.*ar apply"):
        open_run(workspace)


def test_experiments_after_the_backup_are_named_and_their_commits_are_kept(tmp_path):
    workspace = copy_of(finished_run, tmp_path / "w")
    lost = commits_of(workspace)[3]
    folder = workspace / "runs/t"
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: next(at for at, line in enumerate(lines) if str(lost).encode() in line)]))
    (folder / "ledger.sqlite").unlink()
    assert mend(folder, lambda _: None)
    with open_run(workspace) as run:
        assert run.lost == [3]
        Loop(run, Widths(9, 12, 7), Greedy(), Scripted(), limits=Limits(3)).go()
    repository = Repository.open(workspace)
    assert repository.refs("t") == commits_of(workspace) and lost not in repository.refs("t").values()
    (aside,) = repository.lost_refs("t")
    assert aside == f"refs/autoresearch/t/lost/3-{str(lost)[:10]}" and repository.ref(aside) == lost
