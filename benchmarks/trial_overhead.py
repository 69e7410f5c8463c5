"""What a trial costs outside its training budget, on the demo preset: start-up, weights, scoring, audit and the rest.

The null backend is measured at every isolation level: the difference is what the sandbox costs.

Goal for `cuda` on two CPU cores: at most 12 s without the audit, which only a trial that could become a keep pays.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.config import Preset, data_dir, load_presets
from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.prepare import prepare
from autoresearch.core.store.constants import write_preset
from autoresearch.core.trial.environment import load_runtime
from autoresearch.core.trial.result import Budget, IsolationLevel, TrialRequest, TrialResult
from autoresearch.core.trial.sandbox import levels
from autoresearch.core.trial.supervisor import run_trial

TRAIN_SECONDS = {"null": 0.5, "cuda": 2.0, "mlx": 2.0}
"""Short: what is measured lies outside."""
REPEATS = {"null": 5, "cuda": 3, "mlx": 3}


def run() -> list[dict[str, Any]]:
    """Every backend that runs here: `name`, `median`, `unit`, `note` for each part."""
    rows = []
    for backend in TRAIN_SECONDS:
        try:
            load_runtime(backend)
        except Exception as error:
            print(f"  {backend} left out: {error}", file=sys.stderr)
            continue
        rows += measure(backend)
    return rows + [
        row
        for status in levels()
        if status.available
        for row in measure("null", status.level)
        if row["name"].endswith(": all")
    ]


def measure(backend: str, level: IsolationLevel | None = None) -> list[dict[str, Any]]:
    """The parts of several trials of one backend, the first of which only warms the caches."""
    folder = Path(backends.__path__[0]) / backend
    preset = load_presets(folder / "presets.toml")["demo"]
    source = write_preset((folder / "train.py").read_text(encoding="utf-8"), preset)
    prepared = prepared_for(preset)
    samples = [one(backend, preset, source, prepared, level) for _ in range(REPEATS[backend] + 1)][1:]
    parts = {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
    note = f"{TRAIN_SECONDS[backend]:g} s of training, {len(samples)} trials"
    title = f"{backend} at level {level}" if level else backend
    return [
        {"name": f"{title}: {part}", "median": seconds, "unit": "s", "note": note} for part, seconds in parts.items()
    ]


def one(
    backend: str, preset: Preset, source: str, prepared: Prepared, level: IsolationLevel | None
) -> dict[str, float]:
    """One trial's seconds by part."""
    with tempfile.TemporaryDirectory() as folder:
        request = TrialRequest(
            source=source,
            backend=backend,
            preset=preset.name,
            prepared=prepared.folder,
            eval_seq_len=preset.data.eval_seq_len,
            score_rows=preset.score_rows,
            folder=Path(folder),
            isolation=level,
            budget=Budget(TRAIN_SECONDS[backend], preset.startup_seconds),
        )
        result = run_trial(request)
        if result.status != "ok":
            raise RuntimeError(f"{backend}: {result.status}: {result.reason}")
        events = [json.loads(line) for line in (Path(folder) / "events.jsonl").read_text().splitlines()]
    return parts_of(result, events)


def parts_of(result: TrialResult, events: list[dict[str, Any]]) -> dict[str, float]:
    """From the recorded events: {"t": seconds since the trial's start, "event": ...}."""

    def at(name: str, role: str | None = None) -> float:
        return next(float(e["t"]) for e in events if e["event"] == name and e.get("role") == role)

    total = float(result.wall_seconds or 0.0) - float(result.train_seconds or 0.0)
    start_up = float(result.startup_seconds or 0.0)
    weights = at("spawned", "score") - at("trained")
    scoring = at("scored") - at("spawned", "score")
    audit = at("finished") - at("scored")
    return {
        "start-up": start_up,
        "weights saved, checked, child reaped": weights,
        "scoring": scoring,
        "audit": audit,
        "bookkeeping": total - start_up - weights - scoring - audit,
        "all without the audit": total - audit,
        "all": total,
    }


def prepared_for(preset: Preset) -> Prepared:
    """The preset's corpus, prepared once for all."""
    fields = {field.name for field in dataclasses.fields(PrepareOptions)}
    known = {name: value for name, value in preset.data.model_dump().items() if name in fields}
    options = PrepareOptions(**known, seq_lens=(preset.data.eval_seq_len,))
    return prepare(options, data_dir(), lambda line: print(f"  {line}", file=sys.stderr))
