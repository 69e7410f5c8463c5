"""The causality audit: do the committed likelihoods follow from the past alone?

An honest language model gives the token x[t+1] a probability p(x[t+1] | x[0..t]). A cheating one has looked at x[t+1],
or was told it. The audit tells them apart without knowing the model. The score child has committed itself to a
negative log-likelihood L[n, t] for every token of every scored row n. Now K pairs (n, t) are drawn at random. For each,
a fresh process is given the true prefix x[0..t] followed by *foreign* tokens, and its logits z at t give

    L'[n, t] = logsumexp(z) - z[x[n, t+1]]

which the parent computes itself. For an honest model L' = L up to rounding.

Half of the pairs are drawn uniformly. A file that cheats on a share f of the tokens is missed by one of these with
probability 1 - f. The other half is drawn where cheating pays, with a probability in proportion to

    s[n, t] = max(0, B[n, t] - L[n, t])

where B is what a bigram model of the core's own gives the token (see `core.trial.surprise`). With w the share of all s
that lies on the cheated tokens, all K probes miss with probability ((1 - f) (1 - w))^(K / 2). A model that looks ahead
gains g = honest L - committed L on a token; where its honest answer is no worse than the bigram's, g <= s, so w is at
least its gain per token over the mean of s.

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
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoresearch.backends.contract import Device
from autoresearch.core.errors import DataError
from autoresearch.core.files import write_text
from autoresearch.core.trial.request import AuditResult
from autoresearch.core.trial.surprise import Bigrams

POSITIONS = math.ceil(math.log(0.01) / math.log(0.99))
"""Largest number of probes, K = ln(0.01) / ln(1 - 0.01) = 459: it finds a file that cheats on 1 % of the tokens with a
probability of 99 %."""
COST_SHARE = 0.15
"""Rows of the audit as a share of the scored rows, at most: splits of 3000 rows have enough for all positions."""
EARLY_SHARE = 0.3
"""Share of the rows where the audit child was started during training: the time saved is spent on positions."""
FEWEST = 60
"""Rows that the audit takes in any case, if the split has as many: a share of a few long rows would prove little."""
CANDIDATES = 2**18
"""Scored positions that the weighted half is drawn from, at most: the bigram model answers so many in 0.1 s."""
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
    spread: float = 0.0
    """Standard deviation of one honest difference that the limit of the mean makes room for."""


FP32 = Tolerance(max_abs=8e-3, mean=2e-4, spread=2e-4)
"""Default in float32. Logits below 30 have a spacing of 2e-6; a sum in another order loses two or three digits. A file
may round its logits to half precision all the same: where other kernels serve another batch, one of 8 to 16 then goes
to its neighbour, 2^-7 away. The limit of the mean bounds an advantage: such steps at 0.3 % of the positions exceed it.
"""
REDUCED = Tolerance(max_abs=3 / 16, mean=4e-4, spread=0.02)
"""In bf16, with 8 bits, whatever the baseline does: logits of 8 to 16 have a spacing of 1/16, of 16 to 32 of 1/8.
Models whose batches have one shape answer bit for bit the same. Where kernels depend on what else is in the batch, a
logit may round to its neighbour, and the one that it competes with may, too. The spread is that of one logit in ten
moved (`benchmarks/audit.py`); the limit of the mean, not that of one position, bounds an advantage."""
MARGIN = 8.0
"""Factor above the largest honest difference: an honest variant may round more than the baseline does."""
FLOOR = Tolerance(max_abs=8e-3, mean=2e-5, spread=2e-5)
"""Narrowest tolerance in float32. Even where a baseline answers bit for bit the same, a variant's sums may have another
order, and its logits fewer digits."""
SPREAD_MARGIN = 2.0
"""Factor above the baseline's spread."""
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
    """Return the number of probes: K = min(POSITIONS, tokens, max(batch, min(FEWEST, rows), share * rows)).

    `rows` and `tokens` count what is scored, `batch` the rows of one batch, which costs the same when it is not full.
    On a small split K is below POSITIONS; a kept change rests on several trials, each with a draw of its own, and their
    positions add up.
    """
    return min(POSITIONS, tokens, max(batch, min(FEWEST, rows), int(share * rows)))


def entropy() -> bytes:
    """Return what a generator that nobody can foresee begins from. The trial's own seed is known to the train file."""
    return os.urandom(16)


def generator(entropy: bytes) -> np.random.Generator:
    """Return the generator that begins from such bytes."""
    return np.random.default_rng(int.from_bytes(entropy, "little"))


