"""Measure one backend: the peak speed of its matrix products, and real trials compared with it."""

from __future__ import annotations

import platform
import statistics
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from autoresearch.backends.contract import Device
from autoresearch.core.bench.anatomy import Events, LossCurve, curve_of, take_apart
from autoresearch.core.bench.work import Work
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import TrialError, system_words
from autoresearch.core.events import Observer, read_events
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.trainfile.constants import read_constants
from autoresearch.core.trial.device import cores, measure_peak, write_peaks
from autoresearch.core.trial.processes import TrialCancelled
from autoresearch.core.trial.request import TrialRequest, TrialResult

Tell = Callable[[str], None]
"""Function that takes a line for a person."""
WAIT_SECONDS = 0.2
LABELS = ("backend", "preset", "seed", "precision", "hardware", "isolation")
"""Fields of a row that are not figures."""


class Hardware(BaseModel):
    """The machine that a figure was measured on. Figures of different machines do not compare."""

    model_config = ConfigDict(frozen=True)
    device: str
    kind: str
    memory_mb: float | None
    precision: str
    framework: str
    driver: str | None
    cores: int
    system: str
    python: str

    def place(self) -> str:
        """Describe the device and the number of cores in words."""
        return f"{self.device}, {self.cores} core{'s' if self.cores > 1 else ''}"


class BenchRow(BaseModel):
    """The figures of one trial of one backend. An unknown figure is None. Times are in seconds."""

    model_config = ConfigDict(frozen=True)
    backend: str
    preset: str
    seed: int
    precision: str
    """Number format of the train file's computation: "fp32" or "bf16"."""
    hardware: Hardware
    isolation: str | None
    budget: float
    val_bpb: float | None
    tokens: int | None
    tokens_per_second: float | None
    steps: int | None
    step_seconds: float | None
    """Training time divided by the number of steps that the train file reports."""
    flops_per_token: float | None
    claimed_flops_per_token: float | None
    mfu: float | None
    """Model FLOPs utilization: `flops_per_token`, as the core counts them, times speed, over the measured peak."""
    claimed_mfu: float | None
    """`mfu` with the train file's own count of FLOPs, which includes attention."""
    peak_memory_mb: float | None
    peak_host_memory_mb: float | None
    start_up: float
    freezing: float
    scoring: float
    audit: float
    ending: float
    outside: float
    """Seconds of the trial that are not training."""
    outside_share: float
    """`outside` as a share of the training budget."""


@dataclass(frozen=True)
class BackendMeasurement:
    """The trials of one backend, and the facts that they share."""

    backend: str
    device: Device
    hardware: Hardware
    peak: dict[str, float]
    """FLOP/s of the fastest square matrix products, by precision, measured just before the trials."""
    rows: list[BenchRow]
    curves: list[LossCurve]

    @property
    def precision(self) -> str:
        """Number format of the train file's computation; "" without a row."""
        return self.rows[0].precision if self.rows else ""

    def median(self, name: str) -> float | None:
        """Return the median of a figure over all rows. None when a row lacks it."""
        values = [getattr(row, name) for row in self.rows]
        return None if None in values else statistics.median(values)

    def as_json(self) -> dict[str, Any]:
        """Return the object that --json prints and that benchmarks/RESULTS.md is made from."""
        names = [name for name in BenchRow.model_fields if name not in LABELS]
        return {
            "backend": self.backend,
            "hardware": self.hardware.model_dump(),
            "peak_flops": self.peak,
            "data_sheet_flops": self.device.peak_flops,
            "median": {name: self.median(name) for name in names},
            "rows": [row.model_dump() for row in self.rows],
            "curves": [asdict(curve) for curve in self.curves],
        }


