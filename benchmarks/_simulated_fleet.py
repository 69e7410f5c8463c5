"""The real loop, ledger, judge and git on devices that are played, in simulated time.

Only trials and thoughts take simulated time; what the loop itself does takes none. Time moves on to the next end of a
trial or of a thought when the loop has nothing left to do. Everything is drawn from seeds, so a run can be repeated.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoresearch.core.config import Preset, RunConfig
from autoresearch.core.fleet.executor import Observer
from autoresearch.core.judge.decision import Judge
from autoresearch.core.proposal import History, Proposal
from autoresearch.core.run import loop as loop_module
from autoresearch.core.run.loop import Ending, Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.trial.request import TrialRequest, TrialResult

KNOBS, START, BEST = 8, 0.0, 2.0
"""Constants of the train file; where they begin, and where each is best."""
TRAIN = '''"""A train file whose score is a bowl over its constants."""

# ---- constants: what a preset sets
PRESET = "none"
VOCAB_SIZE = 256
{knobs}
# ---- end of constants


def build(spec):
    return ({names})
'''
FLOOR_BPB, HEIGHT_BPB = 1.0, 0.5
NOISE_BPB = 0.002
CONFIG = RunConfig(
    backend="null",
    preset="demo",
    corpus="stdlib",
    prepared="/nowhere",
    prepared_sha256="0" * 64,
    vocabularies=(256,),
    eval_seq_len=64,
    score_rows=4,
    train_seconds=300.0,
    startup_seconds=300.0,
    seed=7,
    judge="racing",
    device="simulated",
    ar_version="0",
    calibrate=2,
)
PRESET = Preset.model_validate(
    {
        "name": "demo",
        "description": "simulated",
        "train_seconds": 300.0,
        "score_rows": 4,
        "constants": {},
        "data": {"corpus": "stdlib", "vocabularies": [256], "eval_seq_len": 64, "val_bytes": 1, "test_bytes": 1},
    }
)


def knobs(source: str) -> list[float]:
    """The constants of a train file."""
    return [float(value) for value in re.findall(r"^KNOB_\d+ = (-?[\d.]+)", source, re.M)]


def true_bpb(source: str) -> float:
    """Without noise: a bowl whose sides flatten far out."""
    distance = sum((value - BEST) ** 2 for value in knobs(source)) / (KNOBS * (BEST - START) ** 2)
    return FLOOR_BPB + HEIGHT_BPB * (1 - math.exp(-distance))


@dataclass
class Clock:
    """Simulated time, and what will happen in it."""

    now: float = 0.0
    changes: int = 0
    """Grows whenever something is done."""
    _coming: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back when that much time has passed."""
        with self._lock:
            heapq.heappush(self._coming, (self.now + seconds, next(self._order), call))

    def advance(self) -> None:
        """On to the next thing that happens."""
        with self._lock:
            if not self._coming:
                return
            self.now, _, call = heapq.heappop(self._coming)
        self.changes += 1
        call()


class Devices:
    """An executor of so many devices. A trial takes 300 s of training and a start-up and scoring that vary."""

    def __init__(self, clock: Clock, count: int, seed: int) -> None:
        self.clock, self.count = clock, count
        self._random = random.Random(seed)
        self.spans: list[tuple[float, float]] = []
        """Of every trial: from when to when it had a device."""
        self.sources: list[tuple[float, str]] = []
        """Ends of trials, and what they ran."""

    def capacity(self) -> int:
        return self.count

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> Played:
        self.clock.changes += 1
        seconds = 310.0 + self._random.lognormvariate(math.log(30.0), 1.0)
        start = self.clock.now
        handle = Played(request, seconds, random.Random(f"{request.source}{request.seed}").gauss(0.0, NOISE_BPB))

        def end() -> None:
            self.spans.append((start, self.clock.now))
            self.sources.append((self.clock.now, request.source))
            handle.end()

        self.clock.after(seconds, end)
        return handle

    def close(self) -> None:
        pass

    def utilisation(self, since: float, until: float) -> float:
        """Share of the devices' time between two moments in which trials ran."""
        busy = sum(max(0.0, min(end, until) - max(start, since)) for start, end in self.spans)
        return busy / (self.count * (until - since))


