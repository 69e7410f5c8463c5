"""What a process takes is counted where it tries to hide it."""

from __future__ import annotations

import mmap
import os
import socket
import sys
from pathlib import Path

import pytest
from disk_waits import with_disk_waits

from autoresearch.core.trial.processes import FILES_LIMIT, FREE_SOCKETS, SOCKET_BYTES, Held, beside_resident, disk_use

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
    assert (gone.nameless, gone.mapped, gone.kernel_bytes(), beside_resident(2**22 + 1)) == ({}, {}, 0, (0, 0))


@linux
def test_shared_memory_is_counted_when_its_pages_were_given_back() -> None:
    before = sum(held().mapped.values())
    with mmap.mmap(-1, 2**24) as memory:
        memory.write(b"x" * 2**24)
        memory.madvise(mmap.MADV_DONTNEED)
        assert sum(held().mapped.values()) - before == 2**24


@linux
def test_page_tables_of_memory_that_was_only_looked_at_are_counted() -> None:
    before, _ = beside_resident(os.getpid())  # 0x4000 is MAP_NORESERVE, which Python names from 3.13 on
    with mmap.mmap(-1, 2**34, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        assert sum(memory[place] for place in range(0, 2**34, 2**21)) == 0
        assert beside_resident(os.getpid())[0] - before >= 2**24


@linux
def test_many_sockets_are_counted() -> None:
    pairs = [socket.socketpair() for _ in range(FREE_SOCKETS)]
    try:
        assert held().kernel_bytes() >= FREE_SOCKETS * SOCKET_BYTES
    finally:
        for one in pairs:
            one[0].close()
            one[1].close()


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
