"""One session of `ar loop` in the terminal: the live view, messages, signals, and the summary at the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.awake import awake
from autoresearch.core.cli.context import Settings, handling
from autoresearch.core.cli.run.hooks import HookOptions, RunHooks
from autoresearch.core.cli.run.options import CALLS
from autoresearch.core.cli.run.resolve import device_watch
from autoresearch.core.errors import LimitReachedError, system_words
from autoresearch.core.events import (
    AwaitingProposals,
    Decided,
    Demoted,
    Event,
    Observer,
    Paused,
    Profiling,
    ProposalRefused,
    Remeasuring,
    Repeated,
    Resumed,
    SeedIgnored,
    SlowerFile,
    Withdrawn,
)
from autoresearch.core.fleet.cluster_executor import FleetExecutor
from autoresearch.core.judge.options import make_judge
from autoresearch.core.run.loop import Ending, Limits, Loop, Stop
from autoresearch.core.run.rerun_policy import machine_moved

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.fleet.executor import Executor
    from autoresearch.core.proposal import Researcher
    from autoresearch.core.report.terminal.live import View
    from autoresearch.core.run.run import Run
    from autoresearch.core.run.scheduler import ScreeningDevices
    from autoresearch.core.store.rows import ExperimentRow
    from autoresearch.core.trial.request import IsolationLevel

EXIT_INTERRUPTED = 130
NOTED: Mapping[type[Event], str] = {
    Repeated: "experiment {experiment}: repeating the trial, because {reason}",
    SlowerFile: "experiment {experiment}: slower file: {reason}",
    SeedIgnored: "experiment {experiment}: {reason}",
    Demoted: "experiment {experiment} {reason}",
    Withdrawn: "the proposal for experiment {experiment} is withdrawn before a trial: {reason}",
    Profiling: "profiling experiment {experiment}, the best file: where a step's time goes, for the researcher",
    Remeasuring: "measuring experiment {experiment}, the best file, once more while the researcher thinks",
    AwaitingProposals: "waiting up to {seconds:.0f} s for proposals in the making ({count}), which are paid for; "
    "press Ctrl-C again to end at once",
    Paused: "paused from the dashboard: what runs is finished, and nothing begins until it is resumed there",
    Resumed: "resumed",
    ProposalRefused: "no usable proposal ({kind}): {reason}",
}
"""Events that leave a line above the live view, and the line."""


class Messages:
    """Passes messages to the person: to stderr, or to the live view while one is on the screen."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Send messages to `say` until a view takes over."""
        self._say = say

    def say(self, message: str) -> None:
        """Show one message. May be called from any thread."""
        self._say(message)

    @contextmanager
    def shown_by(self, note: Callable[[str], None]) -> Iterator[None]:
        """Send messages to `note` inside the block: a line written past a live view would break it."""
        before, self._say = self._say, note
        try:
            yield
        finally:
            self._say = before


def run_session(
    settings: Settings,
    run: Run,
    researcher: Researcher,
    limits: Limits,
    prepared: Prepared,
    options: HookOptions,
    executor: Executor,
    messages: Messages,
    screening: ScreeningDevices | None = None,
) -> None:
    """Run the loop, show its progress and its result, and exit with its exit code. Closes the executor."""
    stop, limit = Stop(), None
    _announce(settings, run, limits)
    level = executor.isolation if isinstance(executor, FleetExecutor) else None
    ending: Ending | None = None
    try:
        with (
            _view(settings, run, researcher, limits, level) as view,
            RunHooks(options, run, view.note) as hooks,
            messages.shown_by(view.note),
            listen(stop, view.note),
            awake(),
        ):
            ending = Loop(
                run,
                researcher,
                make_judge(run.config.judge, run.config.judge_options),
                executor,
                limits=limits,
                stop=stop,
                observer=_observer(view, run.config.judge),
                on_decided=_on_decided(hooks, settings, view.note),
                # A fleet looks after its devices itself.
                screening=screening,
                device_watch=None if level else device_watch(run.config, executor),
            ).go()
    except LimitReachedError as error:
        limit = error
    finally:
        if screening is not None:
            screening.executor.close()
        executor.close()
    show_end(settings, run, ending.reason if ending else "", prepared)
    if limit is not None:
        raise limit
    if ending is not None and ending.exit_code:
        click.get_current_context().exit(ending.exit_code)


