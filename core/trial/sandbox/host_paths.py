"""The paths of this machine that every child needs at any isolation level: this Python, the system, GPU nodes."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import autoresearch
from autoresearch import backends, core
from autoresearch.core.trial.request import IsolationLevel

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store")
"""Folders with programs and libraries. Nothing in them belongs to a user."""
ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "OpenCL", "vulkan", "nvidia")
"""The few entries of /etc that the loader and GPU libraries read."""
GPU_NODES = ("nvidia*", "dri", "kfd", "dxg")
"""Patterns of device nodes below /dev: NVIDIA, Mesa, AMD, and NVIDIA under Windows."""
PROC = ("self", "cpuinfo", "meminfo", "stat", "loadavg", "version", "filesystems", "uptime", "vmstat", "sys", "driver")
"""Entries of /proc that frameworks read and that show no other process: `self` is the child alone."""
GPU_READ = ("/sys", "/proc/devices", "/proc/modules")
"""Paths that a GPU's driver library reads besides its nodes."""
DEVICES_READ = ("/dev/zero", "/dev/random", "/dev/urandom", "/sys/devices/system/cpu")
DEVICES_WRITE = ("/dev/null",)


@dataclass(frozen=True)
class LevelStatus:
    """An isolation level, and whether it can be used here."""

    level: IsolationLevel
    available: bool
    why_not: str | None = None
    """Reason in words where it cannot be used."""


def visible_roots() -> list[Path]:
    """Return the folders, or single files, of this Python, its environment and the packages of ar."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(os.__file__).parent]
    folders += [Path(path) for path in (*site.getsitepackages(), site.getusersitepackages()) if path in sys.path]
    for package in (autoresearch, core, backends):
        # In a checkout autoresearch/core is a link: the child needs the link and the folder that it leads to.
        folders += [place for path in package.__path__ for place in (Path(path), Path(path).resolve())]
    # What lies in a system folder, or in a root that was found before it, is visible anyway.
    roots: list[Path] = []
    for folder in [*folders, *interpreter_links()]:
        system = any(folder.is_relative_to(place) for place in SYSTEM_FOLDERS)
        if folder.exists() and not system and not any(folder.is_relative_to(root) for root in roots):
            roots.append(folder)
    return roots


def interpreter_links() -> list[Path]:
    """Return every path from `sys.executable` to the real interpreter: a virtual environment's is a link."""
    link = Path(sys.executable)
    found = []
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / link.readlink()))
        found.append(link)
    return found


def system_binds() -> list[str]:
    """Return bwrap's options for the system's folders, links kept as links, and for `ETC`."""
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


def gpu_nodes(devices: Path = Path("/dev")) -> list[str]:
    """Return the paths of the device nodes of GPUs; none on a machine without."""
    return sorted(str(node) for pattern in GPU_NODES for node in devices.glob(pattern))


def gpu_binds(nodes: Sequence[str]) -> list[str]:
    """Return bwrap's options for the GPUs' nodes, and for /sys: all of it for a driver, else the CPUs' topology."""
    binds = ["--ro-bind-try", "/sys", "/sys"] if nodes else []
    if not nodes:
        binds = ["--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu"]
    for node in nodes:
        binds += ["--dev-bind", node, node]
    return binds
