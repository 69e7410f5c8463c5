"""`ar loop`: the main job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings, require_isolation
from autoresearch.core.cli.researchers import (
    JUDGES,
    RESEARCHERS,
    ResearcherOptions,
    check_researcher,
    make_researcher,
    researcher_options,
)

if TYPE_CHECKING:
    from autoresearch.core.config import Preset
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.loop import Ending, Limits
    from autoresearch.core.proposal import Researcher
    from autoresearch.core.report.live import View
    from autoresearch.core.run import Run, RunConfig
    from autoresearch.core.store.rows import ExperimentRow, RunRow


DEFAULT_JUDGE, CALIBRATE = "racing", 2


class Vocabularies(click.ParamType):
    """Sizes separated by commas."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Refuse what is no list of positive integers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no list of sizes, such as 1024,2048", param, ctx)
        return tuple(int(part) for part in parts)


@dataclass(frozen=True)
class Wishes:
    """What was asked for about the run itself. None takes the run's own value, or the preset's for a new run."""

    judge: str | None
    calibrate: int | None
    budget: float | None
    corpus: str | None
    vocab: tuple[int, ...] | None
    seed: int | None


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
@click.option("--corpus", metavar="NAME|PATH", help="Text to train on.  [default: the preset's]")
@click.option("--vocab", type=Vocabularies(), metavar="V,...", help="Prepared vocabularies.  [default: the preset's]")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Seeds models and data order.  [default: 0]")
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
    allow_dirty: bool,
    options: ResearcherOptions,
) -> None:
    """The main job: propose, train, score, keep or discard; repeat.

    Goes on with an unfinished run, or starts one. Without -n and --hours it runs until it is stopped: the first Ctrl-C
    finishes the current trial, the second kills it. The same command goes on from there.
    """
    from autoresearch.core.loop import Limits
    from autoresearch.core.run import Run

    check_researcher(researcher, options)
    wishes = Wishes(judge, calibrate, budget, corpus, vocab, seed)
    tag, config, preset, prepared = choose_run(settings, tag, wishes, allow_dirty=allow_dirty)
    with Run(settings.workspace, tag, config, preset, allow_dirty=allow_dirty) as run:
        proposer = make_researcher(researcher, options, run_folder=run.folder, workspace=settings.workspace)
        go(settings, run, proposer, Limits(experiments, hours), prepared)


def choose_run(
    settings: Settings, tag: str | None, wishes: Wishes, *, allow_dirty: bool
) -> tuple[str, RunConfig, Preset, Prepared]:
    """The run to start or to go on with, said on stderr, and its configuration."""
    from autoresearch.core.cli.context import resolve_backend, resolve_preset
    from autoresearch.core.cli.runs import fresh_tag, named_run, run_rows, unfinished_run
    from autoresearch.core.config import runs_dir
    from autoresearch.core.run import starting_source
    from autoresearch.core.store.restore import mend
    from autoresearch.core.store.source import Repository, check_tag
    from autoresearch.core.trial.device import probe_device

    runs = runs_dir(settings.workspace)
    for folder in runs.glob("*") if tag is None else [runs / check_tag(tag)]:
        mend(folder, settings.say)
    stored = named_run(settings.workspace, tag) if tag is not None else None
    Repository.open(settings.workspace)  # before seconds are spent on devices and data
    if stored is not None:
        settings = _as_stored(settings, stored)
    backend = resolve_backend(settings)
    device = probe_device(backend.name)
    if settings.preset == "auto":
        settings = replace(settings, preset=device.tier)
    preset = resolve_preset(settings, backend)
    if tag is None:
        stored = unfinished_run(run_rows(settings.workspace, settings.say), backend.name, preset.name)
        tag = stored.tag if stored is not None else fresh_tag(settings.workspace, backend.name)
    if stored is not None:
        settings.say(f"going on with the run {tag} (another --tag starts a new one)")
    else:
        settings.say(f"starting the run {tag}: {backend.name} ({backend.why}), preset {preset.name}, {device.name}")
        # Before minutes are spent on preparing text.
        starting_source(Repository.open(settings.workspace), backend.name, preset, allow_dirty=allow_dirty)
    config, prepared = configure(settings, backend.name, preset, device.name, wishes, stored)
    return tag, config, preset, prepared


def _as_stored(settings: Settings, stored: RunRow) -> Settings:
    """`auto` means what a run was started with."""
    backend = stored.config["backend"] if settings.backend == "auto" else settings.backend
    preset = stored.config["preset"] if settings.preset == "auto" else settings.preset
    return replace(settings, backend=backend, preset=preset)


def configure(
    settings: Settings, backend: str, preset: Preset, device: str, wishes: Wishes, stored: RunRow | None
) -> tuple[RunConfig, Prepared]:
    """The run's configuration: what was asked for, else what the run was started with, else the preset's."""
    from autoresearch import __version__
    from autoresearch.core.cli.context import ensure_prepared
    from autoresearch.core.run import RunConfig

    was = dict(stored.config) if stored is not None else {}
    corpus = _absolute(wishes.corpus) if wishes.corpus else was.get("corpus", _absolute(preset.data.corpus))
    vocabularies = wishes.vocab or tuple(was.get("vocabularies", preset.data.vocabularies))
    prepared = _prepared_for(was, corpus, vocabularies)
    if prepared is None:
        prepared = ensure_prepared(settings, preset, corpus=corpus, vocabularies=vocabularies)
    config = RunConfig(
        backend=backend,
        preset=preset.name,
        corpus=corpus,
        prepared=str(prepared.folder),
        prepared_sha256=data_sha256(prepared, vocabularies, preset.data.eval_seq_len),
        vocabularies=vocabularies,
        eval_seq_len=preset.data.eval_seq_len,
        score_rows=preset.score_rows,
        train_seconds=wishes.budget or was.get("train_seconds", preset.train_seconds),
        startup_seconds=was.get("startup_seconds", preset.startup_seconds),
        seed=was.get("seed", 0) if wishes.seed is None else wishes.seed,
        judge=wishes.judge or was.get("judge", DEFAULT_JUDGE),
        calibrate=wishes.calibrate or was.get("calibrate", 1 if was else CALIBRATE),
        device=device,
        ar_version=__version__,
    )
    return config, prepared


