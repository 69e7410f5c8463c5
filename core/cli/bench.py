"""`ar bench`: measure how fast one backend is on this machine."""

from __future__ import annotations

import json

import click

from autoresearch.core.cli.context import (
    Settings,
    ensure_prepared,
    is_preset_typed,
    pass_settings,
    require_isolation,
    resolve_backend,
    resolve_preset,
)
from autoresearch.core.cli.params import LONGEST, MOST_TRIALS, Number, Whole, corpus_option
from autoresearch.core.errors import UsageError


@click.command()
@click.option(
    "--seconds",
    type=Number(min=0, min_open=True, largest=LONGEST),
    default=60.0,
    metavar="S",
    help="Training seconds per trial.",
)
@click.option(
    "--trials",
    type=Whole(min=1, max=MOST_TRIALS),
    default=1,
    metavar="N",
    help="Number of trials; the table shows their medians.",
)
@click.option("--common", is_flag=True, help="Measure the small model of `ar compare` instead of the preset's model.")
@corpus_option
@require_isolation
@pass_settings
def bench(settings: Settings, seconds: float, trials: int, common: bool, corpus: str | None) -> None:
    """Measure one backend: its matrix products, then real trials.

    Shows speed, step time, share of the measured peak (MFU), memory, and the time for start-up, scoring and audit.
    The measured peak is stored; later trials use it for their `mfu` on devices without a data sheet.
    """
    from autoresearch.core.bench import work
    from autoresearch.core.bench.measure import BackendBench, measure
    from autoresearch.core.bench.table import table
    from autoresearch.core.cli.train import new_folder, watched
    from autoresearch.core.config import choose_preset, load_presets

    if common and is_preset_typed(settings):
        message = "--common measures the small model of `ar compare`, and --preset names another."
        raise UsageError(message, fix="leave one of them out")
    backend = resolve_backend(settings)
    source = work.train_source(backend.train_file)
    if common:
        wanted = work.common(backend.name, source, choose_preset(load_presets(backend.presets_file), "cpu"))
    else:
        wanted = work.of_preset(backend.name, source, resolve_preset(settings, backend))
    presets = load_presets(backend.presets_file)
    prepared = ensure_prepared(settings, choose_preset(presets, wanted.preset), corpus=corpus)
    folder = new_folder(settings.workspace, f"{backend.name}-bench")
    with watched(settings, seconds) as (view, cancel):
        trials_bench = BackendBench(folder, prepared, view, cancel)
        measured = measure(wanted, trials_bench, seconds, list(range(trials)), view.note)
    click.echo(json.dumps(measured.as_json()) if settings.json else table([measured]))
