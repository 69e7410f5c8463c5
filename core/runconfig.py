"""What a run is started with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from autoresearch.core.errors import UsageError


@dataclass(frozen=True)
class RunConfig:
    """What every trial of a run has in common. Fixed at its start: results under another one would not compare."""

    backend: str
    preset: str
    corpus: str
    """As it was asked for."""
    prepared: str
    """Folder of the prepared corpus."""
    prepared_sha256: str
    """Of everything that its trials read (see `data_sha256` in core.cli.start)."""
    vocabularies: tuple[int, ...]
    eval_seq_len: int
    score_rows: int
    train_seconds: float
    startup_seconds: float
    seed: int
    judge: str
    device: str
    ar_version: str
    calibrate: int = 1
    """Trials of the baseline before the first experiment."""
    machine: str = ""
    """Device, framework and driver, where this process runs. With `device` it may change; the judge then measures the
    baseline again."""

    def check_same(self, stored: dict[str, Any], tag: str) -> None:
        """Raises `UsageError` naming the first field that differs from the run's."""
        for name, mine in self.plain().items():
            if name in ("device", "machine"):
                continue
            if stored.get(name, 1 if name == "calibrate" else None) != mine:
                raise UsageError(
                    f"the run {tag!r} was started with {name} = {stored.get(name)!r}, and this is {mine!r}.",
                    fix="continue it with what it was started with, or start another run with --tag",
                )

    def plain(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
