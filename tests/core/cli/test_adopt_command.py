import json
import shutil
from pathlib import Path

import pytest
from upstream_scripts import SCRIPTS, TABLE

from autoresearch.core.cli import main
from autoresearch.core.cli.adopt import summary, verdict_of
from autoresearch.core.trainfile.gate import check_gate
from autoresearch.core.trainfile.source_check import check_source
from autoresearch.core.trial.request import TrialResult
from autoresearch.core.trial.sandbox import levels

needs_sandbox = pytest.mark.skipif(levels.best_level() == "process", reason="adopted scripts need a sandbox")
GPU = "import torch\nfrom prepare import make_dataloader, evaluate_bpb\nmodel = torch.nn.Linear(2, 2)\nmodel.cuda()\n"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A small corpus and the folder it is prepared in, shared by these trials."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("argparse", "ast", "datetime", "inspect", "subprocess", "tarfile", "typing", "turtle"):
        shutil.copy(Path(json.__file__).parent.parent / f"{name}.py", folder / f"{name}.txt")
    return folder, tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, texts):
    corpus, data = texts
    monkeypatch.setenv("AR_ADOPT_CORPUS", str(corpus))
    monkeypatch.setenv("AR_DATA_DIR", str(data))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def adopt(*arguments):
    return main.run(["--preset", "demo", "adopt", *map(str, arguments)])


@needs_sandbox
def test_a_script_is_measured_and_its_claim_is_shown_beside(capsys):
    pytest.importorskip("mlx")
    for _ in range(3):
        code = adopt(SCRIPTS / "honest_mlx.py", "--budget", "2", "--json")
        captured = capsys.readouterr()
        shown = json.loads(captured.out)
        if not (shown["reason"] or "").startswith("overtime"):
            break  # a machine that does other work makes two seconds of training late
    assert captured.out.count("\n") == 1
    assert set(shown) == {*TrialResult.model_fields, "verdict"}
    assert (shown["status"], code) == ("ok", 0), shown["reason"]
    assert shown["verdict"].startswith("measured; the ")
    assert shown["isolation"] != "process" and f"sandbox {shown['isolation']}" in captured.err


@pytest.mark.parametrize("option", [("--budget", "3"), ("--seed", "0"), ("--corpus", "nope")])
def test_what_is_asked_of_a_measurement_is_refused_where_nothing_is_measured(folder, capsys, option):
    assert adopt(SCRIPTS / "honest_mlx.py", "--into", "new.py", *option) == 2
    assert f"--into measures nothing, and reads no {option[0]}." in capsys.readouterr().err
    assert not (folder / "new.py").exists()


@pytest.mark.parametrize(
    ("status", "measured", "claimed", "words"),
    [
        ("ok", 2.0, 1.9, "the claim is 5% below it, as the estimate of an honest script may be"),
        ("ok", 2.0, 3.0, "the claim is 50% above it"),
        ("ok", 2.0, 1.0, "claims 50% less than its weights score"),
        ("ok", 2.0, -1.0, "claims -1, which no text has"),
        ("ok", 2.0, None, "claims nothing"),
        ("invalid", None, 0.5, "no score: audit"),
    ],
)
def test_a_verdict_says_what_a_claim_is_worth(status, measured, claimed, words):
    reason = None if status == "ok" else "audit: no"
    result = TrialResult(
        status=status, reason=reason, val_bpb=measured, claimed_bpb=claimed, seed=0, backend="null", preset="demo"
    )
    assert words in verdict_of(result)
    shown = summary(result, verdict_of(result))
    assert shown.startswith(f"measured  {'2.000000 bpb' if measured else 'nothing'}\nclaimed   ")
    assert words in shown


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        (None, 2, "cannot be read as a script"),
        ("import torch\n", 1, "imports nothing from `prepare`"),
        (TABLE, 1, "neither PyTorch nor MLX"),
        ("\0", 1, "null"),
        (b"\xff\xfe", 2, "cannot be read as a script"),
    ],
)
def test_a_file_that_is_no_such_script_is_refused_in_one_line(folder, capsys, source, code, words):
    if source is not None:
        (folder / "s.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    assert adopt("s.py") == code
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_without_a_sandbox_the_command_refuses(folder, capsys, monkeypatch):
    monkeypatch.setattr(levels, "best_level", lambda: "process")
    assert adopt(SCRIPTS / "honest_torch.py") == 3
    assert "runs in a sandbox only" in capsys.readouterr().err


def test_a_backend_that_is_not_the_scripts_is_refused(capsys):
    assert adopt(SCRIPTS / "honest_torch.py", "--backend", "null") == 2
    assert "written for the cuda backend" in capsys.readouterr().err


@needs_sandbox
def test_a_script_for_a_gpu_says_so_where_there_is_none(folder, capsys):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (folder / "s.py").write_text(GPU)
    assert adopt("s.py") == 3
    err = capsys.readouterr().err
    assert "needs an NVIDIA GPU (.cuda(), line 4)" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["honest_torch", "honest_mlx"])
def test_a_train_file_begins_with_what_can_be_carried_over(folder, capsys, monkeypatch, name):
    pytest.importorskip("mlx" if name.endswith("mlx") else "torch")
    monkeypatch.setenv("HOME", str(folder))
    into = folder / "my file.py"
    assert adopt(SCRIPTS / f"{name}.py", "--into=~/my file.py") == 0
    told = capsys.readouterr().out
    assert "TODO" in told and f"train --file '{into}'`" in told
    written = into.read_text(encoding="utf-8")
    assert check_source(written, [2048]) == 2048
    check_gate(written)
    assert adopt(SCRIPTS / f"{name}.py", "--into", into) == 2
    assert into.read_text(encoding="utf-8") == written
