"""Large weights pass from the train child to the children that score them in memory, and nobody can change them."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from null_trials import request
from safetensors.numpy import load_file

from autoresearch.backends.weights_file import Tensor, write_weights
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trial import training, weights
from autoresearch.core.trial.host_memory import HostMemory, host_memory
from autoresearch.core.trial.memory_file import MemoryFile, link_to, seal
from autoresearch.core.trial.sandbox.levels import levels
from autoresearch.core.trial.supervisor import run_trial
from autoresearch.core.trial.weights import WeightsFault, WeightsInMemory, check_memory

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
HERE = [status.level for status in levels() if status.available]
RUNTIME = "import sys, os\nruntime = sys.modules['autoresearch.backends.null.runtime']\nsave = runtime.save_weights\n"


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    return {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "none": np.zeros((0, 4), np.float32),
        "b": np.ones(3, "i8"),
    }


def written(path: Path, tensors: dict[str, np.ndarray]) -> None:
    write_weights(path, {name: Tensor(one.shape, str(one.dtype), lambda one=one: one) for name, one in tensors.items()})


@pytest.fixture
def all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small weights of these tests count as large."""
    monkeypatch.setattr(training, "MEMORY_FROM_BYTES", 1)


def test_a_file_written_tensor_by_tensor_is_what_safetensors_reads(tmp_path: Path, tensors: dict) -> None:
    written(tmp_path / "w.safetensors", tensors)
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == tensors.keys()
    for name, one in tensors.items():
        assert found[name].dtype == one.dtype
        assert np.array_equal(found[name], one)


def test_a_sealed_file_cannot_be_changed_by_anybody_who_holds_it() -> None:
    with MemoryFile() as file:
        os.write(file.fd, b"weights")
        assert not file.sealed
        seal(file.fd)
        assert file.sealed
        for change in (lambda: os.pwrite(file.fd, b"x", 0), lambda: os.ftruncate(file.fd, 0)):
            with pytest.raises(PermissionError):
                change()
        with pytest.raises(PermissionError):
            mmap.mmap(file.fd, 7, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_a_file_that_is_mapped_for_writing_cannot_be_sealed() -> None:
    with MemoryFile() as file:
        os.write(file.fd, b"weights")
        with mmap.mmap(file.fd, 7), pytest.raises(OSError, match="busy"):
            seal(file.fd)


def test_frozen_weights_in_memory_are_hashed_copied_and_kept(tmp_path: Path, tensors: dict) -> None:
    file = MemoryFile()
    link_to(tmp_path / "w.safetensors", file.fd)
    written(tmp_path / "w.safetensors", tensors)
    seal(file.fd)
    assert check_memory(file, limit_bytes=1 << 20) == {name: one.shape for name, one in tensors.items()}
    with pytest.raises(WeightsFault, match="limit is 10"):
        check_memory(file, limit_bytes=10)
    content = (tmp_path / "w.safetensors").read_bytes()
    frozen = WeightsInMemory(file.shared())
    file.close()
    copy = frozen.give(tmp_path, "score")
    assert copy.sealed
    assert os.pread(copy.fd, 1 << 20, 0) == content
    frozen.keep(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == content
    assert frozen.sha256 == hashlib.sha256(content).hexdigest()
    copy.close()
    frozen.close()


@pytest.mark.parametrize("level", HERE)
def test_a_trials_weights_pass_in_memory_at_every_isolation_level(
    prepared: Prepared, tmp_path: Path, all_in_memory: None, level: str
) -> None:
    # What the train child sees of its own weights says where they went.
    told = RUNTIME + "def saved(model, path):\n    save(model, path)\n    print('weights in', os.readlink(path))\n"
    trial = request(
        prepared, tmp_path / "trial", told + "runtime.save_weights = saved\n", isolation=level, keep_weights=True
    )
    result = run_trial(trial)
    assert (result.status, result.reason) == ("ok", None)
    assert "weights in /proc/self/fd/" in (tmp_path / "trial/run.log").read_text()
    kept = tmp_path / "trial/weights.safetensors"
    if level == "process":  # another trial could read them
        assert not kept.exists()
    else:
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == result.weights_sha256
    assert len(str(result.weights_sha256)) == 64


@pytest.mark.parametrize(
    ("save", "status", "words"),
    [
        # Still writable when the worker wants to seal it.
        (
            "import mmap\n    global held\n    fd = os.open(path, os.O_RDWR)\n    held = mmap.mmap(fd, 8)",
            "crash",
            "busy",
        ),
        ("os.truncate(path, 100)", "invalid", "truncated"),
        # Announced by the train file itself, which goes on writing.
        (
            "import time\n    from autoresearch.core.trial.child.channel import WeightsWritten\n"
            "    channel = sys._getframe(2).f_locals['channel']\n"
            "    channel.send(WeightsWritten('', 1, None, None))\n    time.sleep(20)",
            "invalid",
            "announced before they were sealed",
        ),
    ],
)
def test_weights_in_memory_that_could_still_change_are_refused(
    prepared: Prepared, tmp_path: Path, all_in_memory: None, save: str, status: str, words: str
) -> None:
    forged = RUNTIME + f"def forged(model, path):\n    save(model, path)\n    {save}\nruntime.save_weights = forged\n"
    result = run_trial(request(prepared, tmp_path / "trial", forged))
    assert (result.status, words in str(result.reason)) == (status, True), result.reason


def test_weights_go_to_disk_where_memory_is_short(
    prepared: Prepared, tmp_path: Path, all_in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "memory_room", lambda: 1000)
    told = RUNTIME + "def saved(model, path):\n    save(model, path)\n    print('a link:', os.path.islink(path))\n"
    result = run_trial(request(prepared, tmp_path / "trial", told + "runtime.save_weights = saved\n", audit=False))
    assert result.status == "ok"
    assert "a link: False" in (tmp_path / "trial/run.log").read_text()


def test_weights_go_to_disk_where_too_many_files_are_on_their_way_through_sockets(
    prepared: Prepared, tmp_path: Path, all_in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")

    monkeypatch.setattr(socket, "send_fds", refused)
    result = run_trial(request(prepared, tmp_path / "trial", ""))
    assert (result.status, result.reason) == ("ok", None)


def test_a_file_that_answers_without_reading_does_not_end_the_run(
    prepared: Prepared, tmp_path: Path, all_in_memory: None
) -> None:
    rows = 1024
    forged = (
        "import os, sys, time\nframe = sys._getframe()\n"
        "while frame and not {'job', 'channel'} <= frame.f_locals.keys(): frame = frame.f_back\n"
        "job = frame.f_locals['job'] if frame else {}\nif job.get('role') == 'score':\n    import socket\n"
        "    from autoresearch.core.trial.child.channel import Ready\n"
        "    here = socket.socket(fileno=os.dup(job['rows_fd']))\n"
        f"    here.sendall(bytes(4 * {rows} * job['eval_seq_len']))\n    frame.f_locals['channel'].send(Ready())\n"
        "    time.sleep(1)\n    os._exit(1)\n"
    )
    trial = request(prepared, tmp_path / "trial", forged, score_rows=rows)
    result = run_trial(trial)
    assert (result.status, result.reason) == ("crash", "the score process ended by itself")


def test_a_containers_limit_bounds_the_weights_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = weights.memory_room()
    assert 0 <= free <= host_memory().total // weights.MEMORY_COPIES

    monkeypatch.setattr(weights, "host_memory", lambda: HostMemory(3_000_000, 1_500_000))
    assert weights.memory_room() == 500_000
