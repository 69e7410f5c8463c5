"""`ar sample`: text from a run's weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings, pass_settings, require_isolation
from autoresearch.core.cli.params import GivenPath, Number, Whole, read_given
from autoresearch.core.cli.weights import train_option
from autoresearch.core.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.core.store.reader import LedgerReader
    from autoresearch.core.store.samples import FileSamples, Samples
    from autoresearch.core.trial.sampling import Drawing

MOST_TOKENS = 4096
"""Most tokens of one sample: each costs a pass over a whole row."""


@click.command()
@click.argument("prompt", required=False, nargs=-1, metavar="[PROMPT]...")
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option("--experiment", type=Whole(min=0), metavar="N", help="Number of the experiment.  [default: the best]")
@click.option("--baseline", is_flag=True, help="Show the baseline's text beside the model's.")
@click.option("--prompts", type=GivenPath(), metavar="FILE", help="File with one prompt per line, at most 16.")
@click.option(
    "--tokens", type=Whole(1, MOST_TOKENS), default=100, metavar="N", help="Maximum number of tokens per text."
)
@click.option(
    "--temperature",
    type=Number(0.0, 100.0),
    default=0.8,
    metavar="T",
    help="Sampling temperature; 0 takes the most likely token.",
)
@click.option(
    "--top-p",
    type=Number(0.0, 1.0),
    default=0.95,
    metavar="P",
    help="Share of the probability to draw from: only the most likely tokens that add up to it.",
)
@click.option("--seed", type=Whole(min=0), default=0, metavar="N", help="Seed of the draws.")
@train_option
@require_isolation
@pass_settings
def sample(
    settings: Settings,
    prompt: tuple[str, ...],
    tag: str | None,
    experiment: int | None,
    baseline: bool,
    prompts: Path | None,
    tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    train: bool,
) -> None:
    """Continue each PROMPT with a run's trained weights; without one, begin a document.

    The train file runs in the sandbox that scores it, and answers only with logits. The tokens are drawn outside. The
    report and the dashboard show the last samples. Each token costs a pass over a whole row, so large models are slow,
    and a trial that runs on the same device is slowed down.
    """
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.cli.weights import chosen_experiment
    from autoresearch.core.store.samples import samples_of, write_samples
    from autoresearch.core.trial.sampling import Drawing

    asked = list(prompt)
    if prompts is not None:
        asked += _lines(prompts)
    asked = asked or [""]
    drawing = Drawing(tokens=tokens, temperature=temperature, top_p=top_p, seed=seed)
    with open_reader(settings, tag) as reader:
        number = chosen_experiment(reader, experiment)
        numbers = list(dict.fromkeys([0, number] if baseline else [number]))
        files = [_sampled(settings, reader, one, asked, drawing, train) for one in numbers]
        found = samples_of(asked, files, **vars(drawing))
        write_samples(reader.folder, found)
    click.echo(found.model_dump_json() if settings.json else page(found))


def _sampled(
    settings: Settings, reader: LedgerReader, number: int, prompts: list[str], drawing: Drawing, train: bool
) -> FileSamples:
    from autoresearch.core.cli.context import resolve_backend
    from autoresearch.core.cli.train import cancel_on_signal
    from autoresearch.core.cli.weights import weights_of
    from autoresearch.core.store.samples import FileSamples
    from autoresearch.core.trial.request import TrialTerms
    from autoresearch.core.trial.sampling import sample as draw

    config = reader.run().config
    resolve_backend(replace(settings, backend=config["backend"]))
    kept = weights_of(settings, reader, number, train=train)
    source = reader.source(number)
    # The seed of the weights' own trial: `build` may draw what is no parameter by it.
    request = TrialTerms.of_config(config).request(source, reader.folder, kept.seed)
    with cancel_on_signal() as cancel:
        texts = draw(request, kept.path, kept.sha256, prompts, drawing, cancel)
    return FileSamples(experiment=number, val_bpb=kept.val_bpb, texts=tuple(texts))


def _lines(path: Path) -> list[str]:
    """Read a file of prompts, one a line. Raises `UsageError`."""
    lines = read_given(path, "a list of prompts", "name a text file").splitlines()
    found = [line for line in lines if line.strip()]
    if not found:
        raise UsageError(f"{path} holds no prompt.", fix="write one on each line")
    return found


def page(found: Samples) -> str:
    """Write the samples for a terminal: what is not printed, a model's escape codes among it, is shown as text."""
    from autoresearch.core.report.wording import file_name, visible

    parts = []
    for prompt, sides in found.sides():
        shown = len(found.files) > 1 or len(found.prompts) > 1
        for file, text in sides:
            head = [click.style(file_name(file.experiment, file.val_bpb), bold=True)] if shown else []
            parts.append("\n".join([*head, visible(prompt + text)]))
    return "\n\n".join(parts)
