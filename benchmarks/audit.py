"""How often the audit catches a model that looks ahead on a share f of the tokens, beside 1 - (1 - f)^K.

The null model on the rows of a real validation split, with the audit's own draw, schedule and comparison; each repeat
draws anew. The cheat raises the next token's logit at positions that a hash of the past picks. `audit.png` shows the
caught shares, with two standard errors, on the curves of the formula.

Then a model that looks ahead only where it is badly surprised, which gains most for the fewest tokens: an n-gram model
of the training text with a memory of the row, whose loss on a share f of the tokens above a threshold falls to half a
nat, or to what the core's bigram model gives, below which the weighted half of the draw sees nothing. Last, how often
rounding as in bf16 is refused, honest and with a bias, on one audit and over several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.core.config import Preset, load_presets
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.shards import open_shard
from autoresearch.core.trial import audit
from autoresearch.core.trial.request import AuditResult
from autoresearch.core.trial.surprise import Bigrams, bigrams_of
from benchmarks.trial_overhead import prepared_for

SHARES = (0.002, 0.01, 0.05, 1.0)
COUNTS = (51, 459)
"""Positions: what finds 1 % with a probability of 99 %, and a ninth of that."""
REPEATS = 1000
PICTURE = Path(__file__).with_name("audit.png")
BATCH = 16
HASH = np.uint64(0x9E3779B97F4A7C15)
SURPRISE_REPEATS = 300
ROUNDED = (0.0, 0.02, 0.1)
"""Shares of the logits that round to a neighbour; a tenth is pessimistic."""
TRIALS = (1, 3, 6)
ROUNDING_REPEATS = 10_000
GAIN = 1.0
"""Added to the logit of the token that comes next."""


@dataclass(frozen=True)
class Caught:
    """One point of the picture."""

    share: float
    """Of the scored tokens, as the hash picked them."""
    positions: int
    caught: float
    """Share of the repeats."""

    @property
    def theory(self) -> float:
        """1 - (1 - f)^K."""
        return 1 - (1 - self.share) ** self.positions

    @property
    def error(self) -> float:
        """The standard error of `caught`, were the theory true."""
        return float(np.sqrt(self.theory * (1 - self.theory) / REPEATS))


def run() -> list[dict[str, Any]]:
    """For each share: what was caught, what theory says; and how often an honest model was accused."""
    preset = load_presets(Path(backends.__path__[0]) / "null" / "presets.toml")["demo"]
    prepared = prepared_for(preset)
    scored = prepared.scored_rows("val", 512, preset.data.eval_seq_len)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((512, 512)).astype(np.float32)
    cheats = [cheat(scored.rows, scored.mask, table, share) for share in (0.0, *SHARES)]
    found = [measure(*one, scored.rows, scored.mask, table, count, rng) for count in COUNTS for one in cheats]
    draw(found)
    return [*(row(one) for one in found), *surprises(prepared_for(cuda_preset()), rng), *reduced_precision(rng)]


def cuda_preset() -> Preset:
    """The preset whose vocabulary and rows the surprised model is scored on."""
    return load_presets(Path(backends.__path__[0]) / "cuda" / "presets.toml")["cpu"]


def surprises(prepared: Prepared, rng: np.random.Generator) -> list[dict[str, Any]]:
    """For each threshold, share and way to cheat: caught by a uniform draw, by the audit's own, and by its formula."""
    preset = cuda_preset()
    vocab = prepared.vocabularies[-1]
    scored = prepared.scored_rows("val", vocab, preset.data.eval_seq_len)
    bigrams = bigrams_of(prepared, vocab)
    honest = ngram_losses(prepared, vocab, scored.rows, bigrams)
    inputs, targets = scored.rows[:, :-1], scored.rows[:, 1:]
    floor = bigrams.nll(inputs.ravel(), targets.ravel()).reshape(honest.shape)
    found = []
    for threshold in (6.0, 9.0):
        surprised = np.flatnonzero(scored.mask & (honest > threshold))
        for share in (0.0005, 0.001, 0.002, 0.004):
            for name, lowered in (("half a nat", np.full_like(honest, 0.5)), ("the bigram's loss", floor)):
                chosen_ones = rng.choice(surprised, int(share * scored.mask.sum()), replace=False)
                committed = honest.copy()
                committed.flat[chosen_ones] = np.minimum(honest, lowered).flat[chosen_ones]
                cheated = honest - committed > audit.FP32.max_abs
                f = cheated.sum() / scored.mask.sum()
                weights = np.maximum(floor - committed, 0) * scored.mask
                w = weights[cheated].sum() / weights.sum()
                gain = (honest - committed)[scored.mask].sum() / math.log(2) / scored.total_bytes
                caught = {}
                for half in (None, bigrams):
                    hits = 0
                    for _ in range(SURPRISE_REPEATS):
                        probes = audit.draw_probes(
                            scored.rows, scored.mask, committed.astype(np.float32), COUNTS[1], rng, half
                        )
                        hits += bool(cheated[probes.rows, probes.positions].any())
                    caught[half is None] = 100 * hits / SURPRISE_REPEATS
                theory = 100 * (1 - ((1 - f) * (1 - w)) ** (COUNTS[1] / 2))
                found.append(
                    {
                        "name": f"caught, ahead on {f:.2%} of the tokens, loss above {threshold:g} nats, to {name}",
                        "median": caught[False],
                        "unit": "%",
                        "note": f"theory {theory:.1f}; w = {w:.2%}; gain {gain:.4f} bpb; all uniform "
                        f"{caught[True]:.1f}; K = {COUNTS[1]}, {SURPRISE_REPEATS} repeats",
                    }
                )
    return found


