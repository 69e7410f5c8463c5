"""The host memory that this process may use: the machine's, or what its container may take of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
"""Mount point of the control groups."""
OWN_GROUPS = Path("/proc/self/cgroup")
"""The groups of this process, a line each: number, controllers, path."""


@dataclass(frozen=True)
class HostMemory:
    """Bytes of memory."""

    total: int
    available: int
    """Those that can still be taken, pages of files that would give way among them."""


def host_memory() -> HostMemory:
    """Return the machine's memory, or less where a control group of this process, or one above it, has a limit."""
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for folder, names in _groups():
        with contextlib.suppress(OSError, ValueError):
            limit = int(_read(folder / names.limit))
            total = min(total, limit)
            available = min(available, max(0, limit - int(_read(folder / names.usage)) + _pages(folder, names)))
    return HostMemory(total, available)


@dataclass(frozen=True)
class _Names:
    """Names of the files in one version of control groups."""

    limit: str
    """Holds a number of bytes; version 2 says `max` where there is no limit, version 1 a number beyond any memory."""
    usage: str
    pages: str
    """Line of memory.stat with the pages of files that were not used lately: the system takes them back first."""


TWO = _Names("memory.max", "memory.current", "inactive_file")
ONE = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _groups() -> Iterator[tuple[Path, _Names]]:
    """Yield the folders of this process's memory groups up to the mount point, with the names of their files."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # another system than Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = GROUPS, TWO
        elif "memory" in controllers.split(","):
            root, names = GROUPS / "memory", ONE
        else:
            continue
        # A container sees its own group as the mount point, and may be told the path that the host has for it.
        inside = root / path.lstrip("/")
        folder = inside if ".." not in inside.parts and inside.is_dir() else root
        for place in (folder, *folder.parents):
            yield place, names
            if place == root:
                break


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _pages(folder: Path, names: _Names) -> int:
    """Return the bytes of pages that would give way; 0 where the group does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in _read(folder / "memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == names.pages:
                return int(value)
    return 0
