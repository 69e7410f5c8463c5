import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.backends import folder as backend_folder
from autoresearch.core.cli import main
from autoresearch.core.cli.train import slow_notice
from autoresearch.core.trial.request import TrialResult

AR = Path(sys.executable).with_name("ar")
SOURCE = (backend_folder("null") / "train.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A small corpus and the folder it is prepared in, shared by these trials."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("argparse", "ast", "datetime", "inspect", "subprocess", "tarfile", "typing", "turtle"):
        shutil.copy(Path(json.__file__).parent.parent / f"{name}.py", folder / f"{name}.txt")
    return folder, tmp_path_factory.mktemp("data")


@pytest.fixture
def workspace(tmp_path, monkeypatch, texts):
    corpus, data = texts
    monkeypatch.setenv("AR_TRAIN_CORPUS", str(corpus))
    monkeypatch.setenv("AR_DATA_DIR", str(data))
    assert main.run(["-q", "init", str(tmp_path / "work")]) == 0
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def train(*arguments):
    return main.run(["--backend", "null", "--preset", "demo", "train", *map(str, arguments)])


def test_a_trial_prints_its_result_as_one_object(workspace, capsys):
    capsys.readouterr()
    assert train("--json", "--seed", "3", "--budget", "0.3") == 0
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert out.count("\n") == 1
    assert set(shown) == set(TrialResult.model_fields)
    assert (shown["status"], shown["seed"], shown["backend"], shown["preset"]) == ("ok", 3, "null", "demo")
    assert 0 < shown["val_bpb"] < 8
    assert shown["mfu"] is None
    assert Path(shown["log"]).is_relative_to(workspace / "runs" / "trials")


def test_a_person_gets_a_summary_and_progress_apart_from_it(workspace, capsys):
    capsys.readouterr()
    assert train("--budget", "0.3") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("val_bpb ")
    assert "isolation" in captured.out
    assert "training for 0.3 s" in captured.err


def test_a_file_that_raises_fails_with_the_reason_in_words(workspace, capsys, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text(SOURCE.replace("def build(", "def build(spec):\n    raise RuntimeError('no idea')\n\ndef _old("))
    capsys.readouterr()
    assert train("--file", broken, "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["status"] == "crash"
    assert "no idea" in shown["reason"]
    assert shown["val_bpb"] is None


def test_a_file_that_is_not_there_is_a_usage_error(workspace, capsys):
    assert train("--file", "nowhere.py") == 2
    assert "nowhere.py" in capsys.readouterr().err


def test_outside_a_workspace_the_error_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train() == 3
    assert "ar init" in capsys.readouterr().err


def test_a_named_file_is_tried_with_the_preset_it_was_written_for(workspace, capsys, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        SOURCE.replace('PRESET = "demo"', 'PRESET = "cpu"').replace("VOCAB_SIZE = 512", "VOCAB_SIZE = 1024")
    )
    capsys.readouterr()
    assert main.run(["--backend", "null", "train", "--file", str(mine), "--budget", "0.3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "cpu"


def test_a_file_that_is_refused_before_anything_runs_is_one_line_without_an_empty_log(workspace, capsys, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("VOCAB_SIZE = 512\n")
    capsys.readouterr()
    assert main.run(["--backend", "null", "train", "--file", str(mine)]) == 1
    assert capsys.readouterr().out == "invalid: the train file does not define build, train, logits at its top level\n"


def test_a_file_keeps_its_own_bytes_whatever_the_preset(workspace, capsys):
    path = workspace / "backends" / "null" / "train.py"
    before = path.read_bytes()
    assert train("--budget", "0.3") == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_trial_and_leaves_no_process(workspace, number, code):
    arguments = ["--backend", "null", "--preset", "demo", "train", "--budget", "600"]
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests would hand on that it is ignored
    process = subprocess.Popen([AR, *arguments], stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    signal.signal(signal.SIGHUP, outside)
    for line in process.stderr:
        if "training for" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in err
    deadline = time.monotonic() + 120
    while any(child.is_running() and child.status() != "zombie" for child in children):
        assert time.monotonic() < deadline, "a process of the trial is left"
        time.sleep(0.05)


def test_a_limit_on_the_size_of_files_is_named_before_a_trial(workspace, capsys):
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 2**20, hard))
    try:
        assert train("--budget", "0.3") == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "lets no file grow beyond 64 MiB (`ulimit -f`)" in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["0", "-1", "soon"])
def test_an_impossible_budget_is_a_usage_error(capsys, budget):
    assert train("--budget", budget) == 2
    assert "--budget" in capsys.readouterr().err


def test_a_trial_far_slower_than_the_workspaces_latest_ones_is_said_to_be_slow(tmp_path):
    source = "# ---- constants: of a test\nWIDTH = 8\nRATE = 0.1\n# ---- end of constants\n"
    usual = {"status": "ok", "seed": 0, "backend": "null", "preset": "demo", "machine": "m", "train_seconds": 20.0}

    def leave(name, **more):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "train.py").write_text(source.replace("0.1", "0.2"))
        result = TrialResult(**{**usual, "steps": 225, "cpu_seconds": 38.0, **more})
        (folder / "result.json").write_text(result.model_dump_json())
        return folder, result

    here, bad = leave("trials/20260101-000000-null", steps=11, cpu_seconds=30.0)
    assert slow_notice(tmp_path, source, here, bad) is None  # nothing to compare with
    leave("night/trials/0-1")
    assert "0.55 batches a second, where 11.2 are usual" in slow_notice(tmp_path, source, here, bad)
    assert slow_notice(tmp_path, source, here, bad.model_copy(update={"machine": "another"})) is None
    assert slow_notice(tmp_path, source, here, bad.model_copy(update={"status": "crash"})) is None
    assert slow_notice(tmp_path, source.replace("WIDTH = 8", "WIDTH = 64"), here, bad) is None
    (tmp_path / "runs" / "night" / "trials" / "0-1" / "result.json").write_text("{")
    assert slow_notice(tmp_path, source, here, bad) is None


def test_a_file_whose_vocabulary_is_not_prepared_is_told_how_to_prepare_it(workspace, capsys):
    other = workspace / "other.py"
    other.write_text(SOURCE.replace("VOCAB_SIZE = 512", "VOCAB_SIZE = 777"))
    assert train("--file", other, "--budget", "0.3") == 1
    told = capsys.readouterr()
    assert "VOCAB_SIZE is 777, which is not a prepared vocabulary (512)" in told.out
    assert "Fix: `ar --backend null --preset demo prepare --vocab 777 --corpus " in told.err
