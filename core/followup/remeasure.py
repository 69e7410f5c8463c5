"""Train and score sources of a finished run again, in trials that belong to no experiment.

They run one at a time here, or on an executor's devices at once. Every trial that ended well is noted in the ledger, so
that a call which is interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from autoresearch.core.errors import ArError
from autoresearch.core.events import Observer
from autoresearch.core.fleet.executor import Executor, Handle, TrialLost
from autoresearch.core.report.wording import spell
from autoresearch.core.run.rerun_policy import SLEEP_SECONDS, asleep_seconds, pace, slot_pace, speeds, spoiled
from autoresearch.core.run.scheduler import MAX_LOSSES
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import machine_of, ran_on
from autoresearch.core.trial.request import TrialRequest, TrialResult, TrialTerms
from autoresearch.core.trial.supervisor import TrialCancelled, run_trial

SEEDS_PER_CALL = 1000
"""Seeds set aside for each call of a command, so that no two calls train with the same seed."""
NOTED = "followup trial"
"""Kind of the ledger's events about single trials."""
EXCUSED = "followup excuse"
"""Kind of the ledger's events about sources that had a trial which was run once more."""
LOOK_SECONDS = 0.2
"""Longest time in seconds before a signal is noticed while trials run on an executor."""
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
    excused: frozenset[str] = frozenset()
    """Hashes of the sources whose excuse an interrupted call has used up, on whatever machine."""
    note_excuse: Callable[[Mapping[str, Any]], None] = lambda _: None

    @classmethod
    def of(cls, ledger: Ledger, command: str, number: int, machine: Callable[[], str]) -> Call:
        """Find the finished trials of this call in the ledger; those of another machine are left out.

        `machine` finds the present one. It is called only where there is something to compare.
        """
        notes, excuses = (
            [one for one in ledger.events(kind) if (one.get("command"), one.get("call")) == (command, number)]
            for kind in (NOTED, EXCUSED)
        )
        here = machine() if any(one.get("machine") for one in notes) else ""
        done = {str(one.get("name")): one for one in notes if not one.get("machine") or one["machine"] == here}
        return cls(
            command,
            number,
            done,
            lambda payload: ledger.note(NOTED, None, payload),
            frozenset(str(one.get("source")) for one in excuses),
            lambda payload: ledger.note(EXCUSED, None, payload),
        )


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

    def begin(self, name: str, train_seconds: float, at_once: int = 1) -> float:
        """Announce a trial, of which so many run at once; return the time, for `end`."""
        self._made += 1
        self.trials = max(self.trials, self._made)
        pace = self._took / self._expected if self._expected else 1.0
        rest = max(self.seconds - self._expected, self.overhead + train_seconds) * pace
        self.say(f"trial {self._made} of {self.trials} ({name}), about {spell(rest / at_once)} left")
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
class Wanted:
    """A trial to run."""

    name: str
    """Name of its folder, by which an interrupted call finds it again."""
    source: str
    seed: int


@dataclass
class _Running:
    """A trial on an executor."""

    wanted: Wanted
    request: TrialRequest
    begun: float
    asleep: float
    """`asleep_seconds()` when it started."""
    handle: Handle