def _absolute(corpus: str) -> str:
    """A corpus that is a path, so that a run can be taken up from another folder; names stay."""
    path = Path(corpus).expanduser()
    return str(path.resolve()) if path.exists() else corpus


def _prepared_for(was: Mapping[str, Any], corpus: str, vocabularies: tuple[int, ...]) -> Prepared | None:
    """The folder that the run has used so far, even if the corpus has changed since; None to prepare it."""
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.errors import DataError

    if not was or (corpus, vocabularies) != (was["corpus"], tuple(was["vocabularies"])):
        return None
    try:
        return Prepared.open(Path(was["prepared"]))
    except DataError:
        return None  # deleted since: the same text gives the same folder again


def data_sha256(prepared: Prepared, vocabularies: tuple[int, ...], seq_len: int) -> str:
    """Of everything that trials with these vocabularies read: tokenizers, training shards and scored rows.

    What other runs add to the folder does not count. Raises `DataError` when a vocabulary is not prepared.
    """
    digest = hashlib.sha256()
    for size in sorted(vocabularies):
        record = prepared.vocabulary(size)
        rows = [one.sha256 for one in record.rows if one.seq_len == seq_len]
        for sha256 in (record.tokenizer.sha256, *(shard.sha256 for shard in record.train), *rows):
            digest.update(f"{size} {sha256}\n".encode())
    return digest.hexdigest()


def go(settings: Settings, run: Run, researcher: Researcher, limits: Limits, prepared: Prepared) -> None:
    """Run the loop and show what comes of it. Leaves with the loop's exit code."""
    from autoresearch.core.cli.awake import awake
    from autoresearch.core.cli.researchers import make_judge
    from autoresearch.core.cli.signals import listen
    from autoresearch.core.errors import LimitReachedError
    from autoresearch.core.fleet.local import LocalExecutor
    from autoresearch.core.loop import Loop, Stop
    from autoresearch.core.report.live import live_view

    stop, executor, limit = Stop(), LocalExecutor(), None
    calibrating = run.config.judge == "racing" and run.config.calibrate > 1 and run.ledger.run().incumbent is None
    if calibrating:
        settings.say(
            f"the baseline is trained {run.config.calibrate} times ({run.config.train_seconds:g} s each) to learn the "
            "noise; promising changes are trained again with fresh seeds (--judge greedy does neither)"
        )
    ending: Ending | None = None
    try:
        with (
            live_view(run.config.train_seconds, verbosity=settings.verbosity) as view,
            listen(stop, view.note),
            awake(),
        ):
            job = Loop(
                *(
                    run,
                    researcher,
                    make_judge(run.config.judge, preset=run.config.preset, calibrate=run.config.calibrate),
                    executor,
                ),
                limits=limits,
                stop=stop,
                observer=_observer(view),
                on_decided=_print_decided if settings.json else None,
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


def _observer(view: View) -> Any:
    def observe(event: Any) -> None:
        if event.get("event") == "decided" and event["experiment"] == 0 and event.get("reason"):
            view.note(str(event["reason"]))
        if event.get("event") == "repeated":
            view.note(f"experiment {event['experiment']}: the trial is run again, for {event['reason']}")
        if event.get("event") == "demoted":
            view.note(f"experiment {event['experiment']} {event['reason']}")
        if event.get("event") == "proposal_refused":
            view.note(f"no usable proposal ({event['kind']}): {event['reason']}")
        view(event)

    return observe


def _print_decided(row: ExperimentRow) -> None:
    from autoresearch.core.store.summary import decided_record

    click.echo(json.dumps(decided_record(row)))


def show_end(settings: Settings, run: Run, reason: str, prepared: Prepared) -> None:
    """The picture; then the summary as JSON, or the table and where things are."""
    from autoresearch.core.report.figures import draw_progress
    from autoresearch.core.report.table import write_table
    from autoresearch.core.store.summary import summarise

    rows = [row for row in run.ledger.experiments() if row.state == "decided"]
    picture, yardsticks = run.folder / "progress.png", prepared.manifest.yardsticks
    if rows:
        draw_progress(rows, picture, {"gzip": yardsticks.gzip_bpb, "xz": yardsticks.xz_bpb})
    summary = {**summarise(run.ledger), "picture": str(picture) if rows else None}
    if settings.json:
        click.echo(json.dumps({"summary": summary}))
        return
    write_table(rows)
    settings.say(f"{run.tag}: {reason}" if reason else run.tag)
    if summary["delta"] is not None and summary["estimated_delta"] is not None and run.config.judge == "racing":
        settings.say(
            f"estimate: {summary['best_estimate']:.6f} bpb, {summary['estimated_delta']:+.6f} against the baseline "
            f"(shrunken; the raw figures below flatter the best)"
        )
    if summary["delta"] is not None:
        settings.say(
            f"best: experiment {summary['best_experiment']}, {summary['best_bpb']:.6f} bpb, "
            f"{summary['delta']:+.6f} against the baseline's {summary['baseline_bpb']:.6f}"
        )
        settings.say(f"train file: {summary['best_train']} (branch {summary['branch']}; `ar apply` takes it over)")
    if rows:
        settings.say(f"picture: {picture}")
