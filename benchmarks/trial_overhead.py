"""What a trial costs outside its training budget, on the demo preset: start-up, weights, scoring, audit and the rest.

The null backend is measured at every isolation level: the difference is what the sandbox costs.

Goal for `cuda` on two CPU cores: at most 12 s without the audit, which only a trial that could become a keep pays.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.bench.anatomy import take_apart
from autoresearch.core.config import Preset, data_dir, load_presets
from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.prepare import prepare
from autoresearch.core.events import read_events
from autoresearch.core.trainfile.constants import write_preset
from autoresearch.core.trial.request import IsolationLevel, TrialTerms
from autoresearch.core.trial.sandbox.environment import load_runtime
from autoresearch.core.trial.sandbox.levels import levels
from autoresearch.core.trial.supervisor import run_trial

TRAIN_SECONDS = {"null": 0.5, "cuda": 2.0, "mlx": 2.0}
"""Short: what is measured lies outside."""
LONG_SECONDS = 300.0
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
    return [*rows, *shares(rows)] + [
        row
        for status in levels()
        if status.available
        for row in measure("null", status.level)
        if row["name"].endswith(": all")
    ]


def shares(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the same seconds would be of the trials that people run."""
    return [
        {
            "name": f"{row['name']}, as a share of {LONG_SECONDS:g} s",
            "median": 100 * row["median"] / LONG_SECONDS,
            "unit": "%",
            "note": "computed; goal: at most 3",
        }
        for row in rows
        if row["name"].endswith(": all") and not row["name"].startswith("null")
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
        terms = TrialTerms.of_preset(backend, preset, prepared.folder, TRAIN_SECONDS[backend])
        request = replace(terms.request(source, Path(folder)), isolation=level)
        result = run_trial(request)
        if result.status != "ok":
            raise RuntimeError(f"{backend}: {result.status}: {result.reason}")
        parts = take_apart(read_events(Path(folder)))
    return {
        "start-up": parts.start_up,
        "weights saved, checked, child reaped": parts.freezing,
        "scoring": parts.scoring,
        "audit": parts.audit,
        "end": parts.ending,
        "all without the audit": parts.outside - parts.audit,
        "all": parts.outside,
    }


def prepared_for(preset: Preset) -> Prepared:
    """The preset's corpus, prepared once for all."""
    fields = {field.name for field in dataclasses.fields(PrepareOptions)}
    known = {name: value for name, value in preset.data.model_dump().items() if name in fields}
    options = PrepareOptions(**known, seq_lens=(preset.data.eval_seq_len,))
    return prepare(options, data_dir(), lambda line: print(f"  {line}", file=sys.stderr))
