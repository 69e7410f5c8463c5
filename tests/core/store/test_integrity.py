"""The files that a run hangs on are hashed when it starts; one that changes stops it, by name."""

from __future__ import annotations

import importlib.metadata
import os
import shutil

import pytest
from loop_fixtures import CONFIG, PRESET, Scripted, Widths, make_workspace, width_of

from autoresearch.core.data import kernel
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import IntegrityError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.store.integrity import Integrity
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader


@pytest.fixture
def corpus(prepared, tmp_path):
    """A copy of the prepared corpus that a test may spoil."""
    return Prepared.open(shutil.copytree(prepared.folder, tmp_path / "corpus"))


def take(corpus):
    return Integrity.of("null", corpus, (512,), 256)


def test_it_covers_core_runtime_contract_tokenizer_rows_and_manifest_and_not_what_only_shows(corpus):
    names = set(take(corpus).sha256)
    assert {"core/trial/audit.py", "core/judge/decision.py", "core/run/loop.py", "core/store/integrity.py"} <= names
    assert {"backends/contract.py", "backends/null/runtime.py", "manifest.json"} <= names
    assert {"vocab-512/tokenizer.model", "vocab-512/val-T256.npz", "vocab-512/test-T256.npz"} <= names
    assert not [name for name in names if name.startswith(("core/cli", "core/report", "backends/cuda"))]


def test_nothing_changed_is_nothing_said_and_a_new_time_alone_is_no_change(corpus):
    integrity = take(corpus)
    os.utime(corpus.tokenizer_path(512), ns=(1, 1))
    integrity.check()
    integrity.check()


@pytest.mark.parametrize("name", ["vocab-512/tokenizer.model", "vocab-512/val-T256.npz"])
def test_a_changed_file_is_named_with_the_fix(corpus, name):
    integrity = take(corpus)
    path = corpus.folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"{name} has changed while this run was going\. Fix: `ar prepare`"):
        integrity.check()


@pytest.mark.parametrize("name", ["vocab-512/val-T256.npz", "vocab-512/train-00000.tokens"])
def test_a_change_that_puts_size_and_time_back_is_named(corpus, name):
    integrity = take(corpus)
    path = corpus.folder / name
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    with pytest.raises(IntegrityError, match=rf"{name} has changed while this run was going\. Fix: `ar prepare`"):
        integrity.check()


def test_a_training_shard_that_was_only_copied_anew_is_read_once(corpus, monkeypatch):
    integrity, path = take(corpus), corpus.folder / "vocab-512/train-00000.tokens"
    assert not [name for name in integrity.sha256 if name.endswith(".tokens")]
    path.write_bytes(path.read_bytes())
    integrity.check()
    monkeypatch.setattr("autoresearch.core.store.integrity.sha256_of", lambda path: pytest.fail(f"{path} is read"))
    integrity.check()


def test_a_pipe_in_a_file_s_place_is_named_and_not_waited_for(corpus):
    integrity, path = take(corpus), corpus.tokenizer_path(512)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(IntegrityError, match=r"tokenizer\.model cannot be read: it is a pipe, not a file\. Fix:"):
        integrity.check()


def test_a_file_that_is_gone_is_named(corpus):
    integrity = take(corpus)
    (corpus.folder / "vocab-512/val-T256.npz").unlink()
    with pytest.raises(IntegrityError, match=r"val-T256\.npz has changed"):
        integrity.check()


def test_the_manifest_may_gain_a_vocabulary_and_may_not_change_its_own(corpus):
    integrity, path = take(corpus), corpus.folder / "manifest.json"
    manifest = corpus.manifest
    (known,) = manifest.vocabularies
    more = manifest.model_copy(update={"vocabularies": (known, known.model_copy(update={"size": 700}))})
    path.write_text(more.model_dump_json())
    integrity.check()
    less = known.model_copy(update={"rows": tuple(row.model_copy(update={"total_bytes": 9}) for row in known.rows)})
    path.write_text(manifest.model_copy(update={"vocabularies": (less,)}).model_dump_json())
    with pytest.raises(IntegrityError, match=r"manifest\.json has changed"):
        integrity.check()


def test_a_run_keeps_the_hashes_that_it_was_started_with(tmp_path):
    (tmp_path / "audit.py").write_text("honest = True\n")
    files = {"core/trial/audit.py": tmp_path / "audit.py"}
    with Ledger(tmp_path / "run") as ledger:
        ledger.create("run", {"backend": "null"}, "base")
        Integrity(files).begin(ledger)
        Integrity(files).begin(ledger)
        (tmp_path / "audit.py").write_text("honest = False\n")
        with pytest.raises(IntegrityError, match=r"core/trial/audit\.py has changed since this run was started.*--tag"):
            Integrity(files).begin(ledger)
        assert len(ledger.events("integrity")) == 1


