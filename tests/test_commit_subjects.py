"""`make check` looks at the subjects of the commits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[1] / ".ci" / "check_subjects.py"


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit; `commit` adds another and returns its hash."""

    def commit(subject):
        name = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        subprocess.run(["git", *name, "commit", "-q", "--allow-empty", "-m", subject], cwd=tmp_path, check=True)
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
        return found.stdout.strip()

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return commit


def check(folder, first):
    done = subprocess.run([sys.executable, CHECK, first], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_short_imperative_subjects_pass(repository, tmp_path):
    first = repository("so old that nobody looks; at it.")
    repository("Name the parts of the loop")
    assert check(tmp_path, first) == (0, "commit subjects: 1 checked\n")


@pytest.mark.parametrize(
    ("subject", "fault"),
    [
        ("Say " + "more " * 14 + "words", "79 characters, 72 are allowed"),
        ("Name the parts; test them", "a semicolon"),
        ("Name the parts.", "a full stop at the end"),
        ("name the parts", "no capital first"),
    ],
)
def test_a_fault_is_named_with_its_commit(repository, tmp_path, subject, fault):
    first = repository("Begin")
    commit = repository(subject)
    code, out = check(tmp_path, first)
    assert code == 1
    assert out.startswith(f"{commit[:7]} {subject}\n    {fault}")


def test_a_clone_without_the_first_commit_is_not_checked(repository, tmp_path):
    repository("whatever; it is.")
    code, out = check(tmp_path, "f470391")
    assert (code, "not checked" in out) == (0, True)
