"""`ar reproduce`: check somebody's certificate, and measure its two files again."""

from __future__ import annotations

import json
import secrets
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import (
    REQUIRED_ISOLATION,
    Settings,
    is_preset_typed,
    pass_settings,
    require_isolation,
)
from autoresearch.core.cli.params import CorpusType, GivenPath, Whole
from autoresearch.core.errors import ArError, DataError, PrerequisiteError, UsageError, system_words
from autoresearch.core.home import expand_home
from autoresearch.core.textfile import open_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.store.headline import Headline
    from autoresearch.core.takeaway.certificate import Certificate
    from autoresearch.core.takeaway.claim import Comparison
    from autoresearch.core.trial.request import AuditResult

FIRST_SEED = 2_000_000_000
"""Least fresh seed. It is drawn, so that whoever made the certificate cannot have chosen a file by it."""
EXIT_FAILED = 1
SELECTED = "selected: the claim is of the trials that chose the file, so it looks better than the file is"
"""Line on a claim whose best file was not measured again after it was kept."""


@dataclass(frozen=True)
class Task:
    """The two files to train here, and how far their difference can be compared with the claim."""

    baseline: str
    best: str
    config: dict[str, Any]
    """Settings of the trials, as a run's configuration has them."""
    limits: tuple[str, ...]
    """Reason in words why the claim cannot be compared in full; only the sign is compared where there is any."""
    text: Prepared | None = None
    """The prepared text where it is the certificate's own."""


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=GivenPath())
@click.option(
    "--seeds",
    type=Whole(0, 100),
    default=3,
    metavar="N",
    help="Number of fresh seeds for both files; 0 trains nothing.",
)
@click.option(
    "--signer",
    type=GivenPath(),
    metavar="FILE",
    help="Public key that must have signed the certificate.",
)
@click.option(
    "--corpus", type=CorpusType(), metavar="NAME|PATH", help="Text to train on.  [default: the certificate's]"
)
@require_isolation
@pass_settings
def reproduce(settings: Settings, bundle: Path, seeds: int, signer: Path | None, corpus: str | None) -> None:
    """Check a certificate: its hashes, its chain, its signature, and, with fresh trials on this machine, its claim.

    Anything that does not fit is named, and then nothing is trained. Otherwise both files are trained at N fresh seeds,
    in the sandbox, and the difference is compared with the claimed one within both noises. With another text or another
    backend (--backend), only the sign of the difference is compared, and the answer says so; for another backend the
    change is first carried over to its train file, if possible.

    Exit code 0: everything fits and the claim holds, or --seeds 0 and everything fits; 1: it does not fit, or the claim
    does not hold; 2: there is no such file.
    """
    from autoresearch.core.report.wording import one_line
    from autoresearch.core.store.headline import headline_of
    from autoresearch.core.takeaway import certificate as certificates
    from autoresearch.core.trial.sandbox.levels import best_level

    if not seeds and (given := "--corpus" if corpus else "--preset" if is_preset_typed(settings) else ""):
        raise UsageError(f"{given} is for trials, and --seeds 0 runs none.", fix="leave one of them out")
    found = certificates.load(_existing(bundle))
    with certificates.ledger_of(found) as reader:
        faults = certificates.faults_of(found, reader)
        key, said = _signature(found, signer)
        faults += said
        run = None if faults else reader.run()
        audits = {} if faults else certificates.audits_of(reader)
        claim = None if faults else headline_of(reader)
    if run is not None and is_preset_typed(settings) and settings.backend in ("auto", run.config["backend"]):
        raise UsageError(
            f"--preset {settings.preset}: the trials have the settings of the certificate, whose preset is "
            f"{one_line(str(run.config['preset']), 40)}.",
            fix="leave it out; it is for another --backend, to which the change is carried over",
        )
    text = None if run is None or corpus is not None else _same_text(settings, run.config)
    draws = _Draws(len(audits), len(found.body["rows"]["trials"]))
    if run is not None and text is not None:
        draws = draws.checked(found, audits, text, run.config)
        faults += draws.faults
    record: dict[str, Any] = {"bundle": str(bundle), "faults": faults, "signer": key, "verdict": None}
    record |= {
        "isolation": best_level(),
        "isolation_there": [] if faults else _levels(found),
        "draws": {"recorded": draws.recorded, "checked": draws.repeated},
        "selected": None if claim is None else claim.best.selected,
    }
    if not settings.json:
        _tell_checks(settings, found, faults, key, draws)
        if not faults and claim is not None and claim.best.selected:
            click.echo(SELECTED)
    if run is None or claim is None or faults or not seeds:
        _finish(settings, {**record, "checked": not faults}, "does not fit" if faults else None)
        return
    if claim.gain is None:
        raise ArError("the certificate claims no difference.")
    task = _task(settings, found, run.config, corpus, text)
    if text is None and task.text is not None:  # prepared just now
        draws = draws.checked(found, audits, task.text, run.config)
        record |= {"draws": {"recorded": draws.recorded, "checked": draws.repeated}, "faults": list(draws.faults)}
        if not settings.json:
            click.echo("\n".join([f"does not fit: {fault}" for fault in draws.faults] or [draws.words()]))
        if draws.faults:
            _finish(settings, {**record, "checked": False}, "does not fit")
            return
    compared = _measure(settings, task, seeds, claim)
    record |= {"checked": True, "verdict": compared.verdict, "claimed": compared.claimed, "limits": list(task.limits)}
    record |= {"delta": compared.found.difference, "low": compared.found.low, "high": compared.found.high}
    record |= {"seeds": list(compared.best), "baseline_bpb": list(compared.baseline.values())}
    record |= {"best_bpb": list(compared.best.values()), "allowed": compared.allowed}
    if not settings.json:
        click.echo(_sentence(compared, task))
    _finish(settings, record, compared.verdict)