def test_a_run_of_a_version_with_other_file_names_is_refused_in_one_sentence_that_says_what_to_do(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    (tmp_path / "loop.py").write_text("x = 1\n")
    with Run(workspace, "t", CONFIG, PRESET, integrity=Integrity({"core/loop.py": tmp_path / "loop.py"})):
        pass
    renamed = Integrity({"core/run/loop.py": tmp_path / "loop.py"})
    with pytest.raises(IntegrityError) as refused, Run(workspace, "t", CONFIG, PRESET, integrity=renamed):
        pass
    assert "started by another version of ar, whose files had other names" in refused.value.message
    assert "--tag" in str(refused.value.fix)
    assert "`ar results`" in str(refused.value.fix)
    assert "changed" not in str(refused.value)
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.experiment(0).hypothesis == "baseline"


def test_versions_of_frameworks_are_recorded_and_another_one_is_named(tmp_path, corpus, monkeypatch):
    versions = {"torch": "2.13.0", "triton": None, "kernels": None}
    real = importlib.metadata.version

    def version(name):
        if name in versions and versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with Ledger(tmp_path / "run") as ledger:
        ledger.create("run", {"backend": "cuda"}, "base")
        running = Integrity.of("cuda", corpus, (512,), 256)
        running.begin(ledger)
        recorded = ledger.events("integrity")[0]
        assert (recorded["version of torch"], recorded["version of triton"]) == ("2.13.0", "")
        running.check()
        versions["torch"] = "2.14.0"
        with pytest.raises(IntegrityError, match="version of torch has changed while this run was going"):
            running.check()
        with pytest.raises(IntegrityError, match=r"torch has changed since this run was started\. Fix: install"):
            Integrity.of("cuda", corpus, (512,), 256).begin(ledger)
        versions["torch"], versions["triton"] = "2.13.0", "3.6"
        with pytest.raises(IntegrityError, match="version of triton has changed"):
            Integrity.of("cuda", corpus, (512,), 256).begin(ledger)


def test_a_run_from_before_versions_were_recorded_goes_on(tmp_path):
    with Ledger(tmp_path / "run") as ledger:
        ledger.create("run", {"backend": "null"}, "base")
        Integrity({}).begin(ledger)
        Integrity({}, packages=("numpy",)).begin(ledger)


def test_a_kernel_s_files_are_hashed_once_they_are_installed(tmp_path, corpus, monkeypatch):
    pinned = kernel.Kernel("org/fast", "a" * 40, {"build/x/fast.so": "0" * 64})
    monkeypatch.setattr(kernel, "kernels_folder", lambda: tmp_path)
    monkeypatch.setattr(kernel, "kernel_of", lambda backend: pinned)
    assert "kernel/org/fast/build/x/fast.so" not in take(corpus).sha256
    (pinned.folder / "build/x").mkdir(parents=True)
    (pinned.folder / "build/x/fast.so").write_bytes(b"code")
    integrity = take(corpus)
    (pinned.folder / "build/x/fast.so").write_bytes(b"other code")
    with pytest.raises(IntegrityError, match=r"fast\.so has changed.*Fix: `ar prepare --kernel`"):
        integrity.check()


def test_a_loop_stops_before_the_verdict_and_goes_on_once_the_file_is_back(tmp_path):
    workspace, watched = make_workspace(tmp_path / "w"), tmp_path / "audit.py"
    watched.write_text("honest = True\n")

    def spoil(request):
        if width_of(request.source) == 12:
            watched.write_text("honest = False\n")

    def go(executor):
        integrity = Integrity({"core/trial/audit.py": watched})
        with Run(workspace, "t", CONFIG, PRESET, integrity=integrity) as run:
            Loop(run, Widths(9, 12, 8), Greedy(), executor, limits=Limits(3)).go()

    def status():
        with LedgerReader(workspace / "runs/t") as reader:
            return reader.run().state, [row.status for row in reader.experiments()]

    with pytest.raises(IntegrityError, match=r"core/trial/audit\.py has changed while this run was going"):
        go(Scripted(during=spoil))
    assert status() == ("failed", ["keep", "keep", None])
    with pytest.raises(IntegrityError, match="since this run was started"):
        go(Scripted())
    watched.write_text("honest = True\n")
    go(Scripted())
    assert status() == ("finished", ["keep", "keep", "discard", "keep"])
