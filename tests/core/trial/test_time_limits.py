"""No time outside the clock, and nothing of the held-out text in a reason: trials of files that try both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from null_trials import BUDGET, line_of, request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.events import Event, Scored, Scoring
from autoresearch.core.trial import audit
from autoresearch.core.trial import request as limits
from autoresearch.core.trial.evaluation import ScoreFault, check_repeats
from autoresearch.core.trial.request import Budget, TrialResult
from autoresearch.core.trial.supervisor import run_trial

LOGITS = "inner_logits = logits\ndef logits(model, tokens):\n    out = inner_logits(model, tokens)\n"


def run(prepared: Prepared, folder: Path, addition: str = "", **changes: Any) -> TrialResult:
    return run_trial(request(prepared, folder, addition, **changes))


def test_every_allowance_is_a_small_part_of_the_training_time() -> None:
    budget = Budget()
    assert budget.grace_seconds(20 * 10**6, 0.3) == pytest.approx(1.1)
    assert budget.grace_seconds(2**43, 300.0) == pytest.approx(9.0)  # the fattest weights, one step in all
    assert budget.hard_seconds > budget.train_seconds + budget.grace_seconds(2**43, 300.0)
    assert budget.answer_seconds(2048, 8000.0) == pytest.approx(1.5 + 1.5 * 2048 / 8000)
    assert budget.answer_seconds(2048, 1.0) == budget.answer_seconds(2048, None) == pytest.approx(7.5)
    assert Budget(20.0).answer_seconds(2048, 8000.0) < 0.1 * 20.0


@pytest.mark.parametrize(
    "later",
    [
        "def flops_per_token(model): time.sleep(0.6)",
        "class Model(dict):\n    def values(self):\n        time.sleep(0.6)\n        return dict.values(self)\n"
        "plain = build\ndef build(spec): return Model(plain(spec))",
        "import sys\nruntime = sys.modules['autoresearch.backends.null.runtime']\nsave = runtime.save_weights\n"
        "def slow(model, path):\n    time.sleep(0.6)\n    save(model, path)\nruntime.save_weights = slow",
    ],
    ids=["the count of FLOP", "the count of weights", "saving"],
)
def test_work_after_train_has_returned_counts_as_training(prepared: Prepared, tmp_path: Path, later: str) -> None:
    returns = "import time\ndef train(model, data, clock):\n    next(iter(data.batches(4, 128)))\n    return model\n"
    result = run(prepared, tmp_path, returns + later, budget=Budget(5.0, 20.0, grace_floor_seconds=0.1))
    assert (result.status, result.reason) == ("ok", None)
    assert result.train_seconds is not None
    assert result.train_seconds >= 0.6


def test_logits_is_asked_once_before_the_weights_and_the_file_begins_anew_after_that(
    prepared: Prepared, tmp_path: Path
) -> None:
    plain = "def train(model, data, clock): return {name: array + 1.5 for name, array in model.items()}\n"
    kept = "made = {}\ndef logits(model, tokens):\n    if 'table' not in made:\n"
    kept += "        made['table'] = model['table'] + model['bias']\n    return made['table'][tokens]\n"
    first, second = run(prepared, tmp_path / "a", plain), run(prepared, tmp_path / "b", plain + kept)
    assert (first.status, second.status) == ("ok", "ok"), second.reason
    assert first.val_bpb == second.val_bpb


def test_a_slow_first_call_is_allowed_before_the_weights_alone(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_FLOOR_SECONDS", 0.5)
    slow = "import time\nseen = []\n" + LOGITS + "    if not seen: time.sleep({})\n    seen.append(1)\n    return out\n"
    result = run(prepared, tmp_path / "a", slow.format(1.4))
    # The last of the processes keeps the model that has answered once: what compiles its own graphs is served there.
    assert result.status == "ok", result.reason
    always = "import time\n" + LOGITS + "    time.sleep(1.4)\n    return out\n"
    result = run(prepared, tmp_path / "b", always)
    assert (result.status, result.val_bpb) == ("timeout", None)
    assert str(result.reason).startswith("score took longer than")


def test_logits_that_remember_earlier_batches_are_found(prepared: Prepared, tmp_path: Path) -> None:
    counts = "seen = np.zeros((512, 512), np.float32)\n" + LOGITS
    counts += "    out = out + np.log1p(seen)[tokens]\n    np.add.at(seen, (tokens[:, :-1], tokens[:, 1:]), 1)\n"
    counts += "    return out\n"
    result = run(prepared, tmp_path / "trial", counts)
    assert result.status == "invalid"
    assert str(result.reason).startswith("audit: rows that were asked again")


def test_what_a_score_process_leaves_on_the_disk_is_gone_before_the_audit(prepared: Prepared, tmp_path: Path) -> None:
    work, left = tmp_path / "trial" / "work" / "score", []

    def watch(event: Event) -> None:
        if isinstance(event, Scoring):
            left.append((work / "filled").exists())
        if isinstance(event, Scored):
            left.append(work.exists())

    # Opened before the process is sealed: from then on it could not.
    filling = "file = open('filled', 'w')\n" + LOGITS + "    file.write('x')\n    file.flush()\n    return out\n"
    result = run_trial(request(prepared, tmp_path / "trial", filling, gate=False), observer=watch)
    assert result.status == "ok", result.reason
    assert left[0]
    assert not left[-1]


def test_two_answers_may_differ_by_rounding_alone() -> None:
    first = np.random.default_rng(0).random((3, 8)).astype(np.float32)
    mask = np.ones((3, 8), bool)
    limit = audit.Tolerance(max_abs=1e-3, mean=1e-4)
    check_repeats(first, first + np.float32(5e-5), mask, limit)
    for change in (2e-3, 3e-4):
        with pytest.raises(ScoreFault):
            check_repeats(first, first + np.float32(change), mask, limit)
    other = first.copy()
    other[0, 0] += 1.0
    mask[0, 0] = False
    check_repeats(first, other, mask, limit)


def test_honest_rounding_in_bf16_passes_however_few_rows_are_asked_again() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        first = np.full((32, 64), 3.0, np.float32)
        moved = np.where(rng.random(first.shape) < 0.1, rng.choice([-1, 1], first.shape) / 16, 0).astype(np.float32)
        check_repeats(first, first + moved, np.ones(first.shape, bool), audit.REDUCED)


SECRET = "secret = '-'.join(map(str, tokens[0, :80].tolist()))\n"


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        ("raise RuntimeError(secret)", "RuntimeError ("),
        ("raise type(secret, (ValueError,), {})(secret)", "an exception of the train file's own ("),
        ("import os, sys; os.write(2, secret.encode()); print(secret, flush=True); sys.exit(77)", "SystemExit ("),
        ("import os; os._exit(77)", "the score process ended by itself"),
    ],
)
def test_what_the_score_child_has_seen_does_not_leave_it(
    prepared: Prepared, tmp_path: Path, leak: str, words: str
) -> None:
    calls = "calls = []\ndef logits(model, tokens):\n    calls.append(1)\n"
    code = calls + "    if len(calls) < 2: return (model['table'] + model['bias'])[tokens]\n    " + SECRET
    asked = request(prepared, tmp_path / "trial", code + f"    {leak}\n")
    result = run_trial(asked)
    assert result.status == "crash"
    reason = str(result.reason)
    assert reason.startswith(words)
    if "raise" in leak:
        assert f"(line {line_of(asked.source, leak)} of train.py, in logits" in reason
    assert "77" not in reason
    row = prepared.scored_rows("val", 512, 256).rows[0, :20]
    for name in ("run.log", "events.jsonl", "result.json"):
        said = (tmp_path / "trial" / name).read_text(encoding="utf-8", errors="replace")
        assert "-".join(map(str, row.tolist())) not in said


def test_a_forged_failure_cannot_speak(prepared: Prepared, tmp_path: Path) -> None:
    said = {
        "event": "error",
        "stage": "held-out",
        "type": "Held",
        "message": "out",
        "line": 10**9,
        "out_of_memory": False,
    }
    forged = "import os, sys, time\n" + LOGITS + "    fd = int(sys.argv[sys.argv.index('--events-fd') + 1])\n"
    forged += f"    os.write(fd, {json.dumps(said)!r}.encode() + b'\\n')\n    time.sleep(60)\n"
    result = run(prepared, tmp_path / "trial", forged)
    assert result.reason == (
        "an exception of the train file's own (in scoring, by the score process, whose messages are not shown)"
    )


def test_memory_that_the_score_child_takes_says_no_number(prepared: Prepared, tmp_path: Path) -> None:
    code = "import time\n" + LOGITS + "    held = np.ones(2**27)\n    time.sleep(3)\n    return out\n"
    result = run(prepared, tmp_path / "trial", code, memory_limit_mb=700)
    assert str(result.reason).startswith("out of memory: the score process took more memory")
    assert not any(letter.isdigit() for letter in str(result.reason))


def test_fat_weights_buy_a_small_share_of_the_budget() -> None:
    budget = replace(BUDGET, train_seconds=300.0, grace_floor_seconds=1.0)
    assert budget.weights_seconds(10**12) == pytest.approx(6.0)
