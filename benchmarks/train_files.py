"""Score a train file under equal processor time on one core: what a constant or an edit is worth, seed by seed.

    python -m benchmarks.train_files --backend cuda --preset cpu --seconds 60 --seeds 1,2,3 --set LATE_KEYS=0
    python -m benchmarks.train_files --corpus /tmp/prose --file mine.py --seconds 60

Every trial is a process of its own that trains on the real feed's rows by a clock that counts that process's seconds
on the core, and scores the preset's validation text as `ar` does, without sandbox and audit. On a machine that others
use, `--tokens` compares at equal tokens instead. Each trial is printed as a line of JSON, which `--log` also appends to
a file. `python -m benchmarks._prose FOLDER` makes a corpus of prose.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.backends.contract import BatchInfo, Spec
from autoresearch.core.config import Preset, data_dir, load_presets
from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.packing import Packer
from autoresearch.core.data.prepare import prepare
from autoresearch.core.data.shards import open_shard
from autoresearch.core.data.shuffle_buffer import ShuffleBuffer
from autoresearch.core.trainfile.constants import read_constants, write_constants, write_preset
from autoresearch.core.trial.evaluation import bits_per_byte, row_batches
from autoresearch.core.trial.sandbox.environment import ALLOCATOR
from benchmarks._backends import loadable

BACKENDS = Path(backends.__path__[0])


class ProcessorTime:
    """Implements `contract.Data` and `contract.Clock` by the processor's time of this process."""

    def __init__(
        self, prepared: Prepared, runtime: Any, vocabulary: int, seed: int, seconds: float, tokens: int = 0
    ) -> None:
        shards = [open_shard(path) for path in prepared.train_shards(vocabulary)]
        self._mixer, self._random = ShuffleBuffer(Packer(shards, seed), seed), np.random.default_rng(seed)
        self._runtime, self._vocabulary, self._started = runtime, vocabulary, 0.0
        self.budget, self.tokens, self.steps, self.losses = seconds, 0, 0, []
        self._most, self.trained = tokens, 0

    @property
    def startup(self) -> float:
        """Seconds of the processor before the first batch."""
        return self._started

    @property
    def elapsed(self) -> float:
        """Seconds of the processor since the first batch."""
        return time.process_time() - self._started if self._started else 0.0

    @property
    def progress(self) -> float:
        """Share of the budget."""
        return min(1.0, self.trained / self._most if self._most else self.elapsed / self.budget)

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.budget * (1 - self.progress)

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Keep the curve."""
        self.steps = int(step)
        self.losses.append((int(step), round(float(loss), 3)))

    def _pair(self, rows: np.ndarray) -> tuple[Any, Any]:
        return tuple(self._runtime.to_device(np.ascontiguousarray(part)) for part in (rows[:, :-1], rows[:, 1:]))

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Any, Any]]:
        """Random tokens."""
        while True:
            yield self._pair(self._random.integers(0, self._vocabulary, (batch, seq + 1)).astype(np.uint16))

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator[tuple[Any, Any, BatchInfo]]:
        """The feed's rows, until the next batch would pass the deadline."""
        self._started = self._started or time.process_time()
        intervals: list[float] = []
        while True:
            before = self.elapsed
            pace = statistics.median(intervals[-9:]) if intervals else 0.0
            if self.trained >= self._most if self._most else before + pace > self.budget:
                return
            rows = self._mixer.rows(packing, batch, seq)
            self.tokens += batch * seq
            self.trained += batch * seq
            yield *self._pair(rows), BatchInfo(epoch=self._mixer.epoch, tokens=self.tokens)
            intervals.append(self.elapsed - before)

    def documents(self) -> Iterator[np.ndarray]:
        """Whole documents, until the deadline."""
        self._started = self._started or time.process_time()
        while self.remaining:
            drawn = self._mixer.documents(1)[0]
            self.tokens += len(drawn)
            yield drawn


def load(source: str, folder: str) -> Any:
    """The train file as a module."""
    path = Path(folder) / "train.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("train_file", path)
    if spec is None or spec.loader is None:
        raise ImportError("the train file cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_file"] = module
    spec.loader.exec_module(module)
    return module


