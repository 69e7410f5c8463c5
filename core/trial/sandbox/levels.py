"""Isolation levels: how much of the machine a child can reach.

`bubblewrap` (Linux): own namespaces without network; it sees the system's folders, this Python, the installed packages
and the GPU nodes, all read-only, and its own work folder. `landlock` (Linux without it): the same rules for files; the
list of processes stays open. `seatbelt` (macOS): no user's files, no network, no writing elsewhere (see `seatbelt`).
`process`: separate process, scrubbed environment, limits; a child that looks for the user's files finds them, so the
level is recorded in every result.

Every level on Linux also has the filter of `system_calls`: no sockets, no keys, no shared objects of the kernel.

None protects against a fault in the kernel or in the GPU's driver, or against filling the disk with small files.
"""

from __future__ import annotations

import functools
import os
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
from autoresearch.core.trial.sandbox import guard, landlock, seatbelt
from autoresearch.core.trial.sandbox.host_paths import (
    CPUS,
    DEVICES_READ,
    DEVICES_WRITE,
    ETC,
    GPU_READ,
    GPU_WRITE,
    PROC,
    PROC_WRITABLE_BY_ROOT,
    LevelStatus,
    cpu_parts,
    gpu_binds,
    gpu_nodes,
    proc_covers,
    system_binds,
    system_folders,
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
PROTECTION: dict[IsolationLevel, str] = {
    "bubblewrap": "no files, no network, no other processes",
    "landlock": "no files, no network",
    "seatbelt": "no users' files, no network, writing in its own folder alone",
    "process": "a train file can read what you can read",
}
"""Protection of each level in words, as `ar doctor` prints it."""
HIDING_LEVELS: tuple[IsolationLevel, ...] = ("bubblewrap", "landlock", "seatbelt")
"""Levels at which a child cannot read the files of other trials."""
ISOLATING_LEVELS: tuple[IsolationLevel, ...] = ("bubblewrap", "landlock")
"""Levels at which a train child can neither write to nor trace another process of the trial."""
SHARES_MEMORY = ("train", "compile")
"""Roles whose framework may start processes that share memory, for compiling. None of them sees what is scored."""
PROBE_SECONDS = 10.0
NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")


class Sandbox(Protocol):
    """One isolation level, ready to wrap commands."""

    @property
    def level(self) -> IsolationLevel:
        """Name of the level."""
        ...

    @property
    def filtered(self) -> bool:
        """Tell whether its processes get the filter of `system_calls`, where the kernel has such filters."""
        ...

    def wrap(
        self,
        argv: Sequence[str],
        work: Path,
        read_only: Sequence[Path] = (),
        *,
        role: str = "",
        filter_fd: int | None = None,
    ) -> list[str]:
        """Return the command that runs `argv` with `work` as its only writable folder and current directory.

        `read_only` are files it may read besides; they appear in `work` under their own names. `role` is the child's
        (see `Launch`). `filter_fd` is an inherited descriptor with the filter's program, for a level whose own program
        installs it.
        """
        ...

    def guard_options(self, role: str, filter_fd: int | None) -> list[str]:
        """Return the guard's options: what it restricts before it starts the command."""
        ...

    def inside(self, work: Path, name: str) -> str:
        """Return the path by which the child knows `name`, a file in its work folder."""
        ...


@dataclass(frozen=True)
class ProcessSandbox:
    """No walls: the child runs where it is put. Not even the filter for the core's own processes (`filtered=False`)."""

    filtered: bool = True
    level: IsolationLevel = "process"

    def wrap(
        self,
        argv: Sequence[str],
        work: Path,
        read_only: Sequence[Path] = (),
        *,
        role: str = "",
        filter_fd: int | None = None,
    ) -> list[str]:
        """Return the command as it is; the read-only files are linked into the work folder."""
        for path in read_only:
            (work / path.name).symlink_to(path.resolve())
        return list(argv)

    def guard_options(self, role: str, filter_fd: int | None) -> list[str]:
        """Return the filter alone."""
        return _filter_option("--filter", filter_fd)

    def inside(self, work: Path, name: str) -> str:
        """Return the real path."""
        return str(work / name)


@dataclass(frozen=True)
class BubblewrapSandbox:
    """Namespaces made by bubblewrap."""

    program: str
    hidden: tuple[Path, ...] = ()
    """Folders that must not be seen even if they lie in a folder that is (the prepared corpus, the run)."""
    filtered: bool = True
    level: IsolationLevel = "bubblewrap"

    def wrap(
        self,
        argv: Sequence[str],
        work: Path,
        read_only: Sequence[Path] = (),
        *,
        role: str = "",
        filter_fd: int | None = None,
    ) -> list[str]:
        """Return a call of bwrap with read-only binds of what Python and the framework need, and the work folder."""
        roots = visible_roots(self.hidden)
        # `--new-session`: without it a child could type into the terminal that `ar` was started from (TIOCSTI).
        command = [self.program, "--die-with-parent", "--new-session", *NAMESPACES, "--unshare-cgroup-try"]
        command += [*no_more_namespaces(self.program), "--cap-drop", "ALL", "--proc", "/proc"]
        for place in PROC_WRITABLE_BY_ROOT:
            command += ["--ro-bind-try", place, place]
        command += hides_proc(self.program)
        command += ["--dev", "/dev", *system_binds(), *gpu_binds(gpu_nodes())]
        command += _filter_option("--seccomp", filter_fd)
        command += ["--size", str(SHARED_MEMORY_BYTES)] if takes_sizes(self.program) else []
        # /dev itself is memory, too, of half the machine's size: files in it would be charged to no process.
        command += ["--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
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

    def guard_options(self, role: str, filter_fd: int | None) -> list[str]:
        """Return no option: bwrap makes namespaces, so it installs the filter itself, as the last thing it does."""
        return []

    def inside(self, work: Path, name: str) -> str:
        """Return the path below /trial."""
        return f"{INSIDE}/{name}"


@dataclass(frozen=True)
class LandlockSandbox:
    """Restrictions that the child puts on itself before it becomes the command."""

    hidden: tuple[Path, ...] = ()
    filtered: bool = True
    level: IsolationLevel = "landlock"

    def wrap(
        self,
        argv: Sequence[str],
        work: Path,
        read_only: Sequence[Path] = (),
        *,
        role: str = "",
        filter_fd: int | None = None,
    ) -> list[str]:
        """Return the command behind `landlock.py`; read-only files are linked into the work folder.

        Raises `PrerequisiteError` where a hidden folder lies in one that must be visible: landlock's rules only add
        rights, so nothing inside a readable folder can be hidden.
        """
        readable = [*visible_roots(self.hidden), *(Path(place) for place in system_folders())]
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
        read += [*(f"/proc/{name}" for name in PROC), *map(str, read_only), *cpu_parts(counts=False)]
        nodes = gpu_nodes()
        read += GPU_READ if nodes else ()
        write = [str(work), *DEVICES_WRITE, *nodes, *(GPU_WRITE if nodes else ())]
        write += ["/dev/shm"] if self._shares_memory(role) else []
        rules = [word for path in read for word in ("--read", path)]
        rules += [word for path in write for word in ("--write", path)]
        rules += ["--list", str(CPUS), *_filter_option("--filter", filter_fd)]
        return [sys.executable, "-I", "-S", landlock.__file__, *rules, "--", *argv]

    def guard_options(self, role: str, filter_fd: int | None) -> list[str]:
        """Leave the filter to `landlock.py`, since it denies landlock; and a /dev/shm for a role that may need one."""
        memory = ["--shared-memory", str(SHARED_MEMORY_BYTES)] if self._shares_memory(role) else []
        return [*memory, *_filter_option("--filter-later", filter_fd)]

    def _shares_memory(self, role: str) -> bool:
        return role in SHARES_MEMORY and private_shared_memory()

    def inside(self, work: Path, name: str) -> str:
        """Return the real path."""
        return str(work / name)


@dataclass(frozen=True)
class SeatbeltSandbox:
    """A profile for macOS's `sandbox-exec`."""

    hidden: tuple[Path, ...] = ()
    filtered: bool = False
    level: IsolationLevel = "seatbelt"

    def wrap(
        self,
        argv: Sequence[str],
        work: Path,
        read_only: Sequence[Path] = (),
        *,
        role: str = "",
        filter_fd: int | None = None,
    ) -> list[str]:
        """Return the command behind its profile; read-only files are linked into the work folder."""
        for path in read_only:
            (work / path.name).symlink_to(path.resolve())
        profile = seatbelt.profile(work, [*visible_roots(self.hidden), *read_only], self.hidden)
        return [seatbelt.PROGRAM, "-p", profile, *argv]

    def guard_options(self, role: str, filter_fd: int | None) -> list[str]:
        """Return no option: the profile says it all."""
        return []

    def inside(self, work: Path, name: str) -> str:
        """Return the real path."""
        return str(work / name)


def _filter_option(name: str, filter_fd: int | None) -> list[str]:
    return [name, str(filter_fd)] if filter_fd is not None else []


@functools.cache
def no_more_namespaces(program: str) -> tuple[str, ...]:
    """Return bwrap's option against user namespaces inside, where it knows the option (0.8) and the kernel lets it."""
    option = "--disable-userns"
    command = [program, *NAMESPACES, option, "--proc", "/proc", "--dev", "/dev", *system_binds(), "true"]
    try:
        probe = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return (option,) if probe.returncode == 0 else ()


@functools.cache
def hides_proc(program: str) -> tuple[str, ...]:
    """Return bwrap's options that cover what /proc shows of the whole machine, where they work."""
    covers = tuple(proc_covers())
    command = [program, *NAMESPACES, "--proc", "/proc", *covers, "--dev", "/dev", *system_binds(), "true"]
    try:
        probe = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return covers if probe.returncode == 0 else ()


@functools.cache
def private_shared_memory() -> bool:
    """Tell whether the guard can give a child a /dev/shm of its own: as root, or where users may make namespaces."""
    command = [sys.executable, "-I", "-S", guard.__file__, "--shared-memory", str(SHARED_MEMORY_BYTES), "--", "true"]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as probe:
            return probe.wait(PROBE_SECONDS) == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@functools.cache
def takes_sizes(program: str) -> bool:
    """Say whether this bwrap can limit the size of a tmpfs: from 0.7 on, which Ubuntu 22.04 does not have."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
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


def warning_for_root() -> str | None:
    """Say what it means that `ar` runs as root; None where it does not.

    A child of root has no capability, but its files and the kernel's settings belong to the same user number.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    return "you are root: a fault in the sandbox would give a train file the whole machine, not one user's files"


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
