"""A run's weights, for `ar sample` and `ar export`: those that it kept, or trained once more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings
from autoresearch.core.errors import ArError, PrerequisiteError, UsageError

if TYPE_CHECKING:
    from autoresearch.core.store.reader import LedgerReader
    from autoresearch.core.store.weights import KeptWeights

train_option = click.option(
    "--train", is_flag=True, help="Train the file once more if the run has kept no weights of it."
)


def chosen_experiment(reader: LedgerReader, number: int | None) -> int:
    """Return the experiment of that number, the best one without a number. Raises `UsageError` where there is none."""
    chosen = reader.run().incumbent if number is None else number
    if chosen is None or not reader.has_experiment(chosen):
        what = "result yet" if number is None else f"experiment {number}"
        raise UsageError(f"the run {reader.run().tag!r} has no {what}.", fix="`ar results` lists its experiments")
    return chosen


def weights_of(settings: Settings, reader: LedgerReader, number: int, *, train: bool) -> KeptWeights:
    """Find the weights of an experiment; with `train`, make them where there are none.

    Raises `PrerequisiteError` where there are none, and says how long training takes.
    """
    from autoresearch.core.followup.remeasure import overhead_seconds
    from autoresearch.core.report.wording import duration, experiment_of
    from autoresearch.core.store.weights import find_weights

    found = find_weights(reader, number)
    if found is not None:
        return found
    row, config = reader.experiment(number), reader.run().config
    takes = duration(float(config["train_seconds"]) + overhead_seconds(reader, [number]))
    if row.state != "decided" or row.status not in ("keep", "discard"):
        raise PrerequisiteError(
            f"{experiment_of(number)} of {reader.run().tag} has no score, so it has no weights to take.",
            fix="name an experiment that was kept or discarded (`ar results`)",
        )
    if not train:
        raise PrerequisiteError(
            f"the run {reader.run().tag!r} has kept no weights of {experiment_of(number)}: it keeps those of the "
            "baseline and of the best file.",
            fix=f"--train trains it once more, at its first trial's seed: about {takes}",
        )
    settings.say(f"training {experiment_of(number)} once more for its weights: about {takes}")
    _train_again(settings, reader, number)
    made = find_weights(reader, number)
    if made is None:
        raise PrerequisiteError(
            "the weights are not kept at this isolation level: a later train file could read them.",
            fix="`ar doctor` says what a better level needs",
        )
    return made


def _train_again(settings: Settings, reader: LedgerReader, number: int) -> None:
    """Run one trial at the seed of the experiment's first trial. Raises `ArError` when it does not end well."""
    from autoresearch.core.cli.train import watched
    from autoresearch.core.store.weights import retrained_folder
    from autoresearch.core.trial.request import TrialTerms
    from autoresearch.core.trial.supervisor import run_trial

    config = reader.run().config
    first = reader.first_trial(number)
    seed = int(config["seed"]) if first is None else first.seed
    folder = retrained_folder(reader.folder, number)
    source = reader.source(number)
    request = replace(TrialTerms.of_config(config).request(source, folder, seed), keep_weights=True)
    with watched(settings, config["train_seconds"]) as (view, cancel):
        result = run_trial(request, observer=view, cancel=cancel)
    if result.status != "ok":
        raise ArError(f"the trial ended as {result.status}: {result.reason}.", fix=f"look at {folder / 'run.log'}")
