from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoresearch.backends.contract import Device
from autoresearch.core.bench import measure
from autoresearch.core.cli import compare, main

ROW = (
    "val_bpb",
    "tokens_per_second",
    "step_seconds",
    "start_up",
    "scoring",
    "audit",
    "peak_host_memory_mb",
    "hardware",
)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("AR_DATA_DIR", str(tmp_path / "data"))
    assert main.run(["-q", "init", str(tmp_path / "work")]) == 0
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("argparse", "datetime", "inspect", "typing"):
        shutil.copy(Path(json.__file__).parent.parent / f"{name}.py", texts / f"{name}.txt")
    monkeypatch.setenv("AR_BENCH_CORPUS", str(texts))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_bench_measures_one_backend(workspace, capsys):
    capsys.readouterr()
    assert (
        main.run(["--backend", "null", "--preset", "demo", "bench", "--seconds", "0.3", "--trials", "2", "--json"]) == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in shown["rows"]] == [0, 1]
    assert all(row[name] is not None for row in shown["rows"] for name in ROW)
    assert shown["peak_flops"] == {}, "the null model multiplies nothing"
    assert shown["median"]["mfu"] is None
    assert not (workspace.parent / "data" / "peaks.json").exists()
    assert main.run(["-q", "--backend", "null", "--preset", "demo", "bench", "--seconds", "0.3"]) == 0
    assert "all outside training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "words"), [(".", "does not end in .png"), ("runs.png", "is a folder"), ("/proc/no/p.png", "")]
)
def test_a_picture_that_cannot_be_written_is_refused_before_any_training(workspace, capsys, place, words):
    (workspace / "runs.png").mkdir()
    assert main.run(["compare", "--first", "null", "--second", "null", "--picture", place]) == 2
    told = capsys.readouterr().err
    assert "with --picture" in told and words in told and told.count("\n") == 1


def test_compare_wants_two_backends_that_can_do_the_same_work(workspace, capsys):
    assert main.run(["compare", "--first", "null", "--second", "null"]) == 2
    assert "are not two backends" in capsys.readouterr().err
    assert main.run(["compare", "--first", "torch", "--second", "cuda"]) == 2
    assert "'cuda' and 'cuda' are not two backends" in capsys.readouterr().err
    for name in ("abacus", "auto", ""):
        assert main.run(["compare", "--first", "null", "--second", name]) == 2
        assert "is not one of cuda, mlx, null, torch" in capsys.readouterr().err


def test_a_loss_that_was_never_logged_is_null_in_json(workspace, capsys, monkeypatch):
    found = SimpleNamespace(as_json=lambda: {"at_equal_tokens": {"loss": {"cuda": float("nan"), "mlx": 2.5}}})
    monkeypatch.setattr(compare, "choose_work", lambda *_: (None, None))
    monkeypatch.setattr(compare, "ensure_prepared", lambda *_, **__: None)
    monkeypatch.setattr("autoresearch.core.bench.compare.compare", lambda *_: found)
    monkeypatch.setattr("autoresearch.core.bench.compare.draw", lambda *_: None)
    capsys.readouterr()
    assert main.run(["-q", "compare", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert shown["at_equal_tokens"]["loss"] == {"cuda": None, "mlx": 2.5}


@pytest.mark.parametrize("command", ["bench", "compare"])
def test_more_trials_than_anybody_waits_for_are_refused(workspace, capsys, command):
    assert main.run([command, "--trials", "1000000000"]) == 2
    assert "not in the range 1<=x<=1000" in capsys.readouterr().err


def test_a_peak_that_cannot_be_stored_costs_no_measurement(workspace, monkeypatch):
    device = Device("numpy", "a processor", None, "fp32", "numpy", tier="demo")
    monkeypatch.setattr(measure, "measure_peak", lambda backend: (device, {"fp32": 1e9}))
    (workspace.parent / "data").write_text("a file in the folder's place")
    said: list[str] = []
    assert measure.find_peak("null", said.append) == (device, {"fp32": 1e9})
    assert len(said) == 1 and "cannot be stored for later trials" in said[0]
