"""`ar loop`: the main job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings, require_isolation
from autoresearch.core.cli.params import CorpusType, Vocabularies
from autoresearch.core.cli.run.hooks import Beside, BesideOptions, beside_options, check_beside
from autoresearch.core.cli.run.options import (
    JUDGES,
    RESEARCHERS,
    WITH_MODELS,
    FleetOptions,
    ResearcherOptions,
    Where,
    check_researcher,
    findings_option,
    fleet_options,
    machine_words,
    make_researcher,
    peer_runs,
    researcher_options,
    whole_machine,
    without_models,
)
from autoresearch.core.errors import PrerequisiteError

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.fleet.executor import Executor
    from autoresearch.core.proposal import Researcher
    from autoresearch.core.report.terminal.live import View
    from autoresearch.core.run.loop import Ending, Limits
    from autoresearch.core.run.run import Run
    from autoresearch.core.store.rows import ExperimentRow
    from autoresearch.core.trial.request import IsolationLevel


@click.command()
@click.option("--tag", metavar="TAG", help="The run's name.  [default: the unfinished run, or a new one]")
@click.option(
    "-n", "--experiments", type=click.IntRange(min=0), metavar="N", help="End when the run has N experiments."
)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), metavar="H", help="End after H hours from now.")
@click.option("--researcher", type=click.Choice(list(RESEARCHERS)), default="tuner", help="Who proposes.")
@researcher_options
@click.option(
    "--judge",
    type=click.Choice(list(JUDGES)),
    default=None,
    help="Who decides: racing knows noise, greedy believes one trial.  [default: racing]",
)
@click.option(
    "--calibrate",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Trials of the baseline before the first experiment; racing only.  [default: 2]",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Training time of a trial.  [default: the preset's]",
)
@click.option("--corpus", type=CorpusType(), metavar="NAME|PATH", help="Text to train on.  [default: the preset's]")
@click.option("--vocab", type=Vocabularies(), metavar="V,...", help="Prepared vocabularies.  [default: the preset's]")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Seeds models and data order.  [default: 0]")
@findings_option
@fleet_options
@beside_options
@click.option("--dry-run", is_flag=True, help="Show the next edit or prompt and the cost; run, send and write nothing.")
@click.option("--allow-dirty", is_flag=True, help="Start from a train file with changes that are not committed.")
@require_isolation
@pass_settings
def loop(
    settings: Settings,
    tag: str | None,
    experiments: int | None,
    hours: float | None,
    researcher: str,
    judge: str | None,
    calibrate: int | None,
    budget: float | None,
    corpus: str | None,
    vocab: tuple[int, ...] | None,
    seed: int | None,
    findings: tuple[str, ...],
    dry_run: bool,
    allow_dirty: bool,
    options: ResearcherOptions,
    beside: BesideOptions,
    where: FleetOptions,
) -> None:
    """The main job: propose, train, score, keep or discard; repeat.

    Goes on with an unfinished run, or starts one. Without -n and --hours it runs until it is stopped: the first Ctrl-C
    finishes the current trial, the second kills it. The same command goes on from there.
    """
    from autoresearch.core.cli.run.resolve import Wishes, choose_run
    from autoresearch.core.config import runs_dir
    from autoresearch.core.run.loop import Limits
    from autoresearch.core.run.run import Run
    from autoresearch.core.store.integrity import Integrity

    options = without_models(options) if researcher not in WITH_MODELS and not _flagged("model", "max_usd") else options
    try:
        check_researcher(researcher, options)
        check_beside(beside)
    except PrerequisiteError as error:
        if not dry_run:  # which needs neither keys nor trackers
            raise
        settings.say(str(error))
    wishes, limits = Wishes(judge, calibrate, budget, corpus, vocab, seed), Limits(experiments, hours)
    peers = peer_runs(settings.workspace, findings, settings.say)
    if dry_run:
        from autoresearch.core.cli.run.dry import dry_run as show_next

        show_next(settings, tag, wishes, researcher, options, limits, allow_dirty=allow_dirty, peers=peers)
        return
    places = Where(where, settings.say)
    tag, config, preset, prepared, device = choose_run(
        settings, tag, wishes, allow_dirty=allow_dirty, find_device=places.find_device
    )
    integrity = Integrity.of(config.backend, prepared, config.vocabularies, config.eval_seq_len)
    executor = places.executor(tag, runs_dir(settings.workspace) / tag, config, device.kind, prepared)
    config = replace(config, machine=machine_words(config.machine, device.kind, executor))
    with Run(settings.workspace, tag, config, preset, allow_dirty=allow_dirty, integrity=integrity, peers=peers) as run:
        proposer = make_researcher(researcher, options, run_folder=run.folder, workspace=settings.workspace)
        go(settings, run, proposer, limits, prepared, beside, executor)


def _flagged(*names: str) -> bool:
    """Whether one of these options was given on the command line, and not by a variable or a file."""
    ctx = click.get_current_context()
    return any(ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in names)


def go(
    settings: Settings,
    run: Run,
    researcher: Researcher,
    limits: Limits,
    prepared: Prepared,
    options: BesideOptions,
    executor: Executor,
) -> None:
    """Run the loop and show what comes of it. Leaves with the loop's exit code, the executor closed."""
    from autoresearch.core.cli.run.options import make_judge
    from autoresearch.core.cli.run.session import awake, listen, show_end
    from autoresearch.core.errors import LimitReachedError
    from autoresearch.core.fleet.cluster_executor import FleetExecutor
    from autoresearch.core.run.loop import Loop, Stop
    from autoresearch.core.run.rerun_policy import DeviceWatch

    stop, limit = Stop(), None
    _foretell(settings, run)
    level = executor.isolation if isinstance(executor, FleetExecutor) else None  # it looks at its devices itself
    ending: Ending | None = None
    try:
        with (
            _view(settings, run, researcher, limits, level) as view,
            Beside(options, run, view.note) as beside,
            listen(stop, view.note),
            awake(),
        ):
            if run.findings is not None:
                run.findings.peers.say = view.note
            if isinstance(executor, FleetExecutor):
                executor.say = view.note  # a line written past the view would stand in the middle of it
            judge = make_judge(run.config.judge, preset=run.config.preset, calibrate=run.config.calibrate)
            job = Loop(
                run,
                researcher,
                judge,
                executor,
                limits=limits,
                stop=stop,
                observer=_observer(view),
                on_decided=_on_decided(beside, settings),
                device_watch=None if level else DeviceWatch(run.config.backend, whole_machine(run.config.machine)),
            )
            ending = job.go()
    except LimitReachedError as error:
        limit = error
    finally:
        executor.close()
    show_end(settings, run, ending.reason if ending else "", prepared)
    if limit is not None:
        raise limit
    if ending is not None and ending.exit_code:
        click.get_current_context().exit(ending.exit_code)


