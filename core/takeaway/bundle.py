"""The file that a certificate travels in: a zip archive of four named files at most, read without trusting it.

Nothing is ever unpacked to the disk, whatever names stand in the archive, and of each file no more than its limit is
read.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoresearch.core.errors import ArError, DataError
from autoresearch.core.files import PARTIAL, sync_folder

CERTIFICATE, SOURCE, BASELINE, CHANGE, SIGNATURE = (
    "certificate.json",
    "best_train.py",
    "baseline_train.py",
    "change.diff",
    "certificate.json.sig",
)
LIMITS = {CERTIFICATE: 48 * 2**20, SOURCE: 2**20, BASELINE: 2**20, CHANGE: 4 * 2**20, SIGNATURE: 2**16}
"""Most bytes of each file when it is unpacked, and with it every name that may stand in the archive."""
NEEDED = (CERTIFICATE, SOURCE, BASELINE, CHANGE)
MOST_BYTES = 16 * 2**20
"""Most bytes of the archive itself."""
MOST_OBJECTS = 4_000_000
"""Most lists and objects in the JSON: each takes fifty times the bytes that it is written with."""
MOST_DEPTH = 20
"""Most levels of lists and objects in the JSON."""


class BundleError(DataError):
    """A file is no certificate, or holds what no certificate of a run does."""


def broken(path: Path, why: str) -> BundleError:
    """Return the error for a bundle that cannot be used."""
    return BundleError(f"{path} is not a certificate of ar: {why}.", fix="ask for it again; nothing of it was run")


def write_bundle(path: Path, parts: Mapping[str, bytes]) -> None:
    """Write the archive in one step, the same bytes for the same parts. Raises `ArError`."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(parts):
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, parts[name], zipfile.ZIP_DEFLATED)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ArError(f"{path} cannot be written: {error.strerror}.", fix="name another file") from error
    finally:
        partial.unlink(missing_ok=True)


def read_bundle(path: Path) -> dict[str, bytes]:
    """Read the files of a bundle by name. Raises `BundleError` with what is wrong."""
    try:
        if not path.is_file():
            raise broken(path, "there is no such file" if not path.exists() else "it is not a plain file")
        if path.stat().st_size > MOST_BYTES:
            raise broken(path, f"it has more than {MOST_BYTES:,} bytes")
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise broken(path, f"it cannot be unpacked ({error})") from error
    except OSError as error:
        raise broken(path, f"it cannot be read ({error.strerror or error})") from error


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > len(LIMITS):
        raise broken(path, f"it holds {len(entries)} files, and {len(LIMITS)} are the most")
    found: dict[str, bytes] = {}
    for entry in entries:
        # Names are compared with a list: a path that leads elsewhere, or a file too many, is refused before it is read.
        if entry.filename not in LIMITS:
            raise broken(path, f"it holds a file named {entry.filename[:100]!r}")
        if entry.filename in found:
            raise broken(path, f"it holds {entry.filename} twice")
        kind = entry.external_attr >> 28  # the upper four bits of a file's mode; 8 is a plain file
        if kind not in (0, 8):
            raise broken(path, f"{entry.filename} is a link or no plain file")
        # Only what a bundle is written with. Other methods read their memory's size from the archive.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise broken(path, f"{entry.filename} is compressed in a way that no certificate is")
        limit = LIMITS[entry.filename]
        with archive.open(entry) as file:
            # By what comes out, not by the size that the archive claims.
            content = file.read(limit + 1)
        if len(content) > limit:
            raise broken(path, f"{entry.filename} has more than {limit:,} bytes")
        found[entry.filename] = content
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise broken(path, f"it lacks {', '.join(missing)}")
    return found


def strict_json(text: str | bytes) -> Any:
    """Parse JSON in which every number is finite and nothing is nested deeply. Raises `ValueError`."""
    raw = text.encode() if isinstance(text, str) else text
    if raw.count(b"[") + raw.count(b"{") > MOST_OBJECTS:
        raise ValueError(f"it holds more than {MOST_OBJECTS:,} lists and objects")
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, int | float) and not _is_finite(one):
                raise ValueError("it holds a number that is not finite")
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
        if not inner:
            return value
        level = inner
    raise ValueError("it is nested too deeply")


def _is_finite(number: float) -> bool:
    """Tell whether a number is finite as a `float`: JSON's whole numbers may be larger than any."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _refuse(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not a number")
