"""What a process takes is counted where it tries to hide it."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from disk_waits import with_disk_waits
from prerequisites import lacking

from autoresearch.core.trial.processes import (
    FILES_LIMIT,
    FREE_ANONYMOUS,
    FREE_SOCKETS,
    SOCKET_BYTES,
    Held,
    Launch,
    ProcessSupervisor,
    TrialEnded,
    disk_use,
    status_of,
)
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.sandbox import guard
from autoresearch.core.trial.sandbox.levels import (
    SHARED_MEMORY_BYTES,
    bubblewrap_status,
    open_sandbox,
    private_shared_memory,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc")


def held() -> Held:
    """What this process holds now."""
    found = Held()
    found.add_open(os.getpid())
    found.add_mapped(os.getpid())
    return found


@linux
def test_memory_and_files_without_a_name_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_disk_waits(monkeypatch)  # a file has blocks once it is on the disk
    before = sum(held().nameless.values())
    memory = os.memfd_create("hidden")
    os.write(memory, b"x" * 2**20)
    with (tmp_path / "removed").open("wb") as removed, (tmp_path / "named").open("wb") as named:
        for file in (removed, named):
            file.write(b"x" * 2**20)
            file.flush()
            os.fsync(file.fileno())
        (tmp_path / "removed").unlink()
        twice = os.dup(memory)
        hidden = sum(held().nameless.values()) - before
    os.close(memory)
    os.close(twice)
    assert 2 * 2**20 <= hidden < 3 * 2**20


@linux
def test_a_process_that_is_gone_has_none() -> None:
    gone = Held()
    gone.add_open(2**22 + 1)
    gone.add_mapped(2**22 + 1)
    assert (gone.nameless, gone.mapped, gone.kernel_bytes(), set(status_of(2**22 + 1).values())) == ({}, {}, 0, {0})


@linux
def test_shared_memory_is_counted_when_its_pages_were_given_back() -> None:
    before = sum(held().mapped.values())
    with mmap.mmap(-1, 2**24) as memory:
        memory.write(b"x" * 2**24)
        memory.madvise(mmap.MADV_DONTNEED)
        assert sum(held().mapped.values()) - before == 2**24


@linux
def test_a_file_in_memory_that_is_only_mapped_is_counted() -> None:
    before = sum(held().mapped.values())
    fd = os.memfd_create("hidden")
    os.write(fd, b"x" * 2**20)
    with mmap.mmap(fd, 2**20, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ):
        os.close(fd)
        assert sum(held().mapped.values()) - before == 2**20


@linux
def test_page_tables_of_memory_that_was_only_looked_at_are_counted() -> None:
    before = status_of(os.getpid())["VmPTE"]  # 0x4000 is MAP_NORESERVE, which Python names from 3.13 on
    with mmap.mmap(-1, 2**34, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        assert sum(memory[place] for place in range(0, 2**34, 2**21)) == 0
        assert status_of(os.getpid())["VmPTE"] - before >= 2**24


@linux
@pytest.mark.parametrize("name", [b"Threads:\t1", b"\x1cVmPTE:x", b"\x0bThreads:\t0", b"\xc2\x85VmPTE: 0 kB"])
def test_a_process_cannot_hide_behind_a_name_that_looks_like_a_line_of_its_status(name: bytes) -> None:
    library = ctypes.CDLL(None)
    before = ctypes.create_string_buffer(16)
    library.prctl(16, before)  # PR_GET_NAME
    try:
        library.prctl(15, name)  # PR_SET_NAME
        done = threading.Event()
        others = [threading.Thread(target=done.wait) for _ in range(3)]
        for one in others:
            one.start()
        found = status_of(os.getpid())
        done.set()
        assert found["Threads"] >= 4
        assert found["VmPTE"] > 0
    finally:
        library.prctl(15, before)


@linux
def test_a_mapped_file_whose_name_looks_like_two_lines_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a\x0bb\x1cc\u2028d"
    before = sum(held().mapped.values())
    with path.open("w+b") as file:
        file.truncate(2**20)
        with mmap.mmap(file.fileno(), 2**20):
            path.unlink()
            assert sum(held().mapped.values()) - before == 2**20


@linux
def test_many_epolls_are_counted() -> None:
    before, (free, size) = held().kernel_bytes(), FREE_ANONYMOUS["anon_inode:[eventpoll]"]
    epolls = [select.epoll() for _ in range(free + 2)]
    try:
        assert held().kernel_bytes() - before >= 2 * size
    finally:
        for epoll in epolls:
            epoll.close()


@linux
def test_the_parent_watches_its_children_without_an_epoll(tmp_path: Path) -> None:
    def epolls() -> int:
        return held().kernel_objects["anon_inode:[eventpoll]"]

    before = epolls()
    with (
        Record(tmp_path, "") as record,
        ProcessSupervisor(record, memory_limit_mb=None, disk_limit_mb=1, cancel=None),
    ):
        assert epolls() == before, "a child may use up what all epolls of a user may watch"


@linux
def test_many_sockets_are_counted() -> None:
    pairs = [socket.socketpair() for _ in range(FREE_SOCKETS)]
    try:
        assert held().kernel_bytes() >= FREE_SOCKETS * SOCKET_BYTES
    finally:
        for one in pairs:
            one[0].close()
            one[1].close()


EMPTY_FILES = """
import time
made = 0
try:
    while made < {count}:
        open(f'/dev/shm/{{made}}', 'w').close()
        made += 1
except OSError as error:
    print(made, error.strerror, flush=True)
time.sleep({seconds})
"""


@linux
def test_empty_files_in_memory_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (status := bubblewrap_status()).available is False:
        lacking(str(status.why_not))
    monkeypatch.setattr(guard, "SHARED_FILES", 500)  # bubblewrap sets no limit, so the parent's look decides
    with (
        Record(tmp_path, "") as record,
        ProcessSupervisor(record, memory_limit_mb=None, disk_limit_mb=1, cancel=None) as supervisor,
    ):
        code = EMPTY_FILES.format(count=600, seconds=60)
        sandbox = open_sandbox("bubblewrap")
        supervisor.start(Launch("train", [sys.executable, "-c", code], record.work_folder("train"), {}, sandbox))
        with pytest.raises(TrialEnded, match=r"has [56]\d\d files in /dev/shm; the limit is 500"):
            for _ in range(300):
                supervisor.step(time.monotonic() + 0.1)


@linux
def test_a_shared_memory_of_the_guards_making_takes_no_more_files(tmp_path: Path) -> None:
    if not private_shared_memory():
        lacking("no mount namespace can be made here")
    code = EMPTY_FILES.format(count=2 * guard.SHARED_FILES, seconds=0)
    command = [sys.executable, "-I", "-S", guard.__file__, "--shared-memory", str(SHARED_MEMORY_BYTES), "--"]
    with subprocess.Popen([*command, sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        made, _, reason = one.stdout.read().decode().strip().partition(" ")
    assert 0 < int(made) <= guard.SHARED_FILES and "No space" in reason


def test_a_folder_too_deep_to_look_into_counts_as_too_many_files(tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(16):
            os.mkdir("d" * 200)  # noqa: PTH102
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    assert disk_use(tmp_path, FILES_LIMIT)[0] > FILES_LIMIT
