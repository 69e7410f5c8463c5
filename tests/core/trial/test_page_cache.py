"""Files leave the page cache when they are told to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from prerequisites import lacking

from autoresearch.core.trial.page_cache import evict

pytestmark = pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot say what is in its cache")


def cached(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(fd, [bytearray(1)], os.fstat(fd).st_size - 1, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError as error:
        lacking(f"this file system cannot say what is in the cache: {error}")
    finally:
        os.close(fd)


def gone(path: Path) -> bool:
    """Tell whether a file is out of the cache, evicted again where the kernel itself held a page for a moment.

    To ask may read the file back in, so each answer counts once.
    """
    for _ in range(20):
        if not cached(path):
            return True
        time.sleep(0.1)
        evict([path])
    return False


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
