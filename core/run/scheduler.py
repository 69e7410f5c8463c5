"""The trials under way: started, and recorded when they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from autoresearch.core.errors import ArError, PrerequisiteError
from autoresearch.core.events import Event, Observer, Repeated, SeedIgnored, SlowerFile, Trained, TrialEvent
from autoresearch.core.fleet.executor import Executor, Handle, TrialLost, TrialMisplaced
from autoresearch.core.judge.decision import RunTrial
from autoresearch.core.run.evidence import ignores_seed
from autoresearch.core.run.excuses import Excuses, Key, key_of
from autoresearch.core.run.losses import Losses
from autoresearch.core.run.rerun_policy import (
    SLEEP_SECONDS,
    DeviceWatch,
    Pace,
    asleep_seconds,
    disk_is_full,
    pace,
    same_shape,
    slot_pace,
    slow,
    slower_file,
    speeds,
    spoiled,
)
from autoresearch.core.run.run import Run
from autoresearch.core.store.rows import ExperimentRow, TrialRow
from autoresearch.core.trial.request import TrialRequest, TrialResult

SLOW = "trial slow"
"""Kind of the ledger's note on a trial that counts although it was slow twice: its program may be tried again."""
SHORT_FACTS = frozenset(
    {
        *("status", "val_bpb", "reason", "tokens", "steps", "params", "peak_memory_mb", "tokens_per_second", "mfu"),
        *("startup_seconds", "train_seconds", "eval_seconds", "wall_seconds", "cpu_seconds", "machine", "place"),
    }
)
"""Figures of a short trial that the ledger keeps."""
MAX_LOSSES = 5
"""Times that one trial may lose its machine in one invocation. After that the fleet is ill."""


@dataclass(frozen=True)
class ScreeningDevices:
    """Devices of another kind than the run's, for short trials."""

    executor: Executor
    machine: str
    """Their kind, by `Device.description`."""
    kind: str | None = None
    """Kind of hardware that they compute on ("cuda", "metal", "cpu", "numpy"); None accepts any."""


@dataclass
class RunningTrial:
    """One trial under way."""

    trial: TrialRow
    asleep: float
    """`asleep_seconds()` when it started."""
    handle: Handle | None = None
    trained: bool = False
    """Set to true by the trial's own thread when its weights are frozen."""
    recorded: bool = False
    """True once the ledger has `trained`."""
    repeat: bool = False
    """True for a trial of the incumbent on an idle device; its experiment may not be there yet."""
    short: RunTrial | None = None
    """The judge's request, for a short trial."""
    lost: str = ""
    """Words for the loss of the device while this trial ran; empty without one."""