def ngram_losses(prepared: Prepared, vocab: int, rows: np.ndarray, bigrams: Bigrams) -> np.ndarray:
    """Return the loss of an honest model, float64 (N, T) in nats: n-grams up to 5, and what followed earlier in a row.

    Each order is interpolated with the one below as in `Bigrams.nll`. Contexts are hashed to 64 bits.
    """
    text = np.concatenate([np.asarray(open_shard(path).values) for path in prepared.train_shards(vocab)])[: 2**22]
    chance = np.exp(-bigrams.nll(rows[:, :-1].ravel(), rows[:, 1:].ravel())).reshape(len(rows), -1)
    for n in (2, 3, 4):
        contexts, pairs = hashed(text[None], n)
        known, times = np.unique(contexts, return_counts=True)
        seen, first, often = np.unique(pairs, return_index=True, return_counts=True)
        different = np.bincount(np.searchsorted(known, contexts[0, first]), minlength=len(known))
        context, pair = hashed(rows, n)
        i, j = (np.minimum(np.searchsorted(a, b), len(a) - 1) for a, b in ((known, context), (seen, pair)))
        total, spread = (np.where(known[i] == context, a[i], b) for a, b in ((times, 0), (different, 1)))
        hits = np.where(seen[j] == pair, often[j], 0)
        chance[:, n - 1 :] = (hits + spread * chance[:, n - 1 :]) / (total + spread)
    for row, out in zip(rows.tolist(), chance, strict=True):
        after: dict[tuple[int, int], list[int]] = {}
        for t in range(1, len(row) - 1):
            earlier = after.setdefault((row[t - 1], row[t]), [])
            out[t] = (earlier.count(row[t + 1]) + out[t]) / (len(earlier) + 1)
            earlier.append(row[t + 1])
    return -np.log(chance)


