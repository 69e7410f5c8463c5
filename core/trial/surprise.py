"""The tokens that surprise a cheap model of the core's own: bigrams of the training text, counted once and smoothed.

The audit draws half of its positions by it (see `audit.draw_probes`). A model that looks ahead gains most where a token
is a surprise, so that is where its committed loss is low for no reason that the past gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.shards import open_shard

COUNTED_TOKENS = 2**22
"""Training tokens that are counted, at most: more make the model little better, and counting slower."""


@dataclass(frozen=True)
class Bigrams:
    """Counts of pairs, and the likelihood that follows from them."""

    vocab: int
    pairs: np.ndarray
    """uint32 (P,): a * vocab + b of every pair (a, b) that was seen, ascending."""
    seen: np.ndarray
    """int64 (P,): how often."""
    tokens: np.ndarray
    """int64 (vocab,): how often each token was seen."""
    before: np.ndarray
    """int64 (vocab,): how often each token was followed by another."""
    followers: np.ndarray
    """int64 (vocab,): by how many different ones."""

    @classmethod
    def count(cls, text: np.ndarray, vocab: int) -> Bigrams:
        """Count a text of tokens (n,)."""
        values = text.astype(np.uint32)
        pairs, seen = np.unique(values[:-1] * np.uint32(vocab) + values[1:], return_counts=True)
        return cls(
            vocab,
            pairs,
            seen,
            np.bincount(values, minlength=vocab),
            np.bincount(values[:-1], minlength=vocab),
            np.bincount(pairs // np.uint32(vocab), minlength=vocab),
        )

    def nll(self, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Return -ln p(b | a) in nats, float64 (n,), for pairs of tokens a, b (n,).

        p(b | a) = (c(a, b) + d(a) p(b)) / (c(a) + d(a)), with d(a) different followers of a (Witten and Bell, 1991),
        and p(b) = (c(b) + 1) / (n + vocab).
        """
        a, b = previous.astype(np.int64), following.astype(np.int64)
        wanted = (a * self.vocab + b).astype(np.uint32)
        place = np.minimum(np.searchsorted(self.pairs, wanted), max(len(self.pairs) - 1, 0))
        there = self.pairs[place] == wanted if len(self.pairs) else np.zeros(len(wanted), bool)
        pair = np.where(there, self.seen[place] if len(self.pairs) else 0, 0)
        single = (self.tokens[b] + 1) / (self.tokens.sum() + self.vocab)
        # A token that was never followed by another says nothing about the next one.
        spread = np.maximum(self.followers[a], 1)
        return -np.log((pair + spread * single) / (self.before[a] + spread))


def bigrams_of(prepared: Prepared, vocab: int) -> Bigrams:
    """Count the training text of a prepared corpus; a second call for the same files returns the same counts."""
    return _counted(tuple(prepared.train_shards(vocab)), vocab)


@lru_cache(maxsize=1)
def _counted(shards: tuple[Path, ...], vocab: int) -> Bigrams:
    parts, left = [], COUNTED_TOKENS
    for path in shards:
        part = np.asarray(open_shard(path).values[:left])
        parts.append(part)
        left -= len(part)
        if left <= 0:
            break
    return Bigrams.count(np.concatenate(parts) if parts else np.zeros(1, np.uint16), vocab)