def _existing(bundle: Path) -> Path:
    """Return the path of a plain file that can be read. Raises `UsageError` for any other: it was mistyped."""
    path = expand_home(bundle)
    try:
        open_plain(path).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{bundle} cannot be read as a certificate: {system_words(error)}.", fix="check the path"
        ) from error
    return path


def _finish(settings: Settings, record: dict[str, Any], verdict: str | None) -> None:
    if settings.json:
        click.echo(json.dumps(record))
    if verdict not in (None, "holds"):
        raise click.exceptions.Exit(EXIT_FAILED)


def _signature(found: Certificate, signer: Path | None) -> tuple[str | None, list[str]]:
    """Return the fingerprint of the key that signed, and what does not fit."""
    from autoresearch.core.takeaway import bundle as files
    from autoresearch.core.takeaway import signature

    wanted = None if signer is None else signature.fingerprint_of(expand_home(signer))
    if found.signature is None:
        return None, [] if wanted is None else ["signature: there is none"]
    key = signature.signer_of(found.parts[files.CERTIFICATE], found.signature)
    if key is None:
        return None, ["signature: it is not one of this certificate"]
    return key, [] if wanted in (None, key) else [f"signature: it is by the key {key}, and {signer} is {wanted}"]


@dataclass(frozen=True)
class _Draws:
    """The audits' draws in a certificate, and what became of drawing them again."""

    recorded: int
    trials: int
    repeated: int = 0
    other_numpy: str | None = None
    """Version of numpy that drew them, where it is another than here."""
    faults: tuple[str, ...] = ()

    def checked(
        self, found: Certificate, audits: Mapping[str, AuditResult], text: Prepared, config: Mapping[str, Any]
    ) -> _Draws:
        """Draw again from the same text, where numpy is of the same version."""
        from importlib.metadata import version

        from autoresearch.core.takeaway import certificate as certificates

        theirs = str(found.body["versions"].get("numpy"))
        if not audits or theirs != version("numpy"):
            return replace(self, other_numpy=theirs[:40] if audits else None)
        faults = tuple(certificates.draw_faults(audits, text, config))
        return replace(self, repeated=len(audits) - len(faults), faults=faults)

    def words(self) -> str:
        """Say how far the draws were checked."""
        from autoresearch.core.report.wording import counted, one_line

        if not self.recorded:
            return "the audits' draws are not recorded in it"
        drawn = f"{counted(self.recorded, 'draw')} of audits"
        if self.other_numpy is not None:
            return f"{drawn} not repeated: they were made with numpy {one_line(self.other_numpy, 40)}"
        if not self.repeated:
            return f"{drawn} not repeated: the text is not prepared here"
        return f"{drawn} drawn again from their random bytes: the same positions"


def _tell_checks(settings: Settings, found: Certificate, faults: list[str], key: str | None, draws: _Draws) -> None:
    from autoresearch.core.report.wording import counted, one_line

    for fault in faults:
        click.echo(f"does not fit: {one_line(fault, 400)}")
    if not faults:
        rows = found.body["rows"]
        signed = "not signed: it shows that it is whole, not whose it is" if key is None else f"signed by the key {key}"
        click.echo(
            f"everything fits: sources, {counted(len(rows['chain']), 'link')} of the chain, "
            f"{counted(len(rows['trials']), 'trial')}, the text's hashes, the claim; {signed}"
        )
        click.echo(draws.words())
        click.echo(_isolation_words(found))


