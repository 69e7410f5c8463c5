"""The causality audit: do the committed likelihoods follow from the past alone?

Each probe is a row whose prefix, up to and including a position drawn at random, is the scored one and whose rest is
foreign. An honest model gives the same logits at that position; one that looks ahead, or that was told the answers,
cannot. A file that cheats on a share f of the tokens escapes K probes with probability (1 - f)^K.

This holds only if the audit child has no way to learn a target before it must answer. So a row's shorter prefixes come
in earlier batches than its longer ones, and the foreign rest is single tokens from all over the split in random order:
whole pieces of scored text there would give away what other probes ask for.

How far an honest model's two answers are apart on this device: measured on the baseline, stored with the run.
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
"""459: finds a file that cheats on 1 % of the tokens with a probability of 99 %."""
COST_SHARE = 0.15
"""The audit may take this share of the scoring's rows: splits of 3000 rows have enough for all positions."""
EARLY_SHARE = 0.3
"""Where its process was started while training went on: what its start would have taken goes into positions."""


@dataclass(frozen=True)
class Tolerance:
    """How far an honest model's two answers may be apart, in nats."""

    max_abs: float
    """At any one position."""
    mean: float
    """In the mean over all positions, sign kept: rounding cancels, an advantage does not."""


FP32 = Tolerance(max_abs=2e-3, mean=2e-4)
"""Logits below 30 have a spacing of 2e-6 in float32; a sum in another order loses two or three digits."""
REDUCED = Tolerance(max_abs=0.125, mean=4e-3)
"""bf16 has 8 bits: logits near 15 have a spacing of 1/16, and a sum in another order may move one by two. Models whose
batches have one shape answer bit for bit the same, so a run narrows this: see `calibration`."""

SHIFT = 2e-5
"""Nats by which all likelihoods may be off alike, in any precision: rounding has no direction."""
SIGMAS = 4.0
"""Standard errors that the mean of rounding errors may be away from there."""


@dataclass(frozen=True)
class Probes:
    """What the audit child is given, and what the parent keeps to itself."""

    rows: np.ndarray
    """int64 (K,): which scored row each probe begins like."""
    tokens: np.ndarray
    """uint16 (K, T): true prefix, foreign rest."""
    positions: np.ndarray
    """int32 (K,): the last true position of each row."""
    targets: np.ndarray
    """int64 (K,): the true next token, which the child never sees."""
    committed: np.ndarray
    """float64 (K,): the likelihoods that the score child returned for them."""


def tolerance(precision: str) -> Tolerance:
    """Of a device's working precision ("fp32", "bf16" ...)."""
    return FP32 if precision == "fp32" else REDUCED


def position_count(rows: int, tokens: int, batch: int, share: float = COST_SHARE) -> int:
    """K: enough to find a cheat on 1 %, at most `share` of the scored rows (but one batch), at most every token.

    A keep rests on several trials, each with a draw of its own, and their positions add up.
    """
    return min(POSITIONS, tokens, max(batch, int(share * rows)))


def entropy() -> np.random.Generator:
    """A generator that nobody can foresee: the draw must not follow from the seed of the trial."""
    return np.random.default_rng(int.from_bytes(os.urandom(16), "little"))


def draw_probes(
    rows: np.ndarray, mask: np.ndarray, committed: np.ndarray, count: int, rng: np.random.Generator
) -> Probes:
    """`count` scored positions without repetition, in random order.

    rows uint16 (N, T + 1), mask bool (N, T), committed float32 (N, T).
    """
    T = mask.shape[1]
    flat = rng.choice(np.flatnonzero(mask), size=count, replace=False)
    row, position = flat // T, (flat % T).astype(np.int32)
    targets = rows[row, position + 1].astype(np.int64)
    rest = _foreign(rows[:, :T], row, position, (count, T), rng)
    for _ in range(8):  # the token after the position: another than the true one where that can be, so that it shows
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
    """Single tokens from random places of the other rows, `shape` (K, n). With one row only: from the known prefix."""
    N, T = rows.shape
    if N == 1:
        return rows[0, rng.integers(0, position[:, None] + 1, shape)]
    return rows[(row[:, None] + rng.integers(1, N, shape)) % N, rng.integers(0, T, shape)]


def schedule(probes: Probes, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Which probes go into which batch, each int64 (batch,), in the order in which they are to be sent.

    Of one row a batch has one probe at most, and a shorter prefix comes before a longer one: what a probe asks for is
    shown to nobody before it is answered. A batch that is not full repeats its own probes.
    """
    waiting: dict[int, list[int]] = {}
    for index in np.argsort(-probes.positions, kind="stable").tolist():
        waiting.setdefault(int(probes.rows[index]), []).append(index)
    batches = []
    while waiting:
        names = list(waiting)
        left = np.array([len(waiting[name]) for name in names]) + rng.random(len(names))
        chosen = [names[index] for index in np.argsort(-left)[:batch]]  # the longest queues first: fewest batches
        taken = rng.permutation([waiting[name].pop() for name in chosen])
        waiting = {name: queue for name, queue in waiting.items() if queue}
        batches.append(np.resize(taken, batch))
    return batches


def nll_from_logits(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """logits (K, V), targets (K,) -> float64 (K,) in nats, computed by the parent itself."""
    scores = logits.astype(np.float64)
    peak = scores.max(axis=1, keepdims=True)
    total = np.log(np.exp(scores - peak).sum(axis=1)) + peak[:, 0]
    return total - scores[np.arange(len(targets)), targets]


def compare(probes: Probes, logits: np.ndarray, limit: Tolerance) -> tuple[AuditResult | None, str | None]:
    """The outcome (None where there is no number to state) and in words what is wrong, if something is.

    logits float32 (K, V).
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
    """How far from zero the mean of differences (K,) may be, in nats.

    Rounding spreads to both sides, so its mean is small next to its spread; a likelihood that was made smaller is not.
    """
    spread = float(difference.std()) / math.sqrt(len(difference))
    return min(limit.mean, SHIFT + SIGMAS * spread)


MARGIN = 8.0
"""Above the largest honest difference: an honest variant may round more than the baseline."""
FLOOR = Tolerance(max_abs=2e-4, mean=2e-5)
"""Where a baseline's answers are bit for bit the same, a variant's need not be: another order of float32 sums."""


def tolerance_key(backend: str, device: Device) -> str:
    """What a tolerance is valid for: backend, device, precision and framework."""
    return " / ".join((backend, device.name, device.precision, device.framework))


def calibrate(honest: Sequence[AuditResult], precision: str) -> Tolerance:
    """From audits of the baseline: a margin above the largest difference, never wider than the precision's default.

    Raises ValueError without an audit: nothing was measured.
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
    """By key; empty without a file. Raises `DataError` when the file cannot be used: a guess would let cheats pass."""
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
    """Add or replace one entry, whole or not at all."""
    entries = {name: vars(known) for name, known in {**read_tolerances(path), key: value}.items()}
    write_text(path, json.dumps(entries, indent=2) + "\n")


def note_baseline(path: Path, key: str, outcome: AuditResult, precision: str) -> None:
    """Calibrate on one more baseline: what an earlier one has widened stays."""
    found = calibrate([outcome], precision)
    if (known := read_tolerances(path).get(key)) is not None:
        found = Tolerance(max(found.max_abs, known.max_abs), max(found.mean, known.mean))
    write_tolerance(path, key, found)
