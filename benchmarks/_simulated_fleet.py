"""The real loop, ledger, judge and git on simulated devices, in simulated time.

Only trials and a slow researcher take simulated time; the loop's own work takes none. Time moves on to the next end of
a trial, or to the next proposal, when the loop waits. Everything is drawn from seeds, so a run can be repeated.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoresearch.agent.tuner.surrogate import fit
from autoresearch.core.config import Preset, RunConfig
from autoresearch.core.events import Decided, Event, Observer, Proposing, Thinking
from autoresearch.core.judge.decision import Judge
from autoresearch.core.proposal import History, Proposal, Researcher
from autoresearch.core.run.loop import Ending, Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.store.git import run_git
from autoresearch.core.trial.request import TrialRequest, TrialResult

KNOBS, START, BEST = 8, 0.0, 2.0
"""Constants in the train file; the value of each at the start, and its best value."""
TRAIN = '''"""A train file whose score is a bowl over its constants."""

# ---- constants: what a preset sets
PRESET = "none"
VOCAB_SIZE = 256
{knobs}
# ---- end of constants


def build(spec):
    return ({names})
'''
SPAN = 4.0
"""Range of a constant that is a coordinate's 0 to 1 for the tuner's surrogate."""
DRAWS = 16
"""Moves of which a diverse batch takes the most different one."""
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
    """Read the constants of a train file."""
    return [float(value) for value in re.findall(r"^KNOB_\d+ = (-?[\d.]+)", source, re.M)]


def true_bpb(source: str) -> float:
    """Return the val_bpb of a train file without noise: a bowl whose sides flatten far out."""
    distance = sum((value - BEST) ** 2 for value in knobs(source)) / (KNOBS * (BEST - START) ** 2)
    return FLOOR_BPB + HEIGHT_BPB * (1 - math.exp(-distance))


class SimulatedClock:
    """The loop's clock, and the agenda of the simulation. Times are simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        """Proposals asked of a slow researcher and not released yet."""
        self._thinking = 0
        self._changes = self._seen = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._lock = threading.Condition()

    def monotonic(self) -> float:
        """Return the simulated time."""
        return self.now

    def wait(self, news: threading.Event, seconds: float) -> None:
        """Move on to the next event on the agenda, unless the loop's last turn has changed anything.

        The simulated time may pass `seconds`: nothing happens before the next event.
        """
        changed, self._seen = self._changes != self._seen, self._changes
        if changed or news.is_set():
            return
        with self._lock:
            # A thread that was started a moment ago draws its time first: the agenda is complete when all have.
            self._lock.wait_for(lambda: self._thinking == self.asked)
            if not self._agenda:
                return
            self.now, _, call = heapq.heappop(self._agenda)
        self.changed()
        call()
        news.wait()  # every event gives the loop news, if only from the researcher's thread

    def changed(self) -> None:
        """Note that the loop has done something, so that it gets another turn at this time."""
        self._changes += 1

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back when `seconds` have passed."""
        with self._lock:
            heapq.heappush(self._agenda, (self.now + seconds, next(self._order), call))

    def think(self, seconds: float) -> None:
        """Hold a researcher's thread until `seconds` have passed."""
        released = threading.Event()

        def release() -> None:
            with self._lock:
                self._thinking -= 1
                self.asked -= 1
            released.set()

        self.after(seconds, release)
        with self._lock:
            self._thinking += 1
            self._lock.notify_all()
        released.wait()


class Devices:
    """An executor of `count` devices. A trial takes 300 s of training, and a start-up and scoring that vary."""

    def __init__(self, clock: SimulatedClock, count: int, seed: int) -> None:
        self.clock, self.count = clock, count
        self._random = random.Random(seed)
        self.spans: list[tuple[float, float]] = []
        """Begin and end of every trial, in seconds."""
        self.sources: list[tuple[float, str]] = []
        """End of every trial in seconds, and its source."""

    def capacity(self) -> int:
        return self.count

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> SimulatedTrial:
        self.clock.changed()
        seconds = 310.0 + self._random.lognormvariate(math.log(30.0), 1.0)
        start = self.clock.now
        handle = SimulatedTrial(
            request, seconds, random.Random(f"{request.source}{request.seed}").gauss(0.0, NOISE_BPB)
        )

        def end() -> None:
            self.spans.append((start, self.clock.now))
            self.sources.append((self.clock.now, request.source))
            handle.end()

        self.clock.after(seconds, end)
        return handle

    def close(self) -> None:
        pass

    def utilisation(self, since: float, until: float) -> float:
        """Return the share of the devices' time between two moments in which trials ran, 0 to 1."""
        busy = sum(max(0.0, min(end, until) - max(start, since)) for start, end in self.spans)
        return busy / (self.count * (until - since))


class SimulatedTrial:
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


