"""`ar adopt`: measure a script in upstream's form as it is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import (
    Settings,
    ensure_prepared,
    pass_settings,
    require_isolation,
    resolve_backend,
    resolve_preset,
)
from autoresearch.core.cli.params import GivenPath, Whole, budget_option, corpus_option, is_typed, read_given
from autoresearch.core.errors import UsageError
from autoresearch.core.home import expand_home

if TYPE_CHECKING:
    from autoresearch.core.trial.request import TrialResult

EXIT_FAILED = 1
FLATTERY = 0.25
"""Share of the measured score by which a claim may lie below it: the estimate that an honest script prints is of a few
thousand tokens of training text, and documents differ."""


@click.command()
@click.argument("file", type=GivenPath(dir_okay=False))
@click.option(
    "--into",
    type=GivenPath(dir_okay=False),
    metavar="FILE",
    help="Write a train file for ar with what can be carried over, and measure nothing.",
)
@budget_option
@click.option(
    "--seed",
    type=Whole(min=0),
    default=0,
    metavar="N",
    help="Seed for the order of the data. The script seeds its model itself.",
)
@corpus_option
@require_isolation
@pass_settings
def adopt(
    settings: Settings, file: Path, into: Path | None, budget: float | None, seed: int, corpus: str | None
) -> None:
    """Measure a script in upstream's form: one that imports its data and its metric from `prepare`.

    Upstream is karpathy/autoresearch; scripts of its MLX ports have the same form. The script runs unchanged, in a
    sandbox, with ar's data, clock and score. Its own val_bpb is shown beside the measured one.

    Exit code 1 if the trial's status is not ok. The trial's folder is kept under runs/trials.
    """
    from autoresearch.core.adopt.script import read_script

    if into is not None:
        context = click.get_current_context()
        idle = [name for name in ("budget", "seed", "corpus") if is_typed(context, name)]
        if idle:
            raise UsageError(
                f"--into measures nothing, and reads no --{idle[0]}.",
                fix="leave one of them out, and measure afterwards",
            )
    source = read_given(file, "a script")
    script = read_script(source)
    if into is not None:
        _write_skeleton(settings, script.backend, file, source, expand_home(into))
        return
    result = _measure(settings, file, source, script, budget, seed, corpus)
    verdict = verdict_of(result)
    if settings.json:
        click.echo(json.dumps({**result.model_dump(mode="json"), "verdict": verdict}))
    else:
        click.echo(summary(result, verdict))
    if result.status != "ok":
        raise click.exceptions.Exit(EXIT_FAILED)


def _measure(
    settings: Settings, file: Path, source: str, script: Any, budget: float | None, seed: int, corpus: str | None
) -> TrialResult:
    """Run the trial."""
    from dataclasses import replace

    from autoresearch.core.adopt.script import require_gpu
    from autoresearch.core.adopt.terms import choose_vocabulary, require_sandbox
    from autoresearch.core.cli.train import new_folder, watched
    from autoresearch.core.trial.device import probe_device
    from autoresearch.core.trial.request import Carried, TrialTerms, UpstreamForm
    from autoresearch.core.trial.sandbox.levels import PROTECTION, best_level
    from autoresearch.core.trial.supervisor import run_trial

    if settings.backend not in ("auto", script.backend):
        raise UsageError(
            f"{file} is written for the {script.backend} backend, not for {settings.backend}.",
            fix="leave --backend out",
        )
    level = best_level()
    require_sandbox(level)
    backend = resolve_backend(replace(settings, backend=script.backend))
    if script.gpu_line is not None:
        require_gpu(script, probe_device(backend.name).kind)
    preset = resolve_preset(settings, backend)
    prepared = ensure_prepared(settings, preset, corpus=corpus)
    terms = TrialTerms.of_preset(backend.name, preset, prepared.folder, budget)
    vocab = choose_vocabulary(prepared, preset.constants.get("VOCAB_SIZE"))
    folder = new_folder(settings.workspace, backend.name)
    request = replace(
        terms.request(source, folder, seed),
        upstream=UpstreamForm(vocab),
        gate=False,
        isolation=level,
        # Upstream's stopwatch leaves out the steps in which the framework compiles; ours does not.
        carried=Carried(source, folder / "compiled") if script.compiles else None,
    )
    settings.say(
        f"{file.name}: backend {backend.name}, preset {preset.name}, corpus {prepared.folder.name}, "
        f"vocabulary {vocab}, rows of {terms.eval_seq_len} tokens"
    )
    settings.say(f"sandbox {level} ({PROTECTION[level]}), no gate: the script is not read first")
    with watched(settings, request.budget.train_seconds) as (view, cancel):
        result = run_trial(request, observer=view, cancel=cancel)
    reason = result.reason and result.reason.replace("train.py", file.name)
    return result.model_copy(update={"reason": reason})


def verdict_of(result: TrialResult) -> str:
    """Return in words what the script's claim is worth."""
    measured, claimed = result.val_bpb, result.claimed_bpb
    if result.status != "ok" or measured is None:
        return "no score: " + (result.reason or result.status)
    if claimed is None:
        return "measured; the script claims nothing"
    if claimed <= 0:
        return f"measured; the script claims {claimed:g}, which no text has"
    if claimed < (1 - FLATTERY) * measured:
        return f"measured; the script claims {1 - claimed / measured:.0%} less than its weights score"
    off = f"{abs(1 - claimed / measured):.0%} {'below' if claimed < measured else 'above'}"
    return f"measured; the claim is {off} it, as the estimate of an honest script may be"


def summary(result: TrialResult, verdict: str) -> str:
    """Write the result for a person: measured, claimed and verdict first, then the trial's figures."""
    from autoresearch.core.cli.train import summary as figures
    from autoresearch.core.report.wording import one_line

    measured = f"{result.val_bpb:.6f} bpb" if result.val_bpb is not None else "nothing"
    claimed = f"{result.claimed_bpb:.6f} bpb" if result.claimed_bpb is not None else "nothing"
    head = {"measured": measured, "claimed": claimed, "verdict": one_line(verdict)}
    return "\n".join([*(f"{name:<10}{value}" for name, value in head.items()), *figures(result).splitlines()[1:]])


def _write_skeleton(settings: Settings, backend_name: str, file: Path, source: str, into: Path) -> None:
    """Write a train file that begins with what the script has, unless there is a file already."""
    from dataclasses import replace

    from autoresearch.core.adopt.skeleton import skeleton
    from autoresearch.core.trainfile.gate import check_gate
    from autoresearch.core.trainfile.source_check import SourceFault

    preset = resolve_preset(settings, resolve_backend(replace(settings, backend=backend_name)))
    vocab = preset.constants.get("VOCAB_SIZE") or preset.data.vocabularies[0]
    text = skeleton(source, name=file.name, preset=preset.name, vocab=int(vocab), seq=preset.data.eval_seq_len)
    try:
        with into.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise UsageError(f"{into} is there already.", fix="name another file") from error
    except OSError as error:
        raise UsageError(f"{into} cannot be written: {error.strerror}.", fix="name another file") from error
    gate = None
    try:
        check_gate(text)
    except SourceFault as fault:
        gate = str(fault)
    todo = text.count("# TODO")
    if settings.json:
        click.echo(json.dumps({"into": str(into), "preset": preset.name, "todo": todo, "gate": gate}))
        return
    settings.say(f"the gate would refuse it as it is: {gate}" if gate else "the gate would take it as it is")
    click.echo(f"{into} written for preset {preset.name}, with {todo} lines marked TODO")
    click.echo(f"next: `ar --backend {backend_name} train --file {shlex.quote(str(into))}`")
