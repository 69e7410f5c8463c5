"""`ar report`: a run as one HTML file, or as Markdown."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import GivenPath, is_typed
from autoresearch.core.errors import ArError, UsageError, system_words
from autoresearch.core.home import expand_home


@click.command()
@click.option("--tag", metavar="TAG", help="Run to report on.  [default: the one started last]")
@click.option(
    "--output",
    type=GivenPath(),
    metavar="PATH",
    help="Folder for report.html and progress.png, or a file name that ends in .html.  [default: the run's own folder]",
)
@click.option("--markdown", is_flag=True, help="Print the report as Markdown, for a pull request, and write no file.")
@pass_settings
def report(settings: Settings, tag: str | None, output: Path | None, markdown: bool) -> None:
    """Write a run's report: one HTML file that needs no network.

    It says what was found, how certain that is, what it cost, which changes were kept, which failed, and how to repeat
    the run. Also works while the run is in progress. Prints the file's path.
    """
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.files import write_text
    from autoresearch.core.report.document import page
    from autoresearch.core.report.document.figures import NARROW, draw_progress, quadrants
    from autoresearch.core.report.document.gather import gather
    from autoresearch.core.report.document.scaling import draw_scaling

    output = None if output is None else expand_home(output)
    if markdown and is_typed(click.get_current_context(), "output"):
        raise UsageError("--markdown prints, and writes no file.", fix="leave --output out, and redirect: > report.md")
    with open_reader(settings, tag) as reader:
        found, folder = gather(reader), output or reader.folder
    target = folder / "report.html"
    if output is not None and output.suffix in (".html", ".htm"):
        folder, target = output.parent, output
    if markdown:
        text = page.markdown(found)
        click.echo(json.dumps({"markdown": text}) if settings.json else text, nl=settings.json)
        return
    picture, narrow = folder / "progress.png", None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if found.decided:
            draw_progress(found.decided, found.means, picture, found.yardsticks)
            with tempfile.TemporaryDirectory() as scratch:
                for_phones = Path(scratch) / "narrow.png"
                draw_progress(found.decided, found.means, for_phones, found.yardsticks, NARROW)
                narrow = for_phones.read_bytes()
        transferred = quadrants(found.transfers, str(found.run.config["device"]))
        scaling = folder / "scale.png"
        scaled = found.scaled is not None and draw_scaling(found.scaled, scaling)
        drawn = picture.read_bytes() if found.decided else None
        write_text(target, page.html_page(found, drawn, transferred, scaling.read_bytes() if scaled else None, narrow))
    except OSError as error:
        raise ArError(
            f"the report cannot be written to {folder}: {system_words(error)}.",
            fix="name another folder with --output",
        ) from error
    if settings.json:
        click.echo(json.dumps({"report": str(target), "picture": str(picture) if found.decided else None}))
    else:
        click.echo(str(target))