class Climber(Researcher):
    """A researcher that moves one or two constants of the incumbent at random, slow where `seconds` are given.

    With `diverse`, and edits of the incumbent under way, it draws `DRAWS` moves and takes the one that differs most
    from those, by the tuner's surrogate. It learns nothing from results either way.
    """

    name = "climber"

    def __init__(self, clock: SimulatedClock, seed: int, seconds: float = 0.0, *, diverse: bool = False) -> None:
        self.clock, self.seed, self.seconds, self.diverse = clock, seed, seconds, diverse
        self.thinks_ahead = seconds > 0

    def propose(self, history: History) -> Proposal:
        draws = random.Random(f"{self.seed} {self.clock.now} {history.turn}")
        if self.thinks_ahead:
            self.clock.think(self.seconds * draws.lognormvariate(0.0, 0.5))
        moves = [_move(draws) for _ in range(DRAWS if self.diverse else 1)]
        move = moves[most_different(moves, _under_way(history))]
        source, moved = history.incumbent.source, [int(knob) for knob in np.flatnonzero(move)]
        for knob in moved:
            value = knobs(source)[knob] + move[knob]
            source = re.sub(rf"^KNOB_{knob} = .*", f"KNOB_{knob} = {value:.6f}", source, flags=re.M)
        return Proposal(source, f"move {moved}", "optimizer", researcher=self.name)


def _move(draws: random.Random) -> np.ndarray:
    """Draw a step of one or two constants, float64 (KNOBS,)."""
    step, count = np.zeros(KNOBS), draws.choice((1, 1, 2))
    for knob in draws.sample(range(KNOBS), count):
        step[knob] = draws.gauss(0.0, 0.5)
    return step


def _under_way(history: History) -> list[np.ndarray]:
    """Return the steps of the edits of the incumbent that are in flight."""
    now = np.array(knobs(history.incumbent.source))
    mine = [one for one in history.in_flight if one.researcher == Climber.name]
    return [np.array(knobs(one.source)) - now for one in mine if one.parent == history.incumbent.experiment]


def most_different(moves: Sequence[np.ndarray], taken: Sequence[np.ndarray]) -> int:
    """Return the index of the move of which least is known once the `taken` ones are measured; 0 without any."""
    if not taken or len(moves) == 1:
        return 0
    points, known = np.array(moves) / SPAN, np.array(taken) / SPAN
    start = fit(np.zeros((1, KNOBS)), np.zeros(1, int), np.zeros(1), np.ones(KNOBS), 1.0)
    _, deviation = start.expecting(known, np.zeros(len(known), int)).predict(points, group=0)
    return int(np.argmax(deviation))


@dataclass(frozen=True)
class Simulated:
    """Result of a simulated run. Times are simulated seconds."""

    ending: Ending
    devices: Devices
    began: float
    """Time when the baseline was decided."""
    emptying: float
    """Last time at which there were experiments left for every device."""
    incumbents: tuple[str, ...]
    """Best source after each decision."""


def simulate(
    folder: Path,
    count: int,
    experiments: int,
    judge: Judge,
    *,
    seed: int = 0,
    think_seconds: float = 0.0,
    at_decision: Callable[[int, Run], None] = lambda _n, _run: None,
    researcher: Researcher | None = None,
    diverse: bool = False,
    idle: int = 0,
) -> Simulated:
    """Decide `experiments` experiments on `count` devices, in a new workspace; `diverse` is the climber's."""
    clock = SimulatedClock()
    devices = Devices(clock, count, seed)
    researcher = researcher or Climber(clock, seed, think_seconds, diverse=diverse)
    marks: dict[str, float] = {}
    incumbents: list[str] = []
    with Run(make_workspace(folder, idle), "t", replace(CONFIG, seed=seed), PRESET) as run:

        def observe(event: Event) -> None:
            clock.changed()
            if isinstance(event, Thinking | Proposing) and researcher.thinks_ahead:
                clock.asked += 1
            if isinstance(event, Decided):
                marks.setdefault("first", clock.now)
                if len(incumbents) < max(1, experiments - count):
                    marks["last"] = clock.now
                incumbents.append(run.ledger.text(run.ledger.experiment(run.incumbent_number()).source_sha256))
                at_decision(len(incumbents), run)

        loop = Loop(run, researcher, judge, devices, limits=Limits(experiments), observer=observe, clock=clock)
        ending = loop.go()
    return Simulated(ending, devices, marks["first"], marks["last"], tuple(incumbents))


def make_workspace(folder: Path, idle: int = 0) -> Path:
    """Make a workspace with one commit in `folder`, and return it. `idle` more constants change nothing."""
    (folder / "backends" / "null").mkdir(parents=True)
    lines = "\n".join(f"KNOB_{number} = {START}  # one of them" for number in range(KNOBS))
    lines += "".join(f"\nIDLE_{number} = {START}" for number in range(idle))
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
        run_git(folder, *arguments)
    return folder
