"""Isolation levels: how much of the machine a child can reach.

`bubblewrap` (Linux): namespaces of its own, without network. A child sees the system's folders, this Python, the
installed packages and the GPU nodes, all read-only, and its own work folder. `landlock` (Linux without bubblewrap): the
same rules for files, and no TCP; UDP and the list of processes stay open. `seatbelt` (macOS): no user's files, no
network, no writing elsewhere (see `seatbelt`). `process`: a process of its own, a clean environment and limits. A child
that looks for the user's files finds them there, so every result names its level.

No level protects against a fault in the kernel or in the GPU's driver.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.trial.request import IsolationLevel
from autoresearch.core.trial.sandbox import landlock, seatbelt
from autoresearch.core.trial.sandbox.host_paths import (
    DEVICES_READ,
    DEVICES_WRITE,
    ETC,
    GPU_READ,
    PROC,
    SYSTEM_FOLDERS,
    LevelStatus,
    gpu_binds,
    gpu_nodes,
    system_binds,
    visible_roots,
)

INSIDE = "/trial"
"""Path of the work folder inside a namespace."""
LANDLOCK_ABI = 4
"""Lowest version of landlock that is used: the first that denies TCP."""
SHARED_MEMORY_BYTES = 2**28
"""Size of a child's /dev/shm, whose files are memory that no process is charged for. Frameworks need less."""
STRENGTH: dict[IsolationLevel, int] = {"process": 0, "seatbelt": 1, "landlock": 1, "bubblewrap": 2}
"""Order of the levels. `seatbelt` and `landlock` are the same kind of protection on two systems."""
ISOLATING_LEVELS: tuple[IsolationLevel, ...] = ("bubblewrap", "landlock")
"""Levels at which a train child can neither write to nor trace another process of the trial."""
NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")


class Sandbox(Protocol):
    """One isolation level, ready to wrap commands."""

    @property
    def level(self) -> IsolationLevel:
        """Name of the level."""
        ...

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """Return the command that runs `argv` with `work` as its only writable folder and current directory.

        `read_only` are files that it may read besides; they appear in `work` under their own names.
        """
        ...

    def inside(self, work: Path, name: str) -> str:
        """Return the path by which the child knows `name`, a file in its work folder."""
        ...


class ProcessSandbox:
    """No isolation: the child runs where it is put."""

    level: IsolationLevel = "process"

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """Return the command as it is; link the read-only files into the work folder."""
        for path in read_only:
            (work / path.name).symlink_to(path.resolve())
        return list(argv)

    def inside(self, work: Path, name: str) -> str:
        """Return the real path."""
        return str(work / name)


@dataclass(frozen=True)
class BubblewrapSandbox:
    """Namespaces made by bubblewrap."""

    program: str
    hidden: tuple[Path, ...] = ()
    """Folders that stay hidden even if they lie in a visible one: the prepared corpus and the run's."""
    level: IsolationLevel = "bubblewrap"

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """Return bwrap's command: Python and the framework read-only, and the work folder."""
        roots = visible_roots()
        # `--new-session`: without it a child could type into the terminal that `ar` was started from (TIOCSTI).
        command = [self.program, "--die-with-parent", "--new-session", *NAMESPACES, "--unshare-cgroup-try"]
        command += ["--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev", *system_binds(), *gpu_binds(gpu_nodes())]
        if takes_sizes(self.program):
            command += ["--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm"]
        # Before the roots: a checkout or an environment may itself lie below /tmp.
        command += ["--bind", str(work / "tmp"), "/tmp"]
        for root in roots:
            command += ["--ro-bind", str(root), str(root)]
        for folder in self.hidden:  # an empty folder is mounted over it; after the roots, because later mounts win
            if any(folder.resolve().is_relative_to(root.resolve()) for root in (*roots, Path("/usr"))):
                command += ["--tmpfs", str(folder.resolve()), "--remount-ro", str(folder.resolve())]
        command += ["--bind", str(work), INSIDE]
        for path in read_only:
            command += ["--ro-bind", str(path), f"{INSIDE}/{path.name}"]
        return [*command, "--remount-ro", "/", "--chdir", INSIDE, "--", *argv]

    def inside(self, work: Path, name: str) -> str:
        """Return the path below /trial."""
        return f"{INSIDE}/{name}"


