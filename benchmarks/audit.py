"""How often the audit catches a model that looks ahead on a share f of the tokens, beside 1 - (1 - f)^K.

The null model on the rows of a real validation split, with the audit's own draw, schedule and comparison; each repeat
draws anew. The cheat raises the next token's logit at positions that a hash of the past picks. `audit.png` shows the
caught shares, with two standard errors, on the curves of the formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.trial import audit
from benchmarks.trial_overhead import prepared_for

SHARES = (0.002, 0.01, 0.05, 1.0)
COUNTS = (51, 459)
"""Positions: what finds 1 % with a probability of 99 %, and a ninth of that."""
REPEATS = 1000
PICTURE = Path(__file__).with_name("audit.png")
BATCH = 16
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
    return [row(one) for one in found]


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