def _announce(settings: Settings, run: Run, limits: Limits) -> None:
    """Explain before the first trial anything that may surprise a person: repeated baselines, a changed machine."""
    from autoresearch.core.report.wording import counted, duration
    from autoresearch.core.trial.record import warning_for_file_size
    from autoresearch.core.trial.sandbox.levels import best_level, warning_for_root
    from autoresearch.core.trial.sandbox.sealing import warning_for_names

    decided = max(0, len(run.attempts) - 1)
    to_make = (limits.experiments or 0) - decided
    if run.attempts and limits.experiments is not None and to_make <= 0:
        settings.say(
            f"nothing to run: -n {limits.experiments} counts earlier sessions, and the run has "
            f"{counted(decided, 'experiment')}; -n {decided + 1} or more goes on with it"
        )
    if to_make > 0:
        training = duration(to_make * run.config.train_seconds)
        settings.say(
            f"{counted(to_make, 'experiment')} to make: {training} of training on one device, start-up, scoring and "
            "repeats not counted; the time left is shown as they end"
        )
    times = run.config.judge_options.calibrate
    calibrating = run.config.judge == "racing" and times > 1 and run.ledger.run().incumbent is None
    if calibrating:
        settings.say(
            f"the baseline is trained {times} times ({run.config.train_seconds:g} s each) to learn the "
            "noise; promising changes are trained again with fresh seeds (--judge greedy does neither)"
        )
    for warning in (warning_for_root(), warning_for_names(best_level()), warning_for_file_size()):
        if warning is not None:
            settings.say(warning)
    if run.lost:
        settings.say(
            f"git has {counted(len(run.lost), 'experiment')} of this run, from number {run.lost[0]} on, that its "
            "ledger lacks, as one from a backup does: new ones get their numbers, and their commits are then kept as "
            f"refs/autoresearch/{run.tag}/lost/*"
        )
    moved = machine_moved(run.ledger.last_trial(), run.config.machine)
    if moved is not None:
        settings.say(moved)


def _view(
    settings: Settings, run: Run, researcher: Researcher, limits: Limits, isolation: IsolationLevel | None = None
) -> View:
    from autoresearch.core.report.terminal.panel import LoopInfo
    from autoresearch.core.report.terminal.run_view import run_view
    from autoresearch.core.trial.sandbox.levels import best_level

    info = LoopInfo(
        researcher=researcher.name,
        goal=limits.experiments,
        began=time.time(),
        before=max(0, len(run.attempts) - 1),
        ends=None if limits.hours is None else time.time() + 3600 * limits.hours,
        isolation=isolation or best_level(),
    )
    return run_view(
        run.folder,
        run.config.train_seconds,
        info,
        verbosity=settings.verbosity,
        data_on_stdout=settings.json,
    )


def _observer(view: View, judge: str) -> Observer:
    def observe(event: Event) -> None:
        if (line := NOTED.get(type(event))) is not None:
            view.note(line.format_map(vars(event)))
        elif isinstance(event, Decided) and event.experiment == 0 and judge == "racing" and event.reason:
            view.note(event.reason)  # the noise that calibration has found
        view(event)

    return observe


def _on_decided(hooks: RunHooks, settings: Settings, say: Callable[[str], None]) -> Callable[[ExperimentRow], None]:
    from autoresearch.core.store.exports import decided_record

    def decided(row: ExperimentRow) -> None:
        if settings.json:
            try:
                click.echo(json.dumps(decided_record(row)))
            except OSError as error:  # its reader has left, or the disk is full: a night's work does not end with that
                say(f"standard output takes no more ({system_words(error)}): the ledger has every decision")
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives until the process ends
        hooks.decided(row)

    return decided


