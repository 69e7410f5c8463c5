"""The processes that a test has started, told apart from those that tests share, such as a browser."""

from __future__ import annotations

from collections.abc import Collection

import psutil


def offspring(known: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """All that runs below this process, but for those that were known before."""
    return [process for process in psutil.Process().children(recursive=True) if process not in known]
