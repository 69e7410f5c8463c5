"""The causality audit: do the committed likelihoods follow from the past alone?

An honest language model gives the token x[t+1] a probability p(x[t+1] | x[0..t]). A cheating one has looked at x[t+1],
or was told it. The audit tells them apart without knowing the model. The score child has committed itself to a
negative log-likelihood L[n, t] for every token of every scored row n. Now K pairs (n, t) are drawn at random. For each,
a fresh process is given the true prefix x[0..t] followed by *foreign* tokens, and its logits z at t give

    L'[n, t] = logsumexp(z) - z[x[n, t+1]]

which the parent computes itself. For an honest model L' = L up to rounding. A file that cheats on a share f of the
tokens is missed by one probe with probability 1 - f, and by all K with probability (1 - f)^K.

This holds only while the audit child cannot learn a target before it must answer. Hence two rules. A row's shorter
prefixes come in earlier batches than its longer ones, which contain their targets. And the foreign rest is single
tokens from all over the split in random order: whole pieces of scored text there would give away what other probes
ask for.

The two answers of an honest model differ by rounding. How far they may is a `Tolerance`, measured on the baseline and
stored with the run (see `calibrate`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoresearch.backends.contract import Device
from autoresearch.core.errors import DataError
from autoresearch.core.files import write_text
from autoresearch.core.trial.request import AuditResult

POSITIONS = math.ceil(math.log(0.01) / math.log(0.99))
"""Largest number of probes, K = ln(0.01) / ln(1 - 0.01) = 459: it finds a file that cheats on 1 % of the tokens with a
probability of 99 %."""
COST_SHARE = 0.15
"""Rows of the audit as a share of the scored rows, at most: splits of 3000 rows have enough for all positions."""
EARLY_SHARE = 0.3
"""Share of the rows where the audit child was started during training: the time saved is spent on positions."""
REDRAWS = 8
"""Tries at a foreign token that differs from the true one. With less than half of a text equal to one token, 8 tries
leave fewer than 1 probe in 256 without it."""


@dataclass(frozen=True)
class Tolerance:
    """Allowed difference between an honest model's two answers, in nats."""

    max_abs: float
    """Limit at any one position."""
    mean: float
    """Limit of the mean over all positions, sign kept: rounding cancels, an advantage does not."""


FP32 = Tolerance(max_abs=2e-3, mean=2e-4)
"""Logits below 30 have a spacing of 2e-6 in float32; a sum in another order loses two or three digits."""


FP32 = Tolerance(max_abs=2e-3, mean=2e-4)
"""Default in float32. Logits below 30 have a spacing of 2e-6; a sum in another order loses two or three digits."""
REDUCED = Tolerance(max_abs=0.125, mean=4e-3)
"""Default in bf16, with 8 bits: logits near 15 have a spacing of 1/16, and a sum in another order may move one by two.
Models whose batches have one shape answer bit for bit the same, so a run narrows this (see `calibrate`)."""
MARGIN = 8.0
"""Factor above the largest honest difference: an honest variant may round more than the baseline does."""
FLOOR = Tolerance(max_abs=2e-4, mean=2e-5)
"""Narrowest tolerance in float32. Even where a baseline answers bit for bit the same, a variant's sums may have another
order."""
SHIFT = 2e-5
"""Nats by which all likelihoods may be off alike, in any precision: rounding has no direction."""
SIGMAS = 4.0
"""Standard errors by which the mean of rounding errors may differ from zero beyond `SHIFT`."""


@dataclass(frozen=True)
class Probes:
    """The drawn positions. The audit child is given `tokens` and `positions`; the parent keeps the rest to itself."""

    rows: np.ndarray
    """int64 (K,): index n of the scored row that each probe begins like."""
    tokens: np.ndarray
    """uint16 (K, T): true prefix x[n, 0..t], foreign rest."""
    positions: np.ndarray
    """int32 (K,): last true position t of each row."""
    targets: np.ndarray
    """int64 (K,): true next token x[n, t+1], which this batch shows to nobody."""
    committed: np.ndarray
    """float64 (K,): L[n, t] in nats, as the score child has answered."""