@contextmanager
def listen(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Turn signals into requests to stop inside the block: the first Ctrl-C finishes the trial, the second kills it.

    SIGTERM kills it at once, and so does a closed terminal (SIGHUP), unless `nohup` has it ignored. Must be entered in
    the main thread.
    """

    def tell(message: str) -> None:
        # A handler that interrupts a write to stderr may not write there itself; the request counts all the same.
        with suppress(RuntimeError):
            say(message)

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if stop.wish == "go on":
            tell("stopping after the current trial; press Ctrl-C again to kill it (continuing the run repeats it)")
            stop.finish(EXIT_INTERRUPTED)
        else:
            tell("killing the current trial")
            stop.kill(EXIT_INTERRUPTED)

    def terminated(number: int, _frame: FrameType | None) -> None:
        stop.kill(128 + number)

    with handling({signal.SIGINT: interrupted, signal.SIGTERM: terminated, signal.SIGHUP: terminated}):
        yield


def show_end(settings: Settings, run: Run, reason: str, prepared: Prepared) -> None:
    """Draw the progress picture; print the summary as JSON, or the table and the paths of the results."""
    from autoresearch.core.cli.output import draw_picture
    from autoresearch.core.cli.verify import expected_seconds
    from autoresearch.core.report.document.figures import draw_progress
    from autoresearch.core.report.terminal.table import write_table
    from autoresearch.core.report.wording import best_text, spell, withdrawn_text
    from autoresearch.core.store.exports import summarise
    from autoresearch.core.store.headline import headline_of, steps_of

    rows = [row for row in run.ledger.experiments() if row.state == "decided"]
    picture, yardsticks = run.folder / "progress.png", prepared.manifest.yardsticks
    means = steps_of(run.ledger, run.ledger.keeps())
    lines = {"gzip": yardsticks.gzip_bpb, "xz": yardsticks.xz_bpb}
    drawn = bool(rows) and draw_picture(settings, picture, lambda: draw_progress(rows, means, picture, lines))
    headline = headline_of(run.ledger)
    summary = {**summarise(run.ledger), "picture": str(picture) if drawn else None}
    if settings.json:
        click.echo(json.dumps({"summary": summary}))
        return
    write_table(rows)
    if (gone := withdrawn_text(run.ledger.withdrawn())) is not None:
        settings.say(gone)
    settings.say(f"{run.tag}: {reason}" if reason else run.tag)
    if summary["best_experiment"] == 0:
        settings.say("no change was kept: the baseline is the best file so far")
    elif headline is not None:
        settings.say(best_text(headline, digits=6))
        settings.say(
            f"train file: {summary['best_train']} (branch {summary['branch']}; `ar apply` writes it into the checkout)"
        )
    if (bill := models_words(run, summary["experiments"])) is not None:
        settings.say(bill)
    for one in summary["findings"]:
        settings.say(findings_words(one))
    if drawn:
        settings.say(f"picture: {picture}")
    if headline is not None and headline.experiment:
        about = spell(expected_seconds(run.ledger, headline.experiment))
        settings.say(
            f"next: `ar verify --tag {run.tag}`, about {about}, measures it on a test set never used for selection"
        )


def models_words(run: Run, experiments: int) -> str | None:
    """Sum up in a line what the language models cost, with and without the providers' caches; None without a bill."""
    from autoresearch.agent.llm.spending import Spending
    from autoresearch.core.report.wording import counted, dollars

    bill = Spending(run.folder / CALLS).bill
    unknown = f"{counted(bill.unpriced, 'call')} without a known price"
    if not bill.tokens_in:
        return f"language models: {unknown}; --price gives it" if bill.unpriced else None
    each = max(1, experiments)
    uncached = "unknown" if bill.usd_uncached is None else dollars(bill.usd_uncached / each)
    return (
        f"language models: {dollars(bill.usd)}, {dollars(bill.usd / each)} an experiment ({uncached} without the "
        f"providers' caches, from which {bill.tokens_cached / bill.tokens_in:.0%} of the input tokens came)"
        + (f", and {unknown}" if bill.unpriced else "")
    )


def findings_words(count: dict[str, Any]) -> str:
    """Sum up in a line how many of a peer run's changes held here."""
    left = count["offered"] - count["tried"]
    rest = f"; {left} not tried" if left else ""
    where = f"{count['backend']} on {count['device']}"
    noun = "finding" if count["offered"] == 1 else "findings"
    return f"{count['held']} of {count['offered']} {noun} of {count['run']} ({where}) held here{rest}"
