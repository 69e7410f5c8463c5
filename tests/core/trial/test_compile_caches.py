"""What compiling the incumbent leaves is given to later train children, each its own copy, and to nobody else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from null_trials import NULL_SOURCE, request

from autoresearch.backends.null import runtime
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.events import Event, Spawned
from autoresearch.core.files import remove_folder
from autoresearch.core.trial import compile_cache
from autoresearch.core.trial.compile_cache import copy_files, worth_carrying
from autoresearch.core.trial.request import Budget, Carried, TrialResult
from autoresearch.core.trial.sandbox.levels import ISOLATING_LEVELS, best_level
from autoresearch.core.trial.supervisor import run_trial

COMPILES = """
import pathlib, tempfile
KERNEL = pathlib.Path(tempfile.gettempdir()) / "cache" / "deep" / "kernel"
inner_train = train
def train(model, data, clock):
    next(data.warmup(4, 16))
    print("found", KERNEL.read_text() if KERNEL.is_file() else "nothing", "| elsewhere", SECRET.is_file())
    if not KERNEL.is_file():
        KERNEL.parent.mkdir(parents=True)
        KERNEL.write_text("compiled")
    SECRET.write_text("smuggled")
    batches = 0
    for batches, _ in enumerate(data.batches(4, 16), 1):
        if batches == 3:
            break
    print("batches", batches)
    with KERNEL.open("a") as file:
        file.write(" after %d batches" % batches)
    return model
SECRET = pathlib.Path(tempfile.gettempdir()) / "secret"
inner_logits = logits
def logits(model, tokens):
    if KERNEL.exists() or SECRET.exists():
        raise RuntimeError("scoring and audit are silent, so this ends the trial")
    return inner_logits(model, tokens)
"""
SOURCE = f"{NULL_SOURCE}\n\n{COMPILES}\n"

pytestmark = pytest.mark.skipif(
    best_level() not in ISOLATING_LEVELS, reason="caches are carried only where children are apart"
)


@pytest.fixture(autouse=True)
def caching_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if numpy kept what it compiles in its temp folder."""
    monkeypatch.setattr(runtime, "compile_caches", lambda: ("tmp/cache",))


def trial(prepared: Prepared, folder: Path, carried: Carried | None, source: str = COMPILES) -> tuple[TrialResult, str]:
    """The result, and what the children said."""
    names: list[str] = []

    def observe(event: Event) -> None:
        names.append(event.role if isinstance(event, Spawned) else event.name)

    result = run_trial(request(prepared, folder, source, carried=carried), observer=observe)
    return result, "\n".join([" ".join(names), (folder / "run.log").read_text()])


def test_a_later_trial_finds_what_compiling_the_incumbent_left(prepared: Prepared, tmp_path: Path) -> None:
    carried = Carried(SOURCE, tmp_path / "caches")
    first, said = trial(prepared, tmp_path / "1", carried)
    assert (first.status, first.reason) == ("ok", None)
    assert "compiling compile" in said
    compiling, training, *_ = [line for line in said.splitlines() if line.startswith(("found", "batches"))][::2]
    assert compiling == "found nothing | elsewhere False"
    assert training == "found compiled after 0 batches | elsewhere False", "no real text reaches a cache"
    assert first.val_bpb is not None
    assert first.audit is not None, "both processes have asked the file for logits, and found no cache"

    second, said = trial(prepared, tmp_path / "2", carried)
    assert second.status == "ok"
    assert "compiling" not in said, "once for all trials"
    assert "found compiled after 0 batches | elsewhere False" in said, "the first trial wrote into its own copy alone"

    _, said = trial(prepared, tmp_path / "3", Carried(SOURCE + "# kept\n", tmp_path / "caches"))
    assert "compiling compile" in said, "another incumbent, another cache"
    assert len([path for path in (tmp_path / "caches").iterdir() if path.is_dir()]) == 1


