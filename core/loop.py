"""propose -> trial -> judge -> record, until a limit, a goal or a person ends it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from autoresearch.core.errors import ArError, LimitReachedError, ProposalError
from autoresearch.core.fleet.executor import Executor, Handle, Observer
from autoresearch.core.judge.decision import Decision, Demotion, Judge, RunTrial
from autoresearch.core.proposal import Cost, Proposal, Researcher
from autoresearch.core.run import Run
from autoresearch.core.store.fingerprint import fingerprint
from autoresearch.core.store.rows import ExperimentRow, RunState
from autoresearch.core.trial.result import TrialResult
from autoresearch.core.vigil import asleep_seconds, disk_is_full, spoiled

MAX_FAILED_PROPOSALS = 3
"""In a row, then the loop ends: a researcher that has nothing to say will not have it next time either."""
MAX_REPEATED_PROPOSALS = 10
"""In a row, of sources that were tried already. A language model may still hit on a new one, so more than above."""
HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Limits:
    """When to end. None is never."""

    experiments: int | None = None
    """Decided experiments in the run, those of earlier invocations included and the baseline not."""
    hours: float | None = None
    """Of this invocation."""


@dataclass(frozen=True)
class Ending:
    """Why the loop ended."""

    state: RunState
    reason: str
    exit_code: int


class Stop:
    """What a person asked for while the loop runs. Its two methods are safe to call from a signal handler."""

    def __init__(self) -> None:
        self.wish: Literal["go on", "finish", "kill"] = "go on"
        self.exit_code = 0
        self._proposing = False

    def finish(self, exit_code: int = 130) -> None:
        """Finish the current trial, then stop."""
        if self.wish == "go on":
            self.wish, self.exit_code = "finish", exit_code

    def kill(self, exit_code: int) -> None:
        """Stop now; the current trial is killed, and run again when the run goes on."""
        self.wish, self.exit_code = "kill", exit_code
        if self._proposing:
            raise KeyboardInterrupt

    @contextmanager
    def proposing(self) -> Iterator[None]:
        """A researcher is at work in this thread: `kill` may interrupt it, for it may wait on a network for minutes."""
        self._proposing = True
        try:
            yield
        finally:
            self._proposing = False


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
    ) -> None:
        self.run, self.researcher, self.judge, self.executor = run, researcher, judge, executor
        self.limits, self.stop = limits or Limits(), stop or Stop()
        self._observer, self._on_decided = observer, on_decided
        hours = self.limits.hours
        self._paid = Cost()
        self._deadline = None if hours is None else time.monotonic() + hours * 3600
        self._beat = time.monotonic()
        self._repeated: set[tuple[int, int]] = set()

    def go(self) -> Ending:
        """Run until the end. Raises `ArError` when the run cannot go on; the ledger then holds all that was done."""
        ledger = self.run.ledger
        try:
            ledger.set_state("running")
            while True:
                row = ledger.in_flight()
                self._settle(row if row is not None else self._propose())
        except _End as end:
            ledger.set_state(end.ending.state, end.ending.reason)
            return end.ending
        except LimitReachedError as error:
            ledger.set_state("interrupted", error.message)
            raise
        except ArError as error:
            self._failed(error)
            raise
        except OSError as error:
            trouble = ArError(
                f"the run in {self.run.folder} cannot be written: {error}.",
                fix="check the disk's free space and permissions, then give the same command again: nothing is lost",
            )
            self._failed(trouble)
            raise trouble from error

    def _failed(self, error: ArError) -> None:
        # On a full disk this cannot be written either, and what was wrong first is what to tell.
        with suppress(ArError):
            self.run.ledger.set_state("failed", error.message)

    def _settle(self, row: ExperimentRow) -> None:
        """Ask the judge, run what it asks for, until it decides."""
        self._tell({"event": "experiment", "experiment": row.number, "description": row.hypothesis})
        while not isinstance(step := self.judge.consider(self.run.evidence(row)), Decision):
            if isinstance(step, Demotion):
                self.run.demote(step)
                self._tell({"event": "demoted", "experiment": step.experiment, "reason": step.reason})
                continue
            self._check_end()
            self._run_trial(row, step)
        decided = self.run.decide(row, step)
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

    def _propose(self) -> ExperimentRow:
        """The researcher's next proposal, as a new experiment."""
        failed = repeated = 0
        while True:
            self._check_end()
            program = self.run.program()
            outcome = self._ask(program)
            if isinstance(outcome, Proposal):
                before = self.run.ledger.tried_as(fingerprint(outcome.source))
                if before is None:
                    return self.run.propose(outcome, program)
                repeated += 1
                error, kind, cost = f"experiment {before} tried this source already", "repeated", outcome.cost
            else:
                failed += 1
                error, kind, cost = outcome, "failed", self._paid
            self.run.ledger.refuse(kind, error, researcher=self.researcher.name, cost=cost, program=program)
            self._tell({"event": "proposal_refused", "kind": kind, "reason": error})
            if failed >= MAX_FAILED_PROPOSALS or repeated >= MAX_REPEATED_PROPOSALS:
                count = failed if failed >= MAX_FAILED_PROPOSALS else repeated
                who, why = self.researcher.name, error.rstrip(".")
                message = f"the researcher {who} had no usable proposal {count} times in a row: {why}."
                raise LimitReachedError(message, fix="edit program.md, or choose another --researcher; the run goes on")

    def _ask(self, program: str) -> Proposal | str:
        """A proposal, or in words why there is none."""
        history, self._paid = self.run.history(program), Cost()
        self._tell({"event": "proposing", "experiment": len(self.run.attempts)})
        try:
            with self.stop.proposing():
                proposal = self.researcher.propose(history)
            return proposal if proposal.researcher else replace(proposal, researcher=self.researcher.name)
        except ProposalError as error:
            # Calls to a model may have been paid for all the same.
            self._paid = getattr(error, "cost", self._paid)
            return error.message
        except KeyboardInterrupt:
            raise self._stopped() from None
        except Exception as error:
            # A fault in a researcher must not end a night's work at the first odd source it meets.
            return f"{type(error).__name__}: {' '.join(str(error).split())}"

    def _run_trial(self, row: ExperimentRow, step: RunTrial) -> None:
        trial, request = self.run.start_trial(row, step)
        trained = threading.Event()

        def observe(event: Mapping[str, Any]) -> None:
            if event.get("event") == "trained":
                trained.set()
            self._tell({**event, "experiment": trial.experiment, "k": trial.k})

        asleep = asleep_seconds()
        handle = self.executor.submit(request, observe)
        try:
            result = self._wait(row, handle, trained)
        except BaseException:
            handle.cancel()
            raise
        self._check_disk(result)
        spoilt = spoiled(
            result,
            slept=asleep_seconds() - asleep,
            same=self.run.ended_trials(trial.subject),
            incumbent=self.run.ended_trials(self.run.incumbent_number()),
            repeated=(trial.experiment, trial.k) in self._repeated,
        )
        if spoilt is None:
            self.run.ledger.score(row.number, trial.k, result)
            return
        # It stays unfinished: the judge asks for it again, and it is started again under its own number.
        self._repeated.add((trial.experiment, trial.k))
        self.run.ledger.note("trial repeated", row.number, {"k": trial.k, "reason": spoilt})
        self._tell({"event": "repeated", "experiment": row.number, "reason": spoilt})

    def _check_disk(self, result: TrialResult) -> None:
        """A trial that failed on a full disk says nothing about its source."""
        if result.status != "ok" and disk_is_full(self.run.folder):
            raise ArError(
                f"the disk of {self.run.folder} is full.",
                fix="free some space, then give the same command again: the trial is run again, nothing is lost",
            )

    def _wait(self, row: ExperimentRow, handle: Handle, trained: threading.Event) -> TrialResult:
        """The trial's result. Meanwhile: heartbeat, the state `trained`, and a person who wants to stop now."""
        recorded = False
        while True:
            if self.stop.wish == "kill":
                raise self._stopped()
            try:
                return handle.result(timeout=POLL_SECONDS)
            except TimeoutError:
                pass
            if trained.is_set() and not recorded:
                self.run.ledger.trained(row.number)
                recorded = True
            if time.monotonic() - self._beat > HEARTBEAT_SECONDS:
                self._beat = time.monotonic()
                self.run.ledger.heartbeat()

    def _check_end(self) -> None:
        """Called before every proposal and every trial. Raises `_End` when neither may start."""
        if self.stop.wish != "go on":
            raise self._stopped()
        goal, decided = self.limits.experiments, len(self.run.attempts) - 1
        if goal is not None and decided >= max(0, goal):
            raise _End(Ending("finished", f"{decided} experiments are decided", 0))
        if self._deadline is None:
            return
        late = time.monotonic() + self._typical_seconds() - self._deadline
        if time.monotonic() >= self._deadline or late > self.run.config.train_seconds:
            reason = f"{self.limits.hours:g} hours are over"
            if goal is None:
                raise _End(Ending("finished", reason, 0))
            raise _End(Ending("interrupted", f"{reason}, after {max(0, decided)} of {goal} experiments", 4))

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
        if self._observer is not None:
            self._observer(event)
