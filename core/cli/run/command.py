"""`ar loop`: the main job."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import click

from autoresearch.core.cli.context import Settings, pass_settings, require_isolation
from autoresearch.core.cli.params import Number, PeerRun, Whole, add_options, is_typed
from autoresearch.core.cli.run.hooks import HookOptions, check_hooks
from autoresearch.core.cli.run.options import (
    RESEARCHERS,
    WITH_MODELS,
    FleetOptions,
    ResearcherOptions,
    RunOverrides,
    assumptions,
    check_researcher,
    make_researcher,
    refuse_unread,
    without_models,
)
from autoresearch.core.errors import PrerequisiteError


@click.command()
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the unfinished run, or a new one]")
@click.option(
    "-n",
    "--experiments",
    type=Whole(min=0),
    metavar="N",
    help="Stop when the run has this many experiments, earlier sessions included.",
)
@click.option("--hours", type=Number(min=0, min_open=True), metavar="H", help="Stop this many hours from now.")
@click.option(
    "--researcher",
    type=click.Choice(list(RESEARCHERS)),
    default="tuner",
    help="Researcher that proposes the changes: tuner needs no model, llm asks language models, command starts "
    "an outside coding agent, mix takes tuner and llm in turns, submit waits for what `ar submit` hands "
    "in.",
)
@add_options(ResearcherOptions, "options")
@add_options(RunOverrides, "overrides")
@click.option(
    "--findings",
    type=PeerRun(),
    multiple=True,
    default=("auto",),
    show_default=True,
    metavar="auto|none|FOLDER",
    help="Peer runs on other devices whose kept changes are tried here: auto for this workspace's, none, or a run's "
    "folder; may be given several times.",
)
@add_options(FleetOptions, "fleet_options")
@add_options(HookOptions, "hook_options")
@click.option(
    "--dry-run", is_flag=True, help="Show the next edit or prompt and its cost, without running or writing anything."
)
@click.option("--allow-dirty", is_flag=True, help="Start from a train file with uncommitted changes.")
@require_isolation
@pass_settings
def loop(
    settings: Settings,
    tag: str | None,
    experiments: int | None,
    hours: float | None,
    researcher: str,
    findings: tuple[str, ...],
    dry_run: bool,
    allow_dirty: bool,
    options: ResearcherOptions,
    overrides: RunOverrides,
    fleet_options: FleetOptions,
    hook_options: HookOptions,
) -> None:
    """Run the research loop: propose, train, score, keep or discard; repeat.

    Resumes an unfinished run, or starts a new one. Without -n and --hours it runs until you stop it: the first Ctrl-C
    finishes the current trial, the second kills it. The same command resumes from there.
    """
    from autoresearch.core.cli.run.resolve import (
        Devices,
        check_fleet,
        choose_run,
        machine_name,
        peer_runs,
        two_kinds,
    )
    from autoresearch.core.cli.run.session import Messages, run_session
    from autoresearch.core.config import runs_dir
    from autoresearch.core.fleet.membership import Member
    from autoresearch.core.run.loop import Limits
    from autoresearch.core.run.run import Run
    from autoresearch.core.store.integrity import Integrity

    refuse_unread(click.get_current_context(), researcher)
    options = (
        without_models(options)
        if researcher not in WITH_MODELS and not _flagged("model", "max_usd", "literature")
        else options
    )
    fleet_options = two_kinds(fleet_options, overrides)
    check_fleet(fleet_options)
    try:
        check_researcher(researcher, options)
        check_hooks(hook_options)
    except PrerequisiteError as error:
        if not dry_run:  # a dry run needs neither keys nor trackers
            raise
        settings.say(str(error))
    for assumed in assumptions(researcher, options):
        settings.say(assumed)
    limits, messages = Limits(experiments, hours), Messages(settings.say)
    peers = peer_runs(settings.workspace, findings, messages.say)
    if dry_run:
        from autoresearch.core.cli.run.dry import dry_run as show_next

        show_next(settings, tag, overrides, researcher, options, limits, allow_dirty=allow_dirty, peers=peers)
        return
    devices = Devices(fleet_options, messages.say)
    tag, config, preset, prepared, device = choose_run(
        settings, tag, overrides, allow_dirty=allow_dirty, find_device=devices.find_device
    )
    integrity = Integrity.of(config.backend, prepared, config.vocabularies, config.eval_seq_len)
    member = Member(tag, runs_dir(settings.workspace) / tag)
    words = config.judge_options.screen_on
    with ExitStack() as opened:  # a run that cannot be opened must not keep devices that others wait for
        executor = devices.executor(member, config.backend, config.machine, device.kind, prepared)
        opened.callback(executor.close)
        screening = devices.screening(words, member, config.backend, config.machine, prepared)
        if screening is not None:
            opened.callback(screening.executor.close)
        config = replace(config, machine=machine_name(config.machine, device.kind, executor))
        with Run(
            settings.workspace, tag, config, preset, allow_dirty=allow_dirty, integrity=integrity, peers=peers
        ) as run:
            proposer = make_researcher(researcher, options, run_folder=run.folder, workspace=settings.workspace)
            opened.pop_all()  # the session closes them
            run_session(settings, run, proposer, limits, prepared, hook_options, executor, messages, screening)


def _flagged(*names: str) -> bool:
    """Tell whether one of these options was given on the command line, not by a variable or a file."""
    ctx = click.get_current_context()
    return any(is_typed(ctx, name) for name in names)
