from __future__ import annotations

import os
import shutil
import subprocess
import threading

import pytest
from loop_fixtures import git, make_workspace

from autoresearch.core.errors import PrerequisiteError, SourceError, UsageError
from autoresearch.core.store import git as store_git
from autoresearch.core.store.git import Repository, check_tag, experiment_ref

TRAIN = "backends/null/train.py"


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def commit(repository, source="x = 1\n", parent=None, **more):
    return repository.commit(TRAIN, source, parent=parent or repository.head(), message="m", date=1e9, **more)


def test_a_commit_changes_the_train_file_alone(workspace):
    repository = Repository.open(workspace)
    made = commit(repository, "x = 'é'\n")
    assert repository.read(made, TRAIN) == "x = 'é'\n"
    assert git(workspace, "diff", "--name-only", "HEAD", made) == TRAIN
    assert git(workspace, "rev-parse", f"{made}^") == repository.head()
    assert commit(repository, "x = 'é'\n") == made


def test_dirty_files_and_staged_changes_stay_byte_for_byte(workspace):
    (workspace / "notes.txt").write_text("staged\n")
    git(workspace, "add", "notes.txt")
    (workspace / "notes.txt").write_text("and changed again\n")
    (workspace / "new.txt").write_text("untracked\n")
    (workspace / "program.md").write_text("dirty\n")
    index = workspace / ".git/index"
    before = {path: path.read_bytes() for path in (index, *workspace.glob("*.txt"), workspace / "program.md")}
    head = git(workspace, "rev-parse", "HEAD")
    repository = Repository.open(workspace)
    assert not repository.changed(TRAIN)
    made = commit(repository)
    repository.move_ref(experiment_ref("t", 0), made, expected=None, reason="r")
    repository.move_ref("refs/heads/autoresearch/t", made, expected=None, reason="r")
    assert {path: path.read_bytes() for path in before} == before
    assert git(workspace, "rev-parse", "HEAD") == head
    assert repository.read(made, "notes.txt") == "one\n"
    assert not list((workspace / ".git").glob("*.lock"))


def test_a_ref_moves_only_from_where_it_is_expected(workspace):
    repository = Repository.open(workspace)
    first, second = commit(repository), commit(repository, "x = 2\n")
    name = "refs/heads/autoresearch/t"
    repository.move_ref(name, first, expected=None, reason="r")
    for expected in (None, second):
        with pytest.raises(SourceError):
            repository.move_ref(name, second, expected=expected, reason="r")
    repository.move_ref(name, second, expected=first, reason="r")
    assert repository.ref(name) == second


def test_a_change_of_the_train_file_is_seen_whether_staged_or_not(workspace):
    repository = Repository.open(workspace)
    (workspace / TRAIN).write_text("x = 5\n")
    assert repository.changed(TRAIN)
    git(workspace, "add", TRAIN)
    assert repository.changed(TRAIN)
    git(workspace, "commit", "-q", "-m", "changed")
    assert not repository.changed(TRAIN)
    (workspace / "backends/null/other.py").write_text("")
    assert repository.changed("backends/null/other.py")


def test_a_workspace_in_a_folder_of_a_repository_works(tmp_path):
    top = tmp_path / "top"
    inner = top / "deep" / "w"
    (inner / "backends/null").mkdir(parents=True)
    (inner / TRAIN).write_text("x = 0\n")
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "start")
    repository = Repository.open(inner)
    made = commit(repository)
    assert repository.read(made, TRAIN) == "x = 1\n"
    assert git(top, "diff", "--name-only", "HEAD", made) == f"deep/w/{TRAIN}"
    assert not repository.changed(TRAIN)


def test_a_linked_work_tree_works(workspace, tmp_path):
    git(workspace, "worktree", "add", "-q", str(tmp_path / "linked"))
    repository = Repository.open(tmp_path / "linked")
    repository.move_ref(experiment_ref("t", 0), commit(repository), expected=None, reason="r")
    assert Repository.open(workspace).refs("t").keys() == {0}


def test_without_an_author_a_stand_in_is_used(workspace, monkeypatch, tmp_path):
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    git(workspace, "config", "user.useConfigOnly", "true")
    repository = Repository.open(workspace)
    made = commit(repository)
    assert (
        git(workspace, "log", "-1", "--format=%an <%ae> %cn", made)
        == "autoresearch <autoresearch@localhost> autoresearch"
    )


def test_an_outer_git_environment_does_not_lead_astray(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "foreign"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    commit(Repository.open(workspace))
    assert not (tmp_path / "foreign").exists()


def test_no_repository_no_commit_and_no_git_are_each_told_with_a_fix(tmp_path, monkeypatch):
    plain = tmp_path / "plain"
    plain.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(SourceError, match=r"not in the work tree of a git repository\. Fix: .*git init"):
        Repository.open(plain)
    subprocess.run(["git", "init", "-q", str(plain)], check=True)
    with pytest.raises(SourceError, match=r"no commit yet\. Fix: "):
        Repository.open(plain)
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "bare")], check=True)
    with pytest.raises(SourceError, match="not in the work tree"):
        Repository.open(tmp_path / "bare")
    with pytest.raises(SourceError, match="is not a folder"):
        Repository.open(tmp_path / "missing")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match="git is not installed"):
        Repository.open(plain)