def trial(options: argparse.Namespace, source: str, prepared: Prepared, seed: int) -> dict[str, Any]:
    """One training and scoring in this process."""
    runtime = importlib.import_module(f"autoresearch.backends.{options.backend}.runtime")
    preset = preset_of(options)
    vocabulary, seq_len = read_constants(source)["VOCAB_SIZE"], preset.data.eval_seq_len
    runtime.seed(seed)
    if options.backend == "cuda":
        importlib.import_module("torch").set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train_file = load(source, folder)
        device = runtime.detect().kind
        spec = Spec(vocab_size=vocabulary, eval_seq_len=seq_len, seed=seed, device=device, tier=preset.name)
        data = ProcessorTime(prepared, runtime, vocabulary, seed, options.seconds, options.tokens)
        model = train_file.train(train_file.build(spec), data, data)
        seconds, losses = data.elapsed, []
        scored = prepared.scored_rows("val", vocabulary, seq_len)
        with runtime.inference(model):
            for rows in row_batches(scored.rows, preset.score_rows):
                inputs, targets = (
                    runtime.to_device(np.ascontiguousarray(part)) for part in (rows[:, :-1], rows[:, 1:])
                )
                losses.append(runtime.nll(train_file.logits(model, inputs), targets))
    nll = np.concatenate(losses).reshape(-1, seq_len)[: len(scored.rows)]
    return {
        "seed": seed,
        "bpb": round(bits_per_byte(nll, scored.mask, scored.total_bytes), 4),
        "tokens": data.tokens,
        "trained": data.trained,
        "steps": data.steps,
        "parameters": runtime.parameter_count(model),
        "seconds": round(seconds, 1),
        "loss": data.losses[:: max(1, len(data.losses) // 12)],
    }


def preset_of(options: argparse.Namespace) -> Preset:
    """The preset that was asked for."""
    return load_presets(options.presets or BACKENDS / options.backend / "presets.toml")[options.preset]


def source_of(options: argparse.Namespace) -> str:
    """The file under test with the preset's constants and those given."""
    file = options.file or BACKENDS / options.backend / "train.py"
    source = write_preset(Path(file).read_text(encoding="utf-8"), preset_of(options))
    given = dict(item.split("=", 1) for item in options.set)
    return write_constants(source, {name: ast.literal_eval(value) for name, value in given.items()})


def run() -> list[dict[str, Any]]:
    """A trial of the `cpu` preset of every backend that runs here, sixty processor seconds of training."""
    rows = []
    for backend, _ in loadable(("cuda", "mlx")):
        command = [sys.executable, "-m", "benchmarks.train_files", "--backend", backend, "--seeds", "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[0])
        note = f"{found['steps']} steps, seed 1, stdlib"
        rows.append(
            {"name": f"{backend}: val_bpb, cpu preset", "median": found["bpb"], "unit": "bits/byte", "note": note}
        )
    return rows


def main() -> None:
    """Run the trials one after another; print each and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--presets", type=Path, help="File of presets other than the backend's own")
    parser.add_argument("--corpus", default="stdlib", help="stdlib, or a folder of text")
    parser.add_argument("--file", type=Path, help="Train file other than the backend's own")
    parser.add_argument("--seconds", type=float, default=60.0, help="Processor seconds of training")
    parser.add_argument("--tokens", type=int, default=0, help="Tokens to train on, whatever time that takes")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--label", default="")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    source, preset = source_of(options), preset_of(options)
    held_out = {"val_bytes": preset.data.val_bytes, "test_bytes": preset.data.test_bytes}
    prepare_options = PrepareOptions(
        corpus=options.corpus,
        vocabularies=(read_constants(source)["VOCAB_SIZE"],),
        seq_lens=(preset.data.eval_seq_len,),
        **held_out,
    )
    prepared = prepare(prepare_options, data_dir(), lambda line: print(line, file=sys.stderr))
    if options.child:
        stdout, sys.stdout = sys.stdout, sys.stderr
        print(json.dumps(trial(options, source, prepared, int(options.child))), file=stdout)
        return
    runtime = importlib.import_module(f"autoresearch.backends.{options.backend}.runtime")
    one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = {**os.environ, **ALLOCATOR, **runtime.launch_environment(), **one_core}
    scores = []
    for seed in options.seeds.split(","):
        command = [sys.executable, "-m", "benchmarks.train_files", *sys.argv[1:], "--child", seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr)
            sys.exit(1)
        found = json.loads(done.stdout.splitlines()[-1])
        named = {name: getattr(options, name) for name in ("backend", "preset", "corpus", "seconds", "label", "set")}
        line = json.dumps({**named, **found})
        print(line, flush=True)
        scores.append(found["bpb"])
        if options.log:
            with options.log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    spread = statistics.stdev(scores) if len(scores) > 1 else math.nan
    print(f"{options.label} {' '.join(options.set)}: mean {statistics.mean(scores):.4f}, spread {spread:.4f}")


if __name__ == "__main__":
    main()
