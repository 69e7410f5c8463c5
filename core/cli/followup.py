"""The run, the live view, the stop on Ctrl-C, and the plan that `ar verify`, `ar ablate` and `ar scale` share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoresearch.core.cli.context import Settings

if TYPE_CHECKING:
    from autoresearch.core.cli.run.options import FleetOptions
    from autoresearch.core.fleet.executor import Executor
    from autoresearch.core.followup.remeasure import Call, Countdown, Remeasurer
    from autoresearch.core.store.ledger import Ledger
    from autoresearch.core.store.reader import LedgerReader
    from autoresearch.core.store.rows import ExperimentRow, RunRow


@contextlib.contextmanager
def kept_run(settings: Settings, tag: str | None, purpose: str = "") -> Iterator[tuple[Ledger, RunRow, ExperimentRow]]:
    """Open the ledger of a run that has kept a change; gives the ledger, the run and its best experiment.

    `purpose` says in a verb what the change is for. Raises `PrerequisiteError` where no change was kept.
    """
    from autoresearch.core.store.ledger import Ledger

    with read_kept_run(settings, tag, purpose) as (reader, _, _):
        folder = reader.folder
    with Ledger(folder) as ledger:
        yield ledger, *_kept(ledger, purpose)


@contextlib.contextmanager
def read_kept_run(
    settings: Settings, tag: str | None, purpose: str = ""
) -> Iterator[tuple[LedgerReader, RunRow, ExperimentRow]]:
    """Give the same as `kept_run`, to read alone: a loop may write the run meanwhile."""
    from autoresearch.core.cli.runs import check_name, open_reader

    check_name(settings.workspace, tag)
    with open_reader(settings, tag) as reader:
        yield reader, *_kept(reader, purpose)


def _kept(ledger: LedgerReader, purpose: str) -> tuple[RunRow, ExperimentRow]:
    from autoresearch.core.errors import PrerequisiteError

    run, best = ledger.run(), ledger.incumbent()
    if best is None or best.number == 0:
        to = f" to {purpose}" if purpose else ""
        raise PrerequisiteError(f"the run {run.tag!r} has no kept change{to}.", fix="let `ar loop` find one first")
    return run, best


@dataclass(frozen=True)
class Place:
    """The devices that a call's trials run on."""

    executor: Executor | None
    """Runs them, several at once; None for one at a time on this machine."""
    machine: str
    """Name of the device, by which an interrupted call finds its own trials again; empty for what the trials say."""


@contextlib.contextmanager
def placed(settings: Settings, ledger: Ledger, options: FleetOptions, command: str) -> Iterator[Place]:
    """Open the devices that the options name, for the trials of a command, and close them after the block.

    Raises `UsageError` for options that exclude each other, `PrerequisiteError` where no device fits.
    """
    from autoresearch.core.cli.run.resolve import Devices, machine_name
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.fleet.membership import Member
    from autoresearch.core.trial.device import probe_device

    devices = Devices(options, settings.say)
    if options.fleet == "local" and options.slots is None:
        yield Place(None, "")
        return
    run = ledger.run()
    backend, prepared = str(run.config["backend"]), Prepared.open(Path(run.config["prepared"]))
    before = str(run.config.get("machine") or "")
    device = devices.find_device(backend, before) if devices.find_device else probe_device(backend)
    # A member and a folder of its own: the run's loop may be on the fleet at the same time.
    folder = ledger.folder / command
    folder.mkdir(exist_ok=True)
    member = Member(f"{run.tag}-{command}", folder)
    executor = devices.executor(member, backend, device.description(), device.kind, prepared)
    try:
        yield Place(executor, machine_name(device.description(), device.kind, executor))
    finally:
        executor.close()


@contextlib.contextmanager
def remeasuring(
    settings: Settings,
    ledger: Ledger,
    experiments: Sequence[int],
    folder: Path,
    split: Literal["val", "test"],
    seed_offset: int,
    call: Call,
    countdown: Countdown,
    place: Place,
) -> Iterator[Remeasurer]:
    """Give a `Remeasurer` of the run on those devices, shown while it works and stopped by a signal.

    `experiments` are those whose speed in the run the new trials are held against, and `seed_offset` is the command's.
    """
    from autoresearch.core.cli.train import watched
    from autoresearch.core.followup.remeasure import Remeasurer, first_seed, usual_speeds
    from autoresearch.core.report.wording import counted

    config = ledger.run().config
    usual = usual_speeds(ledger, experiments)
    if call.done:
        verb = "is" if len(call.done) == 1 else "are"
        settings.say(f"{counted(len(call.done), 'trial')} of an interrupted call {verb} taken over")
    with watched(settings, config["train_seconds"]) as (view, cancel):
        countdown.say = view.note if settings.verbosity >= 0 else countdown.say
        seed = first_seed(config, seed_offset, call.number)
        try:
            known = (config, folder, split, seed, view, cancel, usual, settings.say, call, countdown)
            yield Remeasurer(*known, executor=place.executor, machine=place.machine)
        finally:
            if cancel.is_set():
                settings.say("the trials that have ended are kept: the same command goes on from here")


def call_of(ledger: Ledger, command: str, number: int, place: Place) -> Call:
    """Find what an interrupted call of this number has measured on these devices."""
    from autoresearch.core.followup.remeasure import Call
    from autoresearch.core.trial.device import probe_device

    backend = str(ledger.run().config["backend"])
    return Call.of(ledger, command, number, lambda: place.machine or probe_device(backend).description())


def countdown_of(ledger: LedgerReader, experiments: Sequence[int], trials: int) -> Countdown:
    """Expect so many trials of the run's budget, each as long as those of these experiments usually were."""
    from autoresearch.core.followup.remeasure import Countdown, overhead_seconds

    overhead = overhead_seconds(ledger, experiments)
    each = overhead + float(ledger.run().config["train_seconds"])
    return Countdown(trials=trials, seconds=trials * each, overhead=overhead)
