"""A certificate: a run's claim, and everything of its ledger that the claim follows from.

It holds every row of the ledger's experiments, trials and chain, without sources but for the baseline's and the best
file's. Who checks it makes a ledger of these rows again, walks its chain, and computes the claim from its trials with
the same code that made it. Whoever has the ledger can also forge it as a whole: what is left then is to measure again,
and the author's signature.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoresearch.core.data.manifest import Manifest, Prepared, data_sha256
from autoresearch.core.errors import ArError, PrerequisiteError
from autoresearch.core.report.wording import one_line
from autoresearch.core.store import schema
from autoresearch.core.store.guarded import GuardedConnection
from autoresearch.core.store.headline import headline_of
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.takeaway import bundle
from autoresearch.core.trial.draws import DrawFault, check_draw, drawn_positions
from autoresearch.core.trial.request import AuditResult

FORMAT = 1
TABLES = ("runs", "experiments", "trials", "chain")
"""Tables whose rows a certificate holds."""
ROWS = "rows"
"""Name of the hash of all rows, beside those of the sources; certificates of earlier versions lack it."""
LEFT_OUT = {"runs": ("pid", "host", "heartbeat", "journal"), "trials": ("folder",)}
"""Columns that say nothing about the claim. A trial's folder is written anew from its numbers."""
JSON_COLUMNS = ("config", "parameters", "metrics", "judged", "origin", "result")
MOST_ROWS = 200_000
"""Most rows of a table."""
CLOSE = 1e-9
"""Relative difference up to which two computed numbers are the same."""
MOST_SECONDS, MOST_ROW_TOKENS, MOST_ROWS_A_BATCH = 7 * 86400.0, 2**17, 2**14
"""Largest budget and sizes that a run can sensibly have: a certificate asks for trials on the checker's machine."""


@dataclass(frozen=True)
class Certificate:
    """A certificate that was read, not yet checked."""

    path: Path
    body: dict[str, Any]
    parts: Mapping[str, bytes]

    @property
    def signature(self) -> bytes | None:
        """Return the signature over certificate.json; None without one."""
        return self.parts.get(bundle.SIGNATURE)


def make(reader: LedgerReader, versions: Mapping[str, str]) -> dict[str, bytes]:
    """Make the files of a certificate of the run's best file. `versions` are those of the packages that computed.

    Raises `PrerequisiteError` for a run without a kept change, `ArError` for one that was edited.
    """
    fault = reader.verify().fault
    if fault is not None:
        tag = reader.run().tag
        raise ArError(f"the ledger of {tag} is not as it was written: {fault}.", fix="`ar status --verify`")
    with reader.snapshot():
        return _make(reader, versions)


def _make(reader: LedgerReader, versions: Mapping[str, str]) -> dict[str, bytes]:
    run, best, headline = reader.run(), reader.incumbent(), headline_of(reader)
    if headline is not None and headline.baseline is None:
        raise PrerequisiteError(
            f"the baseline of the run {run.tag!r} has no score on the machine of its best file.",
            fix="`ar verify` measures both, or certify a run that has stayed on one machine",
        )
    if best is None or best.number == 0 or headline is None or headline.gain is None:
        raise PrerequisiteError(
            f"the run {run.tag!r} has no kept change to certify.", fix="let `ar loop` find one first"
        )
    source, baseline = (reader.source(n) for n in (best.number, 0))
    rows = {table: _rows(reader, table) for table in TABLES}
    body: dict[str, Any] = {
        "format": FORMAT,
        "made": time.time(),
        "claim": headline.plain(),
        "sha256": {bundle.SOURCE: _sha256(source), bundle.BASELINE: _sha256(baseline)},
        "versions": dict(versions),
        "manifest": Prepared.open(Path(run.config["prepared"])).manifest.model_dump(mode="json"),
        "rows": rows,
    }
    try:
        body["sha256"][ROWS] = _rows_sha256(rows)
        text = json.dumps(body, sort_keys=True, indent=1, allow_nan=False).encode()
    except ValueError as error:
        raise ArError(
            f"the run {run.tag!r} holds a number that is not finite.", fix="nothing: it has no claim"
        ) from error
    except TypeError as error:  # bytes in a column of text
        raise ArError(f"the run {run.tag!r} holds a value of another type.", fix="nothing: it has no claim") from error
    return {
        bundle.CERTIFICATE: text,
        bundle.SOURCE: source.encode("utf-8", errors="surrogatepass"),
        bundle.BASELINE: baseline.encode("utf-8", errors="surrogatepass"),
        bundle.CHANGE: change_of(baseline, source).encode("utf-8", errors="surrogatepass"),
    }


