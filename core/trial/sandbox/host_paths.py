"""The paths of this machine that every child needs at any isolation level: this Python, the system, GPU nodes."""

from __future__ import annotations

import os
import pwd
import shutil
import site
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import autoresearch
from autoresearch import backends, core
from autoresearch.core.trial.request import IsolationLevel

SPLIT = ("/usr", "/usr/local")
"""Folders of which only a part is needed."""
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store")
KEPT_SHARED = ("zoneinfo", "locale", "terminfo", "nvidia", "glvnd", "vulkan", "kernels")
"""Parts of /usr/share and /usr/local/share that programs read. The rest (documents, other programs' data) is hidden."""
HIDDEN_SYSTEM = ("share", "src", "games", "man")
"""Folders of /usr and /usr/local that no train file, framework or compiler needs, apart from KEPT_SHARED."""
PROC_WRITABLE_BY_ROOT = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi")
"""The kernel's settings, which root may write by its number alone, without a capability."""
ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "OpenCL", "vulkan", "nvidia")
"""The few entries of /etc that the loader and GPU libraries read."""
GPU_NODES = ("nvidia*", "dri", "kfd", "dxg")
"""Patterns of device nodes below /dev: NVIDIA, Mesa, AMD, and NVIDIA under Windows."""
PROC = ("self", "cpuinfo", "meminfo", "version", "filesystems", "sys/kernel", "sys/vm", "driver")
"""Entries of /proc that frameworks read and that show no other process: `self` is the child alone. The rest counts what
happens on the whole machine since it was started. A process can move some of these counts as it likes (locked pages in
`vmstat`), and a later one would read them."""
PROC_GPU = ("devices", "modules")
"""Further entries of /proc that the library of a GPU's driver reads."""
GPU_WRITE = ("/proc/self/task",)
"""CUDA names its threads through files in here, and does not start where it may not."""
GPU_READ = ("/sys", *(f"/proc/{name}" for name in PROC_GPU))
"""Paths that a GPU's driver library reads besides its nodes."""
COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "clang++")
"""Programs that PyTorch, Triton and MLX look for when they compile."""
TOOL_PARTS = ("bin", "lib", "lib64", "libexec", "include")
"""Parts of a compiler's folder that it needs, beside one named like the system it compiles for."""
CUDA_PARTS = (*TOOL_PARTS, "nvvm", "nvml", "extras", "targets")
"""Parts of a CUDA toolkit's folder. The variable often names a whole environment, whose settings may hold keys."""
CUDA_VARIABLES = ("CUDA_HOME", "CUDA_PATH")
NO_TOOLS = ("/dev/shm", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/var/tmp")
"""Folders of other people's files and of the sandbox's own mounts: never shown as a whole, whatever a variable says."""
SEARCH_VARIABLES = ("LD_LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH")
"""Variables with lists of folders that a child inherits."""
DEVICES_READ = ("/dev/zero", "/dev/random", "/dev/urandom")
DEVICES_WRITE = ("/dev/null",)
CPUS = Path("/sys/devices/system/cpu")
"""Which processors there are and what they share, as libraries of threads read it."""
CPU_COUNTS = ("cpuidle", "cpufreq", "thermal_throttle", "acpi_cppc")
"""Folders of it, or of one processor, that count how often that rested and how fast it ran. A process can sleep until a
count is what it likes, and a later one would read it: seven bits for each count of each processor."""


@dataclass(frozen=True)
class LevelStatus:
    """An isolation level, and whether it can be used here."""

    level: IsolationLevel
    available: bool
    why_not: str | None = None
    """Reason in words where it cannot be used."""


def visible_roots(hidden: Sequence[Path] = ()) -> list[Path]:
    """Return the folders, or single files, of this Python, its environment, the packages of ar, and of tools.

    A tool's folder around one of `hidden` stays out of sight.
    """
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(os.__file__).parent]
    folders += [Path(path) for path in (*site.getsitepackages(), site.getusersitepackages()) if path in sys.path]
    folders += driver_folders()
    kept = [folder.resolve() for folder in hidden]
    folders += [tool for tool in tool_folders() if not any(one.is_relative_to(tool.resolve()) for one in kept)]
    for package in (autoresearch, core, backends):
        # In a checkout autoresearch/core is a link: the child needs the link and the folder that it leads to.
        folders += [place for path in package.__path__ for place in (Path(path), Path(path).resolve())]
    # What lies in a system folder, or in a root that was found before it, is visible anyway.
    roots: list[Path] = []
    visible = {Path(place) for place in system_folders()}
    for folder in [*folders, *interpreter_links()]:
        # A Python of the system has /usr or /usr/local as its prefix; what it needs of them is there.
        found = str(folder) in ("/", *SPLIT) or not visible.isdisjoint((folder, *folder.parents))
        if not found and folder.exists():
            roots.append(folder)
            visible.add(folder)
    return roots


