"""What a process takes is counted where it tries to hide it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from autoresearch.core.trial.processes import FILES_LIMIT, disk_use, nameless_files

linux = pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc")


@linux
def test_memory_and_files_without_a_name_are_counted_once(tmp_path: Path) -> None:
    before = sum(nameless_files(os.getpid()).values())
    memory = os.memfd_create("hidden")
    os.write(memory, b"x" * 2**20)
    with (tmp_path / "removed").open("wb") as removed, (tmp_path / "named").open("wb") as named:
        for file in (removed, named):
            file.write(b"x" * 2**20)
            file.flush()
            os.fsync(file.fileno())
        (tmp_path / "removed").unlink()
        twice = os.dup(memory)
        hidden = sum(nameless_files(os.getpid()).values()) - before
    os.close(memory)
    os.close(twice)
    assert 2 * 2**20 <= hidden < 3 * 2**20


@linux
def test_a_process_that_is_gone_has_none() -> None:
    assert nameless_files(2**22 + 1) == {}


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