class Played:
    """A trial in flight."""

    def __init__(self, request: TrialRequest, seconds: float, noise: float) -> None:
        self.request, self.seconds, self.noise = request, seconds, noise
        self._ended = False
        self._call: Callable[[], None] = lambda: None

    def end(self) -> None:
        self._ended = True
        self._call()

    def done(self) -> bool:
        return self._ended

    def on_done(self, call: Callable[[], None]) -> None:
        self._call = call

    def result(self, timeout: float | None = None) -> TrialResult:
        return TrialResult(
            status="ok",
            val_bpb=true_bpb(self.request.source) + self.noise,
            tokens=10**8,
            wall_seconds=self.seconds,
            seed=self.request.seed,
            backend="null",
            preset="demo",
        )

    def cancel(self) -> None:
        self.end()


class Climber:
    """Moves one or two constants of the incumbent at random; slow to answer where `seconds` are given."""

    name = "climber"

    def __init__(self, clock: Clock, seed: int, seconds: float = 0.0) -> None:
        self.clock, self.seed, self.seconds = clock, seed, seconds
        self.thinks_ahead = seconds > 0
        self.blocked = 0
        """Thoughts that wait for simulated time to pass."""
        self._lock = threading.Lock()

    def propose(self, history: History) -> Proposal:
        draws = random.Random(f"{self.seed} {self.clock.now} {history.turn}")
        if self.thinks_ahead:
            self._think(self.seconds * draws.lognormvariate(0.0, 0.5))
        source, moved = history.incumbent.source, draws.sample(range(KNOBS), draws.choice((1, 1, 2)))
        for knob in moved:
            value = knobs(source)[knob] + draws.gauss(0.0, 0.5)
            source = re.sub(rf"^KNOB_{knob} = .*", f"KNOB_{knob} = {value:.6f}", source, flags=re.M)
        return Proposal(source, f"move {moved}", "optimizer", researcher=self.name)

    def _think(self, seconds: float) -> None:
        answered = threading.Event()

        def answer() -> None:
            with self._lock:
                self.blocked -= 1
            answered.set()

        self.clock.after(seconds, answer)
        with self._lock:
            self.blocked += 1
        answered.wait()


class SimulatedLoop(Loop):
    """Lets simulated time pass when a turn has changed nothing."""

    clock: Clock

    def _turn(self) -> None:
        before = self.clock.changes
        super()._turn()
        if self.clock.changes != before:
            return
        researcher: Any = self._thinkers.researcher
        while self._thinkers._working != researcher.blocked:
            self._news.wait(0.001)  # a thread has just been started, or is about to hand in its answer
            self._news.clear()
        if self.clock.changes == before and not self._thinkers._thoughts:
            self.clock.advance()


@dataclass(frozen=True)
class Simulated:
    """What came of a run."""

    ending: Ending
    devices: Devices
    began: float
    """When the baseline was decided."""
    emptying: float
    """Until when there were experiments left for every device."""
    incumbents: tuple[str, ...]
    """After each decision, the best source."""


def simulate(
    folder: Path,
    count: int,
    experiments: int,
    judge: Judge,
    *,
    seed: int = 0,
    think_seconds: float = 0.0,
    at_decision: Callable[[int, Run], None] = lambda _n, _run: None,
) -> Simulated:
    """`experiments` decided experiments on `count` devices, in a new workspace."""
    clock = Clock()
    devices, researcher = Devices(clock, count, seed), Climber(clock, seed, think_seconds)
    marks: dict[str, float] = {}
    incumbents: list[str] = []
    loop_module.POLL_SECONDS = 0.0  # nothing comes by itself
    with Run(make_workspace(folder), "t", replace(CONFIG, seed=seed), PRESET) as run:

        def observe(event: Mapping[str, Any]) -> None:
            clock.changes += 1
            if event["event"] == "decided":
                marks.setdefault("first", clock.now)
                if len(incumbents) < max(1, experiments - count):
                    marks["last"] = clock.now
                incumbents.append(run.ledger.text(run.ledger.experiment(run.incumbent_number()).source_sha256))
                at_decision(len(incumbents), run)

        job = SimulatedLoop(run, researcher, judge, devices, limits=Limits(experiments), observer=observe)
        job.clock = clock
        ending = job.go()
    return Simulated(ending, devices, marks["first"], marks["last"], tuple(incumbents))


def make_workspace(folder: Path) -> Path:
    """A committed workspace."""
    (folder / "backends" / "null").mkdir(parents=True)
    lines = "\n".join(f"KNOB_{number} = {START}  # one of them" for number in range(KNOBS))
    names = ", ".join(f"KNOB_{number}" for number in range(KNOBS))
    (folder / "backends/null/train.py").write_text(TRAIN.format(knobs=lines, names=names))
    (folder / "program.md").write_text("make it lower\n")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("config", "user.name", "bench"),
        ("config", "user.email", "bench@localhost"),
        ("add", "."),
        ("commit", "-q", "-m", "start"),
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder
