"""A page that lists certificates by preset and text. What a certificate says is escaped, and the page runs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.core.report.wording import one_line
from autoresearch.core.store.headline import headline_of
from autoresearch.core.takeaway import bundle, certificate, signature
from autoresearch.core.takeaway.export import corpus_name

SUFFIX = ".arcert"
TEMPLATES = Path(__file__).with_name("templates")
MOST_BUNDLES = 1000
MOST_BPB = 1e6
"""Bits per byte from which a claimed figure is not shown."""


@dataclass(frozen=True)
class Line:
    """One certificate on the page."""

    file: str
    tag: str
    backend: str
    device: str
    preset: str
    corpus: str
    prepared_sha256: str
    made: float
    experiments: int
    claim: Mapping[str, Any]
    selected: bool
    """True where the claim is of the trials that chose the file."""
    signer: str | None
    """Fingerprint of the key; None where it is not signed."""
    fault: str | None
    """The first thing that does not fit; None where everything does."""


def read_board(folder: Path) -> tuple[list[Line], list[tuple[str, str]]]:
    """Read and check every certificate of a folder.

    Also returns name and reason of every file that is no certificate, or whose rows cannot be understood. Raises
    `PrerequisiteError` where one is signed and there is no ssh-keygen.
    """
    lines, refused = [], []
    for path in sorted(folder.glob(f"*{SUFFIX}"))[:MOST_BUNDLES]:
        try:
            lines.append(_line(path))
        except bundle.BundleError as error:
            refused.append((path.name, one_line(error.message, 300)))
    return lines, refused


def _line(path: Path) -> Line:
    """Read and check one certificate. Raises `BundleError`."""
    found = certificate.load(path)
    with certificate.ledger_of(found) as reader:
        faults = certificate.faults_of(found, reader)
        run, total, headline = reader.run(), reader.totals(), None if faults else headline_of(reader)
    signer = None
    if found.signature is not None:
        signer = signature.signer_of(found.parts[bundle.CERTIFICATE], found.signature)
        faults += ["its signature does not fit"] if signer is None else []
    config = run.config
    texts = {name: one_line(str(config.get(name, "")), 80) for name in ("backend", "device", "preset")}
    return Line(
        file=one_line(path.name, 255),
        tag=one_line(run.tag, 80),
        **texts,
        corpus=one_line(corpus_name(str(config.get("corpus", ""))), 80),
        prepared_sha256=str(config.get("prepared_sha256", ""))[:64],
        made=float(found.body["made"]),
        experiments=total.decided,
        claim=found.body["claim"],
        selected=headline is not None and headline.best.selected,
        signer=signer,
        fault=one_line(faults[0], 200) if faults else None,
    )


def page(lines: Iterable[Line]) -> str:
    """Write the page, the largest gain of each preset and text first; what does not fit comes last and says so."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.preset, line.corpus, line.prepared_sha256), []).append(line)
    ordered = {key: sorted(group, key=_order) for key, group in sorted(groups.items())}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "bpb": lambda value: _number(value, "{:.4f}"),
        "delta": lambda value: _number(value, "{:+.4f}"),
        "day": _day,
    }
    return environment.get_template("board.html").render(groups=ordered)


def _order(line: Line) -> tuple[bool, float, str]:
    gain = line.claim.get("delta")
    return line.fault is not None, float(gain) if isinstance(gain, int | float) else 0.0, line.file


def _number(value: Any, form: str) -> str:
    """Write a figure; one that no run has, and that would fill the page with digits, is left out."""
    fits = isinstance(value, int | float) and abs(value) < MOST_BPB
    return form.format(value).replace("-", "−") if fits else "–"


def _day(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(moment))
    except (OverflowError, ValueError, OSError):
        return "–"
