"""A machine that does not fall asleep while the loop works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def awake() -> Iterator[None]:
    """On macOS, `caffeinate` for as long as the block runs or this process lives. Elsewhere nothing."""
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
