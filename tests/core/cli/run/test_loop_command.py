"""`ar loop` as people run it: real processes, the null backend, real text."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from warm_ar import Ar, run_ar

from autoresearch.core.errors import LedgerError
from autoresearch.core.judge.race import MAX_RACE
from autoresearch.core.store.git import Repository
from autoresearch.core.store.headline import headline_of
from autoresearch.core.store.reader import LedgerReader

TIMEOUT_SECONDS = 240


@pytest.fixture
def command(library, tmp_path):
    """A workspace of its own, and the start of every command line in it."""
    workspace, environment = tmp_path / "w", {**os.environ, "AR_DATA_DIR": str(library / "data")}
    run_ar(["init", str(workspace)], environment).check_returncode()

    class Command:
        folder = workspace

        def start(self, *arguments):
            shared = ["--backend", "null", "--preset", "demo", "--workspace", str(workspace)]
            return Ar([*shared, *arguments], environment)

        def loop(self, *arguments):
            judge = () if "--judge" in arguments else ("--judge", "greedy")
            return self.start("loop", "--corpus", str(library / "text"), *judge, *arguments)

        def run(self, *arguments):
            process = self.loop(*arguments)
            out, err = process.communicate(timeout=TIMEOUT_SECONDS)
            return process.returncode, out, err

    return Command()


def experiments(command, tag="t"):
    with LedgerReader(command.folder / "runs" / tag) as reader:
        return list(reader.experiments())


def wait_for(command, condition, tag="t"):
    """Until the condition holds of the run's ledger."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if (command.folder / "runs" / tag / "ledger.sqlite").is_file():
            try:
                with LedgerReader(command.folder / "runs" / tag) as reader:
                    if condition(reader):
                        return
            except LedgerError as error:
                if not any(words in str(error) for words in ("has no run", "it is empty")):  # it is being made
                    raise
        time.sleep(0.02)
    raise AssertionError("the loop did not get there in time")


def started(number):
    """That the experiment has a trial under way."""
    return lambda reader: any(trial.status is None for trial in reader.trials(experiment=number))