class RunningTrials:
    """Runs at most one trial for each experiment, and as many at once as the executor has devices."""

    def __init__(
        self,
        run: Run,
        executor: Executor,
        tell: Observer,
        notify: Callable[[], None],
        watch: DeviceWatch | None = None,
        stopped: Callable[[], bool] = lambda: False,
        screening: ScreeningDevices | None = None,
    ) -> None:
        """Pass `tell` every event of every trial, and call `notify` when there is something to do, from any thread.

        `watch` looks for the device after a failure; `stopped` says whether a person wants to stop meanwhile.
        `screening` are devices of their own for short trials.
        """
        self.run, self.executor, self.screening = run, executor, screening
        self._tell, self._notify = tell, notify
        self._watch, self._stopped = watch, stopped
        self._trials: dict[int, RunningTrial] = {}
        self._lost: Counter[Key] = Counter()
        self._losses = Losses(run.ledger)
        self._excuses = Excuses(run.ledger)

    @property
    def experiments(self) -> frozenset[int]:
        """The experiments that have a trial under way."""
        return frozenset(self._trials)

    @property
    def free(self) -> int:
        """The number of devices without a trial, those for short trials alone left out."""
        mine = sum(self.screening is None or one.short is None for one in self._trials.values())
        return max(0, self.executor.capacity() - mine)

    @property
    def screening_free(self) -> int:
        """The number of devices on which a short trial can start."""
        if self.screening is None:
            return self.free
        return max(0, self.screening.executor.capacity() - len(self.shorts))

    @property
    def shorts(self) -> frozenset[tuple[int, int]]:
        """Source and seed of the short trials under way."""
        return frozenset((one.trial.subject, one.trial.seed) for one in self._trials.values() if one.short)

    def start(self, row: ExperimentRow, step: RunTrial, against: int | None = None) -> None:
        """Record that a trial starts, then start it; `against` is what takes the incumbent's place, if anything."""
        if step.short is not None:
            trial, request = self.run.start_short(row, step)
            if self.screening is not None:
                request = replace(request, device_kind=self.screening.kind)
            self._launch(RunningTrial(trial, asleep_seconds(), short=step), request)
            return
        trial, request = self.run.start_trial(row, step, against)
        self._launch(RunningTrial(trial, asleep_seconds()), request)

    def start_repeat(self) -> int:
        """Have an idle device measure the incumbent once more; return its number.

        The next experiment counts as busy meanwhile: its own first trial is compared with this one.
        """
        trial, request = self.run.start_repeat()
        self._launch(RunningTrial(trial, asleep_seconds(), repeat=True), request)
        return trial.subject

    def _launch(self, running: RunningTrial, request: TrialRequest) -> None:
        trial = running.trial

        def observe(event: Event) -> None:
            if isinstance(event, Trained):
                running.trained = True
                self._notify()
            if isinstance(event, TrialEvent):
                self._tell(replace(event, experiment=trial.experiment, k=trial.k))

        self._trials[trial.experiment] = running
        try:
            apart = self.screening if running.short is not None else None
            running.handle = (self.executor if apart is None else apart.executor).submit(request, observe)
        except BaseException:
            del self._trials[trial.experiment]
            raise
        running.handle.on_done(self._notify)

    def collect(self) -> list[int]:
        """Record every result that has come, in the order of the trials' starts; return their experiments' numbers.

        Raises the first error only when all are recorded: a trial that ended well has cost its time.
        """
        collected = []
        trouble: ArError | None = None
        for number, running in list(self._trials.items()):
            if running.handle is not None and running.handle.done():
                handle = running.handle
                del self._trials[number]
                try:
                    try:
                        # The result is there already; 0 makes sure that this thread never waits for a trial.
                        self._record(running, handle.result(0))
                    except TrialLost as lost:
                        self._note_lost(running, lost)
                except ArError as error:
                    trouble = trouble or error
                collected.append(number)
            elif running.trained and not running.recorded:
                if not running.repeat and not running.short:
                    self.run.ledger.trained(number)
                running.recorded = True
        if trouble is not None:
            raise trouble
        return collected

    def cancel(self) -> None:
        """Kill every trial; returns when nothing of them is left."""
        while self._trials:
            _, running = self._trials.popitem()
            if running.handle is not None:
                running.handle.cancel()

    def _note_lost(self, running: RunningTrial, lost: TrialLost) -> None:
        """Leave a trial unfinished that lost its machine, or give it up (see `losses`).

        Raises `ArError` after `MAX_LOSSES` times.
        """
        trial, number = running.trial, running.trial.experiment
        self._losses.note(trial, lost.message, by_file=not isinstance(lost, TrialMisplaced))
        if self._give_up(running):
            return
        self._count_loss(trial, lost.message, "machine", "the machine or the fleet")
        # Unfinished, so the judge asks for it again, and it is started again under its own number.
        self._tell(Repeated(f"{lost.message}{_whose(trial)}", experiment=number))

    def _count_loss(self, trial: TrialRow, words: str, what: str, where: str) -> None:
        """Count what a trial has lost; `where` is what to look at. Raises `ArError` after `MAX_LOSSES` times."""
        self._lost[key_of(trial)] += 1
        if self._lost[key_of(trial)] >= MAX_LOSSES:
            message = (
                f"a trial of experiment {trial.subject} lost its {what} {MAX_LOSSES} times; the last time, {words}."
            )
            raise ArError(message, fix=f"look at {where}, then give the same command again; nothing is lost")

    def _lost_device(self, running: RunningTrial, result: TrialResult) -> str | None:
        """Return how a failed trial lost its device, if it did, and note that. Raises as `DeviceWatch.lost` does."""
        if self._watch is None or result.status not in ("crash", "timeout"):
            return None
        # A device that goes away takes every trial along, and may be back before the second one is looked at.
        words: str | None = running.lost or None
        gone: PrerequisiteError | None = None
        if words is None:
            try:
                words = self._watch.lost(result, stopped=self._stopped)
            except PrerequisiteError as error:
                words, gone = error.message, error
        if words is None:
            return None
        self._losses.note(running.trial, words)
        for other in self._trials.values():
            other.lost = other.lost or words
        if gone is not None:
            self._give_up(running)
            raise gone
        return words

    def _give_up(self, running: RunningTrial) -> bool:
        """Record a trial that has lost its device too often as one that crashed. Return whether it has."""
        trial, config = running.trial, self.run.config
        reason = None if running.repeat else self._losses.given_up(trial)
        if reason is None:
            return False
        result = TrialResult(
            status="crash",
            reason=reason,
            seed=trial.seed,
            backend=config.backend,
            preset=config.preset,
            machine=config.machine or None,
        )
        if running.short is not None:
            self._record_short(running, running.short, result)
        else:
            self.run.ledger.score(trial.experiment, trial.k, result)
        return True

    def _record(self, running: RunningTrial, result: TrialResult) -> None:
        trial, number = running.trial, running.trial.experiment
        if result.status == "crash" and self._stopped():
            return  # the person who stops the loop may have killed the trial's processes too: it is run again
        self._check_disk(result)
        if self.run.config.machine:
            # The run's own name of the machine, so that a train file cannot pass for another machine's.
            result = result.model_copy(update={"machine": self.run.config.machine})
        if running.short is not None and self.screening is not None:
            # The pace of another kind of device says nothing of it.
            self._record_short(running, running.short, result.model_copy(update={"machine": self.screening.machine}))
            return
        excused, used_up = self._excuses.excused(trial), self._excuses.used_up(trial)
        usual = replace(self._pace(trial.subject), here=self._slot_pace(result))
        spoilt = lost = self._lost_device(running, result)
        if lost is not None:
            if self._give_up(running):
                return
            self._count_loss(trial, lost, "device", "the device and its driver")
        if spoilt is None and self._watch is not None:
            spoilt = self._watch.suspect(result, repeated=used_up)
        same, incumbent = (
            speeds(self.run.ended_trials(number)) for number in (trial.subject, self.run.incumbent_number())
        )
        slept = asleep_seconds() - running.asleep
        spoilt = spoilt or spoiled(
            result,
            slept=slept,
            same=same,
            incumbent=incumbent,
            repeated=used_up or (not running.repeat and self._excuses.too_many(len(self.run.attempts))),
            usual=usual,
        )
        if spoilt is None and running.short is not None:
            self._record_short(running, running.short, result)
            return
        if spoilt is None:
            # About the file that ran, which is the best one where an experiment measures that again.
            file = trial.subject
            if (reason := ignores_seed(result, self.run.ended_trials(file))) is not None:
                self.run.ledger.note("seed ignored", file, {"k": trial.k, "reason": reason})
                self._tell(SeedIgnored(reason, experiment=file))
            if (words := slower_file(result, same=same, incumbent=incumbent, usual=usual)) is not None:
                self._tell(SlowerFile(words, experiment=file))
            if excused and file == number and (words := slow(result, usual=usual)) is not None:
                self.run.ledger.note(SLOW, number, {"k": trial.k, "reason": words})
            self.run.ledger.score(number, trial.k, result, repeat=running.repeat)
            return
        # Unfinished, so the judge asks for it again, and it is started again under its own number.
        by_machine = lost is not None or slept > SLEEP_SECONDS
        self._excuses.note(trial, spoilt, idle=running.repeat, by_machine=by_machine)
        self._tell(Repeated(f"{spoilt}{_whose(trial)}", experiment=number))

    def _record_short(self, running: RunningTrial, step: RunTrial, result: TrialResult) -> None:
        facts = {name: value for name, value in result.model_dump().items() if name in SHORT_FACTS}
        trial = running.trial
        told = {"experiment": trial.experiment, "subject": trial.subject, "against": step.subject, "seed": trial.seed}
        self.run.ledger.short_trial(trial.experiment, {**told, "seconds": step.short, **facts})

    def _pace(self, subject: int) -> Pace:
        """Return the usual pace of trials that compare with one of this source: its own, and the best file's."""
        own = [trial.result for trial in self.run.ended_trials(subject)]
        best = self.run.incumbent_number()
        if best == subject:
            return pace(own)
        others = [trial.result for trial in self.run.ended_trials(best)]
        mine, theirs = (self.run.ledger.source(n) for n in (subject, best))
        return pace([*own, *others]) if same_shape(mine, theirs) else pace(own, others)

    def _slot_pace(self, result: TrialResult) -> float | None:
        """Return the speed of the slot that a trial ran on, by the best file's steps there."""
        best = self.run.ended_trials(self.run.incumbent_number())
        return slot_pace([trial.result for trial in best], result.place)

    def _check_disk(self, result: TrialResult) -> None:
        """Raise `ArError` when a trial failed on a full disk: that says nothing about its source."""
        if result.status != "ok" and disk_is_full(self.run.folder):
            raise ArError(
                f"the disk of {self.run.folder} is full.",
                fix="free some space, then give the same command again: the trial is run again, nothing is lost",
            )


def _whose(trial: TrialRow) -> str:
    """Say whose file a trial ran, where it is not its experiment's own."""
    return "" if trial.subject == trial.experiment else f" (it is a trial of experiment {trial.subject})"
