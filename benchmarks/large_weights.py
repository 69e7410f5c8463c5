"""Weights of several gigabytes on their way from training to the score: seconds of a whole trial of the null backend.

The train file of the null backend gets a table of that size, of which training touches nothing. The time between the
deadline and the announced weights is what a trial limits; with weights on disk it depends on the disk.

    python -m benchmarks.large_weights [--gigabytes N] [--disk]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.events import Event
from autoresearch.core.trial import training
from autoresearch.core.trial.request import TrialTerms
from autoresearch.core.trial.supervisor import run_trial
from autoresearch.core.trial.weights import memory_room
from benchmarks.trial_overhead import prepared_for

TRAIN_SECONDS = 20.0
GRACE_SECONDS = 60.0
"""Seconds that this benchmark lets the weights take: it measures how many are needed."""
TABLE = '''
inner_build, inner_train = build, train

def build(spec):
    return {{**inner_build(spec), "large": np.zeros(({rows}, 1000), np.float32)}}

def train(model, data, clock):
    """Train the rest: Adagrad would touch the whole table."""
    large = model.pop("large")
    return {{**inner_train(model, data, clock), "large": large}}
'''


def measure(gigabytes: float, *, disk: bool = False) -> dict[str, Any]:
    """Return the seconds of each stretch of the trial, its outcome and where the weights went."""
    folder = Path(backends.__path__[0]) / "null"
    preset = load_presets(folder / "presets.toml")["demo"]
    source = (folder / "train.py").read_text(encoding="utf-8") + TABLE.format(rows=int(gigabytes * 1e9 / 4000))
    room = memory_room()
    if disk:
        training.memory_room = lambda: 0  # type: ignore[attr-defined]
    moments: dict[str, float] = {}

    def note(event: Event) -> None:
        moments.setdefault(event.name, time.monotonic())

    with tempfile.TemporaryDirectory() as name:
        terms = TrialTerms.of_preset("null", preset, prepared_for(preset).folder, TRAIN_SECONDS)
        terms = replace(terms, budget=replace(terms.budget, grace_floor_seconds=GRACE_SECONDS), weights_limit_mb=10**5)
        started = time.monotonic()
        result = run_trial(replace(terms.request(source, Path(name, "trial")), gate=False), observer=note)
        ended = time.monotonic()
    return {
        "gigabytes": gigabytes,
        "in memory": not disk and gigabytes * 1e9 <= room,
        "status": result.status,
        "reason": result.reason,
        "start": moments["first_batch"] - started,
        "written, sealed and checked": moments.get("frozen", ended) - moments["trained"],
        "copied, loaded and scored": moments.get("scored", ended) - moments.get("frozen", ended),
        "audited, and the rest": ended - moments.get("scored", ended),
    }


def run() -> list[dict[str, Any]]:
    """Rows for the results page, at a size that any machine holds."""
    found = measure(1.0)
    names = ("written, sealed and checked", "copied, loaded and scored", "audited, and the rest")
    return [{"name": name, "median": found[name], "unit": "s", "note": "1 GB, null backend"} for name in names]


def main() -> None:
    """Print one measurement as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_weights", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--disk", action="store_true", help="pass them by the disk, as where memory is short")
    options = parser.parse_args()
    print(json.dumps(measure(options.gigabytes, disk=options.disk), indent=1))


if __name__ == "__main__":
    main()
