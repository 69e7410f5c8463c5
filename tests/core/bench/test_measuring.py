"""Backends measured by real trials of the null backend."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from null_trials import NULL_SOURCE

from autoresearch import backends
from autoresearch.backends.contract import Device
from autoresearch.core.bench import parity as parities
from autoresearch.core.bench import work as works
from autoresearch.core.bench.anatomy import curve_of, take_apart
from autoresearch.core.bench.compare import Comparison, draw, loss_at
from autoresearch.core.bench.measure import BackendBench, BackendMeasurement, describe
from autoresearch.core.bench.parity import STEPS, Parity, find_parity
from autoresearch.core.bench.table import table
from autoresearch.core.bench.work import Work
from autoresearch.core.config import DataPreset, load_presets
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import SourceError, TrialError
from autoresearch.core.events import Audited, FeedProgress, Finished, FirstBatch, Frozen, Log, Scored, Trained
from autoresearch.core.trainfile.constants import read_constants

DEVICE = Device("numpy", "a processor", None, "fp32", "numpy", tier="demo")
DATA = DataPreset(corpus="", vocabularies=(512,), eval_seq_len=256, val_bytes=20_000, test_bytes=20_000)
NULL = Work("null", "demo", NULL_SOURCE, DATA, 16, 30.0)


def two_trials(prepared: Prepared, folder: Path) -> BackendMeasurement:
    bench = BackendBench(folder, prepared, None, threading.Event())
    done = [bench.trial(NULL, 0.3, seed, DEVICE, {"fp32": 1e9}) for seed in (0, 1)]
    return BackendMeasurement(
        "null", DEVICE, describe(DEVICE), {"fp32": 1e9}, [row for row, _ in done], [c for _, c in done]
    )


def test_a_backend_is_measured_and_two_are_compared(prepared: Prepared, tmp_path: Path) -> None:
    measured = two_trials(prepared, tmp_path / "trials")
    row = measured.rows[0]
    assert row.val_bpb is not None
    assert row.tokens_per_second == pytest.approx(row.tokens / 0.3, rel=0.5)
    assert row.outside == pytest.approx(row.start_up + row.freezing + row.scoring + row.audit + row.ending)
    assert row.outside_share == pytest.approx(row.outside / 0.3)
    assert row.mfu is None, "a model that multiplies nothing has no share of a peak"
    assert row.claimed_mfu == pytest.approx(512 * row.tokens_per_second / 1e9)
    assert row.hardware.device == "a processor"
    assert row.hardware.cores >= 1
    shown = measured.as_json()
    assert shown["median"]["val_bpb"] == pytest.approx(sum(r.val_bpb for r in measured.rows) / 2)
    assert all(row["hardware"]["framework"] == "numpy" for row in shown["rows"])

    curve = measured.curves[0]
    assert curve.seconds == sorted(curve.seconds)
    assert curve.tokens == sorted(curve.tokens)
    assert curve.loss[-1] < curve.loss[0]
    tokens = curve.tokens[-1]
    parity = Parity(0.0, [1, 2], ([2.0, 1.0], [2.0, 0.9]))
    comparison = Comparison((measured, measured), parity, tokens, (loss_at(measured, tokens),) * 2)
    assert "tokens/s" in table(comparison.sides)
    assert table(comparison.sides).splitlines()[0].split() == ["null", "null", "ratio"]
    draw(comparison, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert comparison.as_json()["at_equal_tokens"]["loss"]["null"] < curve.loss[0]
    assert comparison.as_json()["parity"]["losses_max_relative"] == pytest.approx(0.1)


def test_the_same_weights_give_the_same_logits_and_losses_unless_the_files_differ(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parities, "TRAIN_SECONDS", 0.3)
    cancel = threading.Event()
    same = find_parity((NULL, NULL), prepared, cancel)
    assert (same.logits, same.losses_apart) == (0.0, 0.0)
    assert same.steps == list(range(1, STEPS + 1))
    assert same.losses[0][-1] < same.losses[0][0], "it has been trained on given text"
    warmer = replace(NULL, source=NULL_SOURCE.replace('(model["table"]', '(1.5 * model["table"]'))
    slower = replace(NULL, source=NULL_SOURCE.replace("scale = lr *", "scale = 0.5 * lr *"))
    assert NULL.source not in (warmer.source, slower.source)
    assert find_parity((NULL, warmer), prepared, cancel).logits > 0.1
    other = find_parity((NULL, slower), prepared, cancel)
    assert other.losses[0][0] == other.losses[1][0], "the first loss comes before the first step"
    assert other.losses_apart > 1e-3
    unlike = replace(
        NULL, source=NULL_SOURCE.replace('"bias": np.zeros(V', '"offset": np.zeros(1), "bias": np.zeros(V')
    )
    with pytest.raises(TrialError, match="cannot be compared"):
        find_parity((NULL, unlike), prepared, cancel)


def test_a_trial_that_fails_is_no_measurement(prepared: Prepared, tmp_path: Path) -> None:
    broken = replace(NULL, source=NULL_SOURCE.replace("def build(spec):", "def build(spec):\n    raise OSError('no')"))
    with pytest.raises(TrialError, match="seed 3 ended as crash"):
        BackendBench(tmp_path, prepared, None, threading.Event()).trial(broken, 0.3, 3, DEVICE, {})


def test_the_parts_of_a_trial_are_all_of_it() -> None:
    events = [FirstBatch(t=2.0), Trained(t=5.0), Frozen(t=5.5), Scored(1.5, t=7.0), Audited(t=8.0)]
    events.append(Finished({}, t=8.25))
    parts = take_apart(events)
    assert (parts.start_up, parts.training, parts.freezing) == (2.0, 3.0, 0.5)
    assert (parts.scoring, parts.audit, parts.ending, parts.outside) == (1.5, 1.0, 0.25, 5.25)
    assert take_apart([event for event in events if not isinstance(event, Audited)]).audit == 0.0
    with pytest.raises(ValueError, match="frozen"):
        take_apart([event for event in events if not isinstance(event, Frozen)])


def test_tokens_of_a_curve_are_the_feeders() -> None:
    events = [
        FirstBatch(t=1.0),
        Log(10**9, 3.0, t=2.0),
        FeedProgress(200, t=3.0),
        Log(None, None, t=3.0),
    ]
    curve = curve_of(events)
    assert (curve.seconds, curve.tokens, curve.loss) == ([1.0], [100.0], [3.0])


def test_both_files_are_given_the_same_sizes_and_rates() -> None:
    source = "# ---- constants\nPRESET = 'x'\nDEPTH = {}\nMUON_LR = {}\nOWN = 7\n# ---- end of constants\n"
    mine, other = (replace(NULL, source=source.format(*values)) for values in ((2, 0.1), (4, 0.02)))
    assert read_constants(works.alike(mine, other).source) == {"PRESET": "x", "DEPTH": 4, "MUON_LR": 0.02, "OWN": 7}
    with pytest.raises(SourceError, match="no constant in common"):
        works.alike(NULL, mine)


def test_the_common_work_leaves_look_ups_out_where_a_file_has_them() -> None:
    folder = Path(backends.__path__[0]) / "cuda"
    source, preset = (folder / "train.py").read_text(encoding="utf-8"), load_presets(folder / "presets.toml")["cpu"]
    assert preset.constants.items().isdisjoint(works.PLAIN.items())
    constants = read_constants(works.common("cuda", source, preset).source)
    assert works.PLAIN.items() <= constants.items()
    older = "".join(line for line in source.splitlines(keepends=True) if not line.startswith("MEMORY_TOKENS = "))
    older_preset = preset.model_copy(update={"constants": {key: preset.constants[key] for key in ("DEPTH", "DIM")}})
    assert "MEMORY_TOKENS" not in read_constants(works.common("cuda", older, older_preset).source)
