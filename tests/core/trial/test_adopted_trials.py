"""Whole trials of scripts in upstream's form on numpy, honest ones and others."""

from __future__ import annotations

import pytest
from null_trials import request
from upstream_scripts import END, LOOP, changed, script_named

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.trial.request import Budget, UpstreamForm
from autoresearch.core.trial.sandbox.levels import best_level
from autoresearch.core.trial.supervisor import run_trial

pytestmark = pytest.mark.skipif(best_level() == "process", reason="adopted scripts need a sandbox: install bubblewrap")

ROOMY = Budget(train_seconds=0.5, startup_seconds=120.0, grace_floor_seconds=4.0)
TIGHT = Budget(train_seconds=0.5, startup_seconds=120.0, grace_floor_seconds=0.4)
BETWEEN = Budget(train_seconds=0.5, startup_seconds=120.0, grace_floor_seconds=1.5)
"""Too late from 1.5 s on, killed after 6 s: room on both sides for a busy machine and a script that is 3 s late."""
FIRST = "x, y, epoch = next(train_loader)\nused"


def adopt(prepared, folder, source, budget=ROOMY, **changes):
    return run_trial(request(prepared, folder, source=source, budget=budget, upstream=UpstreamForm(512), **changes))


def test_an_honest_script_is_measured_as_it_is(prepared, tmp_path):
    source = changed()
    result = adopt(prepared, tmp_path, source)
    assert (result.status, result.reason) == ("ok", None)
    assert result.isolation == best_level()
    assert result.audit is not None and result.audit.ok
    assert 1 < result.val_bpb < 8
    assert result.claimed_bpb is None or result.claimed_bpb == pytest.approx(result.val_bpb, rel=0.5)
    assert (tmp_path / "train.py").read_text() == source


@pytest.mark.parametrize(
    ("name", "backend", "status", "claims"),
    [
        ("honest_torch", "cuda", "ok", None),
        ("honest_mlx", "mlx", "ok", None),
        ("faked_metric", "mlx", "ok", 0.123456),
        ("looks_ahead", "mlx", "invalid", None),
    ],
)
def test_scripts_on_the_frameworks_are_measured_beside_their_claims(prepared, tmp_path, name, backend, status, claims):
    pytest.importorskip("mlx" if backend == "mlx" else "torch")
    source = script_named(name)
    budget = Budget(train_seconds=2.0, startup_seconds=100.0, grace_floor_seconds=4.0)
    result = adopt(prepared, tmp_path, source, budget, backend=backend)
    assert result.status == status, result.reason
    assert (result.val_bpb is not None) == (status == "ok")
    assert result.audit is not None and result.audit.ok == (status == "ok")
    if claims is not None:
        assert result.claimed_bpb == claims


@pytest.mark.parametrize(
    ("changes", "claimed"),
    [
        ([("import time\n", "import time\nimport prepare\n"), (END, "prepare.evaluate_bpb = lambda *_: 0.25\n"
          + END.replace("= eval", "= prepare.eval"))], 0.25),
        ([(END, "import os\nos.fork()\n" + END)], None),
        ([(END, "for _ in range(100):\n    print('x' * 2**20)\n" + END)], None),
        ([("step > 1 and", "step > 10**9 and")], None),
        ([(LOOP, "text = list(train_loader)[:20]\nfor x, y, _ in text:\n    np.add.at(counts, (x, y), 1)\n"
          "model['logits'][:] = np.log(counts)\n")], None),
    ],
    ids=["patches evaluate_bpb", "forks", "prints 100 MB", "ignores the end", "holds back"],
)  # fmt: skip
def test_whatever_a_script_says_and_however_it_ends_its_weights_are_measured(prepared, tmp_path, changes, claimed):
    result = adopt(prepared, tmp_path, changed(*changes))
    assert (result.status, result.reason) == ("ok", None)
    assert 1 < result.val_bpb < 8
    if claimed is not None:
        # On a busy machine a script that is late is ended before it has said anything, so it may try once more.
        said = result.claimed_bpb or adopt(prepared, tmp_path / "again", changed(*changes)).claimed_bpb
        assert said == claimed
    assert (tmp_path / "run.log").stat().st_size < 17 * 2**20


TRAINS_ON = """while True:
    try:
        x, y, epoch = next(train_loader)
    except StopIteration:
        pass
    model["logits"][:] += 1
"""
STAYS_LATE = """for x, y, epoch in train_loader:
    kept = x, y
stop = time.time() + 3.0
while time.time() < stop:
    pass
"""
PEEKS = '        logits = self["logits"][idx]\n'
LOOKS_AHEAD = PEEKS + "        logits = logits + 20 * (np.arange(V) == np.roll(idx, -1, 1)[..., None])\n"
HIDES = "if type(TIME_BUDGET) is float:\n    raise SystemExit\n"


@pytest.mark.parametrize(
    ("changes", "budget", "status", "words"),
    [
        ([(LOOP, TRAINS_ON)], TIGHT, "timeout", "did not stop training when its batches were over"),
        ([(LOOP, STAYS_LATE)], BETWEEN, "invalid", "overtime"),
        ([(PEEKS, LOOKS_AHEAD)], ROOMY, "invalid", "audit"),
        ([("tokenizer = ", "time.sleep(60)\ntokenizer = ")], Budget(0.5, 1.5), "timeout", "start-up took longer"),
        ([("V = tok", HIDES + "V = tok")], ROOMY, "crash", "run again for scoring"),
        ([("import numpy as np", "import numpy as np\nimport my_helpers")], ROOMY, "crash", "my_helpers"),
        ([(END, "import os\nos._exit(0)\n" + END)], ROOMY, "crash", "ended by itself with exit status 0"),
    ],
    ids=["trains on", "late", "looks ahead", "never starts", "hides", "brings modules", "exits"],
)  # fmt: skip
def test_a_script_that_breaks_a_rule_ends_in_one_line(prepared, tmp_path, changes, budget, status, words):
    result = adopt(prepared, tmp_path, changed(*changes), budget)
    if result.status == "ok" and "by itself" in words:  # late on a busy machine, it was ended before it could exit
        result = adopt(prepared, tmp_path / "again", changed(*changes), budget)
    assert result.status == status
    assert words in result.reason and "\n" not in result.reason
    assert result.val_bpb is None


def test_without_a_sandbox_no_script_is_run(prepared, tmp_path):
    with pytest.raises(PrerequisiteError, match="runs in a sandbox only"):
        adopt(prepared, tmp_path, changed(), isolation="process")
    assert not (tmp_path / "work").exists()