def assert_agree(command, tag="t"):
    """Ledger, refs, branch, table and best file tell one story; every experiment has exactly one finished trial."""
    rows = experiments(command, tag)
    assert [row.number for row in rows] == list(range(len(rows)))
    assert all(row.state == "decided" and row.trials == 1 for row in rows)
    repository = Repository.open(command.folder)
    assert repository.refs(tag) == {row.number: row.commit for row in rows}
    best = [row for row in rows if row.status == "keep"][-1]
    assert repository.ref(f"refs/heads/autoresearch/{tag}") == best.commit
    assert best.val_bpb == min(row.val_bpb for row in rows if row.val_bpb is not None)
    table = (command.folder / "runs" / tag / "results.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[0] for line in table] == [row.commit[:7] for row in rows]
    source = repository.read(best.commit, "backends/null/train.py")
    assert (command.folder / "runs" / tag / "best_train.py").read_text() == source


def test_json_is_one_object_a_decided_experiment_and_then_a_summary(command):
    code, out, err = command.run("--tag", "t", "-n", "2", "--json")
    assert code == 0, err
    *records, last = [json.loads(line) for line in out.splitlines()]
    assert [record["experiment"] for record in records] == [0, 1, 2]
    assert {"status", "val_bpb", "estimate", "delta", "trials", "commit", "category", "usd"} <= records[0].keys()
    assert last["summary"]["experiments"] == 2
    with LedgerReader(command.folder / "runs/t") as reader:
        assert last["summary"]["best_bpb"] == headline_of(reader).best.value
    assert Path(last["summary"]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert_agree(command)
    with LedgerReader(command.folder / "runs/t") as reader:
        watched = reader.events("integrity")[0]
        assert {"core/trial/audit.py", "backends/null/runtime.py", "manifest.json"} <= watched.keys()
        assert reader.verify().fault is None


def test_the_judge_that_knows_noise_calibrates_and_explains_every_decision(command):
    code, out, err = command.run("--tag", "t", "-n", "1", "--json", "--judge", "racing", "--budget", "0.4")
    assert code == 0, err
    baseline, *others = [json.loads(line) for line in out.splitlines()][:-1]
    with LedgerReader(command.folder / "runs/t") as reader:
        repeated = Counter(reader.numbers_of("trial repeated"))
        raced = {record["experiment"]: len(reader.trials(subject=record["experiment"])) for record in others}
    left_out = re.search(r"\((\d+) far below the usual speed", baseline["reason"])
    # Two, and on a busy machine one more for each that stayed slow.
    assert 2 <= baseline["trials"] <= 2 + repeated[0] + int(left_out[1] if left_out else 0)
    assert "noise (1 sigma)" in baseline["reason"]
    assert "noise (1 sigma)" in err
    # An experiment also counts the best file's trials, which a busy machine makes the judge ask for: these are its own.
    assert raced and all(1 <= count <= MAX_RACE + repeated[number] for number, count in raced.items()), (raced, err)
    process = command.start("results", "--why", "1")
    said, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    why, again = said.splitlines()
    assert why == f"experiment 1: {others[0]['status']}: {others[0]['reason']}"
    assert again == "decided again from the recorded trials: the same verdict and figures"
    # A trial on a busy machine is called slow instead of compared.
    assert "likely better" in said or " saw " in said or others[0]["val_bpb"] is None
    assert command.start("results", "--why", "9").wait(TIMEOUT_SECONDS) == 2


def test_without_json_the_table_is_on_stdout_and_the_rest_on_stderr(command):
    code, out, err = command.run("-n", "0")
    assert code == 0, err
    assert [line.split("\t")[0] for line in out.splitlines()] == ["n", "0"]
    assert "no change was kept: the baseline is the best file so far" in err
    assert not re.search(r"\d the baseline$", err, re.MULTILINE), "a judge that measures no noise has none to tell"
    assert "progress.png" in err
    (tag,) = [path.name for path in (command.folder / "runs").iterdir() if (path / "ledger.sqlite").exists()]
    assert tag.endswith("-null")


def test_killing_the_loop_in_a_trial_loses_nothing_and_the_same_command_goes_on(command):
    process = command.loop("-n", "1", "--tag", "t", "--budget", "0.6")
    wait_for(command, started(1))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    # On a busy machine it takes seconds until the trial's processes are there.
    while not (tree := psutil.Process(process.pid).children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert tree
    time.sleep(0.7)
    tree = psutil.Process(process.pid).children(recursive=True) or tree
    process.kill()  # the loop alone: what it started must notice by itself
    process.communicate()
    _, alive = psutil.wait_procs(tree, timeout=TIMEOUT_SECONDS)
    assert alive == []
    before = experiments(command)
    assert (before[0].state, before[1].state != "decided") == ("decided", True)

    code, _, err = command.run("-n", "1", "--tag", "t")  # the budget is the run's own
    assert code == 0, err
    after = experiments(command)
    assert after[0] == before[0]
    assert (after[1].source_sha256, after[1].commit) == (before[1].source_sha256, before[1].commit)
    assert len(after) == 2
    assert_agree(command)


def test_ctrl_c_finishes_the_trial_and_a_second_one_kills_it(command):
    process = command.loop("--tag", "t")
    wait_for(command, started(0))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 130
    assert "stopping after the current trial" in err
    assert "Traceback" not in err
    assert [row.state for row in experiments(command)] == ["decided"]

    process = command.loop()  # without a tag: the unfinished run
    wait_for(command, started(1))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    heard = ""
    while "stopping after the current trial" not in heard:  # two signals that come at once are one
        heard += (line := process.stderr.readline())
        assert line, heard
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 130
    assert "continuing the run t" in heard
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert experiments(command)[1].state in ("running", "trained")


def test_a_termination_kills_the_trial_which_is_run_again(command):
    process = command.loop("--tag", "t")
    wait_for(command, started(0))
    process.terminate()
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 143
    assert command.run("--tag", "t", "-n", "0")[0] == 0
    assert_agree(command)


def test_two_loops_on_one_run_and_a_changed_option_are_told_apart(command):
    first = command.loop("--tag", "t")
    wait_for(command, started(0))
    code, out, err = command.run("--tag", "t")
    assert (code, out) == (1, "")
    assert f"is being written by process {first.pid}" in err
    first.terminate()
    first.communicate(timeout=TIMEOUT_SECONDS)
    code, _, err = command.run("--tag", "t", "--seed", "9")
    assert code == 2
    assert "was started with seed = 0" in err


def test_what_is_missing_is_said_before_anything_is_done(command, tmp_path):
    train = command.folder / "backends/null/train.py"
    train.write_text(train.read_text() + "\n# mine\n")
    code, _, err = command.run("-n", "1")
    assert code == 3
    assert "not committed" in err
    assert not (command.folder / "runs").exists()
    shutil.rmtree(command.folder / ".git")
    code, _, err = command.run("-n", "1")
    assert code == 1
    assert "git repository" in err
    assert command.run("-n", "-1")[0] == 2
    assert command.run("--tag", "a/b")[0] == 2
