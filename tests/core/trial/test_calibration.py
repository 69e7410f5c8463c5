"""Tolerances come from the honest baseline, never wider than the default of the precision."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from null_trials import request

from autoresearch.backends.contract import Device
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError
from autoresearch.core.trial import audit
from autoresearch.core.trial.audit import (
    FLOOR,
    calibrate,
    note_baseline,
    read_tolerances,
    tolerance_key,
    widen_tolerances,
)
from autoresearch.core.trial.device import probe_device
from autoresearch.core.trial.request import AuditResult
from autoresearch.core.trial.supervisor import run_trial


def honest(max_abs: float, mean: float, spread: float = 0.0) -> AuditResult:
    return AuditResult(positions=459, max_abs=max_abs, mean_diff=mean, ok=True, spread=spread)


def test_answers_that_are_the_same_leave_the_floor() -> None:
    assert calibrate([honest(0.0, 0.0)], "fp32") == FLOOR


def test_the_largest_of_several_baselines_counts_with_a_margin() -> None:
    found = calibrate([honest(5e-5, 1e-6, 1e-6), honest(1e-4, -1e-5, 5e-5)], "fp32")
    assert found.mean == pytest.approx(8e-5)
    assert found.spread == pytest.approx(1e-4)


def test_a_logit_of_half_precision_may_go_to_its_neighbour_and_only_seldom() -> None:
    step = 2.0**-7  # of half precision between 8 and 16, where capped logits lie
    assert step <= FLOOR.max_abs < 2.0 * step
    moved = np.zeros(1000)
    moved[0] = step
    assert moved.mean() <= audit.mean_allowed(moved, FLOOR)
    moved[:5] = step
    assert moved.mean() > audit.mean_allowed(moved, FLOOR)


def test_it_is_never_wider_than_the_default() -> None:
    assert calibrate([honest(1.0, 1.0, 1.0)], "bf16") == audit.REDUCED


def test_a_baseline_that_answers_the_same_in_bf16_says_nothing_about_variants() -> None:
    spacing = 2.0**-4  # of bf16 between 8 and 16, where capped logits lie
    assert calibrate([honest(0.0, 0.0)], "bf16") == audit.REDUCED
    assert audit.REDUCED.max_abs >= 1.5 * spacing


def test_without_a_baseline_there_is_none() -> None:
    with pytest.raises(ValueError, match="at least one audit"):
        calibrate([], "fp32")


def test_it_is_stored_by_backend_device_and_precision(tmp_path: Path) -> None:
    path = tmp_path / "tolerances.json"
    device = Device(kind="cpu", name="a processor", memory_mb=None, precision="bf16", framework="torch 2")
    assert read_tolerances(path) == read_tolerances(None) == {}
    widen_tolerances(path, {tolerance_key("cuda", device): audit.REDUCED})
    widen_tolerances(path, {"another": FLOOR})
    assert read_tolerances(path) == {"cuda / a processor / bf16 / torch 2": audit.REDUCED, "another": FLOOR}


def test_a_broken_file_is_an_error_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"t\.json cannot be read"):
        read_tolerances(tmp_path / "t.json")


def test_a_trial_is_held_to_the_stored_tolerance(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "tolerances.json"
    widen_tolerances(path, {tolerance_key("null", probe_device("null")): audit.Tolerance(1e-9, 1e-9)})
    addition = (
        "import sys\nruntime = sys.modules['autoresearch.backends.null.runtime']\nnll = runtime.nll\n"
        "runtime.nll = lambda logits, targets: nll(logits, targets) - np.float32(1e-5)\n"
    )
    assert run_trial(request(prepared, tmp_path / "default", addition)).status == "ok"
    result = run_trial(request(prepared, tmp_path / "stored", addition, tolerances=path))
    assert (result.status, result.reason and result.reason[:6]) == ("invalid", "audit:")


def test_the_baselines_trial_narrows_what_later_ones_are_held_to(prepared: Prepared, tmp_path: Path) -> None:
    path, key = tmp_path / "tolerances.json", tolerance_key("null", probe_device("null"))
    for name in ("first", "again"):
        result = run_trial(request(prepared, tmp_path / name, tolerances=path, calibrate=True))
        assert result.status == "ok", result.reason
    assert read_tolerances(path) == {key: FLOOR}
    assert run_trial(request(prepared, tmp_path / "later", tolerances=path)).status == "ok"


def test_a_wider_baseline_is_remembered(tmp_path: Path) -> None:
    for mean in (1e-5, -2e-5, 1e-7):
        note_baseline(tmp_path / "t.json", "a", honest(1e-4, mean), "fp32")
    assert read_tolerances(tmp_path / "t.json")["a"].mean == pytest.approx(1.6e-4)


def test_trials_of_the_baseline_that_end_at_the_same_moment_are_all_remembered(tmp_path: Path) -> None:
    path, together = tmp_path / "t.json", threading.Barrier(8)

    def end(number: int) -> None:
        together.wait()
        for again in range(4):
            note_baseline(path, f"device {number} {again}", honest(1e-4, 0.0), "fp32")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(end, range(8)))
    assert len(read_tolerances(path)) == 32
