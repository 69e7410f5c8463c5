"""Score and audit processes start before training is over, and run nothing of the train file until then."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from null_trials import request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.events import Event, Frozen, Spawned
from autoresearch.core.files import remove_folder
from autoresearch.core.trial import evaluation
from autoresearch.core.trial.child.score import named_packages, preimport
from autoresearch.core.trial.request import Budget, TrialResult
from autoresearch.core.trial.sandbox.levels import ISOLATING_LEVELS, levels
from autoresearch.core.trial.supervisor import run_trial
from autoresearch.core.trial.weights import WeightsFault, copy_weights

BUDGET = Budget(train_seconds=1.5, startup_seconds=120.0)
AVAILABLE = [status.level for status in levels() if status.available]


def trial(
    prepared: Prepared, folder: Path, addition: str = "", **changes: Any
) -> tuple[TrialResult, list[str], float, list[float]]:
    """The result, the events in order with the processes' roles, and when the weights were frozen (seconds).

    The last are the times that the train file wrote into the file `loaded` in the train, score and audit processes.
    """
    names: list[str] = []
    frozen: list[float] = []
    loaded: list[float] = []

    def observe(event: Event) -> None:
        names.append(f"{event.name} {event.role}" if isinstance(event, Spawned) else event.name)
        if isinstance(event, Frozen):
            frozen.append(time.time())
            read(folder / "work" / "train")

    def read(work: Path) -> None:
        if (note := work / "loaded").exists():
            loaded.append(float(note.read_text()))

    def read_and_remove(work: Path) -> None:
        read(work)
        remove_folder(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "remove_folder", read_and_remove)  # by which each of the two is ended
        result = run_trial(request(prepared, folder, addition, budget=BUDGET, **changes), observer=observe)
    return result, names, frozen[0], loaded


@pytest.mark.parametrize("cores", [2, 8])
@pytest.mark.parametrize("level", [level for level in ISOLATING_LEVELS if level in AVAILABLE])
def test_where_processes_are_kept_apart_they_start_before_their_turn(
    prepared: Prepared, tmp_path: Path, level: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "cores", lambda: cores)
    told = (
        "import os, time\nif not os.path.exists('loaded'): print(time.time(), file=open('loaded', 'w'), flush=True)\n"
    )
    result, names, frozen, loaded = trial(prepared, tmp_path / "trial", told, isolation=level)
    assert (result.status, result.reason) == ("ok", None)
    # Where cores are few, neither starts while the training needs them.
    parts = ("first_batch", "trained") if cores == 8 else ("spawned feed", "frozen")
    before, after = (names.index(part) for part in parts)
    score, audit = names.index("spawned score"), names.index("spawned audit")
    assert before < score < after and before < audit < after if cores == 8 else score < before and audit > after
    assert audit < names.index("scored")
    train, score, audit = loaded
    assert train < frozen < score < audit, (
        "the file is run by one process at a time, and not before its weights are frozen"
    )


def test_one_core_does_one_thing_after_the_other(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "cores", lambda: 1)
    result, names, _, _ = trial(prepared, tmp_path / "trial")
    assert (result.status, result.reason) == ("ok", None)
    assert names.index("trained") < names.index("spawned score") < names.index("scored") < names.index("spawned audit")


def test_where_they_are_not_they_start_one_after_the_other(prepared: Prepared, tmp_path: Path) -> None:
    result, names, _, _ = trial(prepared, tmp_path / "trial", isolation="process")
    assert (result.status, result.reason) == ("ok", None)
    assert names.index("frozen") < names.index("spawned score") < names.index("scored") < names.index("spawned audit")


def test_an_audit_that_nobody_needs_leaves_no_process(prepared: Prepared, tmp_path: Path) -> None:
    pids: list[int] = []

    def observe(event: Event) -> None:
        pids.extend(event.pids if isinstance(event, Spawned) else ())

    result = run_trial(request(prepared, tmp_path / "trial", budget=BUDGET, audit_below=0.0), observer=observe)
    assert (result.status, result.audit) == ("ok", None)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_only_what_a_train_file_may_import_is_imported_early(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("import fractions, wave\nfrom statistics import mean\nimport subprocess\nraise SystemExit\n")
    assert named_packages(str(path)) == ["fractions", "statistics"]
    sys.modules.pop("fractions", None)
    preimport("null", str(path)).join()
    assert "fractions" in sys.modules
    path.write_text("import this is no python")
    assert named_packages(str(path)) == []


def test_weights_that_changed_after_they_were_frozen_are_not_scored(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"frozen")
    with pytest.raises(WeightsFault, match="changed after it was frozen"):
        copy_weights(tmp_path / "weights", tmp_path / "copy", sha256="0" * 64)
