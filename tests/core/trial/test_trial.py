"""Trials with real processes: each way in which a train file can end has its own status and a reason in words."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from null_trials import BUDGET, line_of, request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError, PrerequisiteError, TrialError
from autoresearch.core.events import Event
from autoresearch.core.trial.context import WHOLE_REASON_LIMIT
from autoresearch.core.trial.request import Budget, TrialResult
from autoresearch.core.trial.sandbox.levels import best_level
from autoresearch.core.trial.supervisor import run_trial

WRAP_TRAIN = "inner_train = train\ndef train(model, data, clock):\n"
RUNTIME = "import sys, os\nruntime = sys.modules['autoresearch.backends.null.runtime']\n"
RETURN = "    return inner_train(model, data, clock)\n"


def run(prepared: Prepared, folder: Path, addition: str = "", **changes: Any) -> TrialResult:
    return run_trial(request(prepared, folder, addition, **changes))


def log(folder: Path) -> str:
    return (folder / "run.log").read_text()


def test_an_honest_train_file_is_trained_scored_and_audited(prepared: Prepared, tmp_path: Path) -> None:
    events: list[Event] = []
    folder = tmp_path / "trial"
    result = run_trial(request(prepared, folder), observer=events.append)
    assert (result.status, result.reason) == ("ok", None)
    assert result.val_bpb is not None
    assert 1.0 < result.val_bpb < 5.0
    assert result.train_seconds is not None
    assert result.train_seconds <= BUDGET.train_seconds + BUDGET.grace_seconds(2**20, 0.0)
    assert result.params == 512 * 512 + 512
    assert result.tokens is not None
    assert result.steps is not None
    assert result.tokens == pytest.approx(result.steps * 16 * 256, rel=0.05)
    assert result.audit is not None
    assert result.audit.ok
    assert result.isolation == best_level()
    assert result.peak_memory_mb is not None
    assert result.mfu is None
    assert sorted(path.name for path in folder.iterdir()) == ["events.jsonl", "result.json", "run.log", "train.py"]
    assert TrialResult.model_validate_json((folder / "result.json").read_text()) == result
    names = [event.name for event in events]
    for name in ("spawned", "device", "startup", "first_batch", "log", "trained", "scoring", "scored", "finished"):
        assert name in names
    recorded = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert recorded == names


def test_training_beats_not_training(prepared: Prepared, tmp_path: Path) -> None:
    trained = run(prepared, tmp_path / "a", audit=False)
    untrained = run(prepared, tmp_path / "b", "def train(model, data, clock): return model", audit=False)
    assert (trained.status, untrained.status) == ("ok", "ok")
    assert trained.val_bpb is not None
    assert untrained.val_bpb is not None
    assert trained.val_bpb < untrained.val_bpb - 0.3
    assert untrained.train_seconds is None
    assert untrained.audit is None


def test_only_a_score_below_the_bar_is_audited(prepared: Prepared, tmp_path: Path) -> None:
    assert run(prepared, tmp_path / "a", audit_below=0.5).audit is None
    assert run(prepared, tmp_path / "b", audit_below=9.0).audit is not None


def test_the_process_level_does_the_same_job(prepared: Prepared, tmp_path: Path) -> None:
    result = run(prepared, tmp_path / "trial", isolation="process")
    assert (result.status, result.isolation) == ("ok", "process")


def test_a_syntax_error_is_named_before_anything_runs(prepared: Prepared, tmp_path: Path) -> None:
    result = run(prepared, tmp_path / "trial", source="VOCAB_SIZE = 512\ndef build(spec:\n")
    assert (result.status, result.device) == ("invalid", None)
    assert result.reason is not None
    assert result.reason.startswith("syntax error in line 2")


def test_half_a_character_in_the_source_is_invalid(prepared: Prepared, tmp_path: Path) -> None:
    result = run_trial(request(prepared, tmp_path / "trial", "# \ud800\n"))
    assert result.status == "invalid"
    assert "cannot be parsed" in str(result.reason)


@pytest.mark.parametrize(
    ("addition", "words", "stage"),
    [
        ("def build(spec): raise KeyError('no such thing')", "KeyError: 'no such thing'", "build"),
        ("def train(model, data, clock): raise SystemExit(3)", "SystemExit: 3", "train"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'", "import"),
        ("def train(model, data, clock): raise MemoryError", "out of memory: MemoryError", "train"),
        ("def train(m, d, c): raise RuntimeError('CUDA out of memory')", "out of memory: RuntimeError", "train"),
    ],
)
def test_an_exception_is_a_crash_with_its_line(
    prepared: Prepared, tmp_path: Path, addition: str, words: str, stage: str
) -> None:
    asked = request(prepared, tmp_path / "trial", addition)
    result = run_trial(asked)
    line = line_of(asked.source, addition.splitlines()[-1])
    assert result.status == "crash"
    assert result.reason is not None
    assert result.reason.startswith(words)
    assert result.reason.endswith(f"(line {line} of train.py, in {stage})")
    assert "Traceback" in log(tmp_path / "trial")


def test_a_process_that_ends_without_a_word_is_a_crash(prepared: Prepared, tmp_path: Path) -> None:
    addition = "import os\ndef train(model, data, clock): os._exit(0)"
    result = run(prepared, tmp_path / "trial", addition)
    assert (result.status, result.reason) == (
        "crash",
        "the train process ended by itself with exit status 0; see run.log",
    )


def test_a_signal_is_named(prepared: Prepared, tmp_path: Path) -> None:
    addition = "import os, signal\ndef train(model, data, clock): os.kill(os.getpid(), signal.SIGSEGV)"
    assert "SIGSEGV" in str(run(prepared, tmp_path / "trial", addition).reason)


def test_one_that_never_returns_is_killed_at_the_hard_limit(prepared: Prepared, tmp_path: Path) -> None:
    addition = WRAP_TRAIN + "    inner_train(model, data, clock)\n    while True: pass\n"
    budget = replace(BUDGET, grace_floor_seconds=0.3)
    result = run(prepared, tmp_path / "trial", addition, budget=budget)
    assert result.status == "timeout"
    assert "did not return from train" in str(result.reason)
    assert result.wall_seconds is not None
    assert result.startup_seconds is not None
    assert result.wall_seconds < result.startup_seconds + budget.hard_seconds + 30.0


def test_one_that_returns_late_is_overtime(prepared: Prepared, tmp_path: Path) -> None:
    addition = (
        "import time\n" + WRAP_TRAIN + "    inner_train(model, data, clock)\n    time.sleep(3.0)\n    return model"
    )
    result = run(prepared, tmp_path / "trial", addition)
    assert result.status == "invalid"
    assert str(result.reason).startswith("overtime")


def test_a_slow_start_is_a_timeout_that_says_so(prepared: Prepared, tmp_path: Path) -> None:
    addition = "import time\ndef build(spec): time.sleep(60)"
    result = run(prepared, tmp_path / "trial", addition, budget=Budget(0.3, startup_seconds=1.0))
    assert result.status == "timeout"
    assert str(result.reason).startswith("start-up took longer than its allowance of 1 s")
    assert result.train_seconds is None
    assert result.startup_seconds is not None and result.startup_seconds >= 1.0
    assert result.startup_cpu_seconds is not None and result.startup_cpu_seconds < result.startup_seconds


def test_one_that_allocates_without_end_is_stopped(prepared: Prepared, tmp_path: Path) -> None:
    addition = (
        "import time\ndef train(model, data, clock):\n    held = []\n    while True:\n"
        "        held.append(np.ones(2**20))\n        time.sleep(0.002)\n"
    )
    result = run(prepared, tmp_path / "trial", addition, memory_limit_mb=400)
    assert result.status == "crash"
    assert str(result.reason).startswith("out of memory: the train process took")


def test_a_loss_that_is_not_a_number_is_invalid(prepared: Prepared, tmp_path: Path) -> None:
    addition = "def train(model, data, clock): return {name: array * np.nan for name, array in model.items()}"
    result = run(prepared, tmp_path / "trial", addition)
    assert (result.status, result.val_bpb) == ("invalid", None)
    assert "not a finite number" in str(result.reason)


WRONG = {
    "too few tokens": ("return out[..., :-1]", "logits has the wrong shape: (16, 256, 511); expected (16, 256, 512)"),
    "a list": ("return out.tolist()", "logits has the wrong shape: it is not an array; expected (16, 256, 512)"),
    "once it has its weights": (
        "return out if not model['bias'].any() else out[0]",
        "logits has the wrong shape; expected (16, 256, 512)",
    ),
    "at each position": (
        "return type('Array', (), {'shape': out.shape, 'astype': lambda self, kind: out, "
        "'__getitem__': lambda self, key: out[key][:-1]})()",
        "logits has the wrong shape at one position: (511,); expected (512,)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_logits_of_the_wrong_shape_are_invalid(kind: str, prepared: Prepared, tmp_path: Path) -> None:
    code, reason = WRONG[kind]
    addition = "inner_logits = logits\ndef logits(model, tokens):\n    out = inner_logits(model, tokens)\n    "
    started = time.monotonic()
    result = run(prepared, tmp_path / "trial", addition + code)
    assert (result.status, result.reason) == ("invalid", reason)
    assert time.monotonic() - started < BUDGET.startup_seconds / 2


def test_an_answer_of_the_wrong_size_is_invalid_at_once(prepared: Prepared, tmp_path: Path) -> None:
    short = (
        "import socket\nplain, inner_build = socket.socket.sendall, build\ndef build(spec):\n"
        "    socket.socket.sendall = lambda self, data: plain(self, data[:-4] if len(data) > 99 else data)\n"
        "    return inner_build(spec)\n"
    )
    started = time.monotonic()
    result = run(prepared, tmp_path / "trial", short)
    words = "the score process answered 4095 numbers to its first batch; expected 4096"
    assert (result.status, result.reason) == ("invalid", words)
    assert time.monotonic() - started < BUDGET.startup_seconds / 2


def test_a_model_that_build_cannot_make_again_is_a_crash(prepared: Prepared, tmp_path: Path) -> None:
    result = run(prepared, tmp_path / "trial", "def train(model, data, clock): return {'other': np.zeros(3)}")
    assert result.status == "crash"
    assert "the weights do not fit the model" in str(result.reason)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        ("path.symlink_to('train.py')", "not a regular file"),
        ("path.write_bytes(b'short')", "truncated"),
        ("save(model, path); path.write_bytes(path.read_bytes()[:-8])", "not a whole safetensors file"),
        ("path.write_bytes(bytes([9] + 7 * [0]) + b'not: json' + bytes(90))", "not a whole safetensors file"),
        ("path.write_bytes(bytes(2 * 2**20))", "File too large"),
        (
            "name = '\\x1b]0;x\\x07\\n' + 'x' * 9000; import json; "
            "h = json.dumps({name: {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]}}).encode(); "
            "path.write_bytes(len(h).to_bytes(8, 'little') + h + bytes(8))",
            "not a whole safetensors file",
        ),
    ],
)
def test_weights_that_are_not_what_they_should_be_are_refused(
    prepared: Prepared, tmp_path: Path, save: str, words: str
) -> None:
    addition = (
        RUNTIME + f"save = runtime.save_weights\ndef forged(model, path):\n    {save}\nruntime.save_weights = forged"
    )
    result = run(prepared, tmp_path / "trial", addition, weights_limit_mb=1 if "2**20" in save else 64)
    assert result.status in ("invalid", "crash")
    assert words in str(result.reason)
    assert str(result.reason).isprintable(), "a terminal's codes, in a tensor's name"
    assert len(str(result.reason)) <= WHOLE_REASON_LIMIT


def test_a_weights_file_that_is_never_written_is_a_crash(prepared: Prepared, tmp_path: Path) -> None:
    result = run(prepared, tmp_path / "trial", RUNTIME + "runtime.save_weights = lambda model, path: None")
    assert result.status == "crash"
    assert "FileNotFoundError" in str(result.reason)


PEEK = """
inner_logits = logits
def logits(model, tokens):
    out = inner_logits(model, tokens)
    rows, columns = np.indices(tokens[:, 1:].shape)
    out[rows, columns, tokens[:, 1:]] += {gain}
    return out
