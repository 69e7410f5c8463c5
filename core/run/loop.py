"""The research loop: propose, run trials, judge, record, until a limit, a goal or a person ends it.

One thread decides everything. Trials run on the executor's devices, and slow researchers work in threads of their own;
both set the event `_news` when they have a result. Every step is in the ledger before the loop acts on it, so the same
command resumes a loop that died at any moment.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from autoresearch.core.errors import ArError, LimitReachedError
from autoresearch.core.events import (
    AwaitingProposals,
    Decided,
    Demoted,
    Event,
    ExperimentBegun,
    Observer,
    Paused,
    Profiling,
    ProposalRefused,
    Proposing,
    Remeasuring,
    Resumed,
    Thinking,
    Withdrawn,
)
from autoresearch.core.fleet.executor import Executor
from autoresearch.core.judge.decision import Decision, Demotion, Judge, RunTrial, Wait
from autoresearch.core.judge.racing import Racing
from autoresearch.core.judge.stack import STACK
from autoresearch.core.proposal import TITLE, Cost, Researcher
from autoresearch.core.run.profiling import IncumbentProfiles
from autoresearch.core.run.proposers import Proposers, ResearcherAnswer
from autoresearch.core.run.rebase import rebase_waiting, second_chance
from autoresearch.core.run.rerun_policy import DeviceWatch
from autoresearch.core.run.run import Run
from autoresearch.core.run.scheduler import SLOW, RunningTrials, ScreeningDevices
from autoresearch.core.run.screens import Screens
from autoresearch.core.run.stacks import Stacks
from autoresearch.core.run.stopping import Ending, Limits, Stop
from autoresearch.core.run.submissions import SESSION, Submissions
from autoresearch.core.stack_parts import members_of
from autoresearch.core.store.remarks import take_remarks
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.store.wishes import WishFile
from autoresearch.core.trainfile.fingerprint import fingerprint

MAX_FAILED_PROPOSALS = 3
"""Failed proposals in a row that end the loop."""
MAX_REPEATED_PROPOSALS = 10
"""Proposals in a row, of sources tried before or not usable, that end the loop. The next one may be something new, so
this is larger than `MAX_FAILED_PROPOSALS`."""
MAX_SAME_FAILURES = 3
"""Failures of a researcher's program in a row, all in the same words, that end the loop whatever is decided meanwhile:
it will not work the next time either."""
DEVICES_PER_SPARE = 2
"""Devices for each spare proposal, beside the one that waits for every device."""
PASSED_PER_DEVICE = 2
"""Changes that may wait for each device after a short trial on another kind of device."""
STACKS_LEFT = 1
"""Experiments before a run's goal that are kept for a stack of the last parts."""
HEARTBEAT_SECONDS = 10.0
"""Seconds between two signs of life in the ledger."""
POLL_SECONDS = 0.2
"""Longest time in seconds before the loop looks at limits and a person's wish again."""
PATIENCE_SECONDS = 60.0
"""Seconds that an ending loop waits for proposals in the making: they are paid for, and a resumed run can use them."""

__all__ = ["Ending", "Limits", "Loop", "Stop"]


class Clock(Protocol):
    """A clock that the loop reads and waits by. A simulation passes its own, so that hours of trials take seconds."""

    def monotonic(self) -> float:
        """Return seconds since a fixed moment; never goes back."""
        ...

    def wait(self, news: threading.Event, seconds: float) -> None:
        """Return when `news` is set, after `seconds` at the latest. Called only when the loop has nothing to do."""
        ...


