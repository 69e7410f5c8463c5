"""What runs on a node of a fleet: a look at what it is, and one trial as a stream of events."""

from __future__ import annotations

import hashlib
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.backends.contract import Device
from autoresearch.core.config import data_dir
from autoresearch.core.errors import ArError
from autoresearch.core.fleet.shipping import CorpusRef, find_corpus, receive
from autoresearch.core.trial.request import IsolationLevel, TrialRequest

BEAT_SECONDS = 1.0
"""Between two signs of life of a trial."""
FILES = ("run.log", "events.jsonl", "result.json", "train.py")
"""Of a trial's folder: what goes back to the loop."""
FILE_LIMIT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Node:
    """What a node says of itself."""

    device: Device | None
    """None where the backend does not run."""
    trouble: str | None
    """Then why, in words."""
    isolation: IsolationLevel
    code: str
    """SHA-256 of all that decides scores (see core.store.integrity.code_sha256)."""
    host: str
    has_corpus: bool


def look(backend: str, corpus: CorpusRef | None = None) -> Node:
    """What this node is, and whether it has that corpus."""
    import socket

    from autoresearch.core.store.integrity import code_sha256
    from autoresearch.core.trial.device import probe_device
    from autoresearch.core.trial.sandbox.levels import best_level

    device, trouble = None, None
    try:
        device = probe_device(backend)
    except ArError as error:
        trouble = error.message
    has = corpus is not None and find_corpus(corpus) is not None
    return Node(device, trouble, best_level(), code_sha256(backend), socket.gethostname(), has)


@dataclass(frozen=True)
class Job:
    """One trial, with all that a node needs for it."""

    request: TrialRequest
    corpus: CorpusRef
    tolerances: bytes | None
    """Content of the file that the request names."""


def trial(job: Job, fetch: Callable[[str], bytes]) -> Iterator[Mapping[str, Any]]:
    """Run it here: {"event": ...} while it runs, {} as a sign of life, and one last word.

    That is {"result", "files", "tolerances"}, or {"error", "fix"} when the trial could not be run. `fetch` gives a file
    of the corpus, and is called only where this node has none. Closed early, it leaves no process of the trial.
    """
    from autoresearch.core.trial.supervisor import run_trial

    said: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    cancel, done = threading.Event(), threading.Event()

    def work() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="ar-node-") as name:
                request = _here(job, Path(name), fetch)
                result = run_trial(request, observer=said.put, cancel=cancel)
                said.put(_last_word(request, result.model_dump()))
        except ArError as error:
            said.put({"error": error.message, "fix": error.fix})
        except Exception as error:
            said.put({"error": f"{type(error).__name__}: {error}", "fix": None})
        finally:
            done.set()

    threading.Thread(target=work, name="trial", daemon=True).start()
    try:
        while True:
            try:
                word = said.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                word = {}
            yield word
            if is_last(word):
                return
    finally:
        cancel.set()
        done.wait()


def is_last(word: Mapping[str, Any]) -> bool:
    """Whether nothing comes after it."""
    return "files" in word or "fix" in word


def _here(job: Job, folder: Path, fetch: Callable[[str], bytes]) -> TrialRequest:
    """The request with this node's own paths."""
    prepared = find_corpus(job.corpus) or receive(job.corpus, fetch)
    tolerances = folder / "tolerances.json"
    if job.tolerances is not None:
        tolerances.write_bytes(job.tolerances)
    carried = job.request.carried
    if carried is not None:  # the run's compile caches, which every node makes for itself
        run = hashlib.sha256(str(carried.folder).encode()).hexdigest()[:12]
        carried = replace(carried, folder=data_dir() / "compiled" / run)
    return replace(
        job.request,
        folder=folder / job.request.folder.name,
        prepared=prepared,
        tolerances=tolerances,
        carried=carried,
    )


def _last_word(request: TrialRequest, result: dict[str, Any]) -> dict[str, Any]:
    found = {name: _read(request.folder / name) for name in FILES}
    files = {name: body for name, body in found.items() if body is not None}
    tolerances = _read(request.tolerances) if request.tolerances else None
    return {"result": result, "files": files, "tolerances": tolerances}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= FILE_LIMIT_BYTES else None
    except OSError:
        return None