@dataclass(frozen=True)
class Remeasurer:
    """Runs trials with the settings of a finished run, on an executor or one at a time on this machine."""

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
    """Hashes of the sources that had a trial which was run once more because it was slow or failed in this process;
    `call` knows those of an interrupted one."""
    machine: str = ""
    """Name under which trials are noted, for another call to compare; empty for what they say themselves."""
    executor: Executor | None = None
    """Runs the trials, as many at once as it has devices; None runs them here."""
    paces: dict[str, list[TrialResult]] = field(default_factory=dict)
    """Results of each source's trials so far, by which a slow slot is told from a slow file."""

    @property
    def at_once(self) -> int:
        """Number of trials that run at once."""
        return 1 if self.executor is None else max(1, self.executor.capacity())

    def measure(self, name: str, source: str, seed: int) -> float:
        """Run one trial and return its bits per byte on `split`. Raises `ArError` when it does not end well."""
        return self._score(name, self.outcome(name, source, seed))

    def measure_all(self, wanted: Sequence[Wanted]) -> dict[str, float]:
        """Run trials, several at once where there are devices; return bits per byte by name.

        Raises `ArError` when one does not end well.
        """
        if self.at_once == 1:
            return {one.name: self.measure(one.name, one.source, one.seed) for one in wanted}
        found = self.outcomes(wanted)
        return {name: self._score(name, outcome) for name, outcome in found.items()}

    def _score(self, name: str, outcome: Outcome) -> float:
        if outcome.val_bpb is None:
            fix = f"look at {self.folder / name / 'run.log'}"
            raise ArError(f"the trial {name} ended as {outcome.reason}.", fix=fix)
        return outcome.val_bpb

    def outcome(self, name: str, source: str, seed: int) -> Outcome:
        """Run one trial, unless this call has finished it before."""
        return self.outcomes([Wanted(name, source, seed)])[name]

    def outcomes(self, wanted: Sequence[Wanted], *, until_one_fails: bool = False) -> dict[str, Outcome]:
        """Run trials, unless this call has finished them before; return the outcomes by name, in the order given.

        With `until_one_fails` no trial starts after one that did not end well; those that run go on. Raises
        `TrialCancelled` when a signal ends them, `TrialError` when the executor cannot run them.
        """
        found: dict[str, Outcome] = {}
        waiting = deque(wanted)
        running: list[_Running] = []
        losses: Counter[str] = Counter()
        news = threading.Event()
        try:
            while waiting or running:
                failed = until_one_fails and any(one.val_bpb is None for one in found.values())
                if failed and not running:
                    break
                if self.executor is not None and self.cancel is not None and self.cancel.is_set():
                    raise TrialCancelled("the trials were cancelled.")
                news.clear()
                while waiting and len(running) < self.at_once and not failed:
                    one = waiting.popleft()
                    noted = self._noted(one)
                    if noted is not None:
                        found[one.name] = noted
                    elif self.executor is None:
                        found[one.name] = self._here(one)
                        failed = until_one_fails and found[one.name].val_bpb is None
                    else:
                        begun = self.countdown.begin(one.name, self._seconds, self.at_once)
                        running.append(self._start(self.executor, one, self._request(one), begun, news))
                ended = [trial for trial in running if trial.handle.done()]
                if running and not ended:
                    news.wait(LOOK_SECONDS)
                for trial in ended:
                    running.remove(trial)
                    again = self._take(trial, losses, found)
                    if again and self.executor is not None:
                        running.append(self._start(self.executor, trial.wanted, trial.request, trial.begun, news))
        finally:
            for trial in running:
                trial.handle.cancel()
        return {one.name: found[one.name] for one in wanted if one.name in found}

    @property
    def _seconds(self) -> float:
        return float(self.config["train_seconds"])

    def _request(self, one: Wanted) -> TrialRequest:
        # Elsewhere than the run, all trials of a call still run on one kind of device, the first one's: they are
        # compared with each other alone.
        ended = itertools.chain.from_iterable(self.paces.values())
        kind = next((result.device_kind for result in ended if result.status == "ok"), None)
        terms = replace(TrialTerms.of_config(self.config), device_kind=kind)
        return replace(terms.request(one.source, self.folder / one.name, one.seed), split=self.split)

    def _start(
        self, executor: Executor, one: Wanted, request: TrialRequest, begun: float, news: threading.Event
    ) -> _Running:
        # The view shows one trial: with several at once, the countdown alone tells how far they are.
        handle = executor.submit(request, self.observer if self.at_once == 1 else None)
        handle.on_done(news.set)
        return _Running(one, request, begun, asleep_seconds(), handle)

    def _take(self, one: _Running, losses: Counter[str], found: dict[str, Outcome]) -> bool:
        """Take in the result of a trial on the executor; return whether it has to be run again."""
        name = one.wanted.name
        try:
            result = one.handle.result(0)
        except TrialLost as lost:
            losses[name] += 1
            if losses[name] >= MAX_LOSSES:
                raise ArError(
                    f"the trial {name} lost its machine {MAX_LOSSES} times; the last time, {lost.message}.",
                    fix="look at the fleet, then give the same command again; nothing is lost",
                ) from lost
            self.say(f"{name} is run again: {lost.message}")
            return True
        if self._is_spoiled(name, one.request.source, result, asleep_seconds() - one.asleep):
            return True
        found[name] = self._finish(one.wanted, result, one.begun)
        return False

    def _noted(self, one: Wanted) -> Outcome | None:
        """Return the outcome that this call has noted before it was interrupted."""
        noted = self.call.done.get(one.name)
        if noted is None or any(noted.get(key) != value for key, value in self._facts(one).items()):
            return None
        self.countdown.skip(self._seconds)
        return Outcome(noted["val_bpb"], "", noted.get("wall_seconds"), noted.get("peak_memory_mb"))

    def _facts(self, one: Wanted) -> dict[str, Any]:
        about = {"name": one.name, "seed": one.seed, "source": _sha256(one.source)}
        return {**about, "train_seconds": self._seconds, "split": self.split}

    def _here(self, one: Wanted) -> Outcome:
        """Run a trial on this machine, and again when it says more about the machine than about the file."""
        begun, request = self.countdown.begin(one.name, self._seconds), self._request(one)
        while True:
            asleep = asleep_seconds()
            result = run_trial(request, observer=self.observer, cancel=self.cancel)
            if not self._is_spoiled(one.name, one.source, result, asleep_seconds() - asleep):
                return self._finish(one, result, begun)

    def _is_spoiled(self, name: str, source: str, result: TrialResult, slept: float) -> bool:
        """Tell whether a trial says more about the machine than about the file, and say why it is run once more.

        `slept` is in seconds. A machine that slept is no file's doing: its trial never counts, and costs no excuse.
        """
        same, first = self.usual.get(source, []), next(iter(self.usual.values()), [])
        results = {text: [one.model_dump() for one in known] for text, known in self.paces.items()}
        alike = results.pop(source, [])
        shares = [share for known in results.values() if (share := slot_pace(known, result.place)) is not None]
        # A file that reads less text by design has fewer tokens a second: processor time tells it from a busy machine.
        usual = pace(alike, itertools.chain.from_iterable(results.values()))
        usual = replace(usual, here=statistics.median(shares) if shares else None)
        why = spoiled(result, slept=slept, same=same, incumbent=first, repeated=False, usual=usual)
        asleep = slept > SLEEP_SECONDS
        # Every file here has ended in time before, or nearly equals one that has.
        if result.status == "timeout" and not asleep:
            why = "it took too long: the machine was busy"
        # Once for each file: one that makes its bad trials slow would have another draw for every one of them.
        file = _sha256(source)
        if why is None or (file in self.excused | self.call.excused and not asleep):
            return False
        if not asleep:
            self.excused.add(file)
            self.call.note_excuse({"command": self.call.command, "call": self.call.number, "source": file})
        self.say(f"{name} is run once more: {why}")
        return True

    def _finish(self, one: Wanted, result: TrialResult, begun: float) -> Outcome:
        """Note a trial that counts."""
        if result.tokens_per_second:
            self.usual.setdefault(one.source, []).append(result.tokens_per_second)
        self.paces.setdefault(one.source, []).append(result)
        for weights in (self.folder / one.name).glob("*.safetensors"):
            weights.unlink(missing_ok=True)
        self.countdown.end(begun, self._seconds)
        took = {"wall_seconds": result.wall_seconds, "peak_memory_mb": result.peak_memory_mb}
        if result.status != "ok" or result.val_bpb is None:
            return Outcome(None, f"{result.status}: {(result.reason or 'it gave no number').rstrip('.')}", **took)
        about = {"command": self.call.command, "call": self.call.number, "machine": self.machine or result.machine}
        self.call.note({**about, **self._facts(one), **took, "val_bpb": result.val_bpb})
        return Outcome(result.val_bpb, "", **took)


def first_seed(config: Mapping[str, Any], offset: int, call: int) -> int:
    """Return the first seed of a command's `call`th call (from 1). `offset` is the command's own, beyond any loop's."""
    return int(config["seed"]) + offset + SEEDS_PER_CALL * call


def usual_speeds(ledger: LedgerReader, experiments: Iterable[int]) -> dict[str, list[float]]:
    """Map the source of each experiment to its tokens per second in the run, on the machine of its last trial."""
    usual: dict[str, list[float]] = {}
    for number in experiments:
        trials = [trial for trial in ledger.trials(subject=number) if trial.status == "ok"]
        machine = machine_of(trials)
        usual[ledger.source(number)] = speeds(trial for trial in trials if ran_on(trial, machine))
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
