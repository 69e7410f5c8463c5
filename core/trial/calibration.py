"""How far an honest model's two answers are apart on this device: measured on the baseline, stored with the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from autoresearch.backends.contract import Device
from autoresearch.core.errors import DataError
from autoresearch.core.trial.audit import Tolerance, tolerance
from autoresearch.core.trial.result import AuditResult

MARGIN = 8.0
"""Above the largest honest difference: an honest variant may round more than the baseline."""
FLOOR = Tolerance(max_abs=2e-4, mean=2e-5)
"""Where a baseline's answers are bit for bit the same, a variant's need not be: another order of float32 sums."""


def tolerance_key(backend: str, device: Device) -> str:
    """What a tolerance is valid for: backend, device, precision and framework."""
    return " / ".join((backend, device.name, device.precision, device.framework))


def calibrate(honest: Sequence[AuditResult], precision: str) -> Tolerance:
    """From audits of the baseline: a margin above the largest difference, never wider than the precision's default.

    Raises ValueError without an audit: nothing was measured.
    """
    if not honest:
        raise ValueError("a tolerance is calibrated on at least one audit of the baseline")
    widest = tolerance(precision)
    floor = FLOOR if precision == "fp32" else Tolerance(widest.max_abs / 4, widest.mean / 4)
    max_abs = MARGIN * max(outcome.max_abs for outcome in honest)
    mean = MARGIN * max(abs(outcome.mean_diff) for outcome in honest)
    return Tolerance(
        max_abs=min(widest.max_abs, max(floor.max_abs, max_abs)), mean=min(widest.mean, max(floor.mean, mean))
    )


def read_tolerances(path: Path | None) -> dict[str, Tolerance]:
    """By key; empty without a file. Raises `DataError` when the file cannot be used: a guess would let cheats pass."""
    if path is None or not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {key: Tolerance(float(entry["max_abs"]), float(entry["mean"])) for key, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the audit's tolerances in {path} cannot be read: {error}.", fix="delete the file; the defaults apply."
        ) from error


def write_tolerance(path: Path, key: str, value: Tolerance) -> None:
    """Add or replace one entry, whole or not at all."""
    entries = {name: vars(known) for name, known in {**read_tolerances(path), key: value}.items()}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def note_baseline(path: Path, key: str, outcome: AuditResult, precision: str) -> None:
    """Calibrate on one more baseline: what an earlier one has widened stays."""
    found = calibrate([outcome], precision)
    if (known := read_tolerances(path).get(key)) is not None:
        found = Tolerance(max(found.max_abs, known.max_abs), max(found.mean, known.mean))
    write_tolerance(path, key, found)
