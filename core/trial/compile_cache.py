"""Compile caches: later train children are given the files that compiling the incumbent left, and start faster.

A process of its own makes a cache, in the sandbox, from the incumbent's source and on random tokens. It never sees real
text, so nothing learned can travel in a cache from one trial to the next. Every train child gets a copy, and whatever
it does to the copy ends with it. Score and audit children get none.

A kept source can still fill its cache with what it likes. That code may then run in the train child of a later trial,
under the same restrictions as that trial's own file. It can spoil or slow that training; it cannot reach a score.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from autoresearch.core.events import Compiling, Message
from autoresearch.core.files import remove_folder
from autoresearch.core.trial.child.channel import Compiled
from autoresearch.core.trial.context import TrialContext
from autoresearch.core.trial.processes import TrialEnded
from autoresearch.core.trial.sandbox.levels import ISOLATING_LEVELS

CACHE_LIMIT_BYTES = 512 * 2**20
"""Largest cache; a larger one is not kept."""
FILES_LIMIT = 20_000
"""Files of a cache, at most."""
SLOW_SECONDS = 15.0
"""Seconds of a start-up that has most likely compiled something."""


def worth_carrying(folder: Path, results: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether a run should carry caches: it does so already, or a trial of its incumbent was slow to start.

    `results` are the recorded trials of the incumbent. An incumbent that was given a cache itself has no slow start to
    show, hence the first condition.
    """
    return folder.is_dir() or any((result.get("startup_seconds") or 0.0) >= SLOW_SECONDS for result in results)


@dataclass(frozen=True)
class Found:
    """A compile cache that may be copied."""

    folder: Path
    places: Sequence[str]
    """Folders in it, relative, as they lie in a child's work folder."""

    def copy_to(self, work: Path) -> None:
        """Copy the cache into a child's work folder. What cannot be copied is compiled again."""
        for place in self.places:
            with contextlib.suppress(OSError, TooMuch):
                copy_files(self.folder / place, work / place)


def name_of(source: str, seconds: float) -> str:
    """Return the name of a source's cache. The budget is part of it, because a file may choose its shapes by it."""
    return "-".join(hashlib.sha256(text.encode()).hexdigest()[:16] for text in (source, str(seconds)))


def _same_source(one: Path, other: Path) -> bool:
    """Tell whether two caches are of one source."""
    return one.name.partition("-")[0] == other.name.partition("-")[0]


def incumbents_cache(context: TrialContext, places: Sequence[str]) -> Found | None:
    """Return the cache of the source that the request names, made now if it is not there; None without one.

    `places` are the folders, relative to a child's work folder, in which the backend's framework keeps its caches.
    """
    carried, seconds = context.request.carried, context.request.budget.train_seconds
    if not places or carried is None or context.sandbox.level not in ISOLATING_LEVELS:
        return None
    folder = carried.folder / name_of(carried.source, seconds)
    carried.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(carried.folder / "lock"):  # among several trials at once, one makes it
        if not folder.is_dir():
            _make(context, carried.source, folder, places)
    return Found(folder, places)


def _make(context: TrialContext, source: str, folder: Path, places: Sequence[str]) -> None:
    """Compile in a child and keep the files it leaves; keep an empty folder when it fails, so that nobody retries."""
    context.record.event(Compiling())
    context.record.log(b"compiling the incumbent's train file on random tokens\n")
    launch = context.launch("compile", {"budget_seconds": context.request.budget.train_seconds}, ())
    (launch.work / "train.py").write_text(source, encoding="utf-8")
    child = context.processes.start(launch)
    limit = time.monotonic() + context.request.budget.startup_seconds
    said: list[Message] = []
    try:
        while not said and child.returncode() is None and time.monotonic() < limit:
            said += [message for _, message in context.processes.step(limit) if isinstance(message, Compiled)]
    except TrialEnded:
        pass  # it took more memory or disk than a child may; the trial itself has not begun
    finally:
        said += context.processes.end(child)
    # Under another name until it is whole: a crash in between must not leave half a cache to later trials.
    temporary = folder.with_suffix(".new")
    remove_folder(temporary)  # its content is a child's: its folders may be nested deeper than Python recurses
    temporary.mkdir()
    if any(isinstance(message, Compiled) for message in said):
        _keep(launch.work, temporary, places)
    # Caches of earlier incumbents. Short trials and profiles have other budgets, and caches of their own: were only one
    # kept, each would be made again whenever one of them follows a full trial.
    for old in folder.parent.iterdir():
        if old.is_dir() and not _same_source(old, folder):
            remove_folder(old)
    temporary.rename(folder)
    remove_folder(launch.work)


def _keep(work: Path, folder: Path, places: Sequence[str]) -> None:
    """Copy each of the cache's folders, or nothing of it where it is too large."""
    for place in places:
        try:
            # A link in the place of a folder above it would lead to files of the user's.
            if (work / place).resolve() == work.resolve() / place:
                copy_files(work / place, folder / place)
        except (OSError, TooMuch):
            remove_folder(folder / place)


class TooMuch(Exception):  # noqa: N818
    """A cache beyond the limits."""


def copy_files(source: Path, destination: Path) -> None:
    """Copy plain files of a folder whose owner is gone, with their times; links and devices stay behind.

    Raises `TooMuch` beyond the limits, in which case part of it is there.
    """
    files = size = 0
    waiting = [source] if source.is_dir() and not source.is_symlink() else []
    while waiting:
        folder = waiting.pop()
        target = destination / folder.relative_to(source)
        target.mkdir(parents=True, exist_ok=True)
        with os.scandir(folder) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    files, size = files + 1, size + facts.st_size
                    if files > FILES_LIMIT or size > CACHE_LIMIT_BYTES:
                        raise TooMuch(f"more than {FILES_LIMIT} files or {CACHE_LIMIT_BYTES >> 20} MiB")
                    # With their times, by which compilers know what is up to date.
                    shutil.copyfile(entry.path, target / entry.name, follow_symlinks=False)
                    os.utime(target / entry.name, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