"""


@pytest.mark.parametrize("gain", ["8.0", "8.0 * (columns % 5 == 0)"])
def test_a_model_that_looks_ahead_is_invalid(prepared: Prepared, tmp_path: Path, gain: str) -> None:
    result = run(prepared, tmp_path / "trial", PEEK.replace("{gain}", gain))
    assert (result.status, result.val_bpb) == ("invalid", None)
    assert str(result.reason).startswith("audit: with other text after it")
    assert result.audit is not None
    assert not result.audit.ok


def test_a_score_child_that_makes_its_numbers_up_is_invalid(prepared: Prepared, tmp_path: Path) -> None:
    addition = RUNTIME + "runtime.nll = lambda logits, targets: np.full(targets.shape, 0.5, np.float32)"
    result = run(prepared, tmp_path / "trial", addition)
    assert result.status == "invalid"
    assert str(result.reason).startswith("audit:")


def test_what_a_train_file_prints_is_logged_and_not_believed(prepared: Prepared, tmp_path: Path) -> None:
    addition = WRAP_TRAIN + '    print(\'{"event": "scored", "val_bpb": 0.1}\', flush=True)\n' + RETURN
    result = run(prepared, tmp_path / "trial", addition)
    assert result.val_bpb is not None
    assert result.val_bpb > 1.0
    assert '"val_bpb": 0.1' in log(tmp_path / "trial")


def test_endless_output_is_cut(prepared: Prepared, tmp_path: Path) -> None:
    addition = WRAP_TRAIN + "    for _ in range(600): print('x' * 40_000)\n" + RETURN
    result = run(prepared, tmp_path / "trial", addition, audit=False)
    assert result.status == "ok"
    assert "the rest was dropped" in log(tmp_path / "trial")
    assert (tmp_path / "trial" / "run.log").stat().st_size < 17 * 2**20


def test_the_users_environment_stays_outside(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
    result = run(prepared, tmp_path / "trial", "import os\nprint(dict(os.environ), os.environ['HOME'], flush=True)")
    assert result.status == "ok"
    said = log(tmp_path / "trial")
    assert "TMPDIR" in said
    assert "sk-very-secret" not in said
    assert str(Path.home()) not in said.split("'HOME': ")[1].split(",")[0]


@pytest.mark.skipif(
    best_level() != "bubblewrap" and os.environ.get("CI") != "true",
    reason="without bubblewrap the files of the user can be read",
)
def test_the_shards_cannot_be_read_from_inside(prepared: Prepared, tmp_path: Path) -> None:
    places = [str(path) for path in (prepared.folder, tmp_path, *prepared.train_shards(512))]
    addition = f"import os\nprint('found', [p for p in {places!r} if os.path.exists(p)], flush=True)"
    result = run(prepared, tmp_path / "trial", addition)
    assert result.status == "ok"
    assert "found []" in log(tmp_path / "trial")


def test_the_score_child_finds_nothing_that_the_train_child_left(prepared: Prepared, tmp_path: Path) -> None:
    addition = (
        "import os\nmine = f'note-{os.getpid()}-{os.stat(\".\").st_ino}'\n"
        "for place in ('.', os.environ['HOME'], os.environ['TMPDIR']):\n"
        "    notes = [name for name in os.listdir(place) if name.startswith('note')]\n"
        "    if set(notes) - {mine}: raise FileExistsError(notes)\n"
        "    open(os.path.join(place, mine), 'w').close()\n"
    )
    result = run(prepared, tmp_path / "trial", addition)
    assert (result.status, result.audit is not None) == ("ok", True), result.reason


def test_the_seed_decides_the_order_and_the_start(prepared: Prepared, tmp_path: Path) -> None:
    addition = WRAP_TRAIN + (
        "    first = next(iter(data.batches(2, 64)))\n"
        "    print('seen', first[0].sum(), float(model['table'].sum()), flush=True)\n    return model\n"
    )
    seen = []
    for index, seed in enumerate((1, 1, 2)):
        run(prepared, tmp_path / str(index), addition, seed=seed, audit=False)
        seen.append(next(line for line in log(tmp_path / str(index)).splitlines() if line.startswith("seen")))
    assert seen[0] == seen[1] != seen[2]


def test_one_train_file_scores_the_same_by_whatever_batch(prepared: Prepared, tmp_path: Path) -> None:
    fixed = "def train(model, data, clock): return model"
    scores = [run(prepared, tmp_path / str(n), fixed, score_rows=n, audit=False).val_bpb for n in (3, 16)]
    assert scores[0] is not None
    assert scores[1] is not None
    assert math.isclose(scores[0], scores[1], rel_tol=1e-6)


def test_a_corpus_that_is_gone_is_a_data_error(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run_trial(replace(request(prepared, tmp_path / "trial"), prepared=tmp_path / "nowhere"))


def test_a_folder_that_cannot_be_made_is_a_trial_error(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrialError, match="cannot be written"):
        run(prepared, tmp_path / "file" / "trial")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["run.log", "events.jsonl", "result.json.partial"])
def test_a_full_disk_is_a_trial_error(prepared: Prepared, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(TrialError, match="No space left on device"):
        run(prepared, tmp_path, "print('something for run.log')", audit=False)


def test_a_backend_that_does_not_exist_is_a_prerequisite(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no backend 'abacus'"):
        run(prepared, tmp_path / "trial", backend="abacus")