def position_count(rows: int, tokens: int, batch: int, share: float = COST_SHARE) -> int:
    """Return the number of probes: K = min(POSITIONS, tokens, max(batch, share * rows)).

    `rows` and `tokens` count what is scored, `batch` the rows of one batch, which costs the same when it is not full.
    On a small split K is below POSITIONS; a keep rests on several trials, each with a draw of its own, and their
    positions add up.
    """
    return min(POSITIONS, tokens, max(batch, int(share * rows)))


def entropy() -> np.random.Generator:
    """Return a generator that nobody can foresee. The trial's own seed would not do: the train file knows it."""
    return np.random.default_rng(int.from_bytes(os.urandom(16), "little"))


def draw_probes(
    rows: np.ndarray, mask: np.ndarray, committed: np.ndarray, count: int, rng: np.random.Generator
) -> Probes:
    """Draw `count` scored positions uniformly and without repetition, in random order.

    rows uint16 (N, T + 1); mask bool (N, T), true where a token is scored; committed float32 (N, T), the likelihoods L.
    """
    T = mask.shape[1]
    flat = rng.choice(np.flatnonzero(mask), size=count, replace=False)
    row, position = flat // T, (flat % T).astype(np.int32)
    targets = rows[row, position + 1].astype(np.int64)
    rest = _foreign(rows[:, :T], row, position, (count, T), rng)
    for _ in range(REDRAWS):
        # Right after the position comes another token than the true one, where that can be. A model that looks one
        # token ahead would otherwise answer as before, and the probe would show nothing.
        inner = np.flatnonzero(position < T - 1)
        same = inner[rest[inner, position[inner] + 1] == targets[inner]]
        if not len(same):
            break
        rest[same, position[same] + 1] = _foreign(rows[:, :T], row[same], position[same], (len(same), 1), rng)[:, 0]
    tokens = np.where(np.arange(T)[None, :] <= position[:, None], rows[row, :T], rest)
    return Probes(row, tokens.astype(np.uint16), position, targets, committed[row, position].astype(np.float64))