def interpreter_links() -> list[Path]:
    """Return every path from `sys.executable` to the real interpreter: a virtual environment's is a link."""
    link = Path(sys.executable)
    found = []
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / link.readlink()))
        found.append(link)
    return found


def system_folders() -> list[str]:
    """Return the system's folders (and links to them) that a child must read: programs, libraries, headers."""
    found: list[str] = []
    for place in SYSTEM_FOLDERS:
        found += _needed(Path(place)) if place in SPLIT else [place] * os.path.isdir(place)  # noqa: PTH112
    return found


def _needed(folder: Path) -> list[str]:
    """Return the needed parts of /usr or /usr/local, folder by folder."""
    found: list[str] = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if str(entry) in SPLIT:
            found += _needed(entry)
        elif entry.name not in HIDDEN_SYSTEM and (entry.is_dir() or entry.is_symlink()):
            found.append(str(entry))
    return found + [str(folder / "share" / name) for name in KEPT_SHARED if (folder / "share" / name).is_dir()]


def system_binds() -> list[str]:
    """Return bwrap's options for the system's folders, links kept as links, and for `ETC`."""
    binds: list[str] = []
    for place in system_folders():
        path = Path(place)
        if path.is_symlink():
            binds += ["--symlink", str(path.readlink()), place]
        else:
            binds += ["--ro-bind", place, place]
    for name in ETC:
        binds += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return binds


def proc_covers(kept: Sequence[str] = (*PROC, *PROC_GPU), proc: Path = Path("/proc")) -> list[str]:
    """Return bwrap's options that cover every entry of /proc about the whole machine but those in `kept`.

    Entries of single processes stay: a namespace shows its own alone. Links lead to those.
    """
    covers: list[str] = []
    inner = {name.partition("/")[0] for name in kept if "/" in name}
    for folder in ("", *(f"{one}/" for one in sorted(inner))):
        place = proc / folder
        for entry in sorted(place.iterdir()) if place.is_dir() else []:
            name = folder + entry.name
            if name in (*kept, *inner) or entry.name.isdigit() or entry.is_symlink():
                continue
            if entry.is_dir():
                covers += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
            else:
                # A device that is bound without leave to be used as one cannot be opened.
                covers += ["--ro-bind", os.devnull, f"/proc/{name}"]
    return covers


def gpu_nodes(devices: Path = Path("/dev")) -> list[str]:
    """Return the paths of the device nodes of GPUs; none on a machine without."""
    return sorted(str(node) for pattern in GPU_NODES for node in devices.glob(pattern))


def nvidia_cards(devices: Path = Path("/dev")) -> list[str]:
    """Return the nodes of NVIDIA cards that a process of this environment may use; none where they are hidden."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return []
    return sorted(str(node) for node in devices.glob("nvidia[0-9]*"))


def driver_folders() -> list[Path]:
    """Return the folder that TRITON_LIBCUDA_PATH names, if the driver's library lies there."""
    folder = os.environ.get("TRITON_LIBCUDA_PATH")
    return [Path(folder)] if folder and any(Path(folder).glob("libcuda.so*")) else []


