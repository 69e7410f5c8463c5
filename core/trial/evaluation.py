"""The second half of a trial: fresh processes score and audit the frozen weights; the parent does the sums."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.trial import audit, scoring
from autoresearch.core.trial.calibration import note_baseline, read_tolerances, tolerance_key
from autoresearch.core.trial.child import Child
from autoresearch.core.trial.setting import Setting, failure, gone
from autoresearch.core.trial.watch import TrialEnded, Watch
from autoresearch.core.trial.weights import WeightsFault, check_weights


def score(setting: Setting, weights: Path, sha256: str) -> None:
    """Fill in `val_bpb` and the audit. Raises `TrialEnded` when the score is no score."""
    request, facts = setting.request, setting.facts
    started = time.monotonic()
    try:
        scored = setting.prepared.scored_rows(request.split, setting.vocab_size, request.eval_seq_len)
        N, T = scored.mask.shape
        payloads = (batch.tobytes() for batch in scoring.row_batches(scored.rows, request.score_rows))
        count = scoring.batch_count(N, request.score_rows)
        answer = _ask(setting, "score", weights, payloads, count, T, _progress(setting, N))
        nll = answer.reshape(-1, T)[:N]
        bpb = scoring.bits_per_byte(nll, scored.mask, scored.total_bytes)
        setting.record.event({"event": "scored", "val_bpb": bpb})
        if request.audit and (request.audit_below is None or bpb < request.audit_below):
            check_weights(weights, sha256=sha256, limit_bytes=request.weights_limit_mb * 2**20)
            _audit(setting, weights, scored.rows, scored.mask, nll)
        facts.val_bpb = bpb
    except (scoring.ScoreFault, WeightsFault) as fault:
        raise TrialEnded("invalid", str(fault)) from fault
    finally:
        facts.eval_seconds = time.monotonic() - started


def _audit(setting: Setting, weights: Path, rows: np.ndarray, mask: np.ndarray, nll: np.ndarray) -> None:
    """Draw, ask a new process, compare."""
    batch = setting.request.score_rows
    count = audit.position_count(len(rows), int(mask.sum()), batch)
    rng = audit.entropy()
    probes = audit.draw_probes(rows, mask, nll, count, rng)
    batches = audit.schedule(probes, batch, rng)
    payloads = (probes.tokens[take].tobytes() + probes.positions[take].tobytes() for take in batches)
    answer = _ask(setting, "audit", weights, payloads, len(batches), setting.vocab_size, None)
    logits = np.empty((count, setting.vocab_size), np.float32)
    logits[np.concatenate(batches)] = answer.reshape(-1, setting.vocab_size)
    outcome, wrong = audit.compare(probes, logits, _tolerance(setting))
    setting.facts.audit = outcome
    if wrong is not None:
        raise TrialEnded("invalid", wrong)
    request, device = setting.request, setting.facts.device
    if request.calibrate and request.tolerances and outcome and device:
        note_baseline(request.tolerances, tolerance_key(request.backend, device), outcome, device.precision)


def _tolerance(setting: Setting) -> audit.Tolerance:
    """What the run has calibrated for this device, or what its precision allows."""
    device = setting.facts.device
    if device is None:
        return audit.FP32
    default = audit.tolerance(device.precision)
    if setting.request.calibrate:  # it must not be held to what an earlier baseline happened to do
        return default
    return read_tolerances(setting.request.tolerances).get(tolerance_key(setting.request.backend, device), default)


def _progress(setting: Setting, rows: int) -> Callable[[int], None]:
    def tell(batches: int) -> None:
        done = min(rows, batches * setting.request.score_rows)
        setting.record.event({"event": "scoring", "done": done, "total": rows})

    return tell


def _ask(
    setting: Setting,
    role: str,
    weights: Path,
    payloads: Iterable[bytes],
    count: int,
    width: int,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """Start a child, stream `count` batches through it and return its float32 answers, each (score_rows, width)."""
    near, far = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.callback(near.close)
        job = {"batches": count, "score_rows": setting.request.score_rows, "rows_fd": far.fileno()}
        try:
            child = setting.watch.start(setting.launch(role, job, (far.fileno(),), (weights,)))
        finally:
            far.close()
        stack.callback(setting.watch.end, child)
        _wait_until_ready(setting, child)
        exchange = Exchange(setting.watch, near, payloads, count * setting.request.score_rows * width)
        stack.callback(exchange.close)
        _stream(setting, child, exchange, count, progress)
    return exchange.answer


def _wait_until_ready(setting: Setting, child: Child) -> None:
    limit = child.started + setting.request.budget.startup_seconds
    while not _heard(setting, child, setting.watch.step(limit), "ready"):
        if time.monotonic() > limit:
            allowance = setting.request.budget.startup_seconds
            raise TrialEnded("timeout", f"the {child.role} child was not ready within {allowance:g} s")
        _check_alive(setting, child)


def _stream(
    setting: Setting, child: Child, exchange: Exchange, count: int, progress: Callable[[int], None] | None
) -> None:
    """Until every answer is in, within the floor on speed."""
    seconds = setting.request.budget.score_seconds
    limit = time.monotonic() + seconds
    told = 0
    while not exchange.complete:
        _heard(setting, child, setting.watch.step(limit), "")
        done = exchange.received * count // exchange.expected
        if progress is not None and done > told:
            progress(done)
            told = done
        if time.monotonic() > limit:
            raise TrialEnded("timeout", f"{child.role} took longer than {seconds:g} s: {done} of {count} batches done")
        if not exchange.complete:
            _check_alive(setting, child)


def _check_alive(setting: Setting, child: Child) -> None:
    if child.returncode() is not None:
        _heard(setting, child, setting.watch.step(time.monotonic()), "")
        raise gone(child)


def _heard(setting: Setting, child: Child, events: Sequence[tuple[Child, dict[str, Any]]], name: str) -> bool:
    """Whether the child has said `name`. Raises what its error event means."""
    for source, event in events:
        if source is child and event["event"] == "error":
            if event.get("type") == "ValueError" and str(event.get("message")).startswith("logits has the shape"):
                raise TrialEnded("invalid", str(event.get("message")))
            raise failure(event)
    return any(source is child and event["event"] == name for source, event in events)


class Exchange:
    """Batches out and answers in over one socket, as far as it goes without waiting."""

    def __init__(self, watch: Watch, sock: socket.socket, payloads: Iterable[bytes], expected: int) -> None:
        """`expected` counts float32 numbers over all answers."""
        self.answer = np.empty(expected, dtype=np.float32)
        self.expected = expected * 4
        self.received = 0
        self._view = self.answer.data.cast("B")
        self._watch, self._sock = watch, sock
        self._payloads = iter(payloads)
        self._sending = memoryview(b"")
        sock.setblocking(False)
        # Two registrations of one socket: a selector takes each descriptor once, and sending ends before receiving.
        self._out: socket.socket | None = sock.dup()
        self._in: socket.socket | None = sock
        watch.listen(self._out, selectors.EVENT_WRITE, self._send)
        watch.listen(self._in, selectors.EVENT_READ, self._receive)

    @property
    def complete(self) -> bool:
        """Whether every answer is in."""
        return self.received == self.expected

    def close(self) -> None:
        """Stop listening."""
        self._stop_sending()
        self._stop_receiving()

    def _send(self) -> None:
        if not self._sending:
            self._sending = memoryview(next(self._payloads, b""))
        if not self._sending:
            self._stop_sending()
            return
        try:
            self._sending = self._sending[self._sock.send(self._sending) :]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._stop_sending()

    def _receive(self) -> None:
        count = 0
        with contextlib.suppress(ConnectionResetError):
            count = self._sock.recv_into(self._view[self.received :])
        self.received += count
        if count == 0 or self.complete:  # a connection closed too early shows in the child's end
            self._stop_receiving()

    def _stop_sending(self) -> None:
        if self._out is not None:
            self._watch.ignore(self._out)
            self._out.close()
            self._out = None

    def _stop_receiving(self) -> None:
        if self._in is not None:
            self._watch.ignore(self._in)
            self._in = None
