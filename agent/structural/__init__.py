"""The menu of structural edits: code changes that a person would try first, made without a language model.

One file for each part of the model or of its training. Most edits have another that takes them back, and each works
for both frameworks. An edit that does not fit the current source, or is in effect already, gives None.
"""

from __future__ import annotations

from autoresearch.agent.structural import (
    attention,
    batches,
    blocks,
    embeddings,
    lookups,
    mlp,
    numerics,
    optimizer,
    schedule,
)
from autoresearch.agent.structural.edit import Edit, Expectation

MENU: tuple[Edit, ...] = (
    *attention.EDITS,
    *mlp.EDITS,
    *blocks.EDITS,
    *embeddings.EDITS,
    *lookups.EDITS,
    *optimizer.EDITS,
    *schedule.EDITS,
    *batches.EDITS,
    *numerics.EDITS,
)

__all__ = ["MENU", "Edit", "Expectation"]