def _isolation_words(found: Certificate) -> str:
    """Say at which isolation levels the author's trials ran, and which it is here."""
    from autoresearch.core.report.wording import one_line
    from autoresearch.core.trial.sandbox.levels import best_level

    levels = _levels(found)
    there = one_line(", ".join(levels), 200) or "levels that are not recorded"
    told = f"the author's trials ran at isolation {there}; here it is {best_level()}"
    if "process" in levels:
        told += ". At process a train file can read what it is scored on: only fresh trials count there"
    return told


def _levels(found: Certificate) -> list[str]:
    """Return the isolation levels of the author's trials."""
    results = (json.loads(row.get("result") or "{}") for row in found.body["rows"]["trials"])
    return sorted({str(level) for result in results if (level := result.get("isolation")) is not None})


# ---- what to train


def _task(
    settings: Settings, found: Certificate, config: Mapping[str, Any], corpus: str | None, text: Prepared | None
) -> Task:
    """Choose what to train here. Raises `PrerequisiteError` where nothing can be."""
    from autoresearch.backends import names
    from autoresearch.core.cli.context import load_runtime
    from autoresearch.core.takeaway import bundle as files
    from autoresearch.core.trial.sandbox.levels import best_level

    if best_level() == "process" and REQUIRED_ISOLATION not in click.get_current_context().meta:
        raise PrerequisiteError(
            "a certificate holds a stranger's code, and the only isolation level here is process.",
            fix="read best_train.py in it (unzip -p), then --require-isolation process; or --seeds 0",
        )
    baseline, best = (found.parts[name].decode("utf-8") for name in (files.BASELINE, files.SOURCE))
    theirs = str(config["backend"])
    wanted = theirs if settings.backend == "auto" else settings.backend
    if wanted == theirs:
        if theirs not in names():
            raise PrerequisiteError(f"this ar has no backend {theirs!r}.", fix="--backend NAME, or --seeds 0")
        missing = load_runtime(theirs).unavailable()
        if missing is not None:
            raise PrerequisiteError(
                f"the {theirs} backend cannot run here: {missing}.",
                fix="--backend with another one carries the change over; --seeds 0 only checks",
            )
        prepared, limits = (text, ()) if text is not None else _prepared(settings, found, config, corpus)
        own = {**config, "prepared": str(prepared.folder)}
        return Task(baseline, best, own, limits, None if limits else prepared)
    return _carried(settings, config, baseline, best, wanted, corpus)


def _prepared(
    settings: Settings, found: Certificate, config: Mapping[str, Any], corpus: str | None
) -> tuple[Prepared, tuple[str, ...]]:
    """Prepare the text of the certificate, or another one. Raises `DataError` or `PrerequisiteError`."""
    from autoresearch.core.data.manifest import PrepareOptions
    from autoresearch.core.data.prepare import prepare

    vocabularies, width = tuple(config["vocabularies"]), int(config["eval_seq_len"])
    theirs = str(config["corpus"])
    if corpus is None and Path(theirs).is_absolute():
        raise PrerequisiteError(
            f"the text {Path(theirs).name!r} is a folder of the author's, and is not prepared here.",
            fix="--corpus PATH where you have the same text, --corpus NAME for another (then the sign alone counts)",
        )
    told = found.body["manifest"]
    options = PrepareOptions(
        corpus=corpus or theirs,
        vocabularies=vocabularies,
        seq_lens=(width,),
        val_bytes=int(told["val_bytes"]),
        test_bytes=int(told["test_bytes"]),
        shards=told["shards"],
    )
    prepared = prepare(options, settings.data_folder, settings.say)
    return prepared, () if _is_same(prepared, config) else ("the text here is another one",)


def _same_text(settings: Settings, config: Mapping[str, Any]) -> Prepared | None:
    """Find the certificate's text among the prepared ones; None where it is not there."""
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.data.prepared_files import MANIFEST

    for manifest in sorted(settings.data_folder.glob(f"*/{MANIFEST}")):
        try:
            prepared = Prepared.open(manifest.parent)
        except DataError:
            continue
        if _is_same(prepared, config):
            return prepared
    return None


def _is_same(prepared: Prepared, config: Mapping[str, Any]) -> bool:
    from autoresearch.core.data.manifest import data_sha256

    try:
        vocabularies, width = tuple(config["vocabularies"]), int(config["eval_seq_len"])
        return data_sha256(prepared, vocabularies, width) == config["prepared_sha256"]
    except DataError:
        return False


