"""`ar apply`: write a run's best train file into the checkout."""

from __future__ import annotations

import json

import click

from autoresearch.core.cli.context import Settings, pass_settings


@click.command()
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option("--force", is_flag=True, help="Overwrite uncommitted changes of the train file.")
@pass_settings
def apply(settings: Settings, tag: str | None, force: bool) -> None:
    """Write a run's best train file into the checkout."""
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.config import train_file
    from autoresearch.core.errors import PrerequisiteError
    from autoresearch.core.files import write_text
    from autoresearch.core.report.wording import mean_text
    from autoresearch.core.store.git import Repository
    from autoresearch.core.store.headline import headline_of

    with open_reader(settings, tag) as reader:
        run, best, headline = reader.run(), reader.incumbent(), headline_of(reader)
        if best is None:
            raise PrerequisiteError(f"the run {run.tag!r} has no result yet.", fix="let `ar loop` finish a trial first")
        if best.number == 0:  # the baseline is the committed file with the preset's constants: nobody's improvement
            raise PrerequisiteError(
                f"the run {run.tag!r} has no kept change to apply.", fix="let `ar loop` find one first"
            )
        source = reader.text(best.source_sha256)
    target = train_file(settings.workspace, run.config["backend"])
    path = target.relative_to(settings.workspace).as_posix()
    repository = Repository.open(settings.workspace)
    same = target.is_file() and target.read_bytes() == source.encode("utf-8")
    dirty = repository.changed(path)
    if dirty and not same and not force:
        fix = f"commit them first, or --force to lose them: git add {path} && git commit"
        raise PrerequisiteError(f"{target} has uncommitted changes.", fix=fix)
    if not same:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, source)
    undo = f"git checkout -- {path}"
    if settings.json:
        record = {
            "tag": run.tag,
            "experiment": best.number,
            "val_bpb": headline and headline.best.value,
            "commit": best.commit,
        }
        click.echo(json.dumps({**record, "path": str(target), "changed": not same, "undo": undo}))
        return
    click.echo(str(target))
    number = "" if headline is None else f" ({mean_text(headline.best)} bpb)"
    told = "already is" if same else "now is"
    settings.say(f"{path} {told} experiment {best.number} of {run.tag}{number}")
    if not same:
        settings.say(f"to undo: {undo}" + (" (what was not committed before is lost)" if dirty else ""))