def hashed(tokens: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 64-bit hashes of every n tokens of (N, T + 1) that have a next one, and of the n + 1, (N, T + 1 - n)."""
    wide = tokens.astype(np.uint64)
    context = np.zeros((len(wide), wide.shape[1] - n), np.uint64)
    for k in range(n):
        context = context * HASH + wide[:, k : wide.shape[1] - n + k] + np.uint64(1)
    return context, context * HASH + wide[:, n:] + np.uint64(1)


def reduced_precision(rng: np.random.Generator) -> list[dict[str, Any]]:
    """How often audits over one, three and six trials refuse a file whose logits round anew, honest or biased.

    A trial is refused by its own audit, or the trials so far by their pool, as before a verdict. An honest file of
    three trials is to be refused in less than 0.1 %.
    """
    found = []
    for bias in (0.0, 0.0025):
        for share in ROUNDED:
            differences = rounding(share, rng) + bias
            refused = np.zeros(max(TRIALS))
            for _ in range(ROUNDING_REPEATS):
                ended, outcomes = False, []
                for trial in range(max(TRIALS)):
                    outcome, wrong = compared(rng.choice(differences, COUNTS[1]))
                    outcomes.append(outcome)
                    ended = ended or wrong is not None or audit.pooled(outcomes) is not None
                    refused[trial] += ended
            rates = [f"{100 * refused[trials - 1] / ROUNDING_REPEATS:.2f}" for trials in TRIALS]
            file = f"{bias} nats better than its logits" if bias else "honest"
            name = f"refused: {file}, {share:.0%} of the logits one bf16 spacing off"
            note = f"over {TRIALS[0]} trial; {rates[1]} % over {TRIALS[1]}, {rates[2]} % over {TRIALS[2]}; "
            note += f"largest difference {np.abs(differences - bias).max():.3f}, spread {differences.std():.4f} nats; "
            note += f"K = {COUNTS[1]}, {ROUNDING_REPEATS} repeats"
            found.append({"name": name, "median": float(rates[0]), "unit": "%", "note": note})
    return found


def rounding(share: float, rng: np.random.Generator) -> np.ndarray:
    """Differences of the loss, float64 (n,) in nats, where a share of all logits moves to a neighbour in bf16.

    A bf16 logit z has a spacing of 2^(floor(log2 |z|) - 7). Logits (n, 256), soft-capped at 15 as in the shipped files,
    have one token ahead by 0 to 14 before the cap; targets are drawn from their softmax. The moves are independent:
    honest kernels do less, for a logit moves only where it lies near a boundary.
    """
    parts = []
    for _ in range(20):
        raw = 2.5 * rng.standard_normal((10_000, 256)) + rng.uniform(0, 6, (10_000, 1))
        raw[np.arange(len(raw)), rng.integers(0, raw.shape[1], len(raw))] += rng.uniform(0, 14, len(raw))
        logits = 15 * np.tanh(raw / 15)
        spacing = np.exp2(np.floor(np.log2(np.maximum(np.abs(logits), 2.0**-20))) - 7)
        logits = np.round(logits / spacing) * spacing
        targets = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        moves = np.where(rng.random(logits.shape) < share, rng.choice([-1, 1], logits.shape), 0)
        parts.append(audit.nll_from_logits(logits + moves * spacing, targets) - audit.nll_from_logits(logits, targets))
    return np.concatenate(parts)


def compared(differences: np.ndarray) -> tuple[AuditResult, str | None]:
    """Audit answers that differ by these nats (K,) from what was committed."""
    count = len(differences)
    probes = audit.Probes(
        np.zeros(count, np.int64),
        np.zeros((count, 1), np.uint16),
        np.zeros(count, np.int32),
        np.ones(count, np.int64),
        math.log(2) - differences,
    )
    outcome, wrong = audit.compare(probes, np.zeros((count, 2), np.float32), audit.REDUCED)
    assert outcome is not None
    return outcome, wrong


def row(found: Caught) -> dict[str, Any]:
    """As a row of the results."""
    name = f"caught, looking ahead on {found.share:.2%} of the tokens" if found.share else "an honest model accused"
    note = f"theory {found.theory:.1%} +- {2 * found.error:.1%}; K = {found.positions}, {REPEATS} repeats"
    return {"name": name, "median": 100 * found.caught, "unit": "%", "note": note}


def cheat(rows: np.ndarray, mask: np.ndarray, table: np.ndarray, share: float) -> tuple[float, float, np.ndarray]:
    """The share asked for, the share of scored tokens that the hash picks, and what is committed, (N, T)."""
    inputs, targets = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
    peeks = chosen(inputs, share)
    # At a row's end there is nothing to look at.
    peeks[:, -1] = False
    committed = np.stack([nll(table, *one) for one in zip(inputs, targets, peeks, strict=True)])
    return share, float(peeks[mask].mean()) if share else 0.0, committed.astype(np.float32)


def measure(
    share: float,
    true_share: float,
    committed: np.ndarray,
    rows: np.ndarray,
    mask: np.ndarray,
    table: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> Caught:
    """How often `count` positions find it."""
    caught = 0
    for _ in range(REPEATS):
        probes = audit.draw_probes(rows, mask, committed, count, rng)
        order = np.concatenate(audit.schedule(probes, BATCH, rng))
        logits = np.empty((count, len(table)), np.float32)
        logits[order] = answers(table, probes, share)[order]
        caught += audit.compare(probes, logits, audit.FP32)[1] is not None
    return Caught(true_share, count, caught / REPEATS)


def draw(found: list[Caught]) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    shares = np.logspace(-3.3, 0, 200)
    for count in COUNTS:
        points = [one for one in found if one.positions == count and one.share]
        (line,) = axes.plot(100 * shares, 100 * (1 - (1 - shares) ** count), label=f"1 - (1 - f)$^K$, K = {count}")
        axes.errorbar(
            [100 * one.share for one in points],
            [100 * one.caught for one in points],
            [200 * np.sqrt(max(one.caught * (1 - one.caught), 1e-9) / REPEATS) for one in points],
            fmt="o",
            color=line.get_color(),
            capsize=3,
            label=f"measured, {REPEATS} repeats",
        )
    axes.set(xscale="log", xlabel="share f of the tokens that the model looks ahead on, %", ylabel="caught, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=130)
    pyplot.close(figure)


def chosen(tokens: np.ndarray, share: float) -> np.ndarray:
    """Where the cheat looks ahead, bool (N, T): a hash of position and past picks the share."""
    before = np.concatenate([np.zeros_like(tokens[:, :1]), tokens[:, :-1]], axis=1)
    mixed = (tokens * 2654435761 + before * 40503 + np.arange(tokens.shape[1]) * 7919) % 1_000_003
    return mixed < share * 1_000_003


def nll(table: np.ndarray, inputs: np.ndarray, targets: np.ndarray, peeks: np.ndarray) -> np.ndarray:
    """Of one row, (T,) in nats."""
    return audit.nll_from_logits(peeked(table[inputs], targets, peeks), targets)


def peeked(logits: np.ndarray, ahead: np.ndarray, peeks: np.ndarray) -> np.ndarray:
    """Logits (n, V) with the tokens `ahead` (n,) raised where `peeks`."""
    out = logits.copy()
    out[np.arange(len(out)), ahead] += GAIN * peeks
    return out


def answers(table: np.ndarray, probes: audit.Probes, share: float) -> np.ndarray:
    """What the cheating model says at the probes' positions, float32 (K, V)."""
    tokens, each = probes.tokens.astype(np.int64), np.arange(len(probes.positions))
    peeks = chosen(tokens, share)[each, probes.positions]
    ahead = tokens[each, np.minimum(probes.positions + 1, tokens.shape[1] - 1)]
    peeks &= probes.positions + 1 < tokens.shape[1]
    return peeked(table[tokens[each, probes.positions]], ahead, peeks)
