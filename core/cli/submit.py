"""`ar submit`: one experiment from outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings, pass_settings, require_isolation
from autoresearch.core.cli.params import GivenPath, Number, add_options, read_given
from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.errors import ArError
from autoresearch.core.proposal import CATEGORIES

if TYPE_CHECKING:
    from autoresearch.core.cli.submissions import Change
    from autoresearch.core.store.inbox import Submission


@click.command()
@click.argument("file", required=False, metavar="[FILE]", type=GivenPath())
@click.option("--why", required=True, metavar="TEXT", help="One sentence: what changes, and why it should help.")
@click.option(
    "--category",
    type=click.Choice(CATEGORIES),
    metavar="NAME",
    help=f"Subject of the change, one of: {', '.join(CATEGORIES)}.  [default: derived from the code]",
)
@click.option("--predict", type=Number(), metavar="D", help="Change of val_bpb that you expect, such as -0.004.")
@click.option(
    "--tag", metavar="TAG", help="Name of the run.  [default: the one in progress, or the last one, or a new one]"
)
@click.option("--new", is_flag=True, help="Start a new run, named by --tag if it is given.")
@click.option("--wait", is_flag=True, help="Wait for the verdict, even if a loop runs the trial.")
@add_options(RunOverrides, "overrides")
@require_isolation
@pass_settings
def submit(
    settings: Settings,
    file: Path | None,
    why: str,
    category: str | None,
    predict: float | None,
    tag: str | None,
    new: bool,
    wait: bool,
    overrides: RunOverrides,
) -> None:
    """Hand in a train file as one experiment: gate, trial, audit, judge, record, as for any proposal.

    FILE is a whole train file, the workspace's by default. If a loop is running, the experiment is queued and the
    command returns; --wait waits for the verdict. Otherwise the command runs the trial itself; on a new run it first
    measures the baseline, the committed train file. Submitting the unchanged file measures the baseline. Several may
    submit at once. An interrupted submission stays queued: `ar result` continues it.

    Exit code 0: kept, discarded, stopped early, tried before or queued; 1: it crashed, broke a rule or could not be
    measured.
    """
    from autoresearch.core.cli import submissions
    from autoresearch.core.cli.result import show
    from autoresearch.core.config import runs_dir
    from autoresearch.core.store.inbox import Inbox

    submissions.check_workspace(settings)
    submissions.check_change(why, predict)
    named = None if file is None else read_given(file, "a train file", "name a Python file")
    with submissions.choosing(settings.workspace):
        tag = submissions.choose_tag(settings, tag, new)
        submission, settings = prepare(settings, tag, named, submissions.Change(why, category, predict), overrides)
        Inbox(runs_dir(settings.workspace) / tag).put(submission)
    try:
        code = submissions.follow(settings, tag, submission.identity, overrides, wait=wait)
    except ArError:
        # The run cannot go on: what it has not taken up is not left for a loop that may come some day.
        Inbox(runs_dir(settings.workspace) / tag).drop(submission.identity)
        raise
    show(settings, tag, submission.identity, code)


def prepare(
    settings: Settings, tag: str, source: str | None, change: Change, overrides: RunOverrides
) -> tuple[Submission, Settings]:
    """Make the submission of a source, or of the workspace's train file; check it against the run that it is for.

    Returns the settings with the run's own backend and preset. Raises `UsageError` or `SourceError`.
    """
    from autoresearch.core.cli import submissions
    from autoresearch.core.cli.context import resolve_backend, resolve_preset
    from autoresearch.core.cli.run.resolve import check_overrides
    from autoresearch.core.cli.runs import named_run
    from autoresearch.core.config import runs_dir, train_file
    from autoresearch.core.run.run import committed_source
    from autoresearch.core.store.git import Repository
    from autoresearch.core.store.inbox import Submission, new_identity
    from autoresearch.core.store.reader import LedgerReader

    repository = Repository.open(settings.workspace)
    run = named_run(settings.workspace, tag)
    check_overrides(settings, overrides, run, otherwise="start another run with --new")
    if run is not None:
        settings = replace(settings, backend=run.config["backend"], preset=run.config["preset"])
    # A run's trials may be another machine's, so its backend need not work here.
    backend = resolve_backend(settings, elsewhere=run is not None)
    preset = resolve_preset(settings, backend)
    settings = replace(settings, backend=backend.name, preset=preset.name)
    if run is not None:
        vocabularies, base_commit = tuple(run.config["vocabularies"]), run.base_commit
    else:
        vocabularies, base_commit = overrides.vocab or preset.data.vocabularies, repository.head()
    if source is None:
        source = read_given(train_file(settings.workspace, settings.backend), "a train file")
    source = submissions.fitted_source(settings, source, settings.backend, preset, base_commit)
    submissions.check_file(source, vocabularies)
    parent, before = 0, ""
    if run is not None:
        with LedgerReader(runs_dir(settings.workspace) / tag) as reader:
            best = reader.incumbent() or (reader.experiment(0) if reader.next_number() else None)
            if best is not None:
                parent, before = best.number, reader.text(best.source_sha256)
    before = before or committed_source(repository, settings.backend, preset)
    category = submissions.category_of(before, source, change.category)
    hypothesis = " ".join(change.hypothesis.split())
    return Submission(new_identity(), source, hypothesis, category, change.predicted_delta, parent), settings
