"""The menu of structural edits: what a person would try first, as syntax-tree transforms of the train file.

A file for every part of the model or of its training, most edits with a way back, for both frameworks. An edit that
does not fit the current source, or is in effect already, gives None and is passed over.
"""

from __future__ import annotations

from autoresearch.agent.tuner.structural import (
    attention,
    batches,
    blocks,
    embeddings,
    mlp,
    numerics,
    optimizer,
    schedule,
)
from autoresearch.agent.tuner.structural.edit import Edit

MENU: tuple[Edit, ...] = (
    *attention.EDITS,
    *mlp.EDITS,
    *blocks.EDITS,
    *embeddings.EDITS,
    *optimizer.EDITS,
    *schedule.EDITS,
    *batches.EDITS,
    *numerics.EDITS,
)

__all__ = ["MENU", "Edit"]
