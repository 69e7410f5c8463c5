"""`ar certify`: a run's claim as one file that somebody else can check."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import GivenPath
from autoresearch.core.errors import ArError, UsageError
from autoresearch.core.home import expand_home

if TYPE_CHECKING:
    from autoresearch.core.store.rows import RunRow


@click.command()
@click.argument("bundle", required=False, metavar="[FILE]", type=GivenPath())
@click.option("--tag", metavar="TAG", help="Name of the run.  [default: the run started last]")
@click.option(
    "--sign",
    type=GivenPath(),
    metavar="KEY",
    help="SSH key to sign the certificate with (by ssh-keygen).",
)
@pass_settings
def certify(settings: Settings, bundle: Path | None, tag: str | None, sign: Path | None) -> None:
    """Write a certificate of a run's best file: FILE, or TAG.arcert in the run's folder.

    FILE must be new, or an earlier certificate of this run, which is replaced. The certificate holds the best file, the
    baseline and their difference, every experiment and trial of the ledger with its chain of hashes (without the
    sources of other experiments), the hashes of the text, and versions. The settings of the run in it name folders of
    this machine. `ar reproduce` checks it. Prints the file's path.
    """
    from autoresearch.core.cli.output import check_writable
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.wording import best_text
    from autoresearch.core.store.headline import headline_of
    from autoresearch.core.takeaway import bundle as files
    from autoresearch.core.takeaway import certificate as certificates

    with open_reader(settings, tag) as reader:
        run, headline = reader.run(), headline_of(reader)
        parts = certificates.make(reader, versions(str(run.config["backend"])))
        # Also what root could replace, but should not, a device among it.
        target = check_writable(bundle or reader.folder / f"{run.tag}.arcert", "name another file")
        if bundle is not None:
            check_replaceable(target, run)
    signer = None
    if sign is not None:
        from autoresearch.core.takeaway import signature

        parts[files.SIGNATURE] = signature.sign(parts[files.CERTIFICATE], expand_home(sign))
        signer = signature.signer_of(parts[files.CERTIFICATE], parts[files.SIGNATURE])
    files.write_bundle(target, parts)
    # What does not fit here fits nowhere.
    written = certificates.load(target)
    with certificates.ledger_of(written) as copy:
        faults = certificates.faults_of(written, copy)
    if faults:
        target.unlink(missing_ok=True)
        raise ArError(f"the run {run.tag!r} gives no certificate: {faults[0]}.", fix="`ar status --verify` checks it")
    claim = "" if headline is None else best_text(headline)
    if settings.json:
        click.echo(
            json.dumps(
                {"bundle": str(target), "tag": run.tag, "claim": headline and headline.plain(), "signer": signer}
            )
        )
        return
    click.echo(str(target))
    settings.say(f"{run.tag}: {claim}; {'not signed' if signer is None else f'signed by the key {signer}'}")
    settings.say(f"to check it: ar reproduce {shlex.quote(str(target))}")


def check_replaceable(target: Path, run: RunRow) -> None:
    """Raise `UsageError` where a file lies at `target` that is no certificate of this run: it could not be had again.

    `ar` alone writes the name in the run's folder, so that one needs no check.
    """
    from autoresearch.core.takeaway import bundle as files
    from autoresearch.core.takeaway import certificate as certificates

    if not target.exists():
        return
    try:
        (there,) = certificates.load(target).body["rows"]["runs"]
    except files.BundleError:
        what = "is there already, and is no certificate"
    else:
        if (there.get("tag"), there.get("created")) == (run.tag, run.created):
            return
        what = "is there already, and certifies another run"
    raise UsageError(f"{target} {what}.", fix="name a new file, or move that one away")


def versions(backend: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that compute here."""
    import importlib.metadata
    import platform

    from autoresearch.core.cli.context import load_runtime

    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("autoresearch-dual", "numpy", *load_runtime(backend).packages()):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
