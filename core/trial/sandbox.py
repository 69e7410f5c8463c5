"""Isolation levels: what a child can reach.

`bubblewrap` (Linux): own namespaces without network; it sees the system's folders, this Python, the installed packages
and the GPU nodes, all read-only, and its own work folder. `landlock` (Linux without it): the same rules for files, no
TCP; UDP and the list of processes stay open. `process`: separate process, scrubbed environment, limits; a child that
looks for the user's files finds them, so the level is recorded in every result.

Neither protects against a fault in the kernel or in the GPU's driver, or against filling the disk with small files.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import autoresearch
from autoresearch import backends, core
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.trial import landlock
from autoresearch.core.trial.result import IsolationLevel

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store")
ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "OpenCL", "vulkan", "nvidia")
GPU_NODES = ("nvidia*", "dri", "kfd", "dxg")
PROC = ("self", "cpuinfo", "meminfo", "stat", "loadavg", "version", "filesystems", "uptime", "vmstat", "sys", "driver")
"""What a framework may ask of /proc without seeing other processes: `self` is the child alone."""
DEVICES_READ = ("/dev/zero", "/dev/random", "/dev/urandom", "/sys/devices/system/cpu")
DEVICES_WRITE = ("/dev/null",)
INSIDE = "/trial"
"""Where a child finds its work folder inside a namespace of its own."""
LANDLOCK_ABI = 4
"""The first that denies TCP."""
SHARED_MEMORY_BYTES = 2**28
"""Of /dev/shm: files there are memory that no process is charged for. What the frameworks share fits."""
NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")


@dataclass(frozen=True)
class LevelStatus:
    """Whether an isolation level can be used here."""

    level: IsolationLevel
    available: bool
    why_not: str | None = None


class Sandbox(Protocol):
    """One isolation level, ready to wrap commands."""

    @property
    def level(self) -> IsolationLevel:
        """Its name."""
        ...

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """The command that runs `argv` with `work` as its only writable folder and current directory.

        `read_only` are files it may read besides; they appear in `work` under their own names.
        """
        ...

    def inside(self, work: Path, name: str) -> str:
        """The path by which the child knows `name`, a file in its work folder."""
        ...


class ProcessSandbox:
    """No walls: the child runs where it is put."""

    level: IsolationLevel = "process"

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """The command as it is; the read-only files are linked into the work folder."""
        for path in read_only:
            (work / path.name).symlink_to(path.resolve())
        return list(argv)

    def inside(self, work: Path, name: str) -> str:
        """The real path."""
        return str(work / name)


@dataclass(frozen=True)
class BubblewrapSandbox:
    """Namespaces made by bubblewrap."""

    program: str
    hidden: tuple[Path, ...] = ()
    """Folders that must not be seen even if they lie in a folder that is (the prepared corpus, the run)."""
    level: IsolationLevel = "bubblewrap"

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """bwrap with read-only binds of what Python and the framework need, and the work folder."""
        roots = visible_roots()
        command = [self.program, "--die-with-parent", "--new-session", *NAMESPACES, "--unshare-cgroup-try"]
        command += ["--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev", *system_binds(), *gpu_binds()]
        if takes_sizes(self.program):
            command += ["--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm"]
        # Before the roots: a checkout or an environment may itself lie below /tmp.
        command += ["--bind", str(work / "tmp"), "/tmp"]
        for root in roots:
            command += ["--ro-bind", str(root), str(root)]
        for folder in self.hidden:
            if any(folder.resolve().is_relative_to(root.resolve()) for root in (*roots, Path("/usr"))):
                command += ["--tmpfs", str(folder.resolve()), "--remount-ro", str(folder.resolve())]
        command += ["--bind", str(work), INSIDE]
        for path in read_only:
            command += ["--ro-bind", str(path), f"{INSIDE}/{path.name}"]
        return [*command, "--remount-ro", "/", "--chdir", INSIDE, "--", *argv]

    def inside(self, work: Path, name: str) -> str:
        """The path below /trial."""
        return f"{INSIDE}/{name}"


@dataclass(frozen=True)
class LandlockSandbox:
    """Rules that the child puts on itself before it becomes the command."""

    hidden: tuple[Path, ...] = ()
    level: IsolationLevel = "landlock"

    def wrap(self, argv: Sequence[str], work: Path, read_only: Sequence[Path] = ()) -> list[str]:
        """The command behind `landlock.py`; read-only files are linked into the work folder.

        Raises `PrerequisiteError` where a hidden folder lies in one that must be seen: rules only add.
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
        write = [str(work), *DEVICES_WRITE, *map(str, gpu_nodes())]
        rules = [word for path in read for word in ("--read", path)]
        rules += [word for path in write for word in ("--write", path)]
        return [sys.executable, "-I", "-S", landlock.__file__, *rules, "--", *argv]

    def inside(self, work: Path, name: str) -> str:
        """The real path."""
        return str(work / name)


