"""An improvement at other budgets and widths: what is measured, and what is said of it. Trials are made up."""

from __future__ import annotations

import pytest

from autoresearch.core.errors import UsageError
from autoresearch.core.followup import remeasure
from autoresearch.core.followup.pairs import RunNoise
from autoresearch.core.followup.scale import Width, conditions_of, scale, width_of
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.paired import PairedNoise
from autoresearch.core.report.document.scaling import draw_scaling
from autoresearch.core.trial.request import TrialResult

FILE = '# ---- constants: all\nDEPTH = 4\nDIM = 640\nHEAD_DIM = 128\nLR = 0.1\nNAME = "x"\n# ---- end of constants\n'
FINAL = FILE.replace("DIM = 640\n", "DIM = 512\n", 1).replace("LR = 0.1", "LR = 0.2")
NOISE = RunNoise(Noise(0.01, 20.0, 20, "a test"), PairedNoise(0.001, 20.0, 10))
CONFIG = {"backend": "null", "preset": "demo", "prepared": "", "eval_seq_len": 256, "score_rows": 32, "seed": 7}
CONFIG |= {"train_seconds": 10.0, "startup_seconds": 1.0}


def measured(tmp_path, monkeypatch, effect, told=None, **more):
    """Measure with a made-up effect of the final file by (budget in seconds, width of the source)."""

    def trial(request, **_):
        width = next(int(line.split("=")[1]) for line in request.source.splitlines() if line.startswith("DIM ="))
        final = "LR = 0.2" in request.source
        value = effect(request.budget.train_seconds, width) if final else 0.0
        common = {"seed": request.seed, "backend": "null", "preset": "demo", "machine": "m"}
        if value is None:
            return TrialResult(status="crash", reason="CUDA out of memory.", **common)
        noise = 0.0005 * ((request.seed * 7 + final) % 3 - 1)
        return TrialResult(status="ok", val_bpb=2.0 + 0.1 * (request.seed % 3) + value + noise, **common)

    monkeypatch.setattr(remeasure, "run_trial", trial)
    width = width_of(FILE, FINAL)
    conditions = conditions_of(FILE, FINAL, 10.0, (0.5, 2.0, 4.0), width, (0.5, 2.0))
    say = (lambda _: None) if told is None else told.append
    remeasurer = remeasure.Remeasurer(CONFIG, tmp_path, "val", 100, say=say, **more)
    return {"experiment": 3, **scale(remeasurer, conditions, 3, width, NOISE)}


def trends(record):
    return {f"{row['axis']} {row['factor']:g}": row["trend"] for row in record["conditions"]}


def test_the_width_is_the_first_known_name_and_is_scaled_in_heads():
    width = width_of(FILE, FINAL)
    assert width == Width("DIM", 640, 512)
    found = conditions_of(FILE, FINAL, 10.0, (2.0,), width, (0.5, 2.0, 1.05))
    assert [one.name for one in found] == ["budget-x1", "width-x0.5", "width-x2", "budget-x2"]
    assert found[1].values == (384, 256)
    assert "DIM = 384" in found[1].baseline and "LR = 0.2" in found[1].final
    # Half of one head is one head still: the best file would be halved against a whole baseline.
    small = FILE.replace("DIM = 640", "DIM = 128", 1)
    assert [one.name for one in conditions_of(small, FINAL, 10.0, (), width_of(small, FINAL), (0.5, 2.0))] == [
        "budget-x1",
        "width-x2",
    ]
    assert width_of(FILE, FINAL, "DEPTH") == Width("DEPTH", 4, 4)
    assert width_of("x = 1\n", FINAL) is None
    for wrong in ("LR", "NAME", "NONE"):
        with pytest.raises(UsageError, match="DEPTH, DIM, HEAD_DIM"):
            width_of(FILE, FINAL, wrong)


def test_an_improvement_holds_fades_or_flips(tmp_path, monkeypatch):
    record = measured(tmp_path, monkeypatch, lambda seconds, width: -0.05 if seconds < 20 else -0.02)
    assert trends(record) == {
        "budget 1": None,
        "budget 0.5": "holds",
        "budget 2": "fades",
        "budget 4": "fades",
        "width 0.5": "holds",
        "width 2": "holds",
    }
    assert (
        record["verdict"]
        == "it fades at 4 times the budget, it holds at 0.5 times the width, it holds at 2 times the width"
    )
    record = measured(tmp_path, monkeypatch, lambda seconds, width: -0.05 if seconds < 40 else 0.02)
    assert trends(record)["budget 4"] == "flips"
    record = measured(tmp_path, monkeypatch, lambda seconds, width: 0.0)
    assert (
        record["verdict"] == "no improvement is certain at the run's own budget, so there is none to follow to others"
    )
    assert set(trends(record).values()) <= {None, "not certain"}


def test_a_file_that_does_not_fit_the_memory_costs_its_own_condition_alone(tmp_path, monkeypatch):
    told = []
    record = measured(tmp_path, monkeypatch, lambda _seconds, width: None if width > 600 else -0.05, told)
    (failed,) = [row for row in record["conditions"] if row["failed"]]
    assert (failed["axis"], failed["factor"], failed["delta"]) == ("width", 2.0, None)
    assert "the best file does not fit the memory (crash: CUDA out of memory)" in failed["failed"]
    assert any("the other conditions go on" in line for line in told)
    assert "it was not measured at 2 times the width" in record["verdict"]
    assert draw_scaling(record, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_drawn_where_no_trial_ended_well(tmp_path, monkeypatch):
    record = measured(tmp_path, monkeypatch, lambda *_: None)
    assert record["verdict"].startswith("not measured")
    assert not draw_scaling(record, tmp_path / "scale.png")
