"""The processes that a test has started, told apart from those that tests share, such as a browser."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import psutil


def offspring(known: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """All that runs below this process, but for those that were known before."""
    return [process for process in psutil.Process().children(recursive=True) if process not in known]


def offspring_with(word: str, known: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """Those of `offspring` whose command line contains the word. A process may end while it is looked at."""
    found = []
    for process in offspring(known):
        with suppress(psutil.NoSuchProcess):  # a zombie's command line cannot be read either
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found
