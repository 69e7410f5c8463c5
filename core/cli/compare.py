"""`ar compare`: compare two backends on the same work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, ensure_prepared, load_runtime, pass_settings, require_isolation
from autoresearch.core.cli.params import LONGEST, MOST_TRIALS, BackendName, GivenPath, Number, Whole, corpus_option

if TYPE_CHECKING:
    from autoresearch.core.bench.work import Work
    from autoresearch.core.config import Preset


def backend_option(name: str, default: str, text: str) -> Callable[..., Any]:
    """Return the option for one of the two backends that are compared."""
    return click.option(name, type=BackendName(auto=False), default=default, metavar="BACKEND", help=text)


@click.command()
@backend_option("--first", "cuda", "Backend whose constants both train files use.")
@backend_option("--second", "mlx", "Backend to compare with the first.")
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
    help="Number of trials, each at a seed of its own, per backend.",
)
@click.option(
    "--picture",
    type=GivenPath(),
    metavar="PNG",
    help="PNG file for the picture.  [default: compare.png in the trials' folder]",
)
@corpus_option
@require_isolation
@pass_settings
def compare(
    settings: Settings, first: str, second: str, seconds: float, trials: int, picture: Path | None, corpus: str | None
) -> None:
    """Train both backends on the same work: the same text in the same order, sizes, seeds and learning rates.

    Shows speed, memory, loss against tokens and against seconds, and val_bpb at an equal budget. Checks that the same
    weights give the same logits, and the same losses over 20 optimizer steps. The model is a small one, or with
    --preset that of the first backend's preset.
    """
    from autoresearch.core.bench.compare import compare as run
    from autoresearch.core.bench.compare import draw
    from autoresearch.core.bench.measure import BackendBench
    from autoresearch.core.bench.table import table
    from autoresearch.core.cli.output import check_writable, draw_picture
    from autoresearch.core.cli.train import new_folder, watched
    from autoresearch.core.errors import UsageError
    from autoresearch.core.events import json_value

    if picture is not None:
        fix = "name a file that ends in .png with --picture, or leave it out"
        if picture.suffix.lower() != ".png":
            raise UsageError(f"the picture is a PNG file, and the name {picture} does not end in .png.", fix=fix)
        picture = check_writable(picture, fix)
    works, preset = choose_work(settings, first, second)
    prepared = ensure_prepared(settings, preset, corpus=corpus)
    folder = new_folder(settings.workspace, f"{first}-{second}")
    with watched(settings, seconds) as (view, cancel):
        trials_bench = BackendBench(folder, prepared, view, cancel)
        found = run(works, prepared, trials_bench, seconds, list(range(trials)), view.note, cancel)
    path = picture or folder / "compare.png"
    drawn = draw_picture(settings, path, lambda: draw(found, path))
    if settings.json:
        # A loss that is no number has no place in JSON.
        click.echo(json.dumps(json_value({**found.as_json(), "picture": str(path) if drawn else None})))
        return
    losses = " and ".join(f"{loss:.4f} ({side.backend})" for loss, side in zip(found.losses, found.sides, strict=True))
    click.echo(table(found.sides))
    click.echo(f"float32 logits of the same weights: at most {found.parity.logits:.2e} apart")
    click.echo(
        f"losses of {len(found.parity.steps)} optimizer steps in float32, from the same weights on the same batches: "
        f"at most {found.parity.losses_apart:.2e} apart, relative"
    )
    click.echo(f"training loss after {found.equal_tokens:,.0f} tokens: {losses}")
    if drawn:
        click.echo(f"picture: {path}")


def choose_work(settings: Settings, first: str, second: str) -> tuple[tuple[Work, Work], Preset]:
    """Choose the work of each backend, and the preset whose text they train on.

    Raises `UsageError` for names that are not two backends, `PrerequisiteError` for a backend that cannot run here.
    """
    from autoresearch.backends import folder, names
    from autoresearch.core.bench import work
    from autoresearch.core.config import choose_preset, load_presets, train_file
    from autoresearch.core.errors import PrerequisiteError, UsageError

    for name in (first, second):
        if name not in names() or first == second:
            raise UsageError(f"{first!r} and {second!r} are not two backends.", fix=f"two of {', '.join(names())}")
        if (missing := load_runtime(name).unavailable()) is not None:
            raise PrerequisiteError(f"the {name} backend cannot run here: {missing}")
    sources = [work.train_source(train_file(settings.workspace, name)) for name in (first, second)]
    presets = [load_presets(folder(name) / "presets.toml") for name in (first, second)]
    asked = "cpu" if settings.preset == "auto" else settings.preset
    preset = choose_preset(presets[0], asked)
    make = work.common if settings.preset == "auto" else work.of_preset
    leader = make(first, sources[0], preset)
    follower = work.of_preset(second, sources[1], presets[1].get(asked) or presets[1]["cpu"])
    return (leader, work.alike(follower, leader)), preset