def test_short_trials_and_full_ones_have_a_cache_each_of_the_same_incumbent(tmp_path: Path) -> None:
    compiled: list[float] = []

    def find(source: str, seconds: float) -> None:
        """Look for a cache beside a compiler that leaves nothing."""
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        child = SimpleNamespace(returncode=lambda: 0)
        context = SimpleNamespace(
            request=SimpleNamespace(carried=Carried(source, tmp_path / "caches"), budget=Budget(seconds)),
            sandbox=SimpleNamespace(level=ISOLATING_LEVELS[0]),
            record=SimpleNamespace(event=lambda event: compiled.append(seconds), log=lambda text: None),
            processes=SimpleNamespace(start=lambda launch: child, end=lambda child: []),
            launch=lambda *_: SimpleNamespace(work=work),
        )
        compile_cache.incumbents_cache(cast(Any, context), ["tmp/cache"])

    for seconds in (300.0, 30.0, 300.0, 30.0):
        find("best", seconds)
    assert compiled == [300.0, 30.0]
    find("better", 300.0)
    assert len([path for path in (tmp_path / "caches").iterdir() if path.is_dir()]) == 1


def test_a_file_that_cannot_be_compiled_beforehand_costs_one_attempt(prepared: Prepared, tmp_path: Path) -> None:
    carried = Carried("import nothing_like_it\n", tmp_path / "caches")
    for number in (1, 2):
        result, said = trial(prepared, tmp_path / str(number), carried, "")
        assert result.status == "ok"
        assert ("compiling compile" in said) == (number == 1)


def test_where_children_are_not_kept_apart_nothing_is_carried(prepared: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    asked = request(prepared, tmp_path / "1", COMPILES, carried=Carried(SOURCE, folder), isolation="process")
    assert run_trial(asked).status == "ok"
    assert not folder.exists()


def test_links_stay_behind_and_so_does_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "left"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "kernel").write_text("12345")
    (left / "link").symlink_to("/etc/passwd")
    (left / "folder").symlink_to("/etc")
    copy_files(left, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == ["deep", "kernel"]
    assert (tmp_path / "copy/deep/kernel").stat().st_mtime_ns == (left / "deep/kernel").stat().st_mtime_ns
    copy_files(left / "folder", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "users/cache").mkdir(parents=True)
    (tmp_path / "users/cache/key").write_text("secret")
    (left / "tmp").symlink_to(tmp_path / "users")
    compile_cache._keep(left, tmp_path / "kept", ["tmp/cache", "deep"])
    assert [path.name for path in (tmp_path / "kept").rglob("*")] == ["deep", "kernel"]
    monkeypatch.setattr(compile_cache, "CACHE_LIMIT_BYTES", 4)
    with pytest.raises(compile_cache.TooMuch):
        copy_files(left, tmp_path / "too_much")


def test_caches_are_carried_where_starting_takes_long(tmp_path: Path) -> None:
    assert not worth_carrying(tmp_path / "none", [{"startup_seconds": 4.0}, {}, {"startup_seconds": None}])
    assert worth_carrying(tmp_path / "none", [{"startup_seconds": 4.0}, {"startup_seconds": 40.0}])
    assert worth_carrying(tmp_path, []), "the keep that profited from a cache was quick to start"


DEEP = """
inner_build = build
def build(spec):
    import os
    here = os.getcwd()
    os.makedirs(os.environ["TMPDIR"] + "/cache", exist_ok=True)
    os.chdir(os.environ["TMPDIR"] + "/cache")
    for _ in range(0 if os.path.isdir("d") else 1100):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)
    return inner_build(spec)
"""


def test_a_cache_nested_deeper_than_python_recurses_gives_way_to_the_next(prepared: Prepared, tmp_path: Path) -> None:
    try:
        for number, source in enumerate((f"{NULL_SOURCE}\n{DEEP}", SOURCE)):
            result, _ = trial(prepared, tmp_path / str(number), Carried(source, tmp_path / "caches"), "")
            assert result.status == "ok"
            assert len([path for path in (tmp_path / "caches").iterdir() if path.is_dir()]) == 1
    finally:
        remove_folder(tmp_path / "caches")  # pytest could not
