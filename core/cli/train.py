"""`ar train`: run one trial of a train file, outside any run."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import (
    Backend,
    Settings,
    ensure_prepared,
    handling,
    pass_settings,
    require_isolation,
    resolve_backend,
    resolve_preset,
)
from autoresearch.core.cli.params import GivenPath, Whole, budget_option, corpus_option, read_given
from autoresearch.core.errors import PrerequisiteError, UsageError, system_words
from autoresearch.core.textfile import read_text

if TYPE_CHECKING:
    from autoresearch.core.config import Preset
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.report.terminal.live import View
    from autoresearch.core.trial.request import TrialResult

EXIT_FAILED = 1
COMPARED = 40
"""Number of the workspace's latest trials that a trial's speed is compared with."""


@click.command()
@click.option(
    "--file",
    "file",
    type=GivenPath(dir_okay=False),
    help="Train file to run.  [default: the workspace's backends/<backend>/train.py]",
)
@budget_option
@click.option("--seed", type=Whole(min=0), default=0, metavar="N", help="Seed for the model and the order of the data.")
@corpus_option
@click.option("--profile", is_flag=True, help="Trace a few batches and write profile.md and trace.json.gz.")
@require_isolation
@pass_settings
def train(
    settings: Settings, file: Path | None, budget: float | None, seed: int, corpus: str | None, profile: bool
) -> None:
    """Run one trial of a train file: train it, score it, audit it. Does not touch git.

    --profile also writes a page on where the time goes (profile.md), which later loops show to language models, and the
    whole trace (trace.json.gz, for a browser's tracing page). Tracing takes a little of the training time.

    Exit code 1 if the trial's status is not ok. The trial's folder is kept under runs/trials.
    """
    from autoresearch.core.trial.device import expected_kind
    from autoresearch.core.trial.profile import GRACE_SECONDS
    from autoresearch.core.trial.record import warning_for_file_size
    from autoresearch.core.trial.request import TrialTerms
    from autoresearch.core.trial.supervisor import run_trial

    backend = resolve_backend(settings)
    source = read_source(file, backend)
    preset = choose_trial_preset(settings, backend, source if file else None)
    source = with_preset(settings, source, preset)
    prepared = ensure_prepared(settings, preset, corpus=corpus)
    terms = TrialTerms.of_preset(backend.name, preset, prepared.folder, budget)
    terms = replace(terms, device_kind=expected_kind(backend.name))
    if profile:
        terms = replace(terms, budget=replace(terms.budget, grace_floor_seconds=GRACE_SECONDS))
    request = replace(terms.request(source, new_folder(settings.workspace, backend.name), seed), profile=profile)
    settings.say(f"backend {backend.name} ({backend.why}), preset {preset.name}, corpus {prepared.folder.name}")
    if (warning := warning_for_file_size()) is not None:
        settings.say(warning)
    with watched(settings, request.budget.train_seconds) as (view, cancel):
        result = run_trial(request, observer=view, cancel=cancel)
    if profile and result.profile is None:
        settings.say("nothing was traced: training ended or failed before it had enough batches")
    if (notice := slow_notice(settings.workspace, source, request.folder, result)) is not None:
        settings.say(f"this trial was slow: {notice}. Its score says little; run it again on a quiet machine")
    click.echo(result.model_dump_json() if settings.json else summary(result))
    if result.status == "invalid" and (fix := vocabulary_fix(source, backend, preset, prepared, corpus)) is not None:
        settings.say(fix)
    if result.status != "ok":
        raise click.exceptions.Exit(EXIT_FAILED)


def vocabulary_fix(source: str, backend: Backend, preset: Preset, prepared: Prepared, corpus: str | None) -> str | None:
    """Return the command that prepares the vocabulary of a train file; None where it is prepared or cannot be."""
    from autoresearch.core.data.tokenizer import MAX_VOCABULARY

    size = block_constants(source).get("VOCAB_SIZE")
    if type(size) is not int or size in prepared.vocabularies or not 2 <= size <= MAX_VOCABULARY:
        return None
    given = f" --corpus {shlex.quote(corpus)}" if corpus else ""
    command = f"ar --backend {backend.name} --preset {preset.name} prepare --vocab {size}{given}"
    return f"the preset {preset.name} has no vocabulary of {size}. Fix: `{command}`, then the same command again"


def slow_notice(workspace: Path, source: str, folder: Path, result: TrialResult) -> str | None:
    """Return in words how a trial was slower than the workspace's latest ones on this machine; None when it was not.

    `source` is its train file, `folder` its own folder. Steps are compared with those of files of the same shape.
    """
    from autoresearch.core.config import runs_dir
    from autoresearch.core.run.rerun_policy import pace, same_shape, slow, slow_start
    from autoresearch.core.trial.request import TrialResult

    alike: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for path in _latest_results(runs_dir(workspace)):
        if path.parent == folder:
            continue
        try:
            before = TrialResult.model_validate_json(read_text(path))
            same = same_shape(source, read_text(path.with_name("train.py")))
        except (OSError, ValueError):
            continue
        where = (before.backend, before.preset, before.machine)
        if where == (result.backend, result.preset, result.machine):
            (alike if same else others).append(before.model_dump())
    usual = pace(alike, others)
    return slow(result, usual=usual) or slow_start(result, usual)


def _latest_results(runs: Path) -> list[Path]:
    """Return the results of the latest trials of `ar train` and of all runs, at most COMPARED, the newest first."""
    found = []
    for pattern in ("trials/*/result.json", "*/trials/*/result.json"):
        for path in runs.glob(pattern):
            try:
                found.append((path.stat().st_mtime, path))
            except OSError:
                continue
    return [path for _, path in sorted(found, reverse=True)[:COMPARED]]


def read_source(file: Path | None, backend: Backend) -> str:
    """Read the named train file, or the workspace's. Raises `UsageError`, for the workspace's `PrerequisiteError`."""
    if file is not None:
        return read_given(file, "a train file")
    try:
        return read_text(backend.train_file)
    except (OSError, UnicodeDecodeError) as error:
        fix = "name one with --file, or make a workspace with `ar init DIR`"
        raise PrerequisiteError(
            f"{backend.train_file} cannot be read as a train file: {system_words(error)}.", fix=fix
        ) from error


def choose_trial_preset(settings: Settings, backend: Backend, source: str | None) -> Preset:
    """Choose the preset: the one given, else the one that a named file was written for, else the device's."""
    from autoresearch.core.config import load_presets

    presets = load_presets(backend.presets_file)
    written_for = block_constants(source).get("PRESET") if source and settings.preset == "auto" else None
    return presets[str(written_for)] if written_for in presets else resolve_preset(settings, backend)


def with_preset(settings: Settings, source: str, preset: Preset) -> str:
    """Write the preset's constants into the source, as a run does. A file without a constants block stays as it is."""
    from autoresearch.core.trainfile.constants import write_preset

    if not block_constants(source):
        return source
    written = write_preset(source, preset)
    if written != source:
        settings.say(f"constants set to those of preset {preset.name}; the file itself is not changed")
    return written


def block_constants(source: str) -> dict[str, bool | int | float | str]:
    """Read a train file's constants block; {} when there is none or it does not parse, which the trial reports."""
    from autoresearch.core.errors import SourceError
    from autoresearch.core.trainfile.constants import read_constants

    try:
        return read_constants(source)
    except SourceError:
        return {}


def new_folder(workspace: Path, backend: str) -> Path:
    """Make a new folder for the trial, named by the time and the backend."""
    from autoresearch.core.config import runs_dir

    stem = runs_dir(workspace) / "trials" / f"{time.strftime('%Y%m%d-%H%M%S')}-{backend}"
    for number in range(1, 1000):
        folder = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"{folder} cannot be made: {error.strerror}.", fix="name another --workspace") from error
        return folder
    raise UsageError(f"{stem} and 999 like it are taken.", fix="try again in a second")


