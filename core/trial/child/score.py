"""The score and audit roles: rows of tokens in, numbers out, batch after batch of one fixed shape.

In order, the parent sends: two uint64, the number of batches after the first and whether to keep the first model; the
kind of device that is expected, padded with zeros; a batch of random tokens; one byte, once the weights lie in the work
folder; the batches. Each batch is answered at once. The child says when it has loaded the weights. The batches come
after that, when the parent has sealed this process: from then on it can look up no name (see
`core.trial.sandbox.sealing`).

score: uint16 (B, T + 1) in, float32 (B, T) out: the negative log-likelihood of every token.
audit: uint16 (B, T) and int32 (B,) positions in, float32 (B, V) out: the logits at those positions.

Before the first message the child only imports, at a lower priority and while training starts or goes on: the time
that this takes is mostly what training leaves idle.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.trainfile.gate import MODULES
from autoresearch.core.trial.child.channel import (
    Channel,
    DeviceMismatchError,
    LogitsShapeError,
    Ready,
    Stage,
    WeightsMismatchError,
)
from autoresearch.core.trial.child.train_module import build_model
from autoresearch.core.trial.memory_file import link_to

LOADED = bytes(4)
"""The message that the weights are loaded, as long as one number of an answer."""
KIND_BYTES = 16
"""Length of the message that names the kind of device; empty where any will do."""
NICENESS = 5
"""Priority of the early imports: a third of the usual share of a busy core. At the lowest priority an import starves on
a busy machine, and the trial would wait for it."""


def preimport(backend: str, path: str) -> threading.Thread:
    """Begin to import the backend's runtime and the packages that the train file at `path` names.

    The file itself is not run. Only what any train file may import is imported, and a failure is left to the real
    import. The thread has a priority of its own: the process goes on at its usual one.
    """
    names = [f"autoresearch.backends.{backend}.runtime", *named_packages(path)]
    thread = threading.Thread(target=_import, args=(names,), daemon=True)
    thread.start()
    return thread


def named_packages(path: str) -> list[str]:
    """Return the modules that the file's top-level imports name, in order, if a train file may import them at all."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return [name for name in found if name.partition(".")[0] in MODULES]


def _import(names: list[str]) -> None:
    with contextlib.suppress(OSError):
        if sys.platform == "darwin":
            if hasattr(os, "PRIO_DARWIN_THREAD"):
                os.setpriority(os.PRIO_DARWIN_THREAD, 0, os.PRIO_DARWIN_BG)
        else:
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # on Linux 0 means this thread
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def score(job: dict[str, Any], channel: Channel, stage: Stage) -> None:
    """Import, wait for the first message, build the model, load the frozen weights, and answer every batch.

    The first batch, of random tokens, comes before the weights and is not timed: frameworks compile then. After it the
    train file is run anew, so that a file which keeps something derived from the first weights starts without it. Where
    the parent says `keep`, the model stays: a file that compiles its own graphs would have to do so again.
    """
    with socket.socket(fileno=job["rows_fd"]) as rows:
        imports = preimport(job["backend"], job["source"])
        # The parent answers when the weights are frozen. Until then none of the train file's code has run here.
        batches, keep = _receive(rows, np.uint64, (2,)).tolist()
        expected = _receive(rows, np.uint8, (KIND_BYTES,)).tobytes().rstrip(bytes(1)).decode()
        imports.join()
        runtime = importlib.import_module(f"autoresearch.backends.{job['backend']}.runtime")
        device, loader = runtime.detect(), runtime.loader()  # before the train file can change what they call
        if expected not in ("", device.kind):
            raise DeviceMismatchError(f"{device.kind} instead of {expected}")
        collect, load, weights = loader.collect, loader.load, Path(job["weights"])
        answer = _audit_batch if job["role"] == "audit" else _score_batch
        module, model = build_model(job, runtime, device, stage)
        stage.name = "logits"
        with runtime.inference(model):
            rows.sendall(answer(job, runtime, module, model, rows))
        # Whatever the first model has cached goes with it. Otherwise a file could answer later batches with something
        # that it kept from before the weights.
        if not keep:
            del module, model
            gc.collect()
            module, model = build_model(job, runtime, device, stage)
        stage.name = "loading the weights"
        with runtime.inference(model):
            # Before the weights are there: the storages that they are read into are known from now on, and no code of
            # the file runs between the clock's start and the loading.
            collect(model)
            channel.send(Ready())
            receive_weights(rows, weights)
            try:
                load(weights)
            except ValueError as error:
                raise WeightsMismatchError(str(error)) from error
            stage.name = "logits"
            rows.sendall(LOADED)
            for _ in range(batches):
                rows.sendall(answer(job, runtime, module, model, rows))


def receive_weights(rows: socket.socket, path: Path) -> None:
    """Wait for the message that the weights are there. Where it carries a file in memory, `path` leads to that."""
    message, descriptors, _, _ = socket.recv_fds(rows, 1, 1)
    if not message:
        raise ConnectionError("the parent closed the connection")
    if descriptors:
        link_to(path, descriptors[0])


def _score_batch(job: dict[str, Any], runtime: Any, module: Any, model: Any, rows: socket.socket) -> bytes:
    B, T = job["score_rows"], job["eval_seq_len"]
    tokens = _receive(rows, np.uint16, (B, T + 1))
    out = _logits(job, runtime, module, model, tokens[:, :-1])
    nll = runtime.nll(out, runtime.to_device(tokens[:, 1:]))
    return np.ascontiguousarray(nll, dtype=np.float32).reshape(B, T).tobytes()


def _audit_batch(job: dict[str, Any], runtime: Any, module: Any, model: Any, rows: socket.socket) -> bytes:
    B, T = job["score_rows"], job["eval_seq_len"]
    tokens = _receive(rows, np.uint16, (B, T))
    positions = _receive(rows, np.int32, (B,))
    out = _logits(job, runtime, module, model, tokens)
    # One position a row is moved, not the whole array: (B, T, V) in float32 can be gigabytes.
    picked = [np.asarray(runtime.to_numpy(out[row, int(position)])) for row, position in enumerate(positions)]
    expected = (job["vocab_size"],)
    # An array of a class of its own may have other rows than its shape says. Too short an answer would be waited for.
    if wrong := next((one.shape for one in picked if one.shape != expected), None):
        raise LogitsShapeError("one position of logits", wrong, expected)
    return np.stack(picked).astype(np.float32).tobytes()


def _logits(job: dict[str, Any], runtime: Any, module: Any, model: Any, tokens: np.ndarray) -> Any:
    """Return the train file's logits (B, T, V). Raises `LogitsShapeError` when the shape is wrong."""
    out = module.logits(model, runtime.to_device(np.ascontiguousarray(tokens)))
    expected = (*tokens.shape, job["vocab_size"])
    shape = getattr(out, "shape", None)
    if shape is None or tuple(shape) != expected:
        raise LogitsShapeError("logits", shape, expected)
    return out


def _receive(rows: socket.socket, kind: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    """Receive exactly one array. Raises `ConnectionError` when the parent is gone."""
    array = np.empty(shape, dtype=kind)
    view = array.data.cast("B")
    while view:
        count = rows.recv_into(view)
        if count == 0:
            raise ConnectionError("the parent closed the connection")
        view = view[count:]
    return array
