"""Each tracker against its real library, without a network: what it was told is read back through the library."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from prerequisites import lacking

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.track import tracker_process
from autoresearch.core.track.tracker import PROJECT, tracker_names
from autoresearch.core.track.tracker_process import TrackerProcess, check_library

BPB = [1.0, 0.9, 1.2]
"""What the three decisions below have come to."""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Every library keeps what it is told in here, and asks no network."""
    monkeypatch.setattr(tracker_process, "PATIENCE_SECONDS", 120.0)  # libraries take long to import on a busy machine
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def need(name):
    if importlib.util.find_spec(name) is None:
        lacking(f'{name} is not installed: pip install -c constraints.txt -e ".[track]"')


def tell(run, name, *researchers, state="finished"):
    """Run the loop once for each researcher, as invocations that go on with the run; returns what was said."""
    said = []
    for researcher, count in researchers:
        process = TrackerProcess(name, run.ledger, said.append)
        Loop(run, researcher, Greedy(), Scripted(), limits=Limits(count), on_decided=process.decided).go()
        process.close(state, "as many as were asked for")
    return said


def read_trackio(places, folder):
    script = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S\n"
        f"rows = [S.get_logs({PROJECT!r}, run) for run in S.get_runs({PROJECT!r})]\n"
        "print(json.dumps(rows, default=str))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (rows,) = json.loads(done.stdout.splitlines()[-1])
    return [row["val_bpb"] for row in rows]


def records_of(path):
    """The records of a wandb file: LevelDB's log format behind a header of seven bytes."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if room < 7 or kind == 0:
            at += room
            continue
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def read_wandb(places, folder):
    from wandb.proto.wandb_internal_pb2 import Record

    values = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for data in records_of(path):
            items = {item.key or item.nested_key[0]: item.value_json for item in Record.FromString(data).history.item}
            values += [json.loads(items["val_bpb"])] if "val_bpb" in items else []
    return values


def read_mlflow(places, folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder.parent / "mlflow").as_uri())
    experiment = client.get_experiment_by_name(PROJECT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["backend"] == "null"
    assert run.data.tags["1.hypothesis"].startswith("width")
    return [metric.value for metric in client.get_metric_history(run.info.run_id, "val_bpb")]


def read_tensorboard(places, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [point.tensor_proto.float_val[0] for point in events.Tensors("val_bpb")]


@pytest.mark.parametrize("name", tracker_names())
def test_a_tracker_hears_every_decision_once_also_of_a_run_that_goes_on(tmp_path, places, monkeypatch, name):
    need(name)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        said = tell(run, name, (Widths(9), 1), (Widths(9, 12), 2))
        assert (run.folder / "tracking" / f"{name}.told").read_text() == "3", said
        found = globals()[f"read_{name}"](places, run.folder)
    assert found == pytest.approx(BPB)
    assert [line.startswith(f"{name}: ") for line in said] == [True, True], said


def test_a_tracker_that_fails_is_said_once_and_the_run_goes_on(tmp_path, places, monkeypatch):
    need("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-scheme://nowhere")
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        said = tell(run, "mlflow", (Widths(9), 1))
        assert len(run.ledger.decisions()) == 2
    (line,) = said
    assert line.startswith("mlflow fails, the run goes on without it: ")
    assert "Its log: " in line


def test_a_tracker_that_hangs_holds_up_neither_the_loop_nor_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker_process, "PATIENCE_SECONDS", 0.5)
    (tmp_path / "sleeper").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "sleeper").chmod(0o755)
    monkeypatch.setattr(tracker_process.sys, "executable", str(tmp_path / "sleeper"))
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        process = TrackerProcess("wandb", run.ledger, (said := []).append)
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1), on_decided=process.decided).go()
        process.close("finished", "")
    assert process._child.returncode == -9
    assert said == [said[0]]
    assert "has not taken everything" in said[0]


def test_a_tracker_sees_its_own_variables_and_those_that_are_named(monkeypatch):
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "hush")
    seen = tracker_process.tracker_environment("wandb", ["AWS_SECRET_ACCESS_KEY"])
    assert {"PATH", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"} <= seen.keys()
    assert not seen.keys() & {"MLFLOW_TRACKING_URI", "OPENAI_API_KEY", "HF_TOKEN"}


def test_the_process_of_a_tracker_has_that_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "hush")
    monkeypatch.setenv("CLOUD", "asked for")
    told = tmp_path / "told"
    (tmp_path / "printer").write_text(f'#!/bin/sh\necho "[$OPENAI_API_KEY] $CLOUD" > {told}\n')
    (tmp_path / "printer").chmod(0o755)
    monkeypatch.setattr(tracker_process.sys, "executable", str(tmp_path / "printer"))
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        TrackerProcess("wandb", run.ledger, [].append, ["CLOUD"]).close("finished", "")
    assert told.read_text() == "[] asked for\n"


def test_a_library_that_is_missing_is_said_before_anything_starts():
    with pytest.raises(PrerequisiteError, match=r"needs the library no_such_tracker.*pip install"):
        check_library("no_such_tracker")


def test_every_adapter_has_its_extra_and_its_line_in_the_docs():
    root = Path(__file__).parents[3]
    project, settings = (root / "pyproject.toml").read_text(), (root / "docs/settings.md").read_text()
    assert len(tracker_names()) >= 4
    assert f'track = ["autoresearch-dual[{",".join(tracker_names())}]"]' in project
    for name in tracker_names():
        assert f"\n{name} = [" in project
        assert f"\n| `{name}` |" in settings
