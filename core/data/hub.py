"""Fetch corpora of the Hugging Face hub: files of a pinned revision, in parallel, resumable, checked.

The first fetch resolves REVISION to a commit. The commit and every file's SHA-256 are recorded beside the files and
used from then on, so later runs, and runs without a network, see the same text. HF_ENDPOINT, HF_TOKEN and the proxy
variables mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autoresearch.core.data.storage import FULL, as_data_error
from autoresearch.core.data.turns import turn
from autoresearch.core.errors import DataError
from autoresearch.core.files import sha256_of, write_file

Progress = Callable[[str], None]

REVISION = "main"
"""Branch that is resolved to a commit at the first fetch."""
PARALLEL = 8
"""Number of files fetched at once."""
TRIES = 3
RETRY_SECONDS = 1.0
"""Wait after the first failure; it grows by as much after each further one."""
RECORD = "fetched.json"
FIX = "check the network and run `ar prepare` again: it resumes where it stopped"


@dataclass(frozen=True)
class HubCorpus:
    """A dataset repository of parquet files with a column `text`."""

    name: str
    repository: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    """Files for val and test; empty where these are taken from the train files."""
    default_shards: int


HUB_CORPORA = {
    "climbmix": HubCorpus(
        "climbmix",
        "karpathy/climbmix-400b-shuffle",
        tuple(f"shard_{number:05d}.parquet" for number in range(6542)),
        ("shard_06542.parquet",),
        default_shards=8,
    ),
    "tinystories": HubCorpus(
        "tinystories", "karpathy/tinystories-gpt4-clean", ("tinystories_gpt4_clean.parquet",), (), default_shards=1
    ),
}


@dataclass(frozen=True)
class Fetched:
    """A hub corpus that is on the disk."""

    root: Path
    commit: str
    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    sha256: dict[str, str]
    """SHA-256 by file name."""


def fetch(corpus: HubCorpus, folder: Path, shards: int | None, progress: Progress) -> Fetched:
    """Fetch the missing files of the first `shards` train files and the held-out ones. Raises `DataError`."""
    names = (*corpus.train[: shards or corpus.default_shards], *corpus.held_out)
    if shards is not None and shards > len(corpus.train):
        raise DataError(f"{corpus.name} has {len(corpus.train)} shards.", fix=f"--shards {len(corpus.train)} or fewer")
    root = folder / corpus.name
    root.mkdir(parents=True, exist_ok=True)
    record = _read_record(root)
    if _missing(root, names, record):
        # Two prepared folders may come from one corpus, with other sizes of the splits.
        with turn(folder / f".{corpus.name}.lock", root, progress):
            record = _read_record(root)
            if missing := _missing(root, names, record):
                record["commit"] = record["commit"] or _resolve(corpus, missing[0])
                _remove_leftovers(root)
                progress(f"fetching {len(missing)} files of {corpus.repository} at {record['commit'][:10]}")
                _fetch_all(corpus, root, missing, record, progress)
    elif any(_leftovers(root)):
        _remove_leftovers_now(folder / f".{corpus.name}.lock", root)
    train = tuple(root / name for name in names if name in corpus.train)
    held_out = tuple(root / name for name in corpus.held_out)
    return Fetched(root, record["commit"], train, held_out, {name: record["files"][name]["sha256"] for name in names})


def _remove_leftovers(root: Path) -> None:
    """Remove what killed downloads have left; to be called in turn, when nothing is being fetched.

    Newer versions of huggingface_hub give each download's file a random part in its name, and so never go on with it.
    Older ones do go on with theirs, which have one part less.
    """
    for path in _leftovers(root):
        path.unlink(missing_ok=True)


def _remove_leftovers_now(lock_file: Path, root: Path) -> None:
    """Remove leftovers where no other process fetches: its own look the same. Nothing waits for that, or fails by it.

    The text may lie on a disk that can only be read.
    """
    with contextlib.suppress(OSError, Timeout), FileLock(lock_file, timeout=0):
        _remove_leftovers(root)


def _leftovers(root: Path) -> Iterator[Path]:
    return (root / ".cache" / "huggingface" / "download").glob("*.*.*.incomplete")


def _fetch_all(corpus: HubCorpus, root: Path, missing: list[str], record: dict[str, Any], progress: Progress) -> None:
    """Fetch in parallel. After a failure start nothing new, and keep the files that have arrived for the next call."""
    import huggingface_hub.utils

    huggingface_hub.utils.disable_progress_bars()
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        futures = {pool.submit(_fetch_one, corpus, root, name, record["commit"]): name for name in missing}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                record["files"][futures[future]] = future.result()
                _write_record(root, record)
                size = record["files"][futures[future]]["bytes"]
                progress(f"fetched {futures[future]} ({size / 1e6:.1f} MB), {done} of {len(missing)}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(corpus: HubCorpus, root: Path, name: str, commit: str) -> dict[str, Any]:
    """Fetch one file and check it against the hub's own checksum, if there is one. Raises `DataError`."""
    import huggingface_hub

    where = f"{name} of {corpus.repository} at {commit[:10]}"
    for attempt in range(1, TRIES + 1):
        try:
            etag = _metadata(corpus, name, commit).etag or ""
            # huggingface_hub trusts a file that it fetched before, whatever has become of it since.
            if (root / name).exists() and sha256_of(root / name) != etag:
                (root / name).unlink()
            path = Path(
                huggingface_hub.hf_hub_download(
                    corpus.repository, name, repo_type="dataset", revision=commit, local_dir=root, endpoint=_endpoint()
                )
            )
            break
        except Exception as error:  # what httpx, the hub and Xet raise shares no base class
            if isinstance(error, OSError) and error.errno in FULL:
                raise as_data_error(error, root) from error
            if attempt == TRIES or _is_final(error):
                raise _failed(where, error) from error
            time.sleep(attempt * RETRY_SECONDS)
    digest = sha256_of(path)
    if len(etag) == 64 and etag != digest:
        path.unlink()
        raise DataError(f"{where} arrived damaged: its SHA-256 is not the hub's.", fix=FIX)
    status = path.stat()
    return {"sha256": digest, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _resolve(corpus: HubCorpus, name: str) -> str:
    """Ask the hub for the commit of REVISION."""
    try:
        commit = _metadata(corpus, name, REVISION).commit_hash
    except Exception as error:  # as in _fetch_one
        raise _failed(f"{corpus.repository} ({REVISION})", error) from error
    if not commit:
        raise DataError(f"{corpus.repository}: the hub did not say which commit {REVISION} is.", fix=FIX)
    return str(commit)


def _metadata(corpus: HubCorpus, name: str, revision: str) -> Any:
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(
        corpus.repository, name, repo_type="dataset", revision=revision, endpoint=_endpoint()
    )
    return huggingface_hub.get_hf_file_metadata(url, endpoint=_endpoint())


def _endpoint() -> str | None:
    """Read HF_ENDPOINT now: huggingface_hub itself reads it only once, when it is imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _is_final(error: Exception) -> bool:
    """Tell whether another try is useless: the hub has no such file, or refuses access."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status in (401, 403, 404, 410)


def _failed(where: str, error: Exception) -> DataError:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"{where} could not be fetched: {text}", fix=FIX)