@contextmanager
def watched(settings: Settings, seconds: float) -> Iterator[tuple[View, threading.Event]]:
    """Show the block's trials, of so many training seconds each, and cancel them on a signal.

    Gives the view that observes them, and the event that ends them (see `cancel_on_signal`).
    """
    from autoresearch.core.report.terminal.live import live_view

    with cancel_on_signal() as cancel, live_view(seconds, verbosity=settings.verbosity) as view:
        yield view, cancel


@contextmanager
def cancel_on_signal() -> Iterator[threading.Event]:
    """Give the block an event that Ctrl-C, SIGTERM and a closed terminal (SIGHUP, unless `nohup` has it ignored) set.

    The exit code is then the signal's, whatever was raised.
    """
    cancel, caught = threading.Event(), []

    def handle(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        cancel.set()

    try:
        with handling(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), handle)):
            yield cancel
    finally:
        if caught:
            with suppress(OSError):  # the terminal is gone
                click.echo("ar: stopped; nothing of the trial is left running", err=True)
            raise click.exceptions.Exit(128 + caught[0])


def holds_something(log: Path) -> bool:
    """Tell whether a trial's processes have written anything that is worth a look."""
    return log.is_file() and log.stat().st_size > 0


def summary(result: TrialResult) -> str:
    """Write the result for a person: the score first, then a line for each figure that exists."""
    from autoresearch.core.report.wording import one_line

    # The reason and the device's name are the train child's words.
    failed = f"{result.status}: {one_line(str(result.reason))}"
    head = f"val_bpb {result.val_bpb:.6f}" if result.status == "ok" else failed
    audit = result.audit
    facts = {
        "trained": result.train_seconds is not None and f"{result.train_seconds:.1f} s",
        "start-up": result.startup_seconds is not None and f"{result.startup_seconds:.1f} s",
        "scoring": result.eval_seconds is not None and f"{result.eval_seconds:.1f} s",
        "tokens": result.tokens is not None and f"{result.tokens:,}",
        "steps": result.steps is not None and f"{result.steps:,}",
        "tokens/s": result.tokens_per_second is not None and f"{result.tokens_per_second:,.0f}",
        "parameters": result.params is not None and f"{result.params:,}",
        "peak memory": result.peak_memory_mb is not None and f"{result.peak_memory_mb:,.0f} MiB",
        "MFU": result.mfu is not None and f"{result.mfu:.1%}",
        "audit": audit is not None and f"{'passed' if audit.ok else 'failed'} at {audit.positions} positions",
        "device": result.device and one_line(result.device),
        "isolation": result.isolation,
        "profile": result.profile is not None and result.log and str(Path(result.log).with_name("profile.md")),
        "log": result.log and holds_something(Path(result.log)) and result.log,
    }
    return "\n".join([head, *(f"  {name:<12} {value}" for name, value in facts.items() if value)])
