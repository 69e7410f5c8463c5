"""The loop's own profile of the incumbent: where a step's time goes, measured beside the experiments and never scored.

A short training that traces a few batches. It is made again when the incumbent's shape has changed as far as its trials
tell: its parameters, its tokens a step or its time a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autoresearch.core.errors import ArError
from autoresearch.core.files import remove_folder
from autoresearch.core.fleet.executor import Executor, Handle
from autoresearch.core.run.history import profile_folder, same_shape, shape_of
from autoresearch.core.run.run import Run
from autoresearch.core.trial.profile import GRACE_SECONDS, PAGE, page
from autoresearch.core.trial.request import TrialTerms
from autoresearch.core.trial.weights import drop_weights

TRAIN_SECONDS = (10.0, 30.0)
"""Shortest and longest training of a profile, in seconds; within them `TRAIN_SHARE` of a trial's, which is the most."""
TRAIN_SHARE = 0.25
FAILED = "profile failed"
"""Kind of the ledger's note on a profile that failed."""
DEVICE_SHARE = 0.05
"""Largest share of the run's device time that profiles take, the first one left out."""


class IncumbentProfiles:
    """Decides when the incumbent is profiled, and runs one profile at a time on one of the executor's devices."""

    def __init__(self, run: Run, executor: Executor, notify: Callable[[], None]) -> None:
        """`notify` is called from any thread when a profile has ended."""
        self._run, self._executor, self._notify = run, executor, notify
        self._handle: Handle | None = None
        self._number = -1
        self._looked_at = (-1, 0)
        self._due = False

    @property
    def running(self) -> bool:
        """True while a profile holds a device."""
        return self._handle is not None

    def due(self) -> bool:
        """Tell whether the incumbent should be profiled now. Looks only after a decision."""
        number = self._run.incumbent_number()
        if self.running or not self._run.attempts:
            return False
        if (number, len(self._run.attempts)) != self._looked_at:
            self._looked_at, self._due = (number, len(self._run.attempts)), self._differs(number)
        return self._due

    def start(self) -> int:
        """Start a profile of the incumbent; return its number."""
        number, terms = self._run.incumbent_number(), TrialTerms.of_config(self._run.config.plain())
        self._number, self._due = number, False
        whole = terms.budget.train_seconds
        folder = profile_folder(self._run.folder, number)
        if folder.exists():
            remove_folder(folder)  # left by a loop that ended meanwhile
        short = min(whole, max(TRAIN_SECONDS[0], min(TRAIN_SECONDS[1], TRAIN_SHARE * whole)))
        terms = replace(terms, budget=replace(terms.budget, train_seconds=short, grace_floor_seconds=GRACE_SECONDS))
        source = self._run.ledger.source(number)
        request = terms.request(source, folder, self._run.config.seed)
        baseline = self._run.ledger.source(0) if number else None
        request = replace(request, profile=True, score=False, carried=self._run.carried(), baseline=baseline)
        self._handle = self._executor.submit(request)
        self._handle.on_done(self._notify)
        return number

    def collect(self) -> None:
        """Take in a profile that has ended. One that failed is not tried again: nothing rests on it."""
        if self._handle is None or not self._handle.done():
            return
        handle, self._handle = self._handle, None
        try:
            result = handle.result(0)
        except ArError as error:
            self._run.ledger.note(FAILED, self._number, {"reason": error.message})
            return
        folder = profile_folder(self._run.folder, self._number)
        drop_weights(folder / "weights.safetensors")
        if result.profile is None:
            reason = result.reason or "training had too few batches"
            self._run.ledger.note(FAILED, self._number, {"reason": reason})
        elif not (folder / PAGE).exists():  # it was made on another machine of a fleet
            folder.mkdir(parents=True, exist_ok=True)
            (folder / PAGE).write_text(page(result.profile), encoding="utf-8")

    def cancel(self) -> None:
        """Kill a profile that runs. Nothing of it is left when this returns."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            handle.cancel()

    def _differs(self, number: int) -> bool:
        """Tell whether the incumbent is unlike every file that was profiled, and whether there is time for one more."""
        done = self._made()
        if number in done:
            return False
        if not done:
            return True
        now, then = self._figures(number), self._figures(max(done))
        if same_shape(now, then):
            return False
        walls = [float(one.metrics.get("wall_seconds") or 0.0) for one in self._run.attempts]
        typical = sum(walls) / max(1, len(walls))
        return (len(done) + 1) * TRAIN_SHARE * typical <= DEVICE_SHARE * sum(walls) + TRAIN_SHARE * typical

    def _made(self) -> set[int]:
        """Return the experiments whose profile was made or has failed. One that an ended loop cut off is neither."""
        pages = profile_folder(self._run.folder, 0).parent.glob(f"*/{PAGE}")
        made = {int(page.parent.name) for page in pages if page.parent.name.isdigit()}
        return made.union(self._run.ledger.numbers_of(FAILED))

    def _figures(self, number: int) -> tuple[float, ...]:
        """Return parameters, tokens and seconds a step of an experiment's first good trial; () without one."""
        good = [trial for trial in self._run.ended_trials(number) if trial.status == "ok"]
        return shape_of(good[0].result) if good else ()
