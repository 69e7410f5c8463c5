"""What every child needs of the machine, whatever shuts it in: this Python, the system's folders, GPU nodes."""

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
ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "OpenCL", "vulkan", "nvidia")
GPU_NODES = ("nvidia*", "dri", "kfd", "dxg")
PROC = ("self", "cpuinfo", "meminfo", "stat", "loadavg", "version", "filesystems", "uptime", "vmstat", "sys", "driver")
"""What a framework may ask of /proc without seeing other processes: `self` is the child alone."""
GPU_READ = ("/sys", "/proc/devices", "/proc/modules")
"""What a GPU's driver library asks for besides its nodes."""
DEVICES_READ = ("/dev/zero", "/dev/random", "/dev/urandom", "/sys/devices/system/cpu")
DEVICES_WRITE = ("/dev/null",)


@dataclass(frozen=True)
class LevelStatus:
    """Whether an isolation level can be used here."""

    level: IsolationLevel
    available: bool
    why_not: str | None = None


def visible_roots() -> list[Path]:
    """This Python, its environment and the packages of ar: folders (or single files) that a child must read."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(os.__file__).parent]
    folders += [Path(path) for path in (*site.getsitepackages(), site.getusersitepackages()) if path in sys.path]
    for package in (autoresearch, core, backends):
        # In a checkout autoresearch/core is a link: the child needs the link and the folder that it leads to.
        folders += [place for path in package.__path__ for place in (Path(path), Path(path).resolve())]
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


def gpu_nodes(devices: Path = Path("/dev")) -> list[str]:
    """Device nodes of GPUs, where there are any."""
    return sorted(str(node) for pattern in GPU_NODES for node in devices.glob(pattern))


def gpu_binds(nodes: Sequence[str]) -> list[str]:
    """bwrap's options for GPUs' nodes; CPU topology always, and all of /sys for a GPU's driver."""
    binds = ["--ro-bind-try", "/sys", "/sys"] if nodes else []
    if not nodes:
        binds = ["--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu"]
    for node in nodes:
        binds += ["--dev-bind", node, node]
    return binds
