"""Train and score sources of a finished run again, in trials that belong to no experiment.

Every trial that ended well is noted in the ledger, so that a call which is interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from autoresearch.core.errors import ArError
from autoresearch.core.events import Observer
from autoresearch.core.report.wording import spell
from autoresearch.core.run.rerun_policy import asleep_seconds, speeds, spoiled
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ran_on
from autoresearch.core.trial.request import TrialRequest, TrialResult, TrialTerms
from autoresearch.core.trial.supervisor import run_trial

SEEDS_PER_CALL = 1000
"""Seeds set aside for each call of a command, so that no two calls train with the same seed."""
NOTED = "followup trial"
"""Kind of the ledger's events about single trials."""
UNKNOWN_OVERHEAD = 10.0
"""Seconds beyond training that a trial is expected to take when the run has recorded none."""


@dataclass(frozen=True)
class Outcome:
    """The end of one trial."""

    val_bpb: float | None
    """Bits per byte; None when the trial did not end well."""
    reason: str = ""
    """The trial's status and its reason, when it did not end well."""
    wall_seconds: float | None = None
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class Call:
    """One call of a command on a run: what it has measured before, and where it notes what it measures."""

    command: str
    number: int
    """Counts the command's finished calls for this run, from 1."""
    done: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Notes of the trials that an interrupted call has finished, by the trial's name."""
    note: Callable[[Mapping[str, Any]], None] = lambda _: None

    @classmethod
    def of(cls, ledger: Ledger, command: str, number: int, machine: Callable[[], str]) -> Call:
        """Find the finished trials of this call in the ledger; those of another machine are left out.

        `machine` finds the present one. It is called only where there is something to compare.
        """
        notes = [one for one in ledger.events(NOTED) if (one.get("command"), one.get("call")) == (command, number)]
        here = machine() if any(one.get("machine") for one in notes) else ""
        done = {str(one.get("name")): one for one in notes if not one.get("machine") or one["machine"] == here}
        return cls(command, number, done, lambda payload: ledger.note(NOTED, None, payload))


@dataclass
class Countdown:
    """Says before each trial how many are left, and about how long they take."""

    say: Callable[[str], None] = lambda _: None
    trials: int = 0
    """Trials expected in all."""
    seconds: float = 0.0
    """Their expected duration."""
    overhead: float = 0.0
    """Seconds that a trial takes beyond its training."""
    _made: int = 0
    _expected: float = 0.0
    _took: float = 0.0

    def begin(self, name: str, train_seconds: float) -> float:
        """Announce a trial; return the time, for `end`."""
        self._made += 1
        self.trials = max(self.trials, self._made)
        pace = self._took / self._expected if self._expected else 1.0
        rest = max(self.seconds - self._expected, self.overhead + train_seconds) * pace
        self.say(f"trial {self._made} of {self.trials} ({name}), about {spell(rest)} left")
        return time.monotonic()

    def end(self, begun: float, train_seconds: float) -> None:
        """Take in how long the trial took."""
        self._expected += self.overhead + train_seconds
        self._took += time.monotonic() - begun

    def add(self, train_seconds: float, trials: int) -> None:
        """Expect more trials."""
        self.trials += trials
        self.seconds += trials * (self.overhead + train_seconds)

    def skip(self, train_seconds: float) -> None:
        """Count a trial that an interrupted call has run."""
        self._made += 1
        self.seconds -= self.overhead + train_seconds

    def drop(self, train_seconds: float, trials: int = 1) -> None:
        """Take trials off that will not run."""
        self.trials -= trials
        self.seconds -= trials * (self.overhead + train_seconds)