@dataclass(frozen=True)
class LandlockSandbox:
    """Restrictions that the child puts on itself before it becomes the command."""

    hidden: tuple[Path, ...] = ()
    level: IsolationLevel = "landlock"

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """Return the command behind `landlock.py`; link the read-only files into the work folder.

        Raises `PrerequisiteError` where a hidden folder lies in one that must be visible: landlock's rules only add
        rights, so nothing inside a readable folder can be hidden.
        """
        readable = [*visible_roots(), *(Path(place) for place in SYSTEM_FOLDERS)]
        for folder in self.hidden:
            around = next((root for root in readable if folder.resolve().is_relative_to(root.resolve())), None)
            if around is not None and not work.resolve().is_relative_to(folder.resolve()):
                raise PrerequisiteError(
                    f"isolation level 'landlock' cannot hide {folder}: it lies in {around}, which a child must read.",
                    fix="put it elsewhere, or install bubblewrap.",
                )
        for path in read_only:
            (work / path.name).symlink_to(path.resolve())
        read = [*map(str, readable), *(f"/etc/{name}" for name in ETC), *DEVICES_READ]
        read += [*(f"/proc/{name}" for name in PROC), *map(str, read_only)]
        nodes = gpu_nodes()
        read += GPU_READ if nodes else ()
        write = [str(work), *DEVICES_WRITE, *nodes]
        rules = [word for path in read for word in ("--read", path)]
        rules += [word for path in write for word in ("--write", path)]
        return [sys.executable, "-I", "-S", landlock.__file__, *rules, "--", *argv]

    def inside(self, work: Path, name: str) -> str:
        """Return the real path."""
        return str(work / name)


@dataclass(frozen=True)
class SeatbeltSandbox:
    """A profile for macOS's `sandbox-exec`."""

    hidden: tuple[Path, ...] = ()
    level: IsolationLevel = "seatbelt"

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """Return the command behind its profile; link the read-only files into the work folder."""
        for path in read_only:
            (work / path.name).symlink_to(path.resolve())
        profile = seatbelt.profile(work, [*visible_roots(), *read_only], self.hidden)
        return [seatbelt.PROGRAM, "-p", profile, *argv]

    def inside(self, work: Path, name: str) -> str:
        """Return the real path."""
        return str(work / name)


@functools.cache
def takes_sizes(program: str) -> bool:
    """Say whether this bwrap can limit the size of a tmpfs: from 0.7 on, which Ubuntu 22.04 does not have."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    numbers = re.findall(r"\d+", said)
    return [int(number) for number in numbers[:2]] >= [0, 7]


@functools.cache
def bubblewrap_status() -> LevelStatus:
    """Find out whether bubblewrap is here and may make namespaces; asked once per process."""
    program = shutil.which("bwrap")
    if sys.platform != "linux":
        return LevelStatus("bubblewrap", False, "it is Linux only")
    if program is None:
        return LevelStatus("bubblewrap", False, "bwrap is not installed; on Debian: apt install bubblewrap")
    command = [program, *NAMESPACES, "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev", *system_binds(), "true"]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return LevelStatus("bubblewrap", False, f"bwrap does not run: {error}")
    if probe.returncode != 0:
        said = probe.stderr.strip() or f"exit status {probe.returncode}"
        return LevelStatus("bubblewrap", False, f"bwrap may not make namespaces here: {said}")
    return LevelStatus("bubblewrap", True)


def landlock_status() -> LevelStatus:
    """Find out whether the kernel offers landlock with rules for TCP: without them the network is open."""
    if sys.platform != "linux":
        return LevelStatus("landlock", False, "it is Linux only")
    version = landlock.abi()
    if version < LANDLOCK_ABI:
        return LevelStatus("landlock", False, f"it needs Linux 6.7; this kernel has landlock version {version}")
    return LevelStatus("landlock", True)


def levels() -> list[LevelStatus]:
    """Return every level, best first, with the reason where it cannot be used."""
    return [bubblewrap_status(), landlock_status(), seatbelt.status(), LevelStatus("process", True)]


def require(level: IsolationLevel) -> None:
    """Raise `PrerequisiteError` when the best level here is weaker than `level`."""
    best = best_level()
    if STRENGTH[best] < STRENGTH[level]:
        why = "; ".join(f"{status.level}: {status.why_not}" for status in levels() if status.why_not)
        raise PrerequisiteError(f"isolation level {level!r} is required, and {best!r} is the best here ({why}).")


def best_level() -> IsolationLevel:
    """Return the strongest level that works here."""
    return next(status.level for status in levels() if status.available)


def open_sandbox(level: IsolationLevel | None, hidden: Sequence[Path] = ()) -> Sandbox:
    """Return the sandbox of that level, or of the best one for None, with these folders hidden.

    Raises `PrerequisiteError` when the level cannot be used here.
    """
    wanted = level or best_level()
    status = next(status for status in levels() if status.level == wanted)
    if not status.available:
        raise PrerequisiteError(
            f"isolation level {wanted!r} cannot be used: {status.why_not}.", fix=f"use {best_level()!r}."
        )
    folders = tuple(hidden)
    if wanted == "bubblewrap":
        return BubblewrapSandbox(str(shutil.which("bwrap")), folders)
    if wanted == "landlock":
        return LandlockSandbox(folders)
    return SeatbeltSandbox(folders) if wanted == "seatbelt" else ProcessSandbox()
