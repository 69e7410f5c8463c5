"""The second half of a trial: fresh processes score and audit the frozen weights; the parent does the sums.

Both processes may be started while training still goes on, so that their frameworks are imported when the weights are
there. Until then they are told nothing and run none of the train file's code; and they are started early only at an
isolation level at which the train child cannot reach them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from autoresearch.core.data.manifest import ScoredRows
from autoresearch.core.trial import audit, scoring
from autoresearch.core.trial.calibration import note_baseline, read_tolerances, tolerance_key
from autoresearch.core.trial.scorer import Scorer
from autoresearch.core.trial.setting import Setting
from autoresearch.core.trial.watch import TrialEnded
from autoresearch.core.trial.weights import WeightsFault

LEAD_SECONDS = 20.0
"""Before the deadline the two processes are started: an import at a lower priority takes its time on busy cores."""
LEAD_SHARE = 0.5
"""Of the budget, where it is short."""
SEPARATE = ("bubblewrap", "landlock")
"""Isolation levels at which a train child can neither write to nor trace another process of the trial."""


class Evaluation:
    """Scores and audits one trial."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._ready: dict[str, Scorer] = {}

    @property
    def lead_seconds(self) -> float:
        """How long before the deadline `get_ready` is to be called."""
        return min(LEAD_SECONDS, LEAD_SHARE * self._setting.request.budget.train_seconds)

    def get_ready(self) -> None:
        """Start what may be needed, where that is safe."""
        if self._setting.sandbox.level not in SEPARATE:
            return
        for role in ("score", "audit") if self._setting.request.audit else ("score",):
            if role not in self._ready:
                self._ready[role] = Scorer(self._setting, role)

    def close(self) -> None:
        """End what was started and not used."""
        while self._ready:
            self._ready.popitem()[1].close()

    def score(self, weights: Path, sha256: str) -> None:
        """Fill in `val_bpb` and the audit. Raises `TrialEnded` when the score is no score."""
        request, facts = self._setting.request, self._setting.facts
        started = time.monotonic()
        try:
            scored = self._setting.prepared.scored_rows(request.split, self._setting.vocab_size, request.eval_seq_len)
            nll = self.likelihoods(scored, weights, sha256)
            bpb = scoring.bits_per_byte(nll, scored.mask, scored.total_bytes)
            self._setting.record.event({"event": "scored", "val_bpb": bpb})
            if request.audit and (request.audit_below is None or bpb < request.audit_below):
                self._audit(scored, nll, weights, sha256)
                self._setting.record.event({"event": "audited"})
            facts.val_bpb = bpb
        except (scoring.ScoreFault, WeightsFault) as fault:
            raise TrialEnded("invalid", str(fault)) from fault
        finally:
            facts.eval_seconds = time.monotonic() - started

    def likelihoods(self, scored: ScoredRows, weights: Path, sha256: str) -> np.ndarray:
        """Of every token of the scored rows, float32 (N, T) in nats."""
        N, T = scored.mask.shape
        batch = self._setting.request.score_rows
        payloads = (rows.tobytes() for rows in scoring.row_batches(scored.rows, batch))
        count = scoring.batch_count(N, batch)
        return self._ask("score", weights, sha256, payloads, count, T, self._progress(N)).reshape(-1, T)[:N]

    def _audit(self, scored: ScoredRows, nll: np.ndarray, weights: Path, sha256: str) -> None:
        """Draw, ask the other process, compare."""
        setting, request = self._setting, self._setting.request
        share = request.audit_share or (audit.EARLY_SHARE if "audit" in self._ready else audit.COST_SHARE)
        count = audit.position_count(len(scored.rows), int(scored.mask.sum()), request.score_rows, share)
        rng = audit.entropy()
        probes = audit.draw_probes(scored.rows, scored.mask, nll, count, rng)
        batches = audit.schedule(probes, request.score_rows, rng)
        logits = np.empty((count, setting.vocab_size), np.float32)
        logits[np.concatenate(batches)] = self.logits(probes.tokens, probes.positions, batches, weights, sha256)
        outcome, wrong = audit.compare(probes, logits, _tolerance(setting))
        setting.facts.audit = outcome
        if wrong is not None:
            raise TrialEnded("invalid", wrong)
        device = setting.facts.device
        if request.calibrate and request.tolerances and outcome and device:
            note_baseline(request.tolerances, tolerance_key(request.backend, device), outcome, device.precision)

    def logits(
        self, tokens: np.ndarray, positions: np.ndarray, batches: list[np.ndarray], weights: Path, sha256: str
    ) -> np.ndarray:
        """Of rows uint16 (K, T) at positions int32 (K,): float32 (the rows of all batches, V), batch after batch."""
        payloads = (tokens[take].tobytes() + positions[take].tobytes() for take in batches)
        width = self._setting.vocab_size
        return self._ask("audit", weights, sha256, payloads, len(batches), width, None).reshape(-1, width)

    def _ask(
        self,
        role: str,
        weights: Path,
        sha256: str,
        payloads: Iterable[bytes],
        count: int,
        width: int,
        progress: Callable[[int], None] | None,
    ) -> np.ndarray:
        """What a process of that role answers to `count` batches; it is gone when this returns."""
        scorer = self._ready.pop(role, None) or Scorer(self._setting, role)
        try:
            scorer.load(weights, sha256, count)
            return scorer.answer(payloads, count, width, progress)
        finally:
            scorer.close()

    def _progress(self, rows: int) -> Callable[[int], None]:
        def tell(batches: int) -> None:
            done = min(rows, batches * self._setting.request.score_rows)
            self._setting.record.event({"event": "scoring", "done": done, "total": rows})

        return tell


def _tolerance(setting: Setting) -> audit.Tolerance:
    """What the run has calibrated for this device, or what its precision allows."""
    device = setting.facts.device
    if device is None:
        return audit.FP32
    default = audit.tolerance(device.precision)
    if setting.request.calibrate:  # it must not be held to what an earlier baseline happened to do
        return default
    return read_tolerances(setting.request.tolerances).get(tolerance_key(setting.request.backend, device), default)
