"""Text that every machine has: some of Python's own source, as files that `ar prepare` can read."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path


def copy_library(folder: Path, most_bytes: int) -> Path:
    """Copy modules of the standard library into a new folder, until there are about so many bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = 0
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if taken < most_bytes:
            shutil.copy(file, folder / f"{file.stem}.txt")
            taken += file.stat().st_size
    return folder