def _carried(
    settings: Settings, config: Mapping[str, Any], baseline: str, best: str, backend: str, corpus: str | None
) -> Task:
    """Make the certificate's change in another backend's train file. Raises `PrerequisiteError` where it cannot be."""
    from autoresearch import backends
    from autoresearch.agent.transfer.carry import carry
    from autoresearch.core.cli.context import ensure_prepared, resolve_backend, resolve_preset
    from autoresearch.core.proposal import Finding, Origin
    from autoresearch.core.trainfile.constants import write_preset

    here = resolve_backend(replace(settings, backend=backend))
    preset = resolve_preset(replace(settings, backend=here.name), here)
    file = Path(backends.__path__[0]) / here.name / "train.py"
    source = write_preset(file.read_text(encoding="utf-8"), preset)
    origin = Origin(run="certificate", experiment=0, backend=str(config["backend"]), device=str(config["device"]))
    finding = Finding(origin, "", "shape", baseline, best)
    carried = carry(finding, source, preset.data.vocabularies)
    if carried is None:
        raise PrerequisiteError(
            f"the change was made for {config['backend']} and cannot be carried over to {here.name}.",
            fix="--seeds 0 only checks; a machine with the certificate's backend can measure it",
        )
    left = f", without {', '.join(carried.left_out)}" if carried.left_out else ""
    prepared = ensure_prepared(settings, preset, corpus=corpus)
    settings.say(f"the change as it is on {here.name}: {carried.summary}{left}")
    own = {"backend": here.name, "preset": preset.name, "prepared": str(prepared.folder), "seed": 0}
    own |= {"eval_seq_len": preset.data.eval_seq_len, "score_rows": preset.score_rows}
    own |= {"train_seconds": preset.train_seconds, "startup_seconds": preset.startup_seconds}
    limits: tuple[str, ...] = (f"it was measured on {config['backend']}, and is carried over to {here.name}",)
    if carried.left_out:
        verb = "has" if len(carried.left_out) == 1 else "have"
        limits += (f"{', '.join(carried.left_out)} {verb} no counterpart",)
    return Task(source, carried.source, own, limits)


# ---- training


def _measure(settings: Settings, task: Task, seeds: int, claim: Headline) -> Comparison:
    from autoresearch.core.cli.train import watched
    from autoresearch.core.files import remove_folder
    from autoresearch.core.followup.remeasure import UNKNOWN_OVERHEAD, Call, Countdown, Remeasurer
    from autoresearch.core.report.wording import spell
    from autoresearch.core.takeaway import claim as claims

    each = float(task.config["train_seconds"]) + UNKNOWN_OVERHEAD
    settings.say(f"{2 * seeds} trials of {task.config['train_seconds']:g} s, about {spell(2 * seeds * each)}")
    first = FIRST_SEED + secrets.randbelow(FIRST_SEED)
    folder = tempfile.mkdtemp(prefix="ar-reproduce-")  # left where a trial fails: the error names its log
    with watched(settings, task.config["train_seconds"]) as (view, cancel):
        say = view.note if settings.verbosity >= 0 else lambda _: None
        countdown = Countdown(say, 2 * seeds, 2 * seeds * each, UNKNOWN_OVERHEAD)
        call = Call("reproduce", 1)
        remeasurer = Remeasurer(
            task.config, Path(folder), "val", first, view, cancel, say=settings.say, call=call, countdown=countdown
        )
        preset = task.config["preset"]
        compared = claims.measure(remeasurer, task.baseline, task.best, seeds, preset, None if task.limits else claim)
    remove_folder(Path(folder))
    return compared


def _sentence(compared: Comparison, task: Task) -> str:
    from autoresearch.core.report.wording import counted

    found = compared.found
    seeds = counted(len(compared.best), "seed")
    here = f"{found.difference:+.5f} bpb (95 % {found.low:+.5f} to {found.high:+.5f}, {seeds})"
    if task.limits:
        told = {
            "holds": "the change helps here, too",
            "not certain": "these trials cannot tell whether the change helps here",
            "does not hold": "the change makes it worse here",
        }[compared.verdict]
        return f"here: {here}; {told}. Its size is not compared: {'; '.join(task.limits)}"
    told = {
        "holds": "the claim holds",
        "better by another amount": "the file is better, but not by the claimed amount",
        "not certain": "nothing speaks against the claim, and these trials cannot tell it from no gain (more --seeds)",
        "does not hold": "the claim does not hold here",
    }[compared.verdict]
    return (
        f"claimed {compared.claimed:+.5f} bpb, here {here}; {told} "
        f"(both noises explain up to {compared.allowed:.5f} between the two)"
    )
