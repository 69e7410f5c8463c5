"""Files leave the page cache when they are told to, and are read into it before a process sees held-out text."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from page_cache_state import cached, gone
from prerequisites import lacking

from autoresearch.core.trial import page_cache
from autoresearch.core.trial.page_cache import CacheFault, FileId, evict, fill

pytestmark = pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot say what is in its cache")


def written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(1 << 20))
    return path


def test_files_and_whole_folders_are_evicted(tmp_path: Path) -> None:
    file, deep, other = (written(tmp_path / name) for name in ("file", "folder/deeper/file", "other"))
    if not cached(file):
        lacking("this file system keeps nothing in the cache")
    assert evict([file, tmp_path / "folder"]) == 2
    if not gone(file):
        lacking("this file system lives in memory")
    assert gone(deep)
    assert cached(other)
    assert file.read_bytes() == bytes(1 << 20)


def test_what_is_no_plain_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(written(tmp_path / "file"))
    (tmp_path / "folder").mkdir()
    assert evict([tmp_path / "missing", tmp_path / "link", tmp_path / "folder"]) == 0
    assert evict([tmp_path / "pipe"]) == 0


def cold(path: Path) -> Path:
    """A file of which the cache holds nothing."""
    written(path)
    evict([path])
    if not gone(path):
        lacking("this file system lives in memory")
    return path


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not show a process's files")
def test_what_a_process_has_open_or_mapped_is_read_as_a_whole(tmp_path: Path) -> None:
    opened, mapped, other = (cold(tmp_path / name) for name in ("open file", "mapped", "other"))
    done: set[FileId] = set()
    with opened.open("rb"), mapped.open("rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ):
        file.close()
        fill(os.getpid(), time.monotonic() + 60, done)
    assert cached(opened)
    assert cached(mapped)
    assert gone(other)
    identities = {(path.stat().st_dev, path.stat().st_ino) for path in (opened, mapped)}
    assert identities <= done


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not show a process's files")
def test_a_process_may_have_as_many_files_open_as_it_is_allowed_to(tmp_path: Path) -> None:
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [cold(tmp_path / str(number)) for number in range(40)]
    with contextlib.ExitStack() as opened:
        numbers = [opened.enter_context(file.open("rb")).fileno() for file in files]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(numbers) + 3, most))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (allowed, most))
        fill(os.getpid(), time.monotonic() + 60, set())
        assert all(cached(file) for file in files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(numbers), most))
        with pytest.raises((CacheFault, OSError), match="Too many open files"):
            fill(os.getpid(), time.monotonic() + 60, set())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not show a process's files")
def test_files_that_memory_or_time_do_not_allow_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cold(tmp_path / "file").open("rb"):
        with pytest.raises(CacheFault, match="in time"):
            fill(os.getpid(), time.monotonic() - 1, set())
        evict([tmp_path / "file"])
        monkeypatch.setattr(page_cache, "host_memory", lambda: SimpleNamespace(available=0))
        with pytest.raises(CacheFault, match="room for 0 MB"):
            fill(os.getpid(), time.monotonic() + 60, set())
