import json
import shutil
from pathlib import Path

import pytest
from upstream_scripts import SCRIPTS, TABLE

from autoresearch.core.cli import main
from autoresearch.core.trainfile.gate import check_gate
from autoresearch.core.trainfile.source_check import check_source
from autoresearch.core.trial.request import TrialResult
from autoresearch.core.trial.sandbox import levels

needs_walls = pytest.mark.skipif(levels.best_level() == "process", reason="adopted scripts need a sandbox")
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


@needs_walls
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "verdict"),
    [
        ("honest_torch", "ok", "as the estimate of an honest script may be"),
        ("honest_mlx", "ok", "as the estimate of an honest script may be"),
        ("faked_metric", "ok", "less than its weights score"),
        ("looks_ahead", "invalid", "audit"),
    ],
)
def test_a_script_is_measured_beside_its_claim(name, status, verdict, capsys):
    backend = "mlx" if name.endswith("mlx") else "torch"
    pytest.importorskip(backend)
    code = adopt(SCRIPTS / f"{name}.py", "--budget", "2", "--json")
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert out.count("\n") == 1
    assert set(shown) == {*TrialResult.model_fields, "verdict"}
    assert (shown["status"], code) == (status, 0 if status == "ok" else 1), shown["reason"]
    assert verdict in shown["verdict"]
    assert shown["isolation"] != "process"


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        (None, 3, "cannot be read as a script"),
        ("import torch\n", 1, "imports nothing from `prepare`"),
        (TABLE, 1, "neither PyTorch nor MLX"),
        ("\0", 1, "null"),
        (b"\xff\xfe", 3, "cannot be read as a script"),
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


@needs_walls
def test_a_script_for_a_gpu_says_so_where_there_is_none(folder, capsys):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (folder / "s.py").write_text(GPU)
    assert adopt("s.py") == 3
    err = capsys.readouterr().err
    assert "needs an NVIDIA GPU (.cuda(), line 4)" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["honest_torch", "honest_mlx"])
def test_a_train_file_begins_with_what_can_be_carried_over(folder, capsys, name):
    pytest.importorskip("mlx" if name.endswith("mlx") else "torch")
    into = folder / "mine.py"
    assert adopt(SCRIPTS / f"{name}.py", "--into", into) == 0
    assert "TODO" in capsys.readouterr().out
    written = into.read_text(encoding="utf-8")
    assert check_source(written, [2048]) == 2048
    check_gate(written)
    assert adopt(SCRIPTS / f"{name}.py", "--into", into) == 2
    assert into.read_text(encoding="utf-8") == written
