"""`ar export`: a run's model as a folder that needs no `ar`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from autoresearch.core.cli.context import Settings, load_runtime, pass_settings, require_isolation
from autoresearch.core.cli.params import GivenPath, Whole, is_typed
from autoresearch.core.cli.weights import train_option
from autoresearch.core.errors import UsageError


@click.command("export")
@click.argument("folder", metavar="DIR", type=GivenPath())
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option("--experiment", type=Whole(min=0), metavar="N", help="Number of the experiment.  [default: the best]")
@click.option("--push", metavar="REPO", help="Upload the folder to this model repository of the Hugging Face hub.")
@click.option("--public", is_flag=True, help="Make the pushed repository public.  [default: private]")
@train_option
@require_isolation
@pass_settings
def export(
    settings: Settings,
    folder: Path,
    tag: str | None,
    experiment: int | None,
    push: str | None,
    public: bool,
    train: bool,
) -> None:
    """Write a run's model into the new folder DIR: train file, weights, tokenizer, model card, sample.py.

    The folder needs no `ar`: its README.md names the packages, and `python sample.py "Once upon a time"` continues a
    text. The card holds the measured figures with their intervals. --push also uploads the folder.
    """
    from autoresearch.core.cli.output import check_writable
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.cli.weights import chosen_experiment, weights_of
    from autoresearch.core.report.document.gather import gather
    from autoresearch.core.takeaway.export import Framework, check_new
    from autoresearch.core.takeaway.export import export as write

    if public and push is None and is_typed(click.get_current_context(), "public"):
        raise UsageError("--public is for --push.", fix="add --push REPO, or leave --public out")
    # Both before --train spends a trial's time.
    folder = check_writable(folder, "name another folder", folder=True)
    check_new(folder)
    with open_reader(settings, tag) as reader:
        number = chosen_experiment(reader, experiment)
        kept = weights_of(settings, reader, number, train=train)
        name = str(reader.run().config["backend"])
        runtime = load_runtime(name)
        framework = Framework(name, runtime.export_lines(), tuple(runtime.packages()[:1]))
        write(folder, reader, gather(reader), kept, framework)
    address = None
    if push is not None:
        from autoresearch.core.takeaway.push import push as upload

        settings.say(f"uploading {folder} to {push}")
        address = upload(folder, push, public=public)
    record = {"folder": str(folder), "experiment": number, "weights_sha256": kept.sha256, "pushed": address}
    click.echo(json.dumps(record) if settings.json else str(folder))
    if address is not None:
        settings.say(f"pushed to {address}")