def tool_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return what a compiler outside of the system's folders needs, and the folders that variables of a child name.

    A child that compiles calls what CC and CXX name, or the first compiler on PATH. Of the folder in which it was
    installed only programs, libraries and headers are shown; neither a home folder, nor one of NO_TOOLS, nor one around
    them ever is, however it is named.
    """
    found: list[Path] = []
    private = {*_home_folders(), *map(Path, NO_TOOLS)}
    folders: dict[Path, None] = {}  # each once: most compilers lie in one, and every child's start comes through here
    for program in (*(environment.get(name) for name in ("CC", "CXX")), *COMPILERS):
        words = program.split() if program else []
        called = shutil.which(words[0], path=environment.get("PATH")) if words else None
        places = sorted({Path(called), Path(os.path.realpath(called))}) if called else []
        folders |= dict.fromkeys(place.parent.parent for place in places)
    for folder in folders:
        found += [folder / name for name in TOOL_PARTS]
        # A compiler in ~/bin has its system's folder elsewhere, and in a home folder the pattern fits anything.
        found += [] if _is_around(folder, private) else sorted(folder.glob("*-linux-*"))
    for name in CUDA_VARIABLES:
        found += [Path(environment.get(name, "")) / part for part in CUDA_PARTS]
    found += [Path(environment.get("TRITON_PTXAS_PATH", "")).parent]
    for name in SEARCH_VARIABLES:
        found += map(Path, environment.get(name, "").split(os.pathsep))
    # os.path.isdir and not Path.is_dir: the latter raises where a folder of somebody else may not be looked into.
    return [
        place
        for place in dict.fromkeys(found)
        if place.is_absolute() and os.path.isdir(place) and not _is_around(place, private)  # noqa: PTH112
    ]


def _home_folders() -> set[Path]:
    """Return the user's home folder by the environment and by the system's accounts, as named and where links lead."""
    named = [os.path.expanduser("~")]  # noqa: PTH111 - Path.home raises for a user without an account
    with suppress(KeyError):
        named.append(pwd.getpwuid(os.getuid()).pw_dir)
    absolute = [os.path.normpath(home) for home in named if os.path.isabs(home)]  # noqa: PTH117
    return {Path(home) for one in absolute for home in (one, os.path.realpath(one))}


def _is_around(place: Path, private: Iterable[Path]) -> bool:
    """Tell whether a folder is one of the private ones or lies around one, as it is named or where its links lead."""
    meant = (Path(os.path.normpath(place)), Path(os.path.realpath(place)))
    return any(folder.is_relative_to(one) for folder in private for one in meant)


def cpu_parts(*, counts: bool, cpus: Path = CPUS) -> list[str]:
    """Return the parts of `CPUS`, by processor, that count something, or all the others; links are left out."""
    found: list[str] = []
    for entry in sorted(cpus.iterdir()) if cpus.is_dir() else []:
        single = entry.name.startswith("cpu") and entry.name[3:].isdigit()
        for part in sorted(entry.iterdir()) if single else [entry]:
            if (part.name in CPU_COUNTS) == counts and not part.is_symlink():
                found.append(str(part))
    return found


def gpu_binds(nodes: Sequence[str]) -> list[str]:
    """Return bwrap's options for the GPUs' nodes, and for /sys: all of it for a driver, else the CPUs' topology."""
    binds = ["--ro-bind-try", "/sys", "/sys"] if nodes else []
    if not nodes:
        binds = ["--ro-bind-try", str(CPUS), str(CPUS)]
        for folder in cpu_parts(counts=True):
            binds += ["--tmpfs", folder, "--remount-ro", folder]
    for node in nodes:
        binds += ["--dev-bind", node, node]
    return binds