def _foretell(settings: Settings, run: Run) -> None:
    """Say what a person would wonder about: why the baseline is trained again, and what another machine means."""
    from autoresearch.core.run.rerun_policy import machine_moved

    calibrating = run.config.judge == "racing" and run.config.calibrate > 1 and run.ledger.run().incumbent is None
    if calibrating:
        settings.say(
            f"the baseline is trained {run.config.calibrate} times ({run.config.train_seconds:g} s each) to learn the "
            "noise; promising changes are trained again with fresh seeds (--judge greedy does neither)"
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


def _observer(view: View) -> Any:
    def observe(event: Any) -> None:
        if event.get("event") == "decided" and event["experiment"] == 0 and event.get("reason"):
            view.note(str(event["reason"]))
        if event.get("event") == "repeated":
            view.note(f"experiment {event['experiment']}: the trial is run again, for {event['reason']}")
        if event.get("event") == "seed_ignored":
            view.note(f"experiment {event['experiment']}: {event['reason']}")
        if event.get("event") == "demoted":
            view.note(f"experiment {event['experiment']} {event['reason']}")
        if event.get("event") == "withdrawn":
            view.note(f"experiment {event['experiment']} is withdrawn: {event['reason']}")
        if event.get("event") == "proposal_refused":
            view.note(f"no usable proposal ({event['kind']}): {event['reason']}")
        view(event)

    return observe


def _on_decided(beside: Beside, settings: Settings) -> Callable[[ExperimentRow], None]:
    def decided(row: ExperimentRow) -> None:
        if settings.json:
            _print_decided(row)
        beside.decided(row)

    return decided


def _print_decided(row: ExperimentRow) -> None:
    from autoresearch.core.store.exports import decided_record

    click.echo(json.dumps(decided_record(row)))