def _foreign(
    rows: np.ndarray, row: np.ndarray, position: np.ndarray, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw single tokens from random places of the other rows, `shape` (K, n); of a single row, from its known prefix.

    rows (N, T); row and position (K,) say which row, and how much of it, each of the K probes shows.
    """
    N, T = rows.shape
    if N == 1:
        return rows[0, rng.integers(0, position[:, None] + 1, shape)]
    return rows[(row[:, None] + rng.integers(1, N, shape)) % N, rng.integers(0, T, shape)]


def schedule(probes: Probes, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return which probes go into which batch, each int64 (batch,), in the order in which they are to be sent.

    A batch has at most one probe of a row, and a row's shorter prefixes come first. So the target of a probe is part of
    a later batch at the earliest, when the probe is already answered. A batch that is not full repeats its own probes.
    """
    waiting: dict[int, list[int]] = {}
    for index in np.argsort(-probes.positions, kind="stable").tolist():  # longest first, because `pop` takes the last
        waiting.setdefault(int(probes.rows[index]), []).append(index)
    batches = []
    while waiting:
        # The longest queues first, which makes the fewest batches; equal ones in random order.
        names = list(waiting)
        left = np.array([len(waiting[name]) for name in names]) + rng.random(len(names))
        chosen = [names[index] for index in np.argsort(-left)[:batch]]
        # Shuffled, so that the place in a batch says nothing about the length of a row's queue.
        taken = rng.permutation([waiting[name].pop() for name in chosen])
        waiting = {name: queue for name, queue in waiting.items() if queue}
        batches.append(np.resize(taken, batch))
    return batches


def nll_from_logits(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return logsumexp(z) - z[target] for logits z (K, V) and targets (K,), float64 (K,) in nats.

    The parent computes this itself: a number from the child's own softmax would be a claim.
    """
    scores = logits.astype(np.float64)
    peak = scores.max(axis=1, keepdims=True)
    total = np.log(np.exp(scores - peak).sum(axis=1)) + peak[:, 0]
    return total - scores[np.arange(len(targets)), targets]


def compare(probes: Probes, logits: np.ndarray, limit: Tolerance) -> tuple[AuditResult | None, str | None]:
    """Judge the audit child's logits, float32 (K, V), by the differences d = L' - L over all K probes.

    The audit passes when max|d| <= limit.max_abs and |mean(d)| <= mean_allowed(d, limit). Returns its outcome, None
    where a difference is not finite, and what is wrong in words, None where nothing is.
    """
    count = len(probes.targets)
    # A logit of minus infinity forbids a token, which is honest; what gives no likelihood of the target is not.
    with np.errstate(invalid="ignore"):
        answered = nll_from_logits(logits, probes.targets)
    bad = int((~np.isfinite(answered)).sum())
    if bad:
        return None, f"audit: the logits are not finite at {bad} of {count} positions"
    difference = answered - probes.committed
    max_abs, mean = float(np.abs(difference).max()), float(difference.mean())
    allowed = mean_allowed(difference, limit)
    ok = max_abs <= limit.max_abs and abs(mean) <= allowed
    outcome = AuditResult(positions=count, max_abs=max_abs, mean_diff=mean, ok=ok)
    if ok:
        return outcome, None
    off = int((np.abs(difference) > limit.max_abs).sum())
    words = (
        f"audit: with other text after it, {off} of {count} positions give another likelihood than was scored "
        f"(largest difference {max_abs:.3g} nats, allowed {limit.max_abs:.3g}; "
        f"mean {mean:+.3g}, allowed {allowed:.3g}): the scores used text that comes later, or were not computed"
    )
    return outcome, words


def mean_allowed(difference: np.ndarray, limit: Tolerance) -> float:
    """Return the limit of |mean(d)| in nats: min(limit.mean, SHIFT + SIGMAS * std(d) / sqrt(K)).

    difference (K,) holds d. Rounding spreads to both sides, so its mean is small next to its spread. Likelihoods that
    were all made a little better have a mean and no spread, however small `limit.max_abs` would let each one be.
    """
    spread = float(difference.std()) / math.sqrt(len(difference))
    return min(limit.mean, SHIFT + SIGMAS * spread)


# ---- tolerances, calibrated on the baseline


def tolerance(precision: str) -> Tolerance:
    """Return the default for a device's working precision ("fp32", "bf16" ...)."""
    return FP32 if precision == "fp32" else REDUCED


def tolerance_key(backend: str, device: Device) -> str:
    """Return the name of what a tolerance is valid for: backend, device, precision and framework."""
    return " / ".join((backend, device.name, device.precision, device.framework))


def calibrate(honest: Sequence[AuditResult], precision: str) -> Tolerance:
    """Return the tolerance that audits of the honest baseline justify, in each of its two numbers:

        min(default, max(floor, MARGIN * largest honest difference))

    where the floor is FLOOR in float32, else a quarter of the default. Raises `ValueError` without an audit.
    """
    if not honest:
        raise ValueError("a tolerance is calibrated on at least one audit of the baseline")
    widest = tolerance(precision)
    floor = FLOOR if precision == "fp32" else Tolerance(widest.max_abs / 4, widest.mean / 4)
    max_abs = MARGIN * max(outcome.max_abs for outcome in honest)
    mean = MARGIN * max(abs(outcome.mean_diff) for outcome in honest)
    return Tolerance(
        max_abs=min(widest.max_abs, max(floor.max_abs, max_abs)), mean=min(widest.mean, max(floor.mean, mean))
    )


def read_tolerances(path: Path | None) -> dict[str, Tolerance]:
    """Read a run's tolerances by key; none without a file.

    Raises `DataError` when the file cannot be used: a guess would let cheats pass.
    """
    if path is None or not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {key: Tolerance(float(entry["max_abs"]), float(entry["mean"])) for key, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the audit's tolerances in {path} cannot be read: {error}.", fix="delete the file; the defaults apply."
        ) from error


def write_tolerance(path: Path, key: str, value: Tolerance) -> None:
    """Add or replace one entry of a run's tolerances. Raises `OSError`, or `DataError` as `read_tolerances` does."""
    entries = {name: vars(known) for name, known in {**read_tolerances(path), key: value}.items()}
    write_text(path, json.dumps(entries, indent=2) + "\n")


def note_baseline(path: Path, key: str, outcome: AuditResult, precision: str) -> None:
    """Calibrate on one more audit of the baseline. A tolerance only ever gets wider by this."""
    found = calibrate([outcome], precision)
    if (known := read_tolerances(path).get(key)) is not None:
        found = Tolerance(max(found.max_abs, known.max_abs), max(found.mean, known.mean))
    write_tolerance(path, key, found)