class SystemClock:
    """This machine's time."""

    def monotonic(self) -> float:
        """Return the time of `time.monotonic`."""
        return time.monotonic()

    def wait(self, news: threading.Event, seconds: float) -> None:
        """Wait for `news`."""
        news.wait(seconds)


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
        clock: Clock | None = None,
        screening: ScreeningDevices | None = None,
    ) -> None:
        """Set up a loop that `go` starts.

        `observer` receives every event, `on_decided` every decided experiment's row. `device_watch` tells a failing
        train file from a lost device; None does not look. `clock` is this machine's time by default. `screening` are
        devices of another kind for short trials.
        """
        self.run, self.judge, self.executor = run, judge, executor
        self.limits, self.stop = limits or Limits(), stop or Stop()
        self._observer, self._on_decided, self._observer_lock = observer, on_decided, threading.Lock()
        self._news = threading.Event()
        self._clock = clock or SystemClock()
        self._running = RunningTrials(
            run, executor, self._tell, self._news.set, device_watch, lambda: self.stop.wish != "go on", screening
        )
        self._proposers = Proposers(researcher, self.stop, self._news.set)
        self._stacks = Stacks(run, judge, executor.capacity) if isinstance(judge, Racing) and judge.stacks else None
        self._screens: Screens | None = None
        if isinstance(judge, Racing) and (0.0 < judge.screen_seconds < run.config.train_seconds or screening):
            machine = screening.machine if screening else ""
            self._screens = Screens(run, judge, lambda: self._running.shorts, machine)
        self._submissions = Submissions(run)
        self._wishes, self._paused = WishFile(run.folder), False
        self._profiles = IncumbentProfiles(run, executor, self._news.set) if researcher.reads_profiles else None
        hours = self.limits.hours
        self._deadline = None if hours is None else self._clock.monotonic() + hours * 3600
        self._beat = self._clock.monotonic()
        self._begun: set[int] = set()
        self._failed = self._repeated = self._same = 0
        self._said = ""  # the last failure of the researcher's program
        self._error = ""
        self._patience: float | None = None

    def go(self) -> Ending:
        """Run until the end. Raises `ArError` when the run cannot go on; the ledger then holds every step taken."""
        ledger = self.run.ledger
        self._wishes.clear()  # of an earlier invocation: whoever starts the loop wants it to run
        try:
            # First: whoever sees the run running then knows who runs it (see `submissions.running_session`).
            session = {"pid": os.getpid(), "researcher": self._proposers.researcher.name}
            ledger.note(SESSION, None, {**session, "submission": self.limits.submission})
            ledger.set_state("running")
            try:
                while True:
                    self._turn()
            finally:
                self._proposers.cancel()
                self._running.cancel()
                if self._profiles is not None:
                    self._profiles.cancel()
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
        # On a full disk this fails too, and the first error is the one to report.
        with suppress(ArError):
            self.run.ledger.set_state("failed", error.message)

    def _turn(self) -> None:
        """Take in results and proposals, keep the devices busy, and wait for the next news."""
        # Cleared before looking: news that comes meanwhile sets it again, and the wait below returns at once.
        self._news.clear()
        self._take_wish()
        if self.stop.wish == "kill":
            raise self._stopped()
        if self._clock.monotonic() - self._beat > HEARTBEAT_SECONDS:
            self._beat = self._clock.monotonic()
            self.run.ledger.heartbeat()
        # Results first, then proposals, then decisions: a decision may change the incumbent that waiting proposals are
        # edits of.
        collected = self._running.collect()
        for answer in self._proposers.take():
            self._accept(answer)
        self._take_submissions()
        take_remarks(self.run.ledger)
        self._profile()
        self._settle_open(collected)
        self.run.tidy()
        if self._ask():
            return
        self._use_idle_device()
        if not self._running.experiments:
            self._check_over()
        self._clock.wait(self._news, POLL_SECONDS)

    def _take_wish(self) -> None:
        """Do what a person asked for on the dashboard. A stop is the first Ctrl-C, and is asked for once."""
        wish = self._wishes.read()
        if wish == "stop":
            self.stop.finish()
            self._wishes.clear()
        paused = wish == "pause"
        if paused != self._paused:
            self._paused = paused
            self._tell(Paused() if paused else Resumed())

    def _settle_open(self, collected: list[int]) -> None:
        """Decide where enough is measured, then give free devices trials: first races, then waiting proposals."""
        rows = self.run.ledger.undecided()
        busy = self._running.experiments
        opened = [row for row in rows if row.number not in busy]
        if any(row.number == 0 for row in rows):  # without a baseline there is nothing to compare with
            opened = [row for row in opened if row.number == 0]
        # Experiments with trials before waiting ones: finishing a race settles the incumbent for everybody else. Stacks
        # before all others, because many wait for their verdicts.
        for waits in (False, True):
            group = [row for row in opened if (row.state == "proposed") == waits]
            for row in sorted(group, key=lambda row: (not members_of(row), row.number)):
                if row.number not in collected and not (self._may_start() or self._may_start(short=True)):
                    continue
                # A keep re-applies or withdraws waiting proposals, so that a later row may be another one by now, or
                # gone.
                present = next((one for one in self.run.ledger.undecided() if one.number == row.number), None)
                if present is not None and (self._stacks is None or not self._stacks.holds(present)):
                    self._settle(present)
            if not waits and self.run.attempts:
                self._make_stacks()

    def _make_stacks(self) -> None:
        """Decide the parts of decided stacks, and give free devices new stacks."""
        if self._stacks is None:
            return
        goal = self.limits.experiments
        while self._may_start():
            open_rows = [row for row in self.run.ledger.undecided() if row.number]
            count = len(self.run.attempts) - 1 + len(open_rows) + self._proposers.busy
            held = self._stacks.waiting()
            idle = not self._running.experiments or (
                goal is not None and count + 1 >= goal and all(one.number in held for one in open_rows)
            )
            # The last experiment of a run is left for what the last proposals find.
            room = goal is None or count + (0 if idle else STACKS_LEFT) < goal
            proposal = self._stacks.form(room=room, idle=idle)
            decided = list(self._stacks.settled())
            for row, decision in decided:
                self._decide(row, decision)
            if proposal is None:
                if not decided:
                    return
                continue
            self._settle(self.run.propose(proposal, self.run.program()))

    def _profile(self) -> None:
        """Take in a profile of the incumbent, and start one where it is due and a device is free."""
        if self._profiles is None:
            return
        self._profiles.collect()
        if self._profiles.due() and self._may_start():
            self._tell(Profiling(experiment=self._profiles.start()))

    def _first_profile(self) -> bool:
        """Tell whether the run's first profile is being made: the first proposal waits for it."""
        return self._profiles is not None and self._profiles.running and len(self.run.attempts) == 1

    def _free(self) -> int:
        """Count the devices without a trial and without a profile."""
        held = self._profiles is not None and self._profiles.running
        return max(0, self._running.free - held)

    def _may_start(self, *, short: bool = False) -> bool:
        """Tell whether a trial may start, a `short` one on the devices that are for those alone, if any."""
        apart = short and self._running.screening is not None
        free = self._running.screening_free if apart else self._free()
        return free > 0 and not self._paused and self._ending() is None

    def _settle(self, row: ExperimentRow) -> None:
        """Ask the judge about one experiment; start the trial it wants on a free device, or record its decision."""
        if row.number in self._running.experiments:
            return  # a trial of the incumbent that an idle device began belongs to it
        if row.state == "proposed" and row.number:
            rebased = self._rebase(row)
            if rebased is None:
                return
            row = rebased
        against = None if self._stacks is None else self._stacks.against(row)
        step = self._consider(row, against)
        if self._stacks is not None and self._stacks.hold(row, step, against):
            return
        if self._screens is not None:
            step = self._screens.next(row, step, against)
        if isinstance(step, Decision):
            self._decide(row, step)
        elif isinstance(step, RunTrial) and self._may_start(short=step.short is not None):
            if row.number not in self._begun:
                self._begun.add(row.number)
                title = row.parameters.get(TITLE)
                words = f"{title}: {row.hypothesis}" if title else row.hypothesis
                self._tell(ExperimentBegun(words, experiment=row.number))
            self._running.start(row, step, against)

    def _consider(self, row: ExperimentRow, against: int | None) -> RunTrial | Wait | Decision:
        """Ask the judge for the next step of an experiment, beside the incumbent or the experiment `against`."""
        # After a demotion the evidence is another one, so the judge is asked again, until it says something about the
        # candidate.
        while isinstance(step := self.judge.consider(self.run.evidence(row, against)), Demotion):
            self.run.demote(step)
            self._tell(Demoted(step.reason, experiment=step.experiment))
        return step

    def _rebase(self, row: ExperimentRow) -> ExperimentRow | None:
        """Make a waiting proposal an edit of the incumbent; None where it was withdrawn.

        An edit of a stack stays one until the stack has its verdict.
        """
        if self._stacks is not None and self._stacks.on_stack(row):
            return row
        rebased = rebase_waiting(self.run, row)
        if rebased.row is None:
            self._tell(Withdrawn(rebased.reason, experiment=row.number))
        return rebased.row

    def _decide(self, row: ExperimentRow, decision: Decision) -> None:
        stacked = bool(members_of(row)) or STACK in decision.facts
        if self._stacks is not None:
            # A late result that looked better is a part already, and a stack's parts have their own ways on.
            stacked = stacked or (decision.status == "discard" and self._stacks.takes(row))
            if members_of(row):
                decision = self._stacks.verdict(row, decision)
        combined = None if stacked else second_chance(self.run, self.judge, row, decision)
        if combined is not None:
            # Before the decision is recorded. A crash in between repeats this, and finds the source already proposed.
            self.run.propose(combined.proposal, self.run.program(), combined.parent)
        decided = self.run.decide(row, decision)
        self._failed = self._repeated = 0
        if row.number == 0:
            self._same = 0
        told = Decided(decided.status or "", decided.val_bpb, decided.change, decided.reason, experiment=row.number)
        self._tell(told)
        if self._on_decided is not None:
            self._on_decided(decided)
        if row.number and decided.status == "keep":
            # At once, and not when a device is free: the next proposal is made meanwhile, and must not take what no
            # longer fits for something that is being tried.
            for waiting in self.run.ledger.undecided():
                if waiting.state == "proposed" and waiting.number:
                    self._rebase(waiting)
        if self._stacks is not None and members_of(row):
            for part, verdict in self._stacks.settled():
                self._decide(part, verdict)
        if row.number == 0 and decided.status != "keep":
            log = self.run.folder / "trials" / f"0-{len(self.run.ledger.trials(experiment=0))}" / "run.log"
            raise ArError(
                f"the baseline ended as {decided.status}: {decided.reason}. Its log: {log}.",
                fix="make the train file run as it is (`ar train` tries it), then give the same command again",
            )

    def _ask(self) -> bool:
        """Have as many proposals made as there will be devices for. Return whether one came at once."""
        while self._wants_proposal():
            program = self.run.program()
            base = None if self._stacks is None else self._stacks.base()
            history = self.run.history(program, self._proposers.busy, base)
            kind = Thinking if self._running.experiments else Proposing
            self._tell(kind(experiment=self.run.ledger.next_number()))
            count = self._proposers.batch_size(history, self._wanted())
            try:
                self._proposers.ask(history, count)
            except KeyboardInterrupt:
                raise self._stopped() from None
            if not self._proposers.ahead:
                return True
        return False

    def _use_idle_device(self) -> None:
        """Measure the best file once more while nothing waits for a device and the researcher thinks."""
        ledger, proposers = self.run.ledger, self._proposers
        if not (proposers.ahead and proposers.busy and self.run.attempts and self._may_start()):
            return
        if ledger.next_number() in self._running.experiments or any(
            row.state == "proposed" for row in ledger.undecided()
        ):
            return
        # One that takes long by its answers so far leaves a device idle for whole trials.
        plenty = proposers.at_once(self._typical_seconds()) > 1
        if self.judge.repeats_when_idle(self.run.incumbent_side(), plenty=plenty):
            self._tell(Remeasuring(experiment=self._running.start_repeat()))

    def _wanted(self) -> int:
        """Count the proposals that the loop wants at this moment: one for each device at most."""
        most, count = self.executor.capacity(), 1
        while count < most and self._wants_proposal(count):
            count += 1
        return count

    def _wants_proposal(self, more_asked: int = 0) -> bool:
        """Tell whether another proposal is wanted once `more_asked` more are in the making."""
        proposers, busy = self._proposers, self._running.experiments
        making = proposers.busy + more_asked
        if self._paused or not proposers.researcher.proposes or self._exhausted() or self._ending() is not None:
            return False
        # Ask a quick researcher only when a device is idle and every result is in; keep proposals waiting for each
        # device with a slow one. None is asked before the baseline is decided: it would guess in the dark, without the
        # noise and the speed.
        if not self.run.attempts or self._first_profile():
            return False
        if not proposers.ahead and self._stacks is not None and self._stacks.waits_for_round():
            return False
        begun = [row for row in self.run.ledger.undecided() if row.number]
        goal = self.limits.experiments
        held = frozenset[int]() if self._stacks is None else self._stacks.waiting()
        left = STACKS_LEFT + 1 if self._stacks is not None and len(begun) > 1 and self.executor.capacity() > 1 else 0
        if goal is not None and len(self.run.attempts) - 1 + len(begun) + making + left >= goal:
            return False
        waiting, free = sum(row.number not in busy and row.number not in held for row in begun), self._free()
        if self._running.screening is not None and not proposers.ahead:
            # Changes that have passed wait for the other kind of device. A few may pile up; then proposing waits too.
            passed = sum(row.number not in busy and row.state != "proposed" for row in begun)
            if passed >= PASSED_PER_DEVICE * self.executor.capacity():
                return False
            waiting, free = waiting - passed, self._running.screening_free
        if not proposers.ahead:
            return waiting + making < free
        # Many devices need spare proposals: every improvement outdates some that wait, and idle devices are costly.
        devices, trial = self.executor.capacity(), self._typical_seconds()
        more = 0 if devices == 1 else max(free, devices // DEVICES_PER_SPARE)
        # A researcher that is slower than the trials falls behind with one proposal ahead; but the more wait, the
        # less each of them knows. It is asked for several at once only as far as it has to be.
        more = max(more, devices * (proposers.ahead_by(trial) - 1))
        if waiting + making >= devices + more:
            return False
        return devices > 1 or making < proposers.at_once(trial)

    def _accept(self, answer: ResearcherAnswer) -> None:
        """Make a proposal an experiment, unless its source was tried before."""
        proposal, program = answer.proposal, answer.history.program
        # A proposal that failed costs a call and counts; the loop goes on, for the next one may do.
        if proposal is None:
            self._count_failure(answer)
            where = f" (its output: {answer.record})" if answer.record else ""
            self._refuse(
                "unusable" if answer.kind == "unusable" else "failed", answer.refusal + where, answer.cost, program
            )
            return
        before = self.run.ledger.tried_as(fingerprint(proposal.source))
        if before is not None and not self._may_repeat(before, fingerprint(proposal.source)):
            self._repeated += 1
            self._refuse("repeated", f"experiment {before} tried this source already", proposal.cost, program)
            return
        self._failed = self._repeated = self._same = 0
        self.run.propose(proposal, program, answer.history.incumbent.experiment)

    def _count_failure(self, answer: ResearcherAnswer) -> None:
        if answer.kind == "unusable":
            self._repeated += 1
        else:
            self._failed += 1
        if answer.kind != "failed":
            self._same = self._same + 1 if answer.refusal == self._said else 1
            self._said = answer.refusal

    def _take_submissions(self) -> None:
        """Make experiments of the train files that were submitted; without a baseline they wait for it."""
        if self.run.attempts and self._ending() is None:
            for refusal in self._submissions.take():
                self._tell(refusal)

    def _may_repeat(self, experiment: int, mark: str) -> bool:
        """Tell whether a program may be tried again, once: its only experiment so far was spoilt by a slow machine."""
        ledger = self.run.ledger
        return experiment in ledger.numbers_of(SLOW) and ledger.times_tried(mark) == 1

    def _refuse(self, kind: str, error: str, cost: Cost, program: str) -> None:
        self._error = error
        self.run.ledger.refuse(kind, error, researcher=self._proposers.researcher.name, cost=cost, program=program)
        self._tell(ProposalRefused(kind, error))

    def _exhausted(self) -> bool:
        """Tell whether too many proposals in a row were unusable. A decision resets the count: it is something new."""
        stuck = self._same >= MAX_SAME_FAILURES
        return stuck or self._failed >= MAX_FAILED_PROPOSALS or self._repeated >= MAX_REPEATED_PROPOSALS

    def _check_over(self) -> None:
        """End the loop when no trial runs and none will start. Raises `_End` or `LimitReachedError`."""
        ending = self._ending()
        if self._proposers.busy:
            if ending is None:
                return
            if self._patience is None:
                self._patience = self._clock.monotonic() + PATIENCE_SECONDS
                self._tell(AwaitingProposals(self._proposers.busy, PATIENCE_SECONDS))
            if self._clock.monotonic() < self._patience:
                return
        if ending is not None:
            raise _End(ending)
        if self._exhausted() and not self.run.ledger.undecided():
            count = max(self._failed, self._repeated, self._same)
            who, why = self._proposers.researcher.name, self._error.rstrip(".")
            message = f"the researcher {who} had no usable proposal {count} times in a row: {why}."
            raise LimitReachedError(message, fix="edit program.md, or choose another --researcher; the run goes on")

    def _ending(self) -> Ending | None:
        """Return the reason why no further trial may start; None when one may."""
        if self.stop.wish != "go on":
            return self._stopped().ending
        goal, decided = self.limits.experiments, len(self.run.attempts) - 1
        if goal is not None and decided >= max(0, goal):
            count = "1 experiment is" if decided == 1 else f"{decided} experiments are"
            return Ending("finished", f"{count} decided", 0)
        if self.limits.submission is not None and self.run.ledger.settled(self.limits.submission):
            return Ending("finished", "what was submitted is decided", 0)
        if self._deadline is None:
            return None
        # No trial is started that would end long after the deadline: one training budget of overtime is the limit,
        # because a trial in progress is never cut off for the hour.
        late = self._clock.monotonic() + self._typical_seconds() - self._deadline
        if self._clock.monotonic() >= self._deadline or late > self.run.config.train_seconds:
            reason = f"{self.limits.hours:g} hours are over"
            if not self.run.attempts:
                undecided = f"{reason} before the baseline was decided; `ar loop --tag {self.run.tag}` goes on with it"
                return Ending("interrupted", undecided, 4)
            if goal is None:
                return Ending("finished", reason, 0)
            return Ending("interrupted", f"{reason}, after {max(0, decided)} of {goal} experiments", 4)
        return None

    def _typical_seconds(self) -> float:
        """Return a trial's usual seconds, start-up and scoring included: the median of the last successful ones."""
        walls = [
            attempt.metrics.get("wall_seconds") for attempt in self.run.attempts[-20:] if attempt.val_bpb is not None
        ]
        known = [float(wall) for wall in walls if wall is not None]
        return statistics.median(known) if known else self.run.config.train_seconds

    def _stopped(self) -> _End:
        reason = f"stopped; resume with `ar loop --tag {self.run.tag}`"
        return _End(Ending("interrupted", reason, self.stop.exit_code or 130))

    def _tell(self, event: Event) -> None:
        """Pass an event to the observer, one at a time: trials call this from threads of their own."""
        if self._observer is not None:
            with self._observer_lock:
                self._observer(event)