def describe(device: Device) -> Hardware:
    """Collect the hardware fields of every row."""
    return Hardware(
        device=device.name,
        kind=device.kind,
        memory_mb=device.memory_mb,
        precision=device.precision,
        framework=device.framework,
        driver=device.driver,
        cores=cores(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )


def find_peak(backend: str, tell: Tell) -> tuple[Device, dict[str, float]]:
    """Measure the peak FLOP/s by precision and store it for `mfu` in later trials. Empty for the null backend.

    Where it cannot be stored, `tell` is called with the reason: the trials of this call have it all the same.
    """
    device, peak = measure_peak(backend)
    if peak:
        try:
            write_peaks(device, peak)
        except OSError as error:
            tell(f"the peak of {device.name} cannot be stored for later trials: {system_words(error)}")
    return device, peak


class BackendBench:
    """Runs trials of any backend through the executor that `ar loop` uses."""

    def __init__(self, folder: Path, prepared: Prepared, observer: Observer | None, cancel: threading.Event) -> None:
        self._folder, self._prepared, self._observer, self._cancel = folder, prepared, observer, cancel

    def trial(
        self, work: Work, seconds: float, seed: int, device: Device, peak: dict[str, float]
    ) -> tuple[BenchRow, LossCurve]:
        """Run one trial. Raises `TrialError` when it does not end well, `TrialCancelled` when it was stopped."""
        folder = self._folder / f"{work.backend}-{seed}"
        terms = replace(work.terms(self._prepared.folder, seconds), device_kind=device.kind)
        request = terms.request(work.source, folder, seed)
        result = self._run(request)
        if result.status != "ok":
            raise TrialError(
                f"the {work.backend} trial with seed {seed} ended as {result.status}: {result.reason}.",
                fix=f"see {result.log}.",
            )
        events = read_events(folder)
        try:
            return row_of(result, events, work, seconds, device, peak), curve_of(events)
        except ValueError as error:
            raise TrialError(f"the {work.backend} trial with seed {seed} cannot be measured: {error}.") from error

    def _run(self, request: TrialRequest) -> TrialResult:
        executor = LocalExecutor()
        try:
            handle = executor.submit(request, self._observer)
            while True:
                if self._cancel.is_set():
                    raise TrialCancelled("the measurement was stopped.")
                try:
                    return handle.result(WAIT_SECONDS)
                except TimeoutError:
                    continue
        finally:
            executor.close()


def row_of(
    result: TrialResult,
    events: Events,
    work: Work,
    seconds: float,
    device: Device,
    peak: dict[str, float],
) -> BenchRow:
    """Compute a trial's figures. Raises `ValueError` when an event is missing."""
    parts = take_apart(events)
    precision = precision_of(work, device)
    yardstick = peak.get(precision)
    speed = result.tokens_per_second

    def share(flops: float | None) -> float | None:
        return flops * speed / yardstick if flops and speed and yardstick else None

    return BenchRow(
        backend=work.backend,
        preset=work.preset,
        seed=result.seed,
        precision=precision,
        hardware=describe(device),
        isolation=result.isolation,
        budget=seconds,
        val_bpb=result.val_bpb,
        tokens=result.tokens,
        tokens_per_second=speed,
        steps=result.steps,
        step_seconds=parts.training / result.steps if result.steps else None,
        flops_per_token=result.flops_per_token,
        claimed_flops_per_token=result.claimed_flops_per_token,
        mfu=share(result.flops_per_token),
        claimed_mfu=share(result.claimed_flops_per_token),
        peak_memory_mb=result.peak_memory_mb,
        peak_host_memory_mb=result.peak_host_memory_mb,
        start_up=parts.start_up,
        freezing=parts.freezing,
        scoring=parts.scoring,
        audit=parts.audit,
        ending=parts.ending,
        outside=parts.outside,
        outside_share=parts.outside / seconds,
    )


def precision_of(work: Work, device: Device) -> str:
    """Read the number format from the file's constant PRECISION; "auto" means the device's own."""
    asked = read_constants(work.source).get("PRECISION", "auto")
    return str(asked) if asked in ("fp32", "bf16") else device.precision


def measure(work: Work, bench: BackendBench, seconds: float, seeds: list[int], tell: Tell) -> BackendMeasurement:
    """Measure the peak, then run one trial per seed. `seconds` is the training time of a trial."""
    tell(f"{work.backend}: measuring matrix products")
    device, peak = find_peak(work.backend, tell)
    done = []
    for seed in seeds:
        tell(f"{work.backend}: training for {seconds:g} s, seed {seed}")
        done.append(bench.trial(work, seconds, seed, device, peak))
    return BackendMeasurement(
        work.backend, device, describe(device), peak, [row for row, _ in done], [curve for _, curve in done]
    )
