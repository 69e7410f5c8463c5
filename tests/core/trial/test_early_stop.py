"""Trials that are ended early by the rule in their request."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from null_trials import request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.events import FeedProgress, FirstBatch, Trained
from autoresearch.core.fleet.node import TrialJob, stream_trial
from autoresearch.core.fleet.shipping import describe_corpus
from autoresearch.core.judge.futility import BINS, CurveWatch, StopRule, learn
from autoresearch.core.trial.context import Measurements
from autoresearch.core.trial.request import Budget, TrialResult
from autoresearch.core.trial.supervisor import run_trial
from autoresearch.core.trial.training import Clock, _hear_child, _hear_feeder

BUDGET = Budget(train_seconds=7.0, startup_seconds=120.0, grace_floor_seconds=2.0)
LOW = tuple(0.02 - 0.0005 * n for n in range(BINS))
HOPELESS = StopRule(LOW, 1.0, 0.4, 0.99, learn((), LOW, 0.4, 0.001))
"""The best file's loss is far below anything that the null backend reaches."""


def ended(result: TrialResult, folder: Path) -> TrialResult:
    """Check what every trial that was ended early leaves."""
    assert result.status == "stopped"
    assert result.val_bpb is result.weights_sha256 is result.audit is result.eval_seconds is None
    assert result.train_seconds is not None and result.train_seconds < BUDGET.train_seconds
    assert result.tokens_per_second is not None
    assert json.loads((folder / "result.json").read_text())["status"] == "stopped"
    assert not list(folder.glob("*.safetensors"))
    return result


def test_a_trial_without_prospects_is_ended_with_its_curve_and_a_prediction(prepared: Prepared, tmp_path: Path) -> None:
    result = ended(run_trial(request(prepared, tmp_path / "a", budget=BUDGET, stop=HOPELESS)), tmp_path / "a")
    assert result.predicted_bpb is not None and result.predicted_low is not None and result.predicted_high is not None
    assert result.predicted_low < result.predicted_bpb < result.predicted_high
    assert "nats from the best file's" in str(result.reason)
    seen = [loss for loss in result.curve if loss is not None]
    assert seen and result.curve[-1] is None
    assert result.cpu_seconds is not None and result.cpu_seconds > 0.0


def test_a_node_of_a_fleet_applies_the_rule_that_comes_with_the_job(prepared: Prepared, tmp_path: Path) -> None:
    asked = request(prepared, tmp_path / "a", budget=BUDGET, stop=HOPELESS)
    job = pickle.loads(pickle.dumps(TrialJob(asked, describe_corpus(prepared.folder), None)))
    *_, last = stream_trial(job, lambda _: pytest.fail("the corpus is here"))
    result = TrialResult.model_validate(json.loads(json.dumps(last["result"])))
    assert (result.status, result.val_bpb) == ("stopped", None)
    assert result.predicted_bpb is not None and result.curve


def test_a_file_that_claims_a_low_loss_escapes_the_rule_and_is_scored_as_always(
    prepared: Prepared, tmp_path: Path
) -> None:
    lies = "plain_train = train\nclass Lying:\n    def __init__(self, clock): self.clock = clock\n"
    lies += "    def __getattr__(self, name): return getattr(self.clock, name)\n"
    lies += "    def log(self, step, loss, **more): self.clock.log(step=step, loss=-3.0, **more)\n"
    lies += "def train(model, data, clock): return plain_train(model, data, Lying(clock))\n"
    short = Budget(train_seconds=1.0, startup_seconds=120.0, grace_floor_seconds=2.0)
    result = run_trial(request(prepared, tmp_path / "a", lies, budget=short, stop=HOPELESS))
    assert result.status == "ok", result.reason
    assert result.val_bpb is not None and result.val_bpb > 1.0
    assert max(loss for loss in result.curve if loss is not None) == -3.0


def test_a_file_that_says_again_and_again_that_it_has_trained_is_not_believed() -> None:
    context: Any = SimpleNamespace(facts=Measurements(), record=SimpleNamespace(event=lambda _: None))
    clock = Clock(spawned=0.0, watch=CurveWatch(None, 1.0))
    _hear_child(context, clock, Trained())
    _hear_feeder(context, clock, FirstBatch(monotonic=time.monotonic()))
    _hear_child(context, clock, Trained())
    assert clock.trained is None
    clock = Clock(spawned=0.0, watch=CurveWatch(None, 1.0))
    _hear_feeder(context, clock, FirstBatch(monotonic=time.monotonic()))
    _hear_child(context, clock, Trained())
    assert clock.trained is not None
    for batches in (3, 4):
        _hear_feeder(context, clock, FeedProgress(1000, batches, 0))
        _hear_child(context, clock, Trained())
    assert clock.trained is None


def test_a_loss_that_turns_into_no_number_ends_the_trial(prepared: Prepared, tmp_path: Path) -> None:
    bad = "def train(model, data, clock):\n    for step, _ in enumerate(data.batches(BATCH_ROWS, SEQ_LEN)):\n"
    bad += "        clock.log(step=step, loss=5.0 if clock.progress < 0.2 else float('nan'))\n    return model\n"
    result = ended(run_trial(request(prepared, tmp_path / "a", bad, budget=BUDGET, stop=StopRule())), tmp_path / "a")
    assert str(result.reason).startswith("diverged")
    assert result.predicted_bpb is None
    # Without a rule, as the baseline is run, the same file trains to its end.
    short = Budget(train_seconds=0.5, startup_seconds=120.0, grace_floor_seconds=2.0)
    assert run_trial(request(prepared, tmp_path / "b", bad, budget=short)).status == "ok"