def visible_roots() -> list[Path]:
    """This Python, its environment and the packages of ar: folders (or single files) that a child must read."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(os.__file__).parent]
    folders += [Path(path) for path in (*site.getsitepackages(), site.getusersitepackages()) if path in sys.path]
    for package in (autoresearch, core, backends):
        folders += [Path(path) for path in package.__path__]
    roots: list[Path] = []
    for folder in [*folders, *interpreter_links()]:
        system = any(folder.is_relative_to(place) for place in SYSTEM_FOLDERS)
        if folder.exists() and not system and not any(folder.is_relative_to(root) for root in roots):
            roots.append(folder)
    return roots


def interpreter_links() -> list[Path]:
    """Every path on the way from `sys.executable` to the real interpreter: a virtual environment's is a link."""
    link = Path(sys.executable)
    found = []
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / link.readlink()))
        found.append(link)
    return found


def system_binds() -> list[str]:
    """The system's folders as they are here, links kept as links, and the few files of /etc that the loader reads."""
    binds: list[str] = []
    for place in SYSTEM_FOLDERS:
        path = Path(place)
        if path.is_symlink():
            binds += ["--symlink", str(path.readlink()), place]
        elif path.is_dir():
            binds += ["--ro-bind", place, place]
    for name in ETC:
        binds += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return binds


def gpu_nodes() -> list[str]:
    """Device nodes of GPUs, where there are any."""
    return sorted(str(node) for pattern in GPU_NODES for node in Path("/dev").glob(pattern))


def gpu_binds() -> list[str]:
    """Device nodes of GPUs where there are any; CPU topology always, and all of /sys for a GPU's driver."""
    nodes = gpu_nodes()
    binds = ["--ro-bind-try", "/sys", "/sys"] if nodes else []
    if not nodes:
        binds = ["--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu"]
    for node in nodes:
        binds += ["--dev-bind", node, node]
    return binds


@functools.cache
def takes_sizes(program: str) -> bool:
    """Whether this bwrap can limit a tmpfs: from 0.7 on, which Ubuntu 22.04 does not have."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    numbers = re.findall(r"\d+", said)
    return [int(number) for number in numbers[:2]] >= [0, 7]


@functools.cache
def bubblewrap_status() -> LevelStatus:
    """Whether bubblewrap is here and may make namespaces; asked once per process."""
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
    """Whether the kernel offers landlock with rules for TCP: without them the network is open."""
    if sys.platform != "linux":
        return LevelStatus("landlock", False, "it is Linux only")
    version = landlock.abi()
    if version < LANDLOCK_ABI:
        return LevelStatus("landlock", False, f"it needs Linux 6.7; this kernel has landlock version {version}")
    return LevelStatus("landlock", True)


def levels() -> list[LevelStatus]:
    """Every level this build knows, best first, and why one cannot be used."""
    return [bubblewrap_status(), landlock_status(), LevelStatus("process", True)]


def require(level: IsolationLevel) -> None:
    """Raises `PrerequisiteError` when the best level here is weaker than `level`."""
    order = [status.level for status in levels()]
    best = best_level()
    if level not in order or order.index(best) > order.index(level):
        why = "; ".join(f"{status.level}: {status.why_not}" for status in levels() if status.why_not)
        raise PrerequisiteError(f"isolation level {level!r} is required, and {best!r} is the best here ({why}).")


def best_level() -> IsolationLevel:
    """The strongest level that works here."""
    return next(status.level for status in levels() if status.available)


def open_sandbox(level: IsolationLevel | None, hidden: Sequence[Path] = ()) -> Sandbox:
    """The sandbox of that level, or of the best one for None. Raises `PrerequisiteError` when it cannot be used."""
    wanted = level or best_level()
    status = next((status for status in levels() if status.level == wanted), None)
    if status is None or not status.available:
        why = "this version does not have it" if status is None else status.why_not
        raise PrerequisiteError(f"isolation level {wanted!r} cannot be used: {why}.", fix=f"use {best_level()!r}.")
    if wanted == "bubblewrap":
        return BubblewrapSandbox(str(shutil.which("bwrap")), tuple(hidden))
    return LandlockSandbox(tuple(hidden)) if wanted == "landlock" else ProcessSandbox()
