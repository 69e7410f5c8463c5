"""Keeping a Mac from falling asleep while something trains."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def awake() -> Iterator[None]:
    """Keep a Mac awake inside the block, by `caffeinate`, which ends with this process. Elsewhere do nothing."""
    caffeinate = shutil.which("caffeinate") if sys.platform == "darwin" else None
    if caffeinate is None:
        yield
        return
    keeper = subprocess.Popen(
        [caffeinate, "-i", "-m", "-w", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        keeper.terminate()
        keeper.wait()