def _missing(root: Path, names: Sequence[str], record: dict[str, Any]) -> list[str]:
    return [name for name in names if not _is_there(root / name, record["files"].get(name))]


def _is_there(path: Path, known: dict[str, Any] | None) -> bool:
    """Tell whether a file was fetched and checked before and has kept its size and time, or at least its content."""
    if known is None or not path.is_file():
        return False
    status = path.stat()
    if status.st_size != known["bytes"]:
        return False
    return status.st_mtime_ns == known["mtime_ns"] or sha256_of(path) == known["sha256"]


def _read_record(root: Path) -> dict[str, Any]:
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
        commit, files = record["commit"], dict(record["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return {"commit": None, "files": {}}
    if not isinstance(commit, str):
        return {"commit": None, "files": {}}
    return {"commit": commit, "files": {name: known for name, known in files.items() if _is_entry(known)}}


def _is_entry(known: object) -> bool:
    """Tell whether a part of the record has the form that `_fetch_one` gives it: what was edited is fetched anew."""
    form = {"sha256": str, "bytes": int, "mtime_ns": int}
    return isinstance(known, dict) and all(isinstance(known.get(key), kind) for key, kind in form.items())


def _write_record(root: Path, record: dict[str, Any]) -> None:
    write_file(root / RECORD, [json.dumps(record, indent=1).encode()])