@pytest.mark.parametrize("tag", ["a", "2026-07-01-null", "a.b_c+d", "x" * 100])
def test_every_tag_that_is_allowed_is_a_branch_for_git(tag):
    subprocess.run(
        ["git", "check-ref-format", "--branch", f"autoresearch/{check_tag(tag)}"], check=True, capture_output=True
    )


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "-n", "a..b", "a.lock", "a b", "a.", "é", "a\n", "x" * 101])
def test_a_tag_that_cannot_name_a_folder_and_a_branch_is_refused(tag):
    with pytest.raises(UsageError, match="cannot name a run"):
        check_tag(tag)


def git_that_is_killed(tmp_path, monkeypatch, when, times):
    """Have a SIGTERM kill git before or after its work, the first times that it is started."""
    real, marks = shutil.which("git"), tmp_path / "kills"
    marks.mkdir()
    for number in range(times):
        (marks / str(number)).touch()
    after = f'"{real}" "$@"' if when == "after" else ":"
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
for mark in "{marks}"/*; do
  [ -e "$mark" ] || break
  rm "$mark"; {after}; kill -TERM $$
done
exec "{real}" "$@"
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_git_that_a_signal_to_everything_kills_is_run_once_more(workspace, tmp_path, monkeypatch, when):
    repository, name = Repository.open(workspace), experiment_ref("t", 0)
    made = commit(repository)
    git_that_is_killed(tmp_path, monkeypatch, when, times=1)
    repository.move_ref(name, made, expected=None, reason="r")
    assert repository.ref(name) == made


def test_a_git_that_is_killed_again_is_no_answer_from_git(workspace, tmp_path, monkeypatch):
    repository, name = Repository.open(workspace), experiment_ref("t", 0)
    repository.move_ref(name, commit(repository), expected=None, reason="r")
    git_that_is_killed(tmp_path, monkeypatch, "before", times=2)
    with pytest.raises(SourceError, match="killed by signal 15"):
        repository.ref(name)


@pytest.mark.parametrize("date", [-5.0, 0.0, 5.0, 99_999_999.0, 4.2e9])
def test_a_clock_that_is_far_off_makes_commits_all_the_same(workspace, date):
    repository = Repository.open(workspace)
    made = repository.commit(TRAIN, "x = 1\n", parent=repository.head(), message="m", date=date)
    assert git(workspace, "log", "-1", "--format=%at %ct", made) == f"{max(0, int(date))} {max(0, int(date))}"


@pytest.mark.parametrize("name", ["refs/heads/autoresearch/t", experiment_ref("t", 3)])
def test_a_lock_that_a_killed_git_left_on_a_ref_of_the_run_is_removed(workspace, monkeypatch, name):
    monkeypatch.setattr(store_git, "LOCK_SECONDS", 0.2)
    repository = Repository.open(workspace)
    made, lock = commit(repository), workspace / ".git" / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    repository.move_ref(name, made, expected=None, reason="r")
    assert repository.ref(name) == made and not lock.exists()
    lock.touch()
    repository.drop_ref(name)
    assert repository.ref(name) is None and not lock.exists()


def test_a_lock_that_is_not_the_runs_own_is_named_and_left(workspace):
    repository = Repository.open(workspace)
    name, lock = experiment_ref("t", 0), workspace / ".git/packed-refs.lock"
    repository.move_ref(name, commit(repository), expected=None, reason="r")
    git(workspace, "pack-refs", "--all")
    lock.touch()
    with pytest.raises(SourceError, match=rf"^{lock} is there: another git is at work.*Fix: if no git is running, rm "):
        repository.drop_ref(name)
    assert lock.exists()


def test_a_lock_that_another_git_releases_is_waited_for(workspace):
    repository = Repository.open(workspace)
    name, made = experiment_ref("t", 0), commit(repository)
    lock = workspace / ".git" / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    threading.Timer(0.3, lock.unlink).start()
    repository.move_ref(name, made, expected=None, reason="r")
    assert repository.ref(name) == made


@pytest.mark.parametrize("left", [b"", bytes(41), b"\xff\xfe"])
@pytest.mark.parametrize("name", ["refs/heads/autoresearch/t", experiment_ref("t", 3)])
def test_a_ref_of_the_run_that_a_power_cut_left_empty_is_made_again(workspace, name, left):
    repository = Repository.open(workspace)
    made, path = commit(repository), workspace / ".git" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(left)
    repository.move_ref(name, made, expected=repository.ref(name), reason="r")
    assert repository.ref(name) == made


def test_a_branch_that_a_person_has_made_a_name_of_another_is_left_alone(workspace):
    repository = Repository.open(workspace)
    git(workspace, "symbolic-ref", "refs/heads/autoresearch/t", "refs/heads/main")
    with pytest.raises(SourceError):
        repository.move_ref("refs/heads/autoresearch/t", commit(repository), expected=None, reason="r")
    assert git(workspace, "symbolic-ref", "refs/heads/autoresearch/t") == "refs/heads/main"
