"""How often the audit catches a model that looks ahead on a share f of the tokens, beside 1 - (1 - f)^K.

The null model on the rows of a real validation split, with the audit's own draw, schedule and comparison; each repeat
draws anew. The cheat raises the next token's logit at positions that a hash of the past picks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.trial import audit
from benchmarks.trial_overhead import prepared_for

SHARES = (0.002, 0.01, 0.05, 1.0)
REPEATS = 400
BATCH = 16
GAIN = 1.0
"""Added to the logit of the token that comes next."""


def run() -> list[dict[str, Any]]:
    """For each share: what was caught, what theory says; and how often an honest model was accused."""
    preset = load_presets(Path(backends.__path__[0]) / "null" / "presets.toml")["demo"]
    prepared = prepared_for(preset)
    scored = prepared.scored_rows("val", 512, preset.data.eval_seq_len)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((512, 512)).astype(np.float32)
    found = [measure(scored.rows, scored.mask, table, 0.0, rng)]
    found += [measure(scored.rows, scored.mask, table, share, rng) for share in SHARES]
    return found


def measure(
    rows: np.ndarray, mask: np.ndarray, table: np.ndarray, share: float, rng: np.random.Generator
) -> dict[str, Any]:
    """The caught share of the repeats, as a row of the results."""
    inputs, targets = rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
    peeks = chosen(inputs, share)
    # At a row's end there is nothing to look at.
    peeks[:, -1] = False
    committed = np.stack([nll(table, *row) for row in zip(inputs, targets, peeks, strict=True)])
    count = audit.position_count(len(rows), int(mask.sum()), BATCH)
    caught = 0
    for _ in range(REPEATS):
        probes = audit.draw_probes(rows, mask, committed.astype(np.float32), count, rng)
        order = np.concatenate(audit.schedule(probes, BATCH, rng))
        logits = np.empty((count, len(table)), np.float32)
        logits[order] = answers(table, probes, share)[order]
        caught += audit.compare(probes, logits, audit.FP32)[1] is not None
    true_share = float(peeks[mask].mean()) if share else 0.0
    theory = 1 - (1 - true_share) ** count
    name = f"caught, looking ahead on {true_share:.2%} of the tokens" if share else "an honest model accused"
    note = f"theory {theory:.1%}; K = {count} positions, {REPEATS} repeats"
    return {"name": name, "median": 100 * caught / REPEATS, "unit": "%", "note": note}


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
