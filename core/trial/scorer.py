"""One process that scores or audits, seen from the parent: it imports, waits, is given the weights, and answers."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.trial.child import Child
from autoresearch.core.trial.exchange import Exchange
from autoresearch.core.trial.result import FIRST_ANSWER_SECONDS
from autoresearch.core.trial.setting import WEIGHTS, Setting, failure, gone
from autoresearch.core.trial.watch import TrialEnded
from autoresearch.core.trial.weights import copy_weights

BEGIN = struct.Struct("<Q")
"""What the process waits for: how many batches will come. By then weights and train file lie in its work folder."""


class Scorer:
    """Started when it is made; `load`, then `answer`, then `close`."""

    def __init__(self, setting: Setting, role: str) -> None:
        self._setting = setting
        self._socket, far = socket.socketpair()
        job = {"score_rows": setting.request.score_rows, "rows_fd": far.fileno()}
        try:
            launch = setting.launch(role, job, (far.fileno(),))
            self._work = launch.work
            self._child = setting.watch.start(launch)
        except BaseException:
            self._socket.close()
            raise
        finally:
            far.close()

    def load(self, weights: Path, sha256: str, count: int) -> None:
        """Give it the frozen weights and the train file, and wait until its model stands. `count` batches will come.

        Raises `WeightsFault` when the weights are not those that were frozen, `TrialEnded` when the model fails.
        """
        copy_weights(weights, self._work / WEIGHTS, sha256=sha256)
        self._setting.record.renew_source(self._work)
        try:
            self._socket.sendall(BEGIN.pack(count))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is gone, and its last words say why
        allowance = self._setting.request.budget.startup_seconds
        limit = time.monotonic() + allowance
        while not self._heard(self._setting.watch.step(limit), "ready"):
            if time.monotonic() > limit:
                raise TrialEnded("timeout", f"the {self._child.role} child was not ready within {allowance:g} s")
            self._check_alive()

    def answer(
        self, payloads: Iterable[bytes], count: int, width: int, progress: Callable[[int], None] | None
    ) -> np.ndarray:
        """Its float32 answers to all batches, flat, each (score_rows, width), within the floor on speed.

        The first answer may take as long as compiling takes; for the rest see `Budget.scoring_allowance`.
        """
        rows = self._setting.request.score_rows
        exchange = Exchange(self._setting.watch, self._socket, payloads, count * rows * width)
        seconds, told = FIRST_ANSWER_SECONDS, 0
        limit = time.monotonic() + seconds
        try:
            while not exchange.complete:
                self._heard(self._setting.watch.step(limit), "")
                done = exchange.received * count // exchange.expected
                if done and not told:
                    seconds = self._allowance((count - done) * rows)
                    limit = time.monotonic() + seconds
                if progress is not None and done > told:
                    progress(done)
                told = max(told, done)
                if time.monotonic() > limit:
                    words = f"{self._child.role} took longer than {seconds:.3g} s: {done} of {count} batches done"
                    raise TrialEnded("timeout", words)
                if not exchange.complete:
                    self._check_alive()
        finally:
            exchange.close()
        return exchange.answer

    def _allowance(self, rows: int) -> float:
        """Seconds for so many rows, by the speed of the training."""
        request, facts = self._setting.request, self._setting.facts
        speed = facts.tokens / facts.train_seconds if facts.tokens and facts.train_seconds else None
        return request.budget.scoring_allowance(rows * request.eval_seq_len, speed)

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._setting.watch.end(self._child)

    def _check_alive(self) -> None:
        if self._child.returncode() is not None:
            self._heard(self._setting.watch.step(time.monotonic()), "")
            raise gone(self._child)

    def _heard(self, events: Sequence[tuple[Child, dict[str, Any]]], name: str) -> bool:
        """Whether the process has said `name`. Raises what its error event means."""
        mine = [event for source, event in events if source is self._child]
        for event in mine:
            if event["event"] == "error":
                if event.get("type") == "ValueError" and str(event.get("message")).startswith("logits has the shape"):
                    raise TrialEnded("invalid", str(event.get("message")))
                raise failure(event)
        return any(event["event"] == name for event in mine)