def draw_probes(
    rows: np.ndarray,
    mask: np.ndarray,
    committed: np.ndarray,
    count: int,
    rng: np.random.Generator,
    bigrams: Bigrams | None = None,
) -> Probes:
    """Draw `count` scored positions without repetition, in random order.

    rows uint16 (N, T + 1); mask bool (N, T), true where a token is scored; committed float32 (N, T), the likelihoods L.
    Half of the positions, and all of them without `bigrams`, are drawn uniformly; the others by `advantage`.
    """
    T = mask.shape[1]
    flat = _drawn(rows, mask, committed, count, rng, bigrams)
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
    # Up to and including the position the row is the true one; the answer there must not depend on anything behind it.
    tokens = np.where(np.arange(T)[None, :] <= position[:, None], rows[row, :T], rest)
    return Probes(row, tokens.astype(np.uint16), position, targets, committed[row, position].astype(np.float64))


def _drawn(
    rows: np.ndarray,
    mask: np.ndarray,
    committed: np.ndarray,
    count: int,
    rng: np.random.Generator,
    bigrams: Bigrams | None,
) -> np.ndarray:
    """Return `count` different indices of scored positions in the flattened (N, T), in random order."""
    scored = np.flatnonzero(mask)
    if bigrams is None or count == len(scored):
        return rng.choice(scored, size=count, replace=False)
    # The uniform half comes first and from all positions: its bound holds however the weights of the other half are
    # fooled, and it can be drawn again without the likelihoods (see `core.trial.draws`).
    uniform = rng.choice(scored, size=uniform_count(count), replace=False)
    # A random share of a large split is enough: what the weights are proportional to has the same shares there.
    pool = scored if len(scored) <= CANDIDATES else rng.choice(scored, size=CANDIDATES, replace=False)
    pool = np.setdiff1d(pool, uniform)
    # The weights rest on the committed likelihoods, which nobody can change any more. A low loss is itself what
    # attracts a probe, so a cheat gains nothing by knowing the weights.
    weight = advantage(rows, committed, pool, bigrams)
    # The largest of ln(weight) + Gumbel noise are a draw without repetition in proportion to the weights (Efraimidis
    # and Spirakis, 2006). Positions without weight come last, in random order.
    with np.errstate(divide="ignore"):
        keys = np.maximum(np.log(weight), -1e3) + rng.gumbel(size=len(pool))
    weighted = pool[np.argpartition(-keys, count // 2 - 1)[: count // 2]] if count > 1 else pool[:0]
    return rng.permutation(np.concatenate([uniform, weighted]))


def uniform_count(count: int) -> int:
    """Return how many of `count` positions are drawn uniformly where a bigram model weighs the others."""
    return count - count // 2


def advantage(rows: np.ndarray, committed: np.ndarray, flat: np.ndarray, bigrams: Bigrams) -> np.ndarray:
    """Return s = max(0, B - L) in nats at the indices `flat` (n,) of the flattened (N, T), float64 (n,).

    rows uint16 (N, T + 1); committed float32 (N, T), the likelihoods L; B are the bigram model's.
    """
    row, position = np.divmod(flat, committed.shape[1])
    surprise = bigrams.nll(rows[row, position], rows[row, position + 1])
    return np.maximum(surprise - committed[row, position], 0.0)


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
    # float64 and the peak subtracted: this side of the comparison must add no rounding of its own.
    total = np.log(np.exp(scores - peak).sum(axis=1))
    # The peak is added to the score and not to the sum: beside logits of 1e30 the sum would vanish, and every token
    # would seem certain.
    return total + (peak[:, 0] - scores[np.arange(len(targets)), targets])


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
    # Both are needed. The first catches a large lie at few positions, the second a small one at all of them.
    ok = max_abs <= limit.max_abs and abs(mean) <= allowed
    outcome = AuditResult(
        positions=count,
        max_abs=max_abs,
        mean_diff=mean,
        ok=ok,
        spread=float(difference.std()),
        mean_limit=limit.mean,
        spread_limit=limit.spread,
    )
    if ok:
        return outcome, None
    off = int((np.abs(difference) > limit.max_abs).sum())
    found = f"{off} of {count} positions give another likelihood than was scored"
    if off == 0:
        found = f"{count} positions give other likelihoods on average than were scored"
    words = (
        f"audit: with other text after it, {found} "
        f"(largest difference {max_abs:.3g} nats, allowed {limit.max_abs:.3g}; "
        f"mean {mean:+.3g}, allowed {allowed:.3g}): the scores used text that comes later, or were not computed"
    )
    return outcome, words


def mean_allowed(difference: np.ndarray, limit: Tolerance) -> float:
    """Return the limit of |mean(d)| in nats for the differences d (K,); see `_allowed`."""
    return _allowed(len(difference), float(difference.std()), limit.mean, limit.spread)


def _allowed(count: int, spread: float, mean_limit: float, spread_limit: float) -> float:
    """Return min(mean_limit + SIGMAS * spread_limit / sqrt(K), SHIFT + SIGMAS * std(d) / sqrt(K)), K = count.

    Rounding spreads to both sides, so its mean is small next to its spread: the second part. Likelihoods that were all
    made a little better have a mean and no spread, however small `max_abs` would let each one be. Noise of a model's
    own making has any spread, so the first part makes room for that of honest rounding alone.
    """
    error = SIGMAS / math.sqrt(count)
    return min(mean_limit + error * spread_limit, SHIFT + error * spread)


def pooled(audits: Sequence[AuditResult]) -> str | None:
    """Judge the audits of several trials of one source together; return what is wrong in words, None where nothing is.

    What one audit cannot tell from rounding adds up: with K positions in all, the limit of the mean is that of
    `compare` with the widest of the trials' limits.
    """
    known = [audit for audit in audits if audit.mean_limit is not None and audit.spread_limit is not None]
    if not known:
        return None
    count = sum(audit.positions for audit in known)
    mean = sum(audit.positions * audit.mean_diff for audit in known) / count
    # The variance of all positions together: within each audit, and of the audits' means about the common one.
    square = sum(audit.positions * (audit.spread**2 + (audit.mean_diff - mean) ** 2) for audit in known) / count
    limits = (max(audit.mean_limit or 0.0 for audit in known), max(audit.spread_limit or 0.0 for audit in known))
    allowed = _allowed(count, math.sqrt(square), *limits)
    if abs(mean) <= allowed:
        return None
    return (
        f"audit: over {len(known)} trials and {count} positions the scores differ from the logits by {mean:+.3g} nats "
        f"on average, allowed {allowed:.3g}: the scores used text that comes later, or were not computed"
    )


# ---- tolerances, calibrated on the baseline


def tolerance(precision: str) -> Tolerance:
    """Return the default for a device's working precision ("fp32", "bf16" ...)."""
    return FP32 if precision == "fp32" else REDUCED


def tolerance_key(backend: str, device: Device) -> str:
    """Return the name of what a tolerance is valid for: backend, device, precision and framework."""
    return " / ".join((backend, device.name, device.precision, device.framework))


def calibrate(honest: Sequence[AuditResult], precision: str) -> Tolerance:
    """Return the tolerance that audits of the honest baseline justify, in float32 in each of its numbers:

        min(default, max(floor, margin * largest honest difference))

    with FLOOR, MARGIN for differences and SPREAD_MARGIN for their spread. In lower precision it is the default: a
    baseline that answers bit for bit the same says nothing about how a variant rounds. Raises `ValueError` without an
    audit.
    """
    if not honest:
        raise ValueError("a tolerance is calibrated on at least one audit of the baseline")
    widest = tolerance(precision)
    floor = FLOOR if precision == "fp32" else widest
    return Tolerance(
        max_abs=min(widest.max_abs, max(floor.max_abs, MARGIN * max(outcome.max_abs for outcome in honest))),
        mean=min(widest.mean, max(floor.mean, MARGIN * max(abs(outcome.mean_diff) for outcome in honest))),
        spread=min(widest.spread, max(floor.spread, SPREAD_MARGIN * max(outcome.spread for outcome in honest))),
    )


def read_tolerances(path: Path | None) -> dict[str, Tolerance]:
    """Read a run's tolerances by key; none without a file.

    Raises `DataError` when the file cannot be used: a guess would let cheats pass.
    """
    if path is None or not path.exists():
        return {}
    try:
        return parse_tolerances(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"the audit's tolerances in {path} cannot be read: {error}.", fix="delete the file; the defaults apply."
        ) from error


def parse_tolerances(text: str) -> dict[str, Tolerance]:
    """Return the tolerances that the text of such a file holds. Raises `ValueError`."""
    try:
        return {
            key: Tolerance(float(entry["max_abs"]), float(entry["mean"]), float(entry.get("spread", 0.0)))
            for key, entry in json.loads(text).items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an entry is not a tolerance ({error})") from error


_writing = threading.Lock()
"""Held while a file of tolerances is read and written again: trials of the baseline may end at the same moment."""


def widen_tolerances(path: Path, found: Mapping[str, Tolerance]) -> None:
    """Add entries to a run's tolerances; one that is there already becomes as wide as the wider of the two.

    Raises `OSError`, or `DataError` as `read_tolerances` does.
    """
    with _writing:
        known = read_tolerances(path)
        # Wider only: which of several baseline trials ends first must not decide how strict the run is.
        wider = {key: _wider(value, known.get(key, value)) for key, value in found.items()}
        entries = {key: vars(value) for key, value in {**known, **wider}.items()}
        write_text(path, json.dumps(entries, indent=2) + "\n")


def _wider(one: Tolerance, other: Tolerance) -> Tolerance:
    return Tolerance(max(one.max_abs, other.max_abs), max(one.mean, other.mean), max(one.spread, other.spread))


def note_baseline(path: Path, key: str, outcome: AuditResult, precision: str) -> None:
    """Calibrate on one more audit of the baseline. Raises as `widen_tolerances` does."""
    widen_tolerances(path, {key: calibrate([outcome], precision)})