def change_of(baseline: str, source: str) -> str:
    """Return the change as a unified diff."""
    names = (bundle.BASELINE, bundle.SOURCE)
    lines = difflib.unified_diff(baseline.splitlines(), source.splitlines(), *names, lineterm="")
    return "".join(f"{line}\n" for line in lines)


def load(path: Path) -> Certificate:
    """Read a bundle. Raises `BundleError` when it is none, whatever it is instead."""
    parts = bundle.read_bundle(path)
    try:
        body = bundle.strict_json(parts[bundle.CERTIFICATE])
        if not isinstance(body, dict):
            raise ValueError("it is not an object")
        if body.get("format") != FORMAT:
            raise ValueError(f"its format is {one_line(str(body.get('format')), 20)}, and this ar reads {FORMAT}")
        _check_shape(body)
        for name in (bundle.SOURCE, bundle.BASELINE, bundle.CHANGE):
            parts[name].decode("utf-8", errors="surrogatepass")
    except (ValueError, TypeError, KeyError) as error:  # UnicodeDecodeError is a ValueError
        raise bundle.broken(path, f"{bundle.CERTIFICATE}: {one_line(str(error), 200)}") from error
    return Certificate(path, body, parts)


def _check_shape(body: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a value is of another kind than the ledger's tables have."""
    rows = body.get("rows")
    if not isinstance(rows, dict) or set(rows) != set(TABLES):
        raise ValueError(f"its rows are not those of {', '.join(TABLES)}")
    for table, found in rows.items():
        if not isinstance(found, list):
            raise ValueError(f"its rows of {table} are not a list")
        if len(found) > MOST_ROWS:
            raise ValueError(f"it has {len(found):,} rows of {table}, and at most {MOST_ROWS:,} are read")
        for row in found:
            _check_row(table, row)
    if len(rows["runs"]) != 1:
        raise ValueError("it is not about one run")
    if not isinstance(body.get("claim"), dict) or not isinstance(body.get("sha256"), dict):
        raise ValueError("it makes no claim")
    if not isinstance(body.get("made"), int | float) or not isinstance(body.get("versions"), dict):
        raise ValueError("it does not say when and with what it was made")


def _check_row(table: str, row: Any) -> None:
    types = schema.COLUMN_TYPES[table]
    if not isinstance(row, dict):
        raise ValueError(f"a row of {table} is not an object")
    for name, value in row.items():
        kind = types.get(name)
        if kind is None or name in LEFT_OUT.get(table, ()):
            raise ValueError(f"a row of {table} has a column {one_line(str(name), 40)!r}")
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or isinstance(value, bool) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            raise ValueError(f"{name} in a row of {table} is not of type {kind.__name__}")
        if name in JSON_COLUMNS:
            bundle.strict_json(value)


def _rows(reader: LedgerReader, table: str) -> list[dict[str, Any]]:
    gone = LEFT_OUT.get(table, ())
    return [
        {name: value for name, value in row.items() if value is not None and name not in gone}
        for row in reader.table(table)
    ]


# ---- checking


@contextmanager
def ledger_of(certificate: Certificate) -> Iterator[LedgerReader]:
    """Make a ledger of the certificate's rows, and give a reader of it. Raises `BundleError` where there is none."""
    with tempfile.TemporaryDirectory(prefix="ar-certificate-") as name:
        folder = Path(name)
        try:
            with closing(
                sqlite3.connect(folder / LEDGER_NAME, isolation_level=None, factory=GuardedConnection)
            ) as made:
                made.row_factory = sqlite3.Row
                made.execute("BEGIN")
                schema.create_tables(made)
                for table in TABLES:
                    _insert(made, table, certificate.body["rows"][table])
                for text in (bundle.SOURCE, bundle.BASELINE):
                    body = certificate.parts[text]
                    values = (hashlib.sha256(body).hexdigest(), zlib.compress(body), 0.0)
                    made.execute("INSERT OR IGNORE INTO texts (sha256, body, first_used) VALUES (?, ?, ?)", values)
                made.execute("COMMIT")
        except (sqlite3.Error, OverflowError, KeyError, UnicodeEncodeError) as error:  # the last: half a surrogate pair
            raise bundle.broken(certificate.path, f"its rows make no ledger ({one_line(str(error), 200)})") from error
        with LedgerReader(folder) as reader:
            yield reader


def _insert(made: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        values = dict(row)
        if table == "trials":
            values["folder"] = f"trials/{row['experiment']}-{row['k']}"
        marks = ", ".join("?" for _ in values)
        made.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def faults_of(certificate: Certificate, reader: LedgerReader) -> list[str]:
    """Return in words what does not fit: sources, change, chain, text, claim. `reader` is that of `ledger_of`.

    Raises `BundleError` for one that cannot be understood.
    """
    try:
        return list(_faults(certificate, reader))
    except bundle.BundleError:
        raise
    except (ArError, ValueError, TypeError, KeyError, ArithmeticError, sqlite3.Error, AttributeError) as error:
        # Without the file's name and the advice: both are of a ledger that is gone with this call.
        words = error.message if isinstance(error, ArError) else str(error)
        said = one_line(words.replace(f"{reader.path} ", "it "), 200)
        raise bundle.broken(certificate.path, f"its rows cannot be understood ({said})") from error


def _faults(certificate: Certificate, reader: LedgerReader) -> Iterator[str]:
    body, parts = certificate.body, certificate.parts
    run, best = reader.run(), reader.incumbent()
    if best is None or best.number == 0 or best.status != "keep":
        yield "the run: it has no kept change"
        return
    for name, number in ((bundle.SOURCE, best.number), (bundle.BASELINE, 0)):
        digest = hashlib.sha256(parts[name]).hexdigest()
        if digest != reader.experiment(number).source_sha256 or body["sha256"].get(name) != digest:
            yield f"{name}: it is not the source of experiment {number} that was measured (SHA-256 {digest[:16]}…)"
    texts = [parts[name].decode("utf-8", errors="surrogatepass") for name in (bundle.BASELINE, bundle.SOURCE)]
    if change_of(*texts) != parts[bundle.CHANGE].decode("utf-8", errors="surrogatepass"):
        yield f"{bundle.CHANGE}: it is not the difference of the two sources"
    # The chain knows decisions. Trials of experiments without one are in the claim too, where they ran the best file.
    if (written := body["sha256"].get(ROWS)) is not None and written != _rows_sha256(body["rows"]):
        yield "rows: they are not those that the certificate was made with"
    yield from (f"chain: {fault}" for fault in reader.chain_faults())
    for name, audit in audits_of(reader).items():
        try:
            drawn_positions(audit)
        except DrawFault as fault:
            yield f"audit of {name}: {fault}"
    yield from _config_faults(run.config)
    try:
        manifest = Prepared(Path(), Manifest.model_validate(body.get("manifest")))
    except ValidationError as error:
        raise bundle.broken(certificate.path, "manifest: it is not one") from error
    vocabularies, width = tuple(run.config["vocabularies"]), run.config["eval_seq_len"]
    if data_sha256(manifest, vocabularies, width) != run.config["prepared_sha256"]:
        yield "manifest: its hashes are not those of the text that the run was measured on"
    headline = headline_of(reader)
    computed = {} if headline is None else headline.plain()
    for name, value in computed.items():
        if not _same(body["claim"].get(name), value):
            yield f"claim: {name} is {one_line(str(body['claim'].get(name)), 40)}, and the trials give {value}"
    if set(body["claim"]) != set(computed):
        yield "claim: it has other entries than the trials give"


def audits_of(reader: LedgerReader) -> dict[str, AuditResult]:
    """Return the audits whose draw is recorded, by the words for their trial. Raises `ValueError` for what is none."""
    found = {}
    for trial in reader.every_trial():
        audit = trial.result.get("audit")
        if audit is not None and audit.get("draw") is not None:
            found[f"experiment {trial.experiment}, trial {trial.k}"] = AuditResult.model_validate(audit)
    return found


def draw_faults(audits: Mapping[str, AuditResult], prepared: Prepared, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words each draw that does not follow from its random bytes, on the run's own text.

    A draw must fit the scored rows of one of the run's vocabularies: most trials' sources, which name theirs, are not
    in a certificate. Raises `DataError` where the prepared files have changed.
    """
    rows = [
        prepared.scored_rows("val", size, int(config["eval_seq_len"])).mask for size in sorted(config["vocabularies"])
    ]
    for name, audit in audits.items():
        last: DrawFault | None = None
        for mask in rows:
            try:
                check_draw(audit, mask)
            except DrawFault as fault:
                last = fault
            else:
                last = None
                break
        if last is not None:
            yield f"audit of {name}: {last}"


def _config_faults(config: Mapping[str, Any]) -> Iterator[str]:
    for name, most in (
        ("train_seconds", MOST_SECONDS),
        ("startup_seconds", MOST_SECONDS),
        ("eval_seq_len", MOST_ROW_TOKENS),
        ("score_rows", MOST_ROWS_A_BATCH),
    ):
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            yield f"settings: {name} is {one_line(str(value), 40)}; it must be above 0 and at most {most:g}"
    for name in ("backend", "preset", "corpus", "prepared_sha256", "judge", "device"):
        if not isinstance(config.get(name), str):
            yield f"settings: {name} is not text"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
    return bool(one == other)


def _rows_sha256(rows: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
