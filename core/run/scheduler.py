"""Trials under way: started, watched, and recorded when they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.core.errors import ArError
from autoresearch.core.fleet.executor import Executor, Handle, TrialLost
from autoresearch.core.judge.decision import RunTrial
from autoresearch.core.run.evidence import ignores_seed
from autoresearch.core.run.rerun_policy import DeviceWatch, asleep_seconds, disk_is_full, speeds, spoiled
from autoresearch.core.run.run import Run
from autoresearch.core.store.rows import ExperimentRow, TrialRow
from autoresearch.core.trial.request import TrialResult

Tell = Callable[[Mapping[str, Any]], None]
MAX_LOSSES = 5
"""How often one trial may lose its machine: then the fleet is ill, or the train file brings machines down."""


@dataclass
class Flight:
    """One trial under way."""

    trial: TrialRow
    asleep: float
    """The clock of sleep when it started."""
    handle: Handle | None = None
    trained: bool = False
    """Set by the trial's own thread when its weights are frozen."""
    recorded: bool = False
    """Whether the ledger knows that."""


class Flights:
    """At most one trial an experiment, and as many as the executor has devices."""

    def __init__(
        self,
        run: Run,
        executor: Executor,
        tell: Tell,
        news: Callable[[], None],
        watch: DeviceWatch | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`tell` hears every event of every trial, `news` is called when there is something to do; from any thread.

        `watch` looks for the device after a failure; `stopped` says whether a person wants to stop meanwhile.
        """
        self.run, self.executor = run, executor
        self._tell, self._news = tell, news
        self._watch, self._stopped = watch, stopped
        self._flying: dict[int, Flight] = {}
        self._repeated: set[tuple[int, int]] = set()
        self._losses: Counter[tuple[int, int]] = Counter()

    @property
    def experiments(self) -> frozenset[int]:
        """Which have a trial under way."""
        return frozenset(self._flying)

    @property
    def free(self) -> int:
        """Devices without a trial."""
        return max(0, self.executor.capacity() - len(self._flying))

    def start(self, row: ExperimentRow, step: RunTrial) -> None:
        """Record that a trial starts, then start it."""
        trial, request = self.run.start_trial(row, step)
        flight = Flight(trial, asleep_seconds())

        def observe(event: Mapping[str, Any]) -> None:
            if event.get("event") == "trained":
                flight.trained = True
                self._news()
            self._tell({**event, "experiment": trial.experiment, "k": trial.k})

        self._flying[row.number] = flight
        try:
            flight.handle = self.executor.submit(request, observe)
        except BaseException:
            del self._flying[row.number]
            raise
        flight.handle.on_done(self._news)

    def land(self) -> list[int]:
        """Record every result that there is, in the order in which the trials were started; whose they were."""
        landed = []
        for number, flight in list(self._flying.items()):
            if flight.handle is not None and flight.handle.done():
                handle = flight.handle
                del self._flying[number]
                try:
                    self._record(flight, handle.result(0))
                except TrialLost as lost:
                    self._again(flight, lost)
                landed.append(number)
            elif flight.trained and not flight.recorded:
                self.run.ledger.trained(number)
                flight.recorded = True
        return landed

    def cancel(self) -> None:
        """Kill every trial; returns when nothing of them is left."""
        while self._flying:
            _, flight = self._flying.popitem()
            if flight.handle is not None:
                flight.handle.cancel()

    def _again(self, flight: Flight, lost: TrialLost) -> None:
        """It stays unfinished: the judge asks for it again, and it is started again under its own number."""
        trial, number = flight.trial, flight.trial.experiment
        self._losses[number, trial.k] += 1
        if self._losses[number, trial.k] >= MAX_LOSSES:
            message = f"experiment {number} has lost its machine {MAX_LOSSES} times: at last, {lost.message}."
            raise ArError(message, fix="look at the fleet, then give the same command again; nothing is lost") from lost
        self.run.ledger.note("trial lost", number, {"k": trial.k, "reason": lost.message})
        self._tell({"event": "repeated", "experiment": number, "reason": lost.message})

    def _record(self, flight: Flight, result: TrialResult) -> None:
        trial, number = flight.trial, flight.trial.experiment
        if result.status == "crash" and self._stopped():
            return  # who ends the loop may have ended the trial's processes too: it is run again
        self._check_disk(result)
        if self.run.config.machine:
            # As the run knows it: a train file cannot pass for another machine's.
            result = result.model_copy(update={"machine": self.run.config.machine})
        again = (number, trial.k) in self._repeated
        spoilt = self._watch.suspect(result, repeated=again, stopped=self._stopped) if self._watch else None
        spoilt = spoilt or spoiled(
            result,
            slept=asleep_seconds() - flight.asleep,
            same=speeds(self.run.ended_trials(trial.subject)),
            incumbent=speeds(self.run.ended_trials(self.run.incumbent_number())),
            repeated=again,
        )
        if spoilt is None:
            if (reason := ignores_seed(result, self.run.ended_trials(trial.subject))) is not None:
                self.run.ledger.note("seed ignored", number, {"k": trial.k, "reason": reason})
                self._tell({"event": "seed_ignored", "experiment": number, "reason": reason})
            self.run.ledger.score(number, trial.k, result)
            return
        # It stays unfinished: the judge asks for it again, and it is started again under its own number.
        self._repeated.add((number, trial.k))
        self.run.ledger.note("trial repeated", number, {"k": trial.k, "reason": spoilt})
        self._tell({"event": "repeated", "experiment": number, "reason": spoilt})

    def _check_disk(self, result: TrialResult) -> None:
        """A trial that failed on a full disk says nothing about its source."""
        if result.status != "ok" and disk_is_full(self.run.folder):
            raise ArError(
                f"the disk of {self.run.folder} is full.",
                fix="free some space, then give the same command again: the trial is run again, nothing is lost",
            )
