"""What `ar bench` has measured of this machine's devices: the yardstick for those without a data sheet."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from autoresearch.backends.contract import Device
from autoresearch.core.config import data_dir

FILE = "peaks.json"


def known_peak(device: Device, folder: Path | None = None) -> float | None:
    """FLOP/s of the device's working precision: the data sheet's, else what was measured here, else None."""
    return device.peak_flops or read_peaks(device, folder).get(device.precision)


def read_peaks(device: Device, folder: Path | None = None) -> dict[str, float]:
    """FLOP/s by precision as measured on this device with this framework and as many cores; empty when never.

    A file that cannot be read counts as none: what rests on it is shown, and decides nothing.
    """
    try:
        known = json.loads(((folder or data_dir()) / FILE).read_text(encoding="utf-8"))
        peaks = {str(name): float(flops) for name, flops in known[_key(device)].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: flops for name, flops in peaks.items() if math.isfinite(flops) and flops > 0}


def write_peaks(device: Device, peaks: Mapping[str, float], folder: Path | None = None) -> None:
    """Remember what was measured, whole or not at all."""
    path = (folder or data_dir()) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({**known, _key(device): dict(peaks)}, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _key(device: Device) -> str:
    return f"{device.name} / {device.framework} / {cores()} cores"
