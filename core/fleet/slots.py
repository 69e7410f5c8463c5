"""The devices of this machine as slots for one trial each, and the locks that keep two loops off one device."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.trial.device import usable_cores
from autoresearch.core.trial.host_memory import host_memory

CORES_PER_SLOT, MEMORY_PER_SLOT_MB = 2, 4096
"""Least cores and MiB of a CPU slot when the number of slots is chosen automatically."""
MEMORY_SHARE = 0.8
"""Share of the host's memory that all CPU slots together may take."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Slot:
    """A device, or a part of the CPU, for one trial at a time."""

    name: str
    """Name of its lock file: letters, digits and dashes."""
    label: str
    """Name for people."""
    environment: tuple[tuple[str, str], ...] = ()
    """Environment variables of the trial's processes."""
    cores: tuple[int, ...] = ()
    """Cores that the trial is bound to, where the system can bind; empty means all."""
    memory_mb: int | None = None
    """MiB of host memory that a trial may take; None leaves the limit to the supervisor."""


WHOLE_MACHINE = Slot("device", "this machine's device")
"""The only slot of a machine whose device is not divided."""


def cuda_slots(listed: str, visible: str | None = None) -> list[Slot]:
    """Make one slot for each GPU of the first GPU's model: scores of different models cannot be compared.

    `listed` is the output of `nvidia-smi --query-gpu=index,uuid,name --format=csv,noheader`. `visible` is the user's
    CUDA_VISIBLE_DEVICES, whose choice and order are kept.
    """
    found = {}
    for line in listed.splitlines():
        index, uuid, name = (part.strip() for part in line.split(",", 2))
        slot = Slot(f"cuda-{uuid}", f"{name} {index}", (("CUDA_VISIBLE_DEVICES", uuid),))
        found[index] = found[uuid] = (name, slot)
    chosen = list(dict.fromkeys(found.values())) if visible is None else _visible(visible, found)
    return [slot for name, slot in chosen if name == chosen[0][0]]


def _visible(visible: str, found: dict[str, tuple[str, Slot]]) -> list[tuple[str, Slot]]:
    """Select GPUs as CUDA does: by numbers or beginnings of UUIDs, up to the first that is unknown."""
    chosen = []
    for part in (one.strip() for one in visible.split(",")):
        long = len(part) > 3  # shorter ones are numbers
        match = next((found[key] for key in found if key == part or (long and key.startswith(part))), None)
        if match is None:
            break
        chosen.append(match)
    return chosen


def find_cuda_slots() -> list[Slot]:
    """Ask nvidia-smi for the GPUs: importing a framework in this process would take the first. Empty without a GPU."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return cuda_slots(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def cpu_slots(count: int | None, cores: Sequence[int], memory_mb: int) -> list[Slot]:
    """Divide the cores among `count` slots; None makes as many slots as cores and memory allow.

    Raises `UsageError` when there are fewer cores than slots.
    """
    if count is None:
        count = max(1, min(len(cores) // CORES_PER_SLOT, int(MEMORY_SHARE * memory_mb) // MEMORY_PER_SLOT_MB))
    if count > len(cores):
        raise UsageError(f"--slots {count}: there are {len(cores)} cores.", fix=f"--slots {len(cores)} at most")
    slots = []
    for i in range(count):
        mine = tuple(cores[i * len(cores) // count : (i + 1) * len(cores) // count])
        threads = tuple((name, str(len(mine))) for name in THREAD_VARIABLES)
        label = f"cores {', '.join(map(str, mine))}"
        name = f"cpu-{'-'.join(map(str, mine))}"
        slots.append(Slot(name, label, threads, mine, int(MEMORY_SHARE * memory_mb) // count))
    return slots


def find_slots(kind: str, count: int | None) -> list[Slot]:
    """Find the slots for a kind of device ("cuda", "metal", "cpu", "numpy"); `count` None means as many as fit.

    Raises `UsageError` when there are fewer.
    """
    if kind in ("cpu", "numpy"):
        return cpu_slots(count, usable_cores(), int(host_memory().total / 2**20))
    slots = find_cuda_slots() if kind == "cuda" else []
    slots = slots or [Slot(f"{kind}-0", f"the {kind} device")]
    if count is not None and count > len(slots):
        raise UsageError(f"--slots {count}: there are {len(slots)} devices of that model.", fix=f"--slots {len(slots)}")
    return slots


class Claim:
    """Slots that are locked against every other loop on this machine, until `release` or the end of the process."""

    def __init__(self, slots: Sequence[Slot], folder: Path, count: int | None) -> None:
        """Lock `count` of the slots; None locks all that are free. `folder` holds the lock files.

        Raises `PrerequisiteError` when too few are free.
        """
        from filelock import FileLock, Timeout

        folder.mkdir(parents=True, exist_ok=True)
        self._locks = []
        # The folder may be shared by several machines, so the host's name is part of a lock's.
        taken, host = [], re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())
        self.slots: list[Slot] = []
        for slot in slots:
            if len(self.slots) == count:
                break
            lock = FileLock(folder / f"{host}-{slot.name}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                taken.append(slot.label)
                continue
            self._locks.append(lock)
            self.slots.append(slot)
        if not self.slots or len(self.slots) < (count or 0):
            self.release()
            raise PrerequisiteError(
                f"another loop uses {', '.join(taken)}.", fix="wait for it, stop it, or ask for fewer --slots"
            )

    def release(self) -> None:
        """Unlock the slots."""
        for lock in self._locks:
            lock.release()
        self._locks = []


def bind(cores: Sequence[int]) -> None:
    """Bind the calling thread, and so every process that it starts, to these cores where the system can."""
    if cores and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # a container may forbid it; the numbers of threads hold all the same
            os.sched_setaffinity(0, cores)
