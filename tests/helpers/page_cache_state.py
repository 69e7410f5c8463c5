"""What of a file lies in the system's page cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prerequisites import lacking

from autoresearch.core.trial.page_cache import evict


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
