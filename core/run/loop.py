"""propose -> trial -> judge -> record, until a limit, a goal or a person ends it.

One thread decides everything. Trials run on the executor's devices, and a researcher that takes its time thinks in
threads of its own; both ring a bell when there is news. Every step is in the ledger before it is acted on, so that a
loop that dies at any moment is taken up by the same command.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from autoresearch.core.errors import ArError, LimitReachedError
from autoresearch.core.fleet.executor import Executor, Observer
from autoresearch.core.judge.decision import Decision, Demotion, Judge
from autoresearch.core.proposal import Cost, Proposal, Researcher
from autoresearch.core.run.proposers import Thinkers, Thought
from autoresearch.core.run.rebase import refit, second_chance
from autoresearch.core.run.rerun_policy import DeviceWatch
from autoresearch.core.run.run import Run
from autoresearch.core.run.scheduler import Flights
from autoresearch.core.run.stopping import Ending, Limits, Stop
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.trainfile.fingerprint import fingerprint

MAX_FAILED_PROPOSALS = 3
"""In a row, then the loop ends: a researcher that has nothing to say will not have it next time either."""
MAX_REPEATED_PROPOSALS = 10
"""In a row, of sources that were tried already. A language model may still hit on a new one, so more than above."""
SPARE = 2
"""One proposal ahead of every device, and one more for so many devices."""
HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0
"""How long the end of a loop waits for proposals in the making: they are paid for, and the next one can use them."""

__all__ = ["Ending", "Limits", "Loop", "Stop"]


class _End(Exception):  # noqa: N818 - it carries an Ending, not an error
    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


class Loop:
    """One invocation of the loop on one run."""

    def __init__(
        self,
        run: Run,
        researcher: Researcher,
        judge: Judge,
        executor: Executor,
        *,
        limits: Limits | None = None,
        stop: Stop | None = None,
        observer: Observer | None = None,
        on_decided: Callable[[ExperimentRow], None] | None = None,
        device_watch: DeviceWatch | None = None,
    ) -> None:
        self.run, self.judge, self.executor = run, judge, executor
        self.limits, self.stop = limits or Limits(), stop or Stop()
        self._observer, self._on_decided, self._speaking = observer, on_decided, threading.Lock()
        self._news = threading.Event()
        self._flights = Flights(
            run, executor, self._tell, self._news.set, device_watch, lambda: self.stop.wish != "go on"
        )
        self._thinkers = Thinkers(researcher, self.stop, self._news.set)
        hours = self.limits.hours
        self._deadline = None if hours is None else time.monotonic() + hours * 3600
        self._beat = time.monotonic()
        self._begun: set[int] = set()
        self._failed = self._repeated = 0
        self._error = ""
        self._patience: float | None = None

    def go(self) -> Ending:
        """Run until the end. Raises `ArError` when the run cannot go on; the ledger then holds all that was done."""
        ledger = self.run.ledger
        try:
            ledger.set_state("running")
            try:
                while True:
                    self._turn()
            finally:
                self._thinkers.cancel()
                self._flights.cancel()
        except _End as end:
            ledger.set_state(end.ending.state, end.ending.reason)
            return end.ending
        except LimitReachedError as error:
            ledger.set_state("interrupted", error.message)
            raise
        except ArError as error:
            self._note_failure(error)
            raise
        except OSError as error:
            trouble = ArError(
                f"the run in {self.run.folder} cannot be written: {error}.",
                fix="check the disk's free space and permissions, then give the same command again: nothing is lost",
            )
            self._note_failure(trouble)
            raise trouble from error

    def _note_failure(self, error: ArError) -> None:
        # On a full disk this cannot be written either, and what was wrong first is what to tell.
        with suppress(ArError):
            self.run.ledger.set_state("failed", error.message)

    def _turn(self) -> None:
        """Take in what is new, keep the devices busy, and wait for the next news."""
        self._news.clear()
        if self.stop.wish == "kill":
            raise self._stopped()
        if time.monotonic() - self._beat > HEARTBEAT_SECONDS:
            self._beat = time.monotonic()
            self.run.ledger.heartbeat()
        landed = self._flights.land()
        for thought in self._thinkers.take():
            self._accept(thought)
        self._settle_open(landed)
        self.run.tidy()
        if self._ask():
            return
        if not self._flights.experiments:
            self._check_over()
        self._news.wait(POLL_SECONDS)

    def _settle_open(self, landed: list[int]) -> None:
        """Decide what can be decided, and give free devices their trials: first to races, then to what waits."""
        rows = self.run.ledger.undecided()
        flying = self._flights.experiments
        opened = [row for row in rows if row.number not in flying]
        if any(row.number == 0 for row in rows):  # nothing can be compared before there is a baseline
            opened = [row for row in opened if row.number == 0]
        for row in sorted(opened, key=lambda row: (row.state == "proposed", row.number)):
            if row.number in landed or self._may_start():
                self._settle(row)

    def _may_start(self) -> bool:
        return self._flights.free > 0 and self._ending() is None

    def _settle(self, row: ExperimentRow) -> None:
        """Ask the judge; do what it asks for where there is a device, or record what it decides."""
        if row.state == "proposed" and row.number:
            fitted = refit(self.run, row)
            if isinstance(fitted, str):
                self._tell({"event": "withdrawn", "experiment": row.number, "reason": fitted})
                return
            row = fitted
        while isinstance(step := self.judge.consider(self.run.evidence(row)), Demotion):
            self.run.demote(step)
            self._tell({"event": "demoted", "experiment": step.experiment, "reason": step.reason})
        if isinstance(step, Decision):
            self._decide(row, step)
        elif self._may_start():
            if row.number not in self._begun:
                self._begun.add(row.number)
                self._tell({"event": "experiment", "experiment": row.number, "description": row.hypothesis})
            self._flights.start(row, step)

    def _decide(self, row: ExperimentRow, decision: Decision) -> None:
        offer = second_chance(self.run, self.judge, row, decision)
        if offer is not None:
            # Before the decision: after a crash in between the same offer is made again, and is known already.
            self.run.propose(offer.proposal, self.run.program(), offer.parent)
        decided = self.run.decide(row, decision)
        self._failed = self._repeated = 0
        facts = {name: getattr(decided, name) for name in ("status", "val_bpb", "delta", "reason")}
        self._tell({"event": "decided", "experiment": row.number, **facts})
        if self._on_decided is not None:
            self._on_decided(decided)
        if row.number == 0 and decided.status != "keep":
            log = self.run.folder / "trials" / f"0-{len(self.run.ledger.trials(experiment=0))}" / "run.log"
            raise ArError(
                f"the baseline ended as {decided.status}: {decided.reason}. Its log: {log}.",
                fix="make the train file run as it is (`ar train` tries it), then give the same command again",
            )

    def _ask(self) -> bool:
        """Have as many proposals made as there will be devices for. Whether one came at once."""
        while self._wants_proposal():
            program = self.run.program()
            history = self.run.history(program, self._thinkers.busy)
            kind = "thinking" if self._flights.experiments else "proposing"
            self._tell({"event": kind, "experiment": self.run.ledger.next_number()})
            try:
                self._thinkers.ask(history)
            except KeyboardInterrupt:
                raise self._stopped() from None
            if not self._thinkers.ahead:
                return True
        return False

    def _wants_proposal(self) -> bool:
        thinkers, flying = self._thinkers, self._flights.experiments
        if self._exhausted() or self._ending() is not None:
            return False
        # Who is quick is asked when a device is free and all is known; who is slow, one proposal ahead of each device.
        if not (self.run.baseline_runs() if thinkers.ahead else self.run.attempts):
            return False
        begun = [row for row in self.run.ledger.undecided() if row.number]
        goal = self.limits.experiments
        if goal is not None and len(self.run.attempts) - 1 + len(begun) + thinkers.busy >= goal:
            return False
        waiting, free = sum(row.number not in flying for row in begun), self._flights.free
        if not thinkers.ahead:
            return waiting + thinkers.busy < free
        if not self.run.attempts:
            return waiting + thinkers.busy < self.executor.capacity()
        # Of many devices some more: every keep outdates a part of what waits, and idle ones cannot wait for a thought.
        more = 0 if self.executor.capacity() == 1 else max(free, self.executor.capacity() // SPARE)
        return waiting + thinkers.busy < self.executor.capacity() + more

    def _accept(self, thought: Thought) -> None:
        """A proposal becomes an experiment, unless its source was tried already."""
        outcome, program = thought.outcome, thought.history.program
        if isinstance(outcome, Proposal):
            before = self.run.ledger.tried_as(fingerprint(outcome.source))
            if before is None:
                self._failed = self._repeated = 0
                self.run.propose(outcome, program, thought.history.incumbent.experiment)
                return
            self._repeated += 1
            self._refuse("repeated", f"experiment {before} tried this source already", outcome.cost, program)
        else:
            self._failed += 1
            self._refuse("failed", outcome, thought.cost, program)

    def _refuse(self, kind: str, error: str, cost: Cost, program: str) -> None:
        self._error = error
        self.run.ledger.refuse(kind, error, researcher=self._thinkers.researcher.name, cost=cost, program=program)
        self._tell({"event": "proposal_refused", "kind": kind, "reason": error})

    def _exhausted(self) -> bool:
        """Whether the researcher has had no usable proposal too often. A decision gives it something new to go on."""
        return self._failed >= MAX_FAILED_PROPOSALS or self._repeated >= MAX_REPEATED_PROPOSALS

    def _check_over(self) -> None:
        """No trial runs. Raises when none will."""
        ending = self._ending()
        if self._thinkers.busy:
            if ending is None:
                return
            self._patience = self._patience or time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() < self._patience:
                return
        if ending is not None:
            raise _End(ending)
        if self._exhausted() and not self.run.ledger.undecided():
            count = max(self._failed, self._repeated)
            who, why = self._thinkers.researcher.name, self._error.rstrip(".")
            message = f"the researcher {who} had no usable proposal {count} times in a row: {why}."
            raise LimitReachedError(message, fix="edit program.md, or choose another --researcher; the run goes on")

    def _ending(self) -> Ending | None:
        """Why no trial may start any more; None when one may."""
        if self.stop.wish != "go on":
            return self._stopped().ending
        goal, decided = self.limits.experiments, len(self.run.attempts) - 1
        if goal is not None and decided >= max(0, goal):
            count = "1 experiment is" if decided == 1 else f"{decided} experiments are"
            return Ending("finished", f"{count} decided", 0)
        if self._deadline is None:
            return None
        late = time.monotonic() + self._typical_seconds() - self._deadline
        if time.monotonic() >= self._deadline or late > self.run.config.train_seconds:
            reason = f"{self.limits.hours:g} hours are over"
            if goal is None:
                return Ending("finished", reason, 0)
            return Ending("interrupted", f"{reason}, after {max(0, decided)} of {goal} experiments", 4)
        return None

    def _typical_seconds(self) -> float:
        """How long a trial takes, start-up and scoring included: the median of the last ones that went well."""
        walls = [
            attempt.metrics.get("wall_seconds") for attempt in self.run.attempts[-20:] if attempt.val_bpb is not None
        ]
        known = [float(wall) for wall in walls if wall is not None]
        return statistics.median(known) if known else self.run.config.train_seconds

    def _stopped(self) -> _End:
        return _End(Ending("interrupted", "stopped by a signal", self.stop.exit_code or 130))

    def _tell(self, event: Mapping[str, Any]) -> None:
        """One at a time: trials speak from threads of their own."""
        if self._observer is not None:
            with self._speaking:
                self._observer(event)
