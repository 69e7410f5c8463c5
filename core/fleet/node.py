"""The part of a fleet that runs on its nodes: inspecting a node, and running one trial as a stream of messages."""

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
from autoresearch.core.events import EVENTS_FILE, Event, to_json
from autoresearch.core.fleet.shipping import CorpusRef, find_corpus, receive_corpus
from autoresearch.core.trial.request import IsolationLevel, TrialRequest

HEARTBEAT_SECONDS = 1.0
"""Seconds between two signs of life of a trial that reports nothing."""
FILES = ("run.log", EVENTS_FILE, "result.json", "train.py")
"""Files of a trial's folder that are sent back to the loop."""
FILE_LIMIT_BYTES = 32 * 2**20
"""Size in bytes above which a file is not sent back."""


@dataclass(frozen=True)
class NodeInfo:
    """A node's report about itself."""

    device: Device | None
    """Device of the backend; None where the backend does not run."""
    trouble: str | None
    """Why the backend does not run, for people."""
    isolation: IsolationLevel
    """The strongest isolation level that works there."""
    code: str
    """SHA-256 of all code that decides scores (see core.store.integrity.code_sha256)."""
    host: str
    has_corpus: bool


def inspect_node(backend: str, corpus: CorpusRef | None = None) -> NodeInfo:
    """Find out what this node is, and whether it has that corpus."""
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
    return NodeInfo(device, trouble, best_level(), code_sha256(backend), socket.gethostname(), has)


@dataclass(frozen=True)
class TrialJob:
    """A trial with everything that a node needs to run it."""

    request: TrialRequest
    corpus: CorpusRef
    tolerances: bytes | None
    """Content of the tolerances file that the request names."""


def stream_trial(job: TrialJob, fetch: Callable[[str], bytes]) -> Iterator[Mapping[str, Any]]:
    """Run a trial here. Yield its events as JSON values, {} as a sign of life, and one final message.

    The final message is {"result", "files", "tolerances"}, or {"error", "fix"} when the trial could not be run, with
    "lost" when a process of the core's own was killed. `fetch` returns the content of a file of the corpus, and is
    called only where this node has none. Closing the generator early ends every process of the trial.
    """
    from autoresearch.core.trial.supervisor import TrialInterrupted, run_trial

    messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    cancel, done = threading.Event(), threading.Event()

    def observe(event: Event) -> None:
        messages.put(to_json(event))

    def work() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="ar-node-") as name:
                request = _with_local_paths(job, Path(name), fetch)
                result = run_trial(request, observer=observe, cancel=cancel)
                messages.put(_final_message(request, result.model_dump()))
        except TrialInterrupted as error:
            messages.put({"error": error.message, "fix": error.fix, "lost": True})
        except ArError as error:
            messages.put({"error": error.message, "fix": error.fix})
        except Exception as error:
            messages.put({"error": f"{type(error).__name__}: {error}", "fix": None})
        finally:
            done.set()

    threading.Thread(target=work, name="trial", daemon=True).start()
    try:
        while True:
            try:
                message = messages.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                message = {}
            yield message
            if is_final(message):
                return
    finally:
        cancel.set()
        done.wait()


def is_final(message: Mapping[str, Any]) -> bool:
    """Return whether no message comes after this one."""
    return "files" in message or "fix" in message


def _with_local_paths(job: TrialJob, folder: Path, fetch: Callable[[str], bytes]) -> TrialRequest:
    """Return the job's request with this node's own paths."""
    prepared = find_corpus(job.corpus) or receive_corpus(job.corpus, fetch)
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
        keep_weights=False,  # they are not sent back, and this folder goes
    )


def _final_message(request: TrialRequest, result: dict[str, Any]) -> dict[str, Any]:
    found = {name: _read(request.folder / name) for name in FILES}
    files = {name: body for name, body in found.items() if body is not None}
    tolerances = _read(request.tolerances) if request.tolerances else None
    return {"result": result, "files": files, "tolerances": tolerances}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= FILE_LIMIT_BYTES else None
    except OSError:
        return None
