"""Trials whose score and audit processes are sealed: what a file may still do, and what happens where it needs more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from null_trials import request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trial import evaluation
from autoresearch.core.trial.evaluation import Scorer
from autoresearch.core.trial.request import TrialResult
from autoresearch.core.trial.sandbox.levels import best_level
from autoresearch.core.trial.sandbox.sealing import SealFault, why_unsealed
from autoresearch.core.trial.supervisor import run_trial

WHY = why_unsealed(best_level()) if sys.platform == "linux" else "it is Linux only"
SEALED = pytest.mark.skipif(WHY is not None, reason=f"nothing can be sealed here: {WHY}")
LOOKS = "inner_logits = logits\nseen = []\ndef logits(model, tokens):\n    {}\n    return inner_logits(model, tokens)\n"
ALWAYS = LOOKS.format("open('train.py').close()")
ONCE = LOOKS.format("seen or (open('train.py').close(), seen.append(1))")
"""As a file does that compiles its own graphs: the first batch of each model needs more than the others."""


def run(prepared: Prepared, folder: Path, addition: str) -> TrialResult:
    return run_trial(request(prepared, folder, addition, gate=False))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The processes that were given the weights, and whether each kept its first model."""
    found: list[tuple[str, bool]] = []
    real = Scorer.warm_up

    def warm_up(self: Scorer, payload: bytes, count: int, width: int, keep: bool) -> None:
        found.append((self._child.role, keep))
        real(self, payload, count, width, keep)

    monkeypatch.setattr(Scorer, "warm_up", warm_up)
    return found


@SEALED
def test_a_file_that_opens_files_while_it_is_scored_fails(
    prepared: Prepared, tmp_path: Path, kept: list[tuple[str, bool]]
) -> None:
    result = run(prepared, tmp_path / "trial", ALWAYS)
    assert result.status == "crash"
    assert str(result.reason).startswith("FileNotFoundError (line ")
    assert kept == [("score", False), ("score", True)]


@SEALED
def test_a_file_that_compiles_in_its_first_batch_is_served_by_its_first_model(
    prepared: Prepared, tmp_path: Path, kept: list[tuple[str, bool]]
) -> None:
    result = run(prepared, tmp_path / "trial", ONCE)
    assert result.status == "ok", result.reason
    assert kept == [("score", False), ("score", True), ("audit", True)]


@SEALED
def test_a_file_that_fails_later_is_not_asked_again(
    prepared: Prepared, tmp_path: Path, kept: list[tuple[str, bool]]
) -> None:
    late = LOOKS.format("seen.append(1)\n    if len(seen) == 2: raise OSError")
    assert run(prepared, tmp_path / "trial", late).status == "crash"
    assert kept == [("score", False)]


def test_a_process_that_cannot_be_sealed_ends_the_trial(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seal(*_: object) -> None:
        raise SealFault("its threads and processes do not come to rest")

    monkeypatch.setattr(evaluation, "why_unsealed", lambda _: None)
    monkeypatch.setattr(evaluation, "seal", seal)
    result = run(prepared, tmp_path / "trial", "")
    words = "the score process cannot be sealed: its threads and processes do not come to rest"
    assert (result.status, result.reason, result.val_bpb) == ("crash", words, None)


def test_the_time_until_a_process_stands_still_is_on_its_clock(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "why_unsealed", lambda _: None)
    monkeypatch.setattr(evaluation, "seal", lambda *_: 5.0)
    result = run(prepared, tmp_path / "trial", "")
    assert (result.status, result.val_bpb) == ("timeout", None)
    assert str(result.reason).startswith("score took longer than")


def test_whether_it_can_be_sealed_is_found_out_before_it_has_its_weights(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    real = Scorer.hand_over
    monkeypatch.setattr(evaluation, "why_unsealed", lambda _: said.append("asked") or "this kernel has no ptrace")
    monkeypatch.setattr(Scorer, "hand_over", lambda self, frozen: (said.append("weights"), real(self, frozen))[1])
    assert run(prepared, tmp_path / "trial", "").status == "ok"
    assert said == ["asked", "weights"] * 2


def test_a_process_on_a_gpu_is_not_sealed(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SEALED_DEVICES", ("cpu",))
    result = run(prepared, tmp_path / "trial", ALWAYS)
    assert result.status == "ok", result.reason


def test_where_nothing_can_be_sealed_a_trial_runs_without(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "why_unsealed", lambda _: "this kernel has no ptrace")
    result = run(prepared, tmp_path / "trial", ALWAYS)
    assert result.status == "ok", result.reason