@dataclass(frozen=True)
class Remeasurer:
    """Runs trials with the settings of a finished run, one at a time on this machine."""

    config: Mapping[str, Any]
    """The run's settings, as its ledger records them."""
    folder: Path
    """The folder that gets a subfolder for every trial, with its log and events."""
    split: Literal["val", "test"]
    """The text that is scored."""
    first_seed: int
    """Seed of each source's first trial; the next ones count up."""
    observer: Observer | None = None
    cancel: threading.Event | None = None
    usual: dict[str, list[float]] = field(default_factory=dict)
    """Tokens per second of each source's trials so far. A new source is compared with the first one in here."""
    say: Callable[[str], None] = lambda _: None
    """Is told why a trial is run once more."""
    call: Call = field(default_factory=lambda: Call("", 1))
    countdown: Countdown = field(default_factory=Countdown)
    excused: set[str] = field(default_factory=set)
    """Sources that had a trial which was run once more."""

    def measure(self, name: str, source: str, seed: int) -> float:
        """Run one trial and return its bits per byte on `split`. Raises `ArError` when it does not end well."""
        outcome = self.outcome(name, source, seed)
        if outcome.val_bpb is None:
            fix = f"look at {self.folder / name / 'run.log'}"
            raise ArError(f"the trial {name} ended as {outcome.reason}.", fix=fix)
        return outcome.val_bpb

    def outcome(self, name: str, source: str, seed: int) -> Outcome:
        """Run one trial, unless this call has finished it before."""
        seconds = float(self.config["train_seconds"])
        same = {"name": name, "seed": seed, "source": _sha256(source), "train_seconds": seconds, "split": self.split}
        noted = self.call.done.get(name)
        if noted is not None and all(noted.get(key) == value for key, value in same.items()):
            self.countdown.skip(seconds)
            return Outcome(noted["val_bpb"], "", noted.get("wall_seconds"), noted.get("peak_memory_mb"))
        begun = self.countdown.begin(name, seconds)
        folder = self.folder / name
        # Elsewhere than the run, all trials of a call still run on one device, and are compared with each other alone.
        terms = replace(TrialTerms.of_config(self.config), device_kind=None)
        request = replace(terms.request(source, folder, seed), split=self.split)
        result = self._steady_result(name, request)
        for weights in folder.glob("*.safetensors"):
            weights.unlink(missing_ok=True)
        self.countdown.end(begun, seconds)
        took = {"wall_seconds": result.wall_seconds, "peak_memory_mb": result.peak_memory_mb}
        if result.status != "ok" or result.val_bpb is None:
            return Outcome(None, f"{result.status}: {(result.reason or 'it gave no number').rstrip('.')}", **took)
        about = {"command": self.call.command, "call": self.call.number, "machine": result.machine}
        self.call.note({**about, **same, **took, "val_bpb": result.val_bpb})
        return Outcome(result.val_bpb, "", **took)

    def _steady_result(self, name: str, request: TrialRequest) -> TrialResult:
        """Run a trial, and once more when the first one says more about the machine than about the file."""
        asleep = asleep_seconds()
        result = run_trial(request, observer=self.observer, cancel=self.cancel)
        same, first = self.usual.get(request.source, []), next(iter(self.usual.values()), [])
        why = spoiled(result, slept=asleep_seconds() - asleep, same=same, incumbent=first, repeated=False)
        if result.status == "timeout":  # every file here has ended in time before, or nearly equals one that has
            why = "it took too long: the machine was busy"
        # Once for each file: one that makes its bad trials slow would have another draw for every one of them.
        if why is not None and request.source not in self.excused:
            self.excused.add(request.source)
            self.say(f"{name} is run once more: {why}")
            result = run_trial(request, observer=self.observer, cancel=self.cancel)
        if result.tokens_per_second:
            self.usual.setdefault(request.source, []).append(result.tokens_per_second)
        return result


def first_seed(config: Mapping[str, Any], offset: int, call: int) -> int:
    """Return the first seed of a command's `call`th call (from 1). `offset` is the command's own, beyond any loop's."""
    return int(config["seed"]) + offset + SEEDS_PER_CALL * call


def usual_speeds(ledger: LedgerReader, experiments: Iterable[int]) -> dict[str, list[float]]:
    """Map the source of each experiment to its tokens per second in the run, on the machine of its last trial."""
    usual: dict[str, list[float]] = {}
    for number in experiments:
        trials = [trial for trial in ledger.trials(subject=number) if trial.status == "ok"]
        machine = str(trials[-1].result.get("machine") or "") if trials else ""
        source = ledger.text(ledger.experiment(number).source_sha256)
        usual[source] = speeds(trial for trial in trials if ran_on(trial, machine))
    return usual


def overhead_seconds(ledger: LedgerReader, experiments: Iterable[int]) -> float:
    """Return the seconds that trials of these experiments usually took beyond their training."""
    budget = float(ledger.run().config["train_seconds"])
    walls = [
        float(wall)
        for number in experiments
        for trial in ledger.trials(subject=number)
        if trial.status == "ok" and (wall := trial.result.get("wall_seconds"))
    ]
    return max(0.0, statistics.median(walls) - budget) if walls else UNKNOWN_OVERHEAD


def _sha256(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", errors="surrogatepass")).hexdigest()
